"""Online state: each entity's current winners, kept as the log grows, read by the same kernels as the backfill.

State is derived. It knows the log's id, the cut and the chain hashes that it stands for, and is rebuilt from the log
whenever they do not fit. One entity of one timeline is a *tail* of its newest rows and closed *chunks* of older ones,
so that a new event rewrites a short tail, a late or corrected one the chunk it falls in, and a window reads only the
chunks that reach into it. Where they lie is said in `entries`, how they change in `edits`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from obligor.errors import ObligorError
from obligor.events.ahead import ahead
from obligor.events.log import EventLog
from obligor.events.positions import Cut, pack
from obligor.features.edits import Editor, StateMisfit, WinnerChanges, edits_of
from obligor.features.entries import after_all, chunks_start, entity_of, fence_of, prefix, tail_key
from obligor.features.history import History, TimelineReader
from obligor.features.indexes import BYTES_MAX, CHUNKS_MIN, Indexes
from obligor.features.pieces import pieces_of
from obligor.features.plan import Plan
from obligor.features.state_store import Entry, StateStore, StateTransaction
from obligor.features.tails import FENCE_LOWEST, ROW_FIXED, tail_columns

__all__ = ["Head", "OnlineState", "StagedState", "StateMisfit", "TooLong", "read_head"]

FORMAT = 3
STEP_EVENTS = 1 << 20  # of a build that are applied together: an entity is looked for once a step
_HEAD = b"\x00head"


class TooLong(ObligorError):
    """Reading this would take longer than a glance may."""


class Head(NamedTuple):
    """What part of which log a state stands for."""

    log: str  # the log's id
    cut: dict[int, int]  # the events applied: up to which sequence of each shard
    chains: dict[int, str]  # each shard's chain hash there, in hex

    @classmethod
    def at(cls, log: EventLog, cut: Cut, chains: Mapping[int, bytes]) -> Head:
        """Return where a state stands that has applied the log up to a cut, where the shards have these links."""
        return cls(log.id.hex(), dict(cut), {shard: chain.hex() for shard, chain in chains.items()})

    def fits(self, log: EventLog) -> bool:
        """Whether a state that stands here was built from this log."""
        if self.log != log.id.hex():
            return False
        for shard, sequence in self.cut.items():
            link = log.store.last_block_upto(pack(shard, sequence))
            place, chain = (pack(shard, 0), "") if link is None else (link[0], link[1].hex())
            if place != pack(shard, sequence) or (sequence and chain != self.chains.get(shard)):
                return False
        return True

    @property
    def events(self) -> int:
        """How many events have been applied."""
        return sum(self.cut.values())


class _StoredHead(msgspec.Struct, frozen=True):
    format: int
    timelines: str
    log: str
    cut: dict[int, int] = {}
    chains: dict[int, str] = {}


def _stored_head(store: StateTransaction) -> _StoredHead | None:
    entry = store.get(_HEAD)
    stored = None if entry is None else msgspec.json.decode(bytes(entry), type=_StoredHead)
    return stored if stored is not None and stored.format == FORMAT else None


def read_head(store: StateStore) -> Head | None:
    """Return the part of the log that a stored state stands for, of whatever plan; None of an empty one."""
    staged = store.begin()
    try:
        stored = _stored_head(staged)
        return None if stored is None else Head(stored.log, stored.cut, stored.chains)
    finally:
        staged.abort()


class OnlineState:
    """The state of one plan's timelines in a store; plans with equal timelines may share it."""

    def __init__(self, plan: Plan, store: StateStore, *, memory_bytes_max: int = BYTES_MAX) -> None:
        self._plan, self._store = plan, store
        self._indexes = Indexes(memory_bytes_max)
        self._numbers = {name: number for number, name in enumerate(sorted(plan.timelines), start=1)}

    @property
    def head(self) -> Head | None:
        """The part of the log that the state stands for; None of an empty state or one of another form."""
        with self.begin() as staged:
            return staged.head

    def serves(self, plan: Plan) -> bool:
        """Whether questions of this plan can be answered from the state."""
        return plan.timelines_hash == self._plan.timelines_hash

    def behind(self, log: EventLog) -> int:
        """Return how many events of the log are to be applied; all of them where the state does not fit it."""
        head = self.head
        return sum(log.cut().values()) - (head.events if head is not None and head.fits(log) else 0)

    def begin(self) -> StagedState:
        """Start a change of the state; there is at most one at a time."""
        return StagedState(self._plan, self._numbers, self._store.begin(), self._indexes)

    def catch_up(self, log: EventLog, *, progress: Callable[[int, int], None] = lambda done, of: None) -> Cut:
        """Apply what the log's `cut()` shows beyond the state; return the cut reached. `progress(done, of)` in events.

        A state that is not of this log, is ahead of it, or met another chain there, is cleared and built anew. Each
        step is committed with its position, so that a build that is killed goes on where it was.
        """
        head, end = self.head, log.cut()
        after: Cut = {}
        if head is not None and head.fits(log):
            after = head.cut
            end = {shard: max(last, after.get(shard, 0)) for shard, last in end.items()}  # a builder may have seen more
        else:
            self.clear()
        for changes in ahead(log.changes(after, end, step_events=STEP_EVENTS)):
            after = changes.cut
            with self.begin() as staged:
                staged.apply(changes)
                staged.commit(Head.at(log, after, changes.chains))
            progress(sum(after.values()), sum(end.values()))
        return end

    def clear(self) -> None:
        """Forget everything, before a rebuild."""
        self._indexes.forget()
        self._store.clear()

    def close(self) -> None:
        """Close the store, durably."""
        self._store.close()


