"""Online state: each entity's current winners, kept as the log grows, read by the same kernels as the backfill.

State is derived. It knows the log's id, the cut and the chain hashes that it stands for, and is rebuilt from the log
whenever they do not fit; where the lake holds much of a log, from the lake, and from the log what has come since. One
entity of one timeline is a *tail* of its newest rows and closed *chunks* of older ones, so that a new event rewrites a
short tail, a late or corrected one the chunk it falls in, and a window reads only the chunks that reach into it. Where
they lie is said in `entries`, how they change in `edits`, what an empty state is filled with in `filling`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import pyarrow as pa

from obligor.errors import ObligorError
from obligor.events.ahead import ahead
from obligor.events.log import EventLog
from obligor.events.positions import Cut, is_within, pack
from obligor.features.edits import Editor, Edits, StateMisfit, WinnerChanges, edits_of
from obligor.features.entries import after_all, chunks_start, entity_of, fence_of, prefix, prefixes, tail_key, unbound
from obligor.features.expiry import decode_kept, encode_kept, reaches, state_hash
from obligor.features.filling import fillings
from obligor.features.folds import Fold, Folds
from obligor.features.history import Asked, History, TimelineReader, TooLong
from obligor.features.indexes import BYTES_MAX, CHUNKS_MIN, Indexes
from obligor.features.lake import Lake
from obligor.features.pieces import pieces_of
from obligor.features.plan import Plan
from obligor.features.state_store import Entry, Range, StateGone, StateStore, StateTransaction
from obligor.features.tails import FENCE_LOWEST, ROW_FIXED, decode_tail, tail_columns

_log = logging.getLogger("obligor.state")

__all__ = ["Head", "OnlineState", "StagedState", "StateMisfit", "TooLong", "read_head"]

FORMAT = 4
STEP_EVENTS = 1 << 20  # of a build that are applied together: an entity is looked for once a step
FILLED_EVENTS_MIN = 100_000  # that the lake must hold to be worth opening
_NAMES_AT_ONCE = 64
_HEAD, _KEPT, _UNFOLDED = b"\x00head", b"\x00kept", b"\x00unfolded"
_FOLDED_AT_ONCE = 1_000  # entities of a build that are folded in one transaction
_EXPIRED_MIN = 64  # chunks that must be due of an entity in memory, because it is then read again


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


_UNFINISHED = Head("", {}, {})  # of no log, as long as a state is being filled


class _Form(msgspec.Struct, frozen=True):
    """What every form of a stored head says."""

    format: int


class _StoredHead(_Form, frozen=True, forbid_unknown_fields=True):
    timelines: str  # the `state_hash` of the plans whose state it is
    log: str
    cut: dict[int, int]
    chains: dict[int, str]


def _stored_head(store: StateTransaction) -> _StoredHead | None:
    entry = store.get(_HEAD)
    if entry is None:
        return None
    words = bytes(entry)
    known = msgspec.json.decode(words, type=_Form).format == FORMAT
    return msgspec.json.decode(words, type=_StoredHead) if known else None


def read_head(store: StateStore) -> Head | None:
    """Return the part of the log that a stored state stands for, of whatever plan; None of an empty one."""
    staged = store.begin()
    try:
        stored = _stored_head(staged)
        return None if stored is None else Head(stored.log, stored.cut, stored.chains)
    finally:
        staged.abort()


class OnlineState:
    """The state of one plan in a store; plans that look at the same rows, and fold the same, may share it."""

    def __init__(
        self, plan: Plan, store: StateStore, *, fold: Fold | None = None, memory_bytes_max: int = BYTES_MAX,
        reading: bool = False, lake: Callable[[EventLog], Lake] | None = None,
    ) -> None:  # fmt: skip
        """`reading`: another process writes the state, so that nothing is kept from one transaction to the next.

        `lake`: opens the lake beside a log; None: there is none.
        """
        self._plan, self._fold, self._hash, self._store = plan, fold, state_hash(plan, fold), store
        self._indexes, self._reading = Indexes(memory_bytes_max), reading
        self._lake = lake
        self._numbers = {name: number for number, name in enumerate(sorted(plan.timelines), start=1)}
        self._widths = {name: ROW_FIXED + timeline.slots for name, timeline in plan.timelines.items()}
        self._expiring = b""  # the key from which `expire` goes on

    @property
    def head(self) -> Head | None:
        """The part of the log that the state stands for; None of an empty state or one of another form."""
        with self.begin() as staged:
            return staged.head

    def serves(self, plan: Plan, fold: Fold | None = None) -> bool:
        """Whether questions of this plan, and of what is folded, can be answered from the state."""
        return state_hash(plan, fold) == self._hash

    def behind(self, log: EventLog) -> int:
        """Return how many events of the log are to be applied; all of them where the state does not fit it."""
        head = self.head
        return sum(log.cut().values()) - (head.events if head is not None and head.fits(log) else 0)

    def begin(self) -> StagedState:
        """Start a change of the state; there is at most one at a time."""
        if self._reading:
            self.forget()
        numbers, widths = self._numbers, self._widths
        return StagedState(self._plan, self._hash, numbers, widths, self._store.begin(), self._indexes, self._fold)

    def catch_up(
        self,
        log: EventLog,
        *,
        progress: Callable[[int, int], None] = lambda done, of: None,
        from_lake: bool = True,
    ) -> Cut:
        """Apply what the log's `cut()` shows beyond the state; return the cut reached. `progress(done, of)` in events.

        A state that is not of this log, is ahead of it, or met another chain there, is cleared and built anew: first
        from the lake, where that holds much and `from_lake` allows it. Each step from the log is committed with its
        position, so that a build that is killed there goes on where it was; before, it begins again. Of a long one what
        is folded follows at the end, entity by entity.
        """
        head, end = self.head, log.cut()
        after: Cut = {}
        if head is not None and head.fits(log):
            after = head.cut
            end = {shard: max(last, after.get(shard, 0)) for shard, last in end.items()}  # a builder may have seen more
        else:
            self.clear()
            after = self._fill(log, end, progress) if from_lake and self._lake is not None else {}
        steps = log.changes(after, end, step_events=STEP_EVENTS)
        long = sum(last - after.get(shard, 0) for shard, last in end.items()) > STEP_EVENTS
        for changes in ahead(steps) if long else steps:
            after = changes.cut
            with self.begin() as staged:
                staged.apply(changes, folding=not long)
                staged.commit(Head.at(log, after, changes.chains))
            progress(sum(after.values()), sum(end.values()))
        while self._complete():
            progress(sum(after.values()), sum(end.values()))
        return end

    def _fill(self, log: EventLog, end: Cut, progress: Callable[[int, int], None]) -> Cut:
        """Fill the empty state from the lake; return the cut that it holds then, of nothing where there is no use."""
        assert self._lake is not None, "there is a lake"
        if sum(end.values()) < FILLED_EVENTS_MIN:
            return {}
        try:
            lake = self._lake(log)
            if not lake.covers(self._plan):
                return {}
            view = lake.held(self._plan)
            cut = view.end
            if not is_within(cut, end) or sum(cut.values()) < FILLED_EVENTS_MIN:
                return {}
            for timeline, edits, share in fillings(view):
                with self.begin() as staged:
                    staged.fill(timeline, edits)
                    staged.commit(_UNFINISHED)
                progress(int(share * sum(cut.values())), sum(end.values()))
        except StateGone:
            raise
        except (ObligorError, OSError, pa.ArrowException) as error:
            _log.warning("the online state is built from the log alone, because the lake cannot be read: %s", error)
            self.clear()
            return {}
        with self.begin() as staged:
            staged.commit(Head.at(log, cut, log.chains(cut)))
        return cut

    def _complete(self) -> bool:
        """Fold some of the entities whose rows came in a long build; False where none are left."""
        if self._fold is None:
            return False
        with self.begin() as staged:
            head = staged.head
            if head is None or not staged.complete(_FOLDED_AT_ONCE):
                return False
            staged.commit(head)
        return True

    def expire(self, now_us: int, entries_max: int) -> int:
        """Look at the next `entries_max` entries, drop what no window reaches from `now_us` on, and return how many.

        One call after the other goes through all of the state and begins again. `now_us` is an instant that no later
        question is before.
        """
        reach = {self._numbers[name]: (name, reach_us) for name, reach_us in reaches(self._plan).items()}
        if not reach:
            return 0
        with self.begin() as staged:
            head = staged.head
            if head is None:
                return 0
            dropped, self._expiring = staged.expire(reach, now_us, self._expiring, entries_max)
            staged.commit(head)
        return dropped

    def clear(self) -> None:
        """Forget everything, before a rebuild."""
        self.forget()
        self._store.clear()

    def forget(self) -> None:
        """Drop what is kept in memory, because the store may hold something else by now."""
        self._indexes.forget()

    def close(self) -> None:
        """Close the store, durably."""
        self._store.close()


class StagedState:
    """A change of the state: apply, read what is staged, then commit or abort. It is a `TimelineReader`."""

    def __init__(
        self,
        plan: Plan,
        name: str,
        numbers: Mapping[str, int],
        widths: Mapping[str, int],
        store: StateTransaction,
        indexes: Indexes,
        fold: Fold | None = None,
    ) -> None:
        """`name`: the plan's `state_hash`; of each timeline its number in keys, and how many words a row has."""
        self._plan, self._hash, self._numbers, self._widths, self.fold = plan, name, numbers, widths, fold
        self._store, self._indexes = store, indexes
        self.far = store.far  # whether reading is a round trip, so that `fetch` is worth its while
        self._touched: set[bytes] = set()  # entities kept in memory that are ahead of what is committed
        self._tails: set[bytes] = set()  # those of which only the tail may be
        self._applied = False

    def __enter__(self) -> StagedState:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    @property
    def head(self) -> Head | None:
        """What the state stands for without what is staged; None of an empty state or one of another form."""
        stored = _stored_head(self._store)
        if stored is None or stored.timelines != self._hash:
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
        while len(found) < limit and (names := self._store.names(start, stop, _NAMES_AT_ONCE if self.far else 1)):
            for name in names:
                if name >= start and len(found) < limit:
                    own, key = entity_of(name)
                    start = after_all(own)
                    if key is not None:
                        found.append(key.decode())
        return found

    def newest(self, timeline: str, key: str) -> int | None:
        """Return when the newest row of an entity happened, in microseconds, or will; None where it has no rows."""
        name = tail_key(prefix(self._numbers[timeline], key.encode()))
        tail = self._store.get(name)
        return None if tail is None else self._newest(name, tail)

    def apply(
        self,
        changes: WinnerChanges,
        touched: Callable[[str, Sequence[bytes]], None] = lambda timeline, keys: None,
        *,
        folding: bool = True,
    ) -> None:
        """Stage the changed winners; IntegrityError where they do not fit the rows that are there.

        `touched` is told of the timelines and their entities that change, before anything is asked of the store.
        Without `folding` what is folded of them is forgotten, and is for `complete`.
        """
        self._applied = True
        found = [(name, edits_of(self._plan, name, changes)) for name in self._plan.timelines]
        some = [(name, edits) for name, edits in found if edits is not None]
        for name, edits in some:
            touched(name, edits.keys)
        if self.far:
            tails = [tail_key(prefix(self._numbers[name], key)) for name, edits in some for key in edits.keys]
            own = [key for name, edits in some if self.fold and name == self.fold.timeline for key in edits.keys]
            folded = self.folds().names(own) if own else []
            self._store.fetch([_KEPT, *tails, *folded])
        kept = decode_kept(self._store.get(_KEPT))
        some = [(name, edits.since(kept[name]) if name in kept else edits) for name, edits in some]
        for name, edits in some:
            width = edits.inserted.shape[1]
            Editor(name, self._numbers[name], width, self._store, self._changed).apply(edits)
            if self.far:
                self._set_tails(prefixes(self._numbers[name], edits.keys))
            if self.fold is not None and name == self.fold.timeline:
                (self.folds().follow if folding else self.folds().drop)(edits)
        if not folding:
            self._note_unfolded()

    def fill(self, timeline: str, edits: Edits) -> None:
        """Stage rows of entities that have none yet; what is folded of them is for `complete`."""
        self._applied = True
        width = edits.inserted.shape[1]
        Editor(timeline, self._numbers[timeline], width, self._store, self._changed).apply(edits)
        self._note_unfolded()

    def _note_unfolded(self) -> None:
        if self.fold is not None:
            self._store.put_many([(_UNFOLDED, bytes([self._numbers[self.fold.timeline]]))])

    def complete(self, entities_max: int) -> bool:
        """Fold some of the entities that `apply` left out; False where none are left."""
        begin = self._store.get(_UNFOLDED)
        if self.fold is None or begin is None:
            return False
        following = self.folds().complete(bytes(begin), entities_max)
        if following is None:
            self._store.delete(_UNFOLDED)
        else:
            self._store.put_many([(_UNFOLDED, following)])
        return True

    def folds(self, chunks_max: int | None = None) -> Folds:
        """Return what is folded, as a FoldReader too: with `chunks_max` it raises TooLong before it reads more."""
        assert self.fold is not None, "a state that folds nothing is not asked for it"
        timeline = self.fold.timeline
        return Folds(self.fold, self._numbers[timeline], self._widths[timeline], self._store, chunks_max)

    def expire(
        self, reach: Mapping[int, tuple[str, int]], now_us: int, start: bytes, entries_max: int
    ) -> tuple[int, bytes]:
        """Drop old rows among the next entries; return how many entries went, and the key to go on from.

        `reach`: by timelines' numbers, their names and how far their windows reach back in microseconds.
        """
        start = max(start, bytes([min(reach)]))
        names = self._store.names(start, bytes([max(reach) + 1]), entries_max)
        mine = [name for name in names if name[0] in reach]
        kept = decode_kept(self._store.get(_KEPT))
        for timeline, reach_us in reach.values():
            kept[timeline] = max(now_us - reach_us, kept.get(timeline, FENCE_LOWEST))
        due: dict[bytes, list[bytes]] = {}
        for name in self._due(mine, {number: kept[timeline] for number, (timeline, _) in reach.items()}):
            due.setdefault(entity_of(name)[0], []).append(name)
        dropped = 0
        for entity, old in due.items():
            if self._indexes.find(entity) is None or len(old) >= _EXPIRED_MIN or tail_key(entity) in old:
                dropped += len(old)
                for name in old:
                    self._store.delete(name)
                    if name != tail_key(entity):
                        self._changed(entity, name, None)
                if self.far:
                    self._applied = True
                    self._set_tails([entity])
        self._store.put_many([(_KEPT, encode_kept(kept))])
        return dropped, names[-1] + b"\x00" if len(names) == entries_max else b""

    def _due(self, names: Sequence[bytes], since: Mapping[int, int]) -> list[bytes]:
        """Return the chunks and tails among `names` that hold only rows before their timeline's `since`."""
        tails = [name for name in names if tail_key(entity_of(name)[0]) == name]
        newest = dict(zip(tails, map(self._newest, tails, self._store.get_many(tails)), strict=True))
        return [name for name in names if (newest[name] if name in newest else unbound(name)[0]) < since[name[0]]]

    def _newest(self, name: bytes, tail: Entry | None) -> int:
        """Return when the newest row of a tail happened, and of an empty one when the rows below it ended."""
        assert tail is not None, "its name was there"
        width = self._widths[next(one for one, number in self._numbers.items() if number == name[0])]
        rows = decode_tail(tail, width)
        return int(rows[-1, 0]) if len(rows) else fence_of(tail)[0]

    def _set_tails(self, starts: Sequence[bytes]) -> None:
        """Have the tails in memory follow what is staged, so that they need not be asked for."""
        kept = self._indexes.set_tails(starts, lambda start: self._store.get(tail_key(start)))
        if self._applied:
            self._tails.update(kept)

    def _changed(self, start: bytes, name: bytes, entry: Entry | None) -> None:
        if self._indexes.changed(start, name, entry):
            self._touched.add(start)

    def fetch(self, asked: Sequence[Asked], folded: Sequence[bytes] = ()) -> None:
        """Ask for what `read` will need, and for what is folded of some entities, all of it together.

        What is kept in memory is not asked for, and may be read before the answer is there. Where all of it is, Redis
        is asked all the same, because it may be gone.
        """
        names, ranges = [] if self.fold is None else self.folds().names(folded), []
        for timeline, key, since_us in asked:
            start = prefix(self._numbers[timeline], key.encode())
            if self._indexes.find(start) is None:
                ranges.append(self._closed(start, since_us, None))
                names.append(tail_key(start))
            elif self._indexes.tail(start) is None:
                names.append(tail_key(start))
        if names:
            self._store.fetch(names, ranges)
        else:
            self._store.get(_HEAD)

    @staticmethod
    def _closed(start: bytes, since_us: int | None, chunks_max: int | None) -> Range:
        """Return the chunks that reach into a window, so many that it is seen when they are too many."""
        first = chunks_start(start, None if since_us is None else (since_us, FENCE_LOWEST))
        return Range(first, tail_key(start), CHUNKS_MIN if chunks_max is None else chunks_max + 1)

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
        known = self._indexes.tail(start) if self.far else None
        tail = self._store.get(tail_key(start)) if known is None else known
        if tail is None:
            return _NOBODY
        width = self._widths[timeline]
        newest, fence = tail_columns(tail, width), fence_of(tail)
        if fence[0] == FENCE_LOWEST or (since_us is not None and since_us > fence[0]):
            return History(pieces_of((newest,), width), None)
        indexed = self._indexes.find(start)
        if indexed is None:
            closed = self._store.scan(*self._closed(start, since_us, chunks_max))
            if chunks_max is not None and len(closed) > chunks_max:
                raise TooLong(f"{timeline} {key!r:.80} has more than {chunks_max} chunks that are not in memory")
            if chunks_max is not None or len(closed) < CHUNKS_MIN:
                return History(pieces_of([*[entry for _, entry in closed], newest], width), None)
            if self._applied:  # it is read as staged
                self._touched.add(start)
            indexed = self._indexes.keep(
                start, width, lambda: self._store.scan(chunks_start(start), tail_key(start))
            )  # fmt: skip
        if self.far and known is None:
            self._set_tails([start])
        return History(pieces_of((newest,), width), indexed)

    def commit(self, head: Head) -> None:
        """Commit what is staged, standing for the log up to `head`."""
        stored = _StoredHead(FORMAT, self._hash, *head)
        self._store.put_many([(_HEAD, msgspec.json.encode(stored))])
        self._store.commit()
        self._indexes.tidy(self._touched)
        self._touched.clear()
        self._tails.clear()

    def abort(self) -> None:
        """Drop what is staged; nothing happens after a commit."""
        self._indexes.forget(list(self._touched))
        self._indexes.set_tails(self._tails, lambda start: None)
        self._touched.clear()
        self._tails.clear()
        self._store.abort()


class _Glance:
    """Reads a staged state without keeping more of it in memory."""

    def __init__(self, staged: StagedState, chunks_max: int) -> None:
        self._staged, self._chunks_max = staged, chunks_max

    def read(self, timeline: str, key: str, since_us: int | None) -> History:
        return self._staged._read(timeline, key, since_us, self._chunks_max)


_NOBODY = History(pieces_of((), 1), None)
