"""One transaction of the log's writer: staged in memory, then one durable commit.

Nothing reaches the store before `commit`, so leaving a transaction, or going back to a mark within it, forgets it
without a trace. Positions and known times are assigned as rows are appended; ledger rows are chained as they are
recorded; how far a stream was read goes with what was read from it; the blocks and the id index are written at the
commit, ids in hash order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from obligor.errors import Conflict
from obligor.events import chain
from obligor.events.batch import ORIGINAL, Batch, TypeVersion
from obligor.events.block import BLOCK_EVENTS_MAX, encode
from obligor.events.changes import Changes, change_rows, merged, winner_rows
from obligor.events.ids import StagedIds
from obligor.events.placement import Placement
from obligor.events.positions import pack
from obligor.events.staging import DECLARED_NONE, Appended, Bools, Int64s, Rows, known_times
from obligor.events.store import BlockRow, Commit, Head, LedgerRow, OffsetStep, StaleOffset
from obligor.events.versions import Identity, StagedVersions, winner_changes

if TYPE_CHECKING:
    from obligor.events.log import EventLog

__all__ = ["Mark", "Transaction"]


@dataclass(frozen=True)
class Segment:
    """The accepted rows of one version of a type from one append, with what the log assigned."""

    form: TypeVersion
    table: pa.Table
    sequence: Int64s
    known_time: Int64s
    measured: Bools


class Mark(NamedTuple):
    """A place to go back to within a transaction."""

    head: Head
    segments: int
    ids: int
    ledger: int
    personal: int
    versions: int
    changed: tuple[int, int]
    offsets: int


class Transaction:
    """Appends, records and then commits; made by `EventLog.begin`.

    `with log.begin(clock_us) as tx:` rolls back what was not committed.
    """

    def __init__(self, log: EventLog, clock_us: int, finish: Callable[[Transaction | None, bool], None]) -> None:
        self._log, self._store, self._reader = log, log.store, log.reader
        self._clock_us, self._finish = clock_us, finish
        self._start = self._head = log.head
        self._segments: list[Segment] = []
        self.ids = StagedIds()
        self._ledger: list[LedgerRow] = []
        self._decisions: set[str] = set()
        self._personal: list[tuple[int, bytes]] = []
        self.versions = StagedVersions(log.store, log.waiting, log.pending_count)
        self._changed = (0, self._head.sequence)
        self._offsets: list[OffsetStep] = []
        self._open = True

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._open:
            self._open = False
            self._finish(None, False)

    # -- marks

    @property
    def head(self) -> Head:
        """Where the log ends with what is staged; `chain` is that of the last committed block."""
        return self._head

    @property
    def cut(self) -> dict[int, int]:
        """The cut that shows everything staged so far."""
        return {self._log.shard: self._head.sequence}

    def mark(self) -> Mark:
        """Return a mark; `undo(mark)` takes back everything appended and recorded since."""
        return Mark(
            self._head,
            len(self._segments),
            self.ids.mark(),
            len(self._ledger),
            len(self._personal),
            self.versions.mark(),
            self._changed,
            len(self._offsets),
        )

    def undo(self, mark: Mark) -> None:
        """Take back everything since the mark; what `changes` reported since then is reported no more."""
        self._head, self._changed = mark.head, mark.changed
        self.ids.undo(mark.ids)
        for row in self._ledger[mark.ledger :]:
            self._decisions.discard(row.decision_id)
        del self._segments[mark.segments :]
        del self._ledger[mark.ledger :]
        del self._personal[mark.personal :]
        del self._offsets[mark.offsets :]
        self.versions.undo(mark.versions)

    # -- appending

    def append(self, batch: Batch, *, clock_us: int | None = None) -> Appended:
        """Stage a batch; `clock_us` for a later reading of the clock than the transaction's beginning."""
        assert self._open, "the transaction is over"
        if clock_us is not None:
            self._clock_us = max(self._clock_us, clock_us)
        mark = self.mark()
        try:
            return self._append(batch)
        except BaseException:
            self.undo(mark)
            raise

    def _append(self, batch: Batch) -> Appended:
        rows = Rows.of(batch, self._log.registry)
        if not len(rows):
            return Appended([], np.empty(0, np.int64), np.empty(0, np.int64))
        placement = Placement(rows, self._log, self)
        accepted = placement.decide(self._clock_us)
        sequence = np.full(len(rows), -1, np.int64)
        known = np.full(len(rows), -1, np.int64)
        count = int(accepted.sum())
        first = self._head.sequence + 1
        pack(self._log.shard, first + count)
        sequence[accepted] = np.arange(first, first + count)
        known[accepted] = known_times(rows.declared[accepted], self._clock_us, self._head.known_time)
        self.ids.add(placement.slots[accepted], sequence[accepted])
        self._stage(rows, accepted, sequence, known)
        if count:
            last = max(self._head.known_time, int(known[accepted].max()))
            self._head = self._head._replace(sequence=first + count - 1, known_time=last)
        placement.settle(sequence, known, self.versions)
        return Appended(placement.status, np.where(sequence > 0, sequence + pack(self._log.shard, 0), -1), known)

    def _stage(self, rows: Rows, accepted: Bools, sequence: Int64s, known: Int64s) -> None:
        for form, table in rows.parts:
            index = table["index"].to_numpy()
            taken = accepted[index]
            if not taken.all():
                table, index = table.filter(pa.array(taken)), index[taken]
            if not len(index):
                continue
            own = sequence[index]
            self._segments.append(Segment(form, table, own, known[index], rows.declared[index] == DECLARED_NONE))
            personal = table["personal"]
            if personal.null_count < len(personal):
                pairs = zip(own.tolist(), personal.to_pylist(), strict=True)
                self._personal += [(one, plain) for one, plain in pairs if plain is not None]

    def identity(self, sequence: int) -> Identity:
        """Return id, type, content, kind and known_time of an event, committed or staged."""
        if sequence <= self._start.sequence:
            return self._log.identities([sequence])[sequence]
        segment, row = self._staged_row(sequence)
        table = segment.table
        return Identity(
            sequence,
            table["event_id"][row].as_py(),
            segment.form[0],
            table["content"][row].as_py(),
            table["kind"][row].as_py(),
            int(segment.known_time[row]),
        )

    def _staged_row(self, sequence: int) -> tuple[Segment, int]:
        for segment in reversed(self._segments):
            row = int(np.searchsorted(segment.sequence, sequence))
            if row < len(segment.sequence) and segment.sequence[row] == sequence:
                return segment, row
        raise AssertionError(f"sequence {sequence} is not staged")

    # -- decisions

    def record(self, decision_id: str, application_position: int, record: bytes) -> bytes:
        """Stage a ledger row and return its link; Conflict if the decision id is taken."""
        assert self._open, "the transaction is over"
        if decision_id in self._decisions or self._store.decision(decision_id) is not None:
            raise Conflict(f"there is a decision {decision_id!r} in the ledger already")
        link = chain.ledger_link(self._head.ledger_chain, decision_id, application_position, record)
        sequence = self._head.ledger_sequence + 1
        self._ledger.append(LedgerRow(sequence, decision_id, application_position, record, link))
        self._decisions.add(decision_id)
        self._head = self._head._replace(ledger_sequence=sequence, ledger_chain=link)
        return link

    # -- streams

    def advance(self, step: OffsetStep) -> None:
        """Stage how far a partition is once this transaction is durable.

        StaleOffset if the log does not hold it at the step's `before`, or holds a topic of another id: whoever asks
        has lost the partition, or read the messages of a topic that was made anew.
        """
        assert self._open, "the transaction is over"
        row = step.row
        staged = [one.row for one in self._offsets if one.row[:3] == row[:3]]
        held = staged[-1] if staged else self._store.offset(*row[:3])
        at = None if held is None else held.following
        if at != step.before or (held is not None and held.topic_id != row.topic_id):
            where = f"{row.topic}[{row.partition}] of {row.source}"
            raise StaleOffset(
                f"{where}: this goes on from offset {step.before} of topic {row.topic_id!r}, and the log holds "
                f"{'nothing of it' if held is None else f'offset {at} of topic {held.topic_id!r}'}"
            )
        self._offsets.append(step)

    # -- what changed

    def changes(self) -> Changes:
        """Return the winners that went and came since the last call; `chain` is that of the last committed block."""
        done, after = self._changed
        upto, shard = self._head.sequence, self._log.shard
        touched = self.versions.touched(after)
        versions = self.versions.versions_of(touched) if touched else []
        removed, inserted = winner_changes(versions, after, upto)
        roots = {version.sequence: version.root for version in versions}
        plain: list[dict[str, pa.Table]] = []
        for segment in self._segments[done:]:
            keep = segment.table["kind"].to_numpy() == ORIGINAL
            if touched:
                keep &= ~np.isin(segment.sequence, list(touched))
            if keep.any():
                plain.append(self._change(segment, keep, None))
        self._changed = (len(self._segments), upto)
        return Changes(
            removed=self._rows_at(removed, roots),
            inserted=merged(*plain, self._rows_at(inserted, roots)),
            position=pack(shard, upto),
            chain=self._head.chain,
        )

    def _change(self, segment: Segment, keep: Bools, roots: dict[int, int] | None) -> dict[str, pa.Table]:
        (name, version), table = segment.form, segment.table
        sequence, known = segment.sequence, segment.known_time
        if not keep.all():
            table, sequence, known = table.filter(pa.array(keep)), sequence[keep], known[keep]
        own = [roots.get(one, one) for one in sequence.tolist()] if roots else sequence
        root = np.asarray(own, np.int64) + pack(self._log.shard, 0)
        return {name: change_rows(table, root, pa.array(known), self._log.registry[name], version)}

    def _rows_at(self, sequences: list[int], roots: dict[int, int]) -> dict[str, pa.Table]:
        committed = [one for one in sequences if one <= self._start.sequence]
        found = [winner_rows(committed, roots, self._reader, self._log.registry, self._log.shard)]
        for one in sequences:
            if one > self._start.sequence:
                segment, row = self._staged_row(one)
                keep = np.zeros(len(segment.sequence), np.bool_)
                keep[row] = True
                found.append(self._change(segment, keep, roots))
        return merged(*found)

    # -- the end

    def commit(self) -> None:
        """Write everything staged, durably; afterwards the transaction is over."""
        assert self._open, "the transaction is over"
        self._open = False
        written = False
        try:
            if self._segments or self._ledger or self._offsets:
                self._write()
            written = True
        finally:
            self._finish(self if written else None, not written)

    def _write(self) -> None:
        blocks, schemas = self._blocks()
        slots, sequences = self.ids.ascending()
        key, log_id, shard = self._log.key, self._log.id, self._log.shard
        commit = Commit(
            blocks=blocks,
            schemas=schemas,
            slots=slots,
            sequences=sequences,
            versions=self.versions.effective,
            pending=self.versions.pending,
            resolved=self.versions.resolved,
            ledger=self._ledger,
            personal=[(s, key.seal(plain, log_id, pack(shard, s))) for s, plain in self._personal],
            offsets=_whole(self._offsets),
        )
        self._store.write(commit)
        if blocks:
            self._head = self._head._replace(chain=blocks[-1].chain)

    def _blocks(self) -> tuple[list[BlockRow], dict[bytes, bytes]]:
        parts = _joined(self._segments)
        blocks: list[BlockRow] = []
        schemas: dict[bytes, bytes] = {}
        link, known = self._start.chain, self._start.known_time
        for first in range(self._start.sequence + 1, self._head.sequence + 1, BLOCK_EVENTS_MAX):
            last = min(first + BLOCK_EVENTS_MAX - 1, self._head.sequence)
            own = []
            for part in parts:
                start, stop = np.searchsorted(part.sequence, [first, last + 1])
                if start < stop:
                    own.append((part.form, _stored(part, int(start), int(stop), first)))
                    known = max(known, int(part.known_time[start:stop].max()))
            body, used = encode(first, last - first + 1, own)
            link = chain.link(link, body)
            blocks.append(BlockRow(first, last, known, link, body))
            schemas |= used
        return blocks, schemas


