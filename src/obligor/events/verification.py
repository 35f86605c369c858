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
from obligor.events.positions import pack, shard_of, shows, stretches
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
    ends = log.ends()
    previous = {shard: chain.genesis(log.id, "log", shard) for shard in ends}
    expected = {shard: pack(shard, 1) for shard in ends}
    for first, _ in log.store.bounds():
        row, shard = log.store.block_at(first), shard_of(first)
        assert row is not None, "a block that is listed can be read"
        if first != expected[shard]:
            message = f"expected the block to begin at position {expected[shard]}, it begins at {first}"
            yield BrokenLink("log", first, message)
        if chain.link(previous[shard], row.body) != row.chain:
            yield BrokenLink("log", first, "the block does not fit its link")
        try:
            block = Block.open(row.body)
            if (block.first, block.last) != (row.first, row.last):
                yield BrokenLink("log", first, f"the block holds {block.count} positions from {block.first} on")
            for other, (sequence, link) in block.after.items():
                if log.store.last_block_upto(pack(other, sequence)) != (pack(other, sequence), link):
                    yield BrokenLink("log", first, f"shard {other} up to {sequence} is not what this block had seen")
        except IntegrityError as error:
            yield BrokenLink("log", first, str(error))
        previous[shard], expected[shard] = row.chain, row.last + 1


def _ledger(log: EventLog) -> Iterator[BrokenLink]:
    for shard in log.ends():
        previous, expected = chain.genesis(log.id, "ledger", shard), pack(shard, 1)
        for row in log.decisions(pack(shard, 0)):
            if row.sequence != expected:
                yield BrokenLink("ledger", row.sequence, f"expected ledger row {expected}, got {row.sequence}")
            if chain.ledger_link(previous, row.decision_id, row.application_position, row.record) != row.chain:
                message = f"the record of decision {row.decision_id!r} does not fit its link"
                yield BrokenLink("ledger", row.sequence, message)
            previous, expected = row.chain, row.sequence + 1


def _derived(log: EventLog) -> Iterator[BrokenLink]:
    """Compare the id index, the versions and the pending rows with what the blocks say."""
    slots, positions = _sorted_index(log)
    revisions: list[_Revision] = []
    missing: list[BrokenLink] = []
    events = 0
    for begin, end in stretches({}, log.ends()):
        for _, block in log.reader.blocks(begin, end):
            for part in block.parts:
                table = log.reader.part(block, part, ("event_id", "known_time", "kind", "target"))
                events += table.num_rows
                missing += _missing_ids(log, table, slots, positions)
                columns = ("position", "event_id", "known_time", "kind", "target")
                for row in table.filter(pc.not_equal(table["kind"], ORIGINAL)).select(columns).to_pylist():
                    revisions.append(_Revision(type=part.type, **row))
    if len(slots) != events:
        yield BrokenLink("index", 0, f"expected {events} ids in the index, got {len(slots)}")
    yield from missing or _versions(log, revisions)  # whose targets are found by the index


def _sorted_index(log: EventLog) -> tuple[Int64s, Int64s]:
    pairs = np.fromiter(log.store.slots(), np.dtype([("slot", np.int64), ("position", np.int64)]))
    order = np.argsort(pairs["slot"])
    return pairs["slot"][order], pairs["position"][order]


def _missing_ids(log: EventLog, table: pa.Table, slots: Int64s, positions: Int64s) -> Iterator[BrokenLink]:
    """Yield the events that a search by their id does not find."""
    ids, own = table["event_id"].to_pylist(), table["position"].to_numpy()
    home = log.slot_hash(ids)
    place = np.searchsorted(slots, home)
    there = np.minimum(place, max(len(slots) - 1, 0))
    found = (positions[there] == own) if len(slots) else np.zeros(len(own), np.bool_)
    for i in np.nonzero(~found)[0].tolist():
        try:
            missing = log.find(ids[i]) != int(own[i])
        except IntegrityError:
            missing = True
        if missing:
            yield BrokenLink("index", int(own[i]), f"the index does not lead to the event {ids[i]!r}")


class _Revision(NamedTuple):
    """A correction or retraction as its block has it."""

    position: int
    event_id: str
    type: str
    kind: int
    known_time: int
    target: str


def _versions(log: EventLog, revisions: list[_Revision]) -> Iterator[BrokenLink]:
    """Recompute every chain of targets and compare it with what the store has."""
    own = {revision.event_id: revision for revision in revisions}
    visible = [version for part in stretches({}, log.ends()) for version in log.store.versions_visible(*part)]
    stored = {version.position: version for version in visible}
    pending = {row.position for row in log.store.pending()}
    for revision in revisions:
        expected = _version(log, revision, own)
        found = stored.pop(revision.position, None)
        seen = expected is None or _has_seen(log, expected, found)
        fits = not (expected and seen) if found is None else seen and _is_as_expected(found, expected)
        if not fits:
            yield BrokenLink("index", revision.position, f"expected the version {expected}")
        elif (found is None) != (revision.position in pending):
            yield BrokenLink("index", revision.position, "a correction is either effective or pending")
        pending.discard(revision.position)
    for position in sorted(stored.keys() | pending):
        yield BrokenLink("index", position, "no correction or retraction is there")


class _Expected(NamedTuple):
    """A version but for where it became visible, and the positions of its chain."""

    root: int
    type: str
    kind: int
    known_time: int
    visible_known: int
    chain: tuple[int, ...]

    @property
    def last(self) -> int:
        """The last position of the chain in the correction's own shard."""
        return max(one for one in self.chain if shard_of(one) == shard_of(self.chain[0]))

    @property
    def alone(self) -> bool:
        """Whether the whole chain lies in one shard."""
        return len({shard_of(one) for one in self.chain}) == 1


def _version(log: EventLog, revision: _Revision, own: dict[str, _Revision]) -> _Expected | None:
    chained, known, target, seen = [revision.position], revision.known_time, revision.target, {revision.event_id}
    while target in own and target not in seen:
        seen.add(target)
        following = own[target]
        if following.type != revision.type:
            return None
        chained.append(following.position)
        known, target = max(known, following.known_time), following.target
    position = None if target in own else log.find(target)
    if position is None:
        return None
    root = log.identities([position])[position]
    if root.type != revision.type:
        return None
    chained.append(position)
    return _Expected(
        position, revision.type, revision.kind, revision.known_time, max(known, root.known_time), tuple(chained)
    )


def _is_as_expected(found: VersionRow, expected: _Expected | None) -> bool:
    if expected is None:
        return False
    last, at = expected.last, found.visible_position
    where = at == last if expected.alone else at >= last and shard_of(at) == shard_of(last)
    return where and found[1:5] + found[6:] == expected[:5]


def _has_seen(log: EventLog, expected: _Expected, found: VersionRow | None) -> bool:
    """Whether the correction's shard had seen its chain in other shards, where it became visible or by now."""
    shard = shard_of(expected.last)
    if expected.alone:
        return True
    end = pack(shard, log.ends()[shard]) if found is None else found.visible_position
    seen = {other: sequence for other, (sequence, _) in log.reader.block(end).after.items()}
    return all(shard_of(one) == shard or shows(seen, one) for one in expected.chain)
