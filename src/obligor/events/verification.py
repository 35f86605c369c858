"""Does what is stored fit its hashes? Each link is checked against the stored one before it: one change, one report.

`deep` also rebuilds what is derived from the blocks (the id index, the versions of facts) and compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obligor.errors import IntegrityError
from obligor.events import chain
from obligor.events.batch import ORIGINAL
from obligor.events.block import Block
from obligor.events.chain import BrokenLink
from obligor.events.positions import pack, sequence_of
from obligor.events.store import VersionRow

if TYPE_CHECKING:
    from obligor.events.log import EventLog

__all__ = ["verify"]

Int64s = npt.NDArray[np.int64]


def verify(log: EventLog, *, deep: bool = False) -> list[BrokenLink]:
    """Return every broken link of the log's chain and the ledger's, in order."""
    broken = [*_blocks(log), *_ledger(log)]
    return broken + list(_derived(log)) if deep and not broken else broken


def _blocks(log: EventLog) -> Iterator[BrokenLink]:
    previous, expected = chain.genesis(log.id, "log"), 1
    for first, _ in log.store.bounds():
        row = log.store.block_at(first)
        assert row is not None, "a block that is listed can be read"
        if first != expected:
            yield BrokenLink("log", first, f"expected the block to begin at sequence {expected}, it begins at {first}")
        if chain.link(previous, row.body) != row.chain:
            yield BrokenLink("log", first, "the block does not fit its link")
        try:
            block = Block.open(row.body)
            if (block.first, block.first + block.count - 1) != (row.first, row.last):
                yield BrokenLink("log", first, f"the block holds {block.count} events from {block.first} on")
        except IntegrityError as error:
            yield BrokenLink("log", first, str(error))
        previous, expected = row.chain, row.last + 1


def _ledger(log: EventLog) -> Iterator[BrokenLink]:
    previous, expected = chain.genesis(log.id, "ledger"), 1
    for row in log.store.ledger(0):
        if row.sequence != expected:
            yield BrokenLink("ledger", row.sequence, f"expected ledger row {expected}, got {row.sequence}")
        if chain.ledger_link(previous, row.decision_id, row.application_position, row.record) != row.chain:
            yield BrokenLink(
                "ledger", row.sequence, f"the record of decision {row.decision_id!r} does not fit its link"
            )
        previous, expected = row.chain, row.sequence + 1


def _derived(log: EventLog) -> Iterator[BrokenLink]:
    """Compare the id index, the versions and the pending rows with what the blocks say."""
    slots, sequences = _sorted_index(log)
    events = log.head.sequence
    if len(slots) != events:
        yield BrokenLink("index", 0, f"expected {events} ids in the index, got {len(slots)}")
    revisions: list[_Revision] = []
    missing: list[BrokenLink] = []
    for _, block in log.reader.blocks(0, events):
        for part in block.parts:
            table = log.reader.part(block, part, ("event_id", "known_time", "kind", "target"))
            missing += _missing_ids(log, table, slots, sequences)
            columns = ("sequence", "event_id", "known_time", "kind", "target")
            for row in table.filter(pc.not_equal(table["kind"], ORIGINAL)).select(columns).to_pylist():
                revisions.append(_Revision(type=part.type, **row))
    yield from missing or _versions(log, revisions)  # whose targets are found by the index


def _sorted_index(log: EventLog) -> tuple[Int64s, Int64s]:
    pairs = np.fromiter(log.store.slots(), np.dtype([("slot", np.int64), ("sequence", np.int64)]))
    order = np.argsort(pairs["slot"])
    return pairs["slot"][order], pairs["sequence"][order]


def _missing_ids(log: EventLog, table: pa.Table, slots: Int64s, sequences: Int64s) -> Iterator[BrokenLink]:
    """Yield the events that a search by their id does not find."""
    ids, own = table["event_id"].to_pylist(), table["sequence"].to_numpy()
    home = log.slot_hash(ids)
    place = np.searchsorted(slots, home)
    there = np.minimum(place, max(len(slots) - 1, 0))
    found = (sequences[there] == own) if len(slots) else np.zeros(len(own), np.bool_)
    for i in np.nonzero(~found)[0].tolist():
        try:
            missing = log.find(ids[i]) != pack(log.shard, int(own[i]))
        except IntegrityError:
            missing = True
        if missing:
            yield BrokenLink("index", int(own[i]), f"the index does not lead to the event {ids[i]!r}")


class _Revision(NamedTuple):
    """A correction or retraction as its block has it."""

    sequence: int
    event_id: str
    type: str
    kind: int
    known_time: int
    target: str


def _versions(log: EventLog, revisions: list[_Revision]) -> Iterator[BrokenLink]:
    """Recompute every chain of targets and compare it with what the store has."""
    own = {revision.event_id: revision for revision in revisions}
    stored = {version.sequence: version for version in log.store.versions_visible(0, log.head.sequence)}
    pending = {row.sequence for row in log.store.pending()}
    for revision in revisions:
        expected = _version(log, revision, own)
        if stored.pop(revision.sequence, None) != expected:
            yield BrokenLink("index", revision.sequence, f"expected the version {expected}")
        if (expected is None) != (revision.sequence in pending):
            yield BrokenLink("index", revision.sequence, "a correction is either effective or pending")
        pending.discard(revision.sequence)
    for sequence in sorted(stored.keys() | pending):
        yield BrokenLink("index", sequence, "no correction or retraction is there")


def _version(log: EventLog, revision: _Revision, own: dict[str, _Revision]) -> VersionRow | None:
    sequence, known, target, seen = revision.sequence, revision.known_time, revision.target, {revision.event_id}
    while target in own and target not in seen:
        seen.add(target)
        following = own[target]
        if following.type != revision.type:
            return None
        sequence, known, target = max(sequence, following.sequence), max(known, following.known_time), following.target
    position = None if target in own else log.find(target)
    if position is None:
        return None
    root = log.identities([sequence_of(position)])[sequence_of(position)]
    if root.type != revision.type:
        return None
    return VersionRow(
        revision.sequence,
        root.sequence,
        revision.type,
        revision.kind,
        revision.known_time,
        max(sequence, root.sequence),
        max(known, root.known_time),
    )