def _whole(steps: list[OffsetStep]) -> list[OffsetStep]:
    """Return one step a partition, from where its first one began."""
    whole: dict[tuple[str, str, int], OffsetStep] = {}
    for step in steps:
        key = step.row[:3]
        whole[key] = step._replace(before=whole[key].before if key in whole else step.before)
    return list(whole.values())


def _joined(segments: list[Segment]) -> list[Segment]:
    """Return one segment for each version of a type."""
    by_form: dict[TypeVersion, list[Segment]] = {}
    for segment in segments:
        by_form.setdefault(segment.form, []).append(segment)
    joined = []
    for own in by_form.values():
        if len(own) > 1:
            table = pa.concat_tables([s.table for s in own]).combine_chunks()
            sequence = np.concatenate([s.sequence for s in own])
            known_time = np.concatenate([s.known_time for s in own])
            own = [Segment(own[0].form, table, sequence, known_time, np.concatenate([s.measured for s in own]))]
        joined += own
    return joined


def _stored(part: Segment, start: int, stop: int, first: int) -> pa.Table:
    """Return rows of a segment in the columns of a block's part."""
    table = part.table.slice(start, stop - start)
    columns = {
        "offset": pa.array((part.sequence[start:stop] - first).astype(np.int32)),
        "event_id": table["event_id"],
        "event_time": table["event_time"],
        "known_time": pa.array(part.known_time[start:stop]),
        "measured": pa.array(part.measured[start:stop]),
        "kind": table["kind"],
        "target": table["target"],
        "content": table["content"],
    }
    fields = table.schema.names[8:]
    return pa.table({**columns, **{name: table[name] for name in fields}})