class StagedState:
    """A change of the state: apply, read what is staged, then commit or abort. It is a `TimelineReader`."""

    def __init__(self, plan: Plan, numbers: Mapping[str, int], store: StateTransaction, indexes: Indexes) -> None:
        self._plan, self._numbers, self._store, self._indexes = plan, numbers, store, indexes
        self._widths = {name: ROW_FIXED + timeline.slots for name, timeline in plan.timelines.items()}
        self._touched: set[bytes] = set()  # entities kept in memory that are ahead of what is committed
        self._applied = False

    def __enter__(self) -> StagedState:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    @property
    def head(self) -> Head | None:
        """What the state stands for without what is staged; None of an empty state or one of another form."""
        stored = _stored_head(self._store)
        if stored is None or stored.timelines != self._plan.timelines_hash:
            return None
        return Head(stored.log, stored.cut, stored.chains)

    def keys(self, timeline: str, after: str | None, limit: int) -> list[str]:
        """Return the entities of a timeline that follow `after` (None: from the first on), at most `limit`.

        They come in the order of their names in the store; of a very long name only its digest is there, and such an
        entity is left out.
        """
        number = self._numbers[timeline]
        start, stop = bytes([number]), bytes([number + 1])
        if after is not None:
            start = after_all(prefix(number, after.encode()))
        found: list[str] = []
        while len(found) < limit and (entries := self._store.scan(start, stop, limit=1)):
            own, key = entity_of(entries[0][0])
            start = after_all(own)
            if key is not None:
                found.append(key.decode())
        return found

    def apply(self, changes: WinnerChanges) -> None:
        """Stage the changed winners; IntegrityError where they do not fit the rows that are there."""
        self._applied = True
        for name in self._plan.timelines:
            edits = edits_of(self._plan, name, changes)
            if edits is not None:
                width = edits.inserted.shape[1]
                Editor(name, self._numbers[name], width, self._store, self._changed).apply(edits)

    def _changed(self, start: bytes, name: bytes, entry: Entry | None) -> None:
        if self._indexes.changed(start, name, entry):
            self._touched.add(start)

    def read(self, timeline: str, key: str, since_us: int | None) -> History:
        """Return the entity's history, at least the rows with event_time >= `since_us`; see TimelineReader.

        What is kept in memory is valid until the next `apply`, `commit` or `abort`.
        """
        return self._read(timeline, key, since_us, None)

    def glancing(self, chunks_max: int) -> TimelineReader:
        """Return a reader of the same rows that keeps no further entity in memory for it.

        It raises TooLong for an entity that is not kept and has more than `chunks_max` chunks to be read.
        """
        return _Glance(self, chunks_max)

    def _read(self, timeline: str, key: str, since_us: int | None, chunks_max: int | None) -> History:
        start = prefix(self._numbers[timeline], key.encode())
        tail = self._store.get(tail_key(start))
        if tail is None:
            return _NOBODY
        width = self._widths[timeline]
        newest, fence = tail_columns(tail, width), fence_of(tail)
        if fence[0] == FENCE_LOWEST or (since_us is not None and since_us > fence[0]):
            return History(pieces_of((newest,), width), None)
        indexed = self._indexes.find(start)
        if indexed is None:
            first = chunks_start(start, None if since_us is None else (since_us, FENCE_LOWEST))
            closed = self._store.scan(first, tail_key(start), limit=None if chunks_max is None else chunks_max + 1)
            if chunks_max is not None and len(closed) > chunks_max:
                raise TooLong(f"{timeline} {key!r:.80} has more than {chunks_max} chunks that are not in memory")
            if chunks_max is not None or len(closed) < CHUNKS_MIN:
                return History(pieces_of((*(entry for _, entry in closed), newest), width), None)
            if self._applied:  # it is read as staged
                self._touched.add(start)
            indexed = self._indexes.keep(
                start, width, lambda: self._store.scan(chunks_start(start), tail_key(start))
            )  # fmt: skip
        return History(pieces_of((newest,), width), indexed)

    def commit(self, head: Head) -> None:
        """Commit what is staged, standing for the log up to `head`."""
        stored = _StoredHead(FORMAT, self._plan.timelines_hash, *head)
        self._store.put_many([(_HEAD, msgspec.json.encode(stored))])
        self._store.commit()
        self._indexes.tidy(self._touched)
        self._touched.clear()

    def abort(self) -> None:
        """Drop what is staged; nothing happens after a commit."""
        self._indexes.forget(list(self._touched))
        self._touched.clear()
        self._store.abort()


class _Glance:
    """Reads a staged state without keeping more of it in memory."""

    def __init__(self, staged: StagedState, chunks_max: int) -> None:
        self._staged, self._chunks_max = staged, chunks_max

    def read(self, timeline: str, key: str, since_us: int | None) -> History:
        return self._staged._read(timeline, key, since_us, self._chunks_max)


_NOBODY = History(pieces_of((), 1), None)
