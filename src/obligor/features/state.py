"""Online state: each entity's current winners, kept as the log grows, read by the same kernels as the backfill.

State is derived. It knows the log's id, position and chain hash that it stands for, and is rebuilt from the log
whenever they do not fit. One entity of one timeline is a *tail* of its newest rows (at most TAIL_BYTES_MAX) and closed
*chunks* of older ones, in time order:

    <timeline> <length> <entity> 01                      the tail; its header is the fence that closed rows are below
    <timeline> <length> <entity> 00 <event_time> <root>  a chunk, by the exclusive upper bound of its rows

so that a new event rewrites one tail, a late or corrected one the chunk it falls in, and a window reads only the
chunks that reach into it. All tails that a batch touches are merged by one kernel call.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.errors import IntegrityError
from obligor.events.log import EventLog
from obligor.events.positions import sequence_of
from obligor.features.chunks import Chunk
from obligor.features.plan import Plan
from obligor.features.projection import Rows, project
from obligor.features.state_store import Entry, StateStore, StateTransaction
from obligor.features.tails import (
    FENCE_LOWEST,
    HEADER_WORDS,
    MERGED,
    ROW_FIXED,
    UNDER_FENCE,
    decode_chunk,
    decode_tail,
    encode_chunk,
    encode_tail,
    merge_rows,
    merge_tails,
)

__all__ = ["CHUNK_ROWS_MAX", "TAIL_BYTES_MAX", "Head", "OnlineState", "StagedState", "StateMisfit", "WinnerChanges"]

Words = NDArray[np.int64]

FORMAT = 1
TAIL_BYTES_MAX = 1920  # so that a tail and its key fit in half a page of the store
CHUNK_ROWS_MAX = 2048
KEY_BYTES_MAX = 400  # a longer entity key is stored as its digest; LMDB's keys end at 511 bytes
_HEAD = b"\x00head"
_DIGEST = 0xFFFF  # in place of a length
_SIGN = 2**63


class StateMisfit(IntegrityError):
    """The state does not fit the log; clear it and catch up."""


class WinnerChanges(Protocol):
    """What became of the winners, net: rows that are no more, and rows that are new, by event type.

    The tables carry `root`, `event_time` and the type's fields.
    """

    @property
    def removed(self) -> Mapping[str, pa.Table]:
        """Winners before, not after."""
        ...

    @property
    def inserted(self) -> Mapping[str, pa.Table]:
        """Winners after, not before."""
        ...


class Head(NamedTuple):
    """What part of which log a state stands for."""

    log: str  # the log's id
    sequence: int  # of the last event applied
    chain: str  # the log's chain hash there, in hex


class _StoredHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    timelines: str
    log: str
    sequence: int
    chain: str


class _Edits(NamedTuple):
    """What happens to the rows of n entities of one timeline, sorted by entity and (event_time, root)."""

    keys: list[str]  # (n,)
    removed: Words  # (m, 2) event_time, root
    removed_offsets: Words  # (n + 1,)
    inserted: Words  # (k, width)
    inserted_offsets: Words  # (n + 1,)


class OnlineState:
    """The state of one plan's timelines in a store; plans with equal timelines may share it."""

    def __init__(self, plan: Plan, store: StateStore) -> None:
        self._plan, self._store = plan, store
        self._numbers = {name: number for number, name in enumerate(sorted(plan.timelines), start=1)}

    @property
    def head(self) -> Head | None:
        """The part of the log that the state stands for; None of an empty state or one of another form."""
        staged = self._store.begin()
        try:
            entry = staged.get(_HEAD)
            stored = None if entry is None else msgspec.json.decode(bytes(entry), type=_StoredHead)
        finally:
            staged.abort()
        if stored is None or (stored.format, stored.timelines) != (FORMAT, self._plan.timelines_hash):
            return None
        return Head(stored.log, stored.sequence, stored.chain)

    def begin(self) -> StagedState:
        """Start a change of the state; there is at most one at a time."""
        return StagedState(self._plan, self._numbers, self._store.begin())

    def catch_up(self, log: EventLog, *, progress: Callable[[int, int], None] = lambda done, of: None) -> int:
        """Apply what the log holds beyond the state and return the sequence reached; `progress(done, of)` in events.

        A state that is not of this log, is ahead of it, or met another chain there, is cleared and built anew. Each
        step is committed with its position, so that a build that is killed goes on where it was.
        """
        head, end = self.head, log.head.sequence
        after = 0
        if head is not None and _fits(head, log):
            after = head.sequence
        else:
            self.clear()
        for changes in log.changes(after):
            after = sequence_of(changes.position)
            with self.begin() as staged:
                staged.apply(changes)
                staged.commit(Head(log.id.hex(), after, changes.chain.hex()))
            progress(after, end)
        return after

    def clear(self) -> None:
        """Forget everything, before a rebuild."""
        self._store.clear()

    def close(self) -> None:
        """Close the store, durably."""
        self._store.close()


class StagedState:
    """A change of the state: apply, read what is staged, then commit or abort. It is a `TimelineReader`."""

    def __init__(self, plan: Plan, numbers: Mapping[str, int], store: StateTransaction) -> None:
        self._plan, self._numbers, self._store = plan, numbers, store

    def __enter__(self) -> StagedState:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.abort()

    def apply(self, changes: WinnerChanges) -> None:
        """Stage the changed winners; IntegrityError where they do not fit the rows that are there."""
        for name in self._plan.timelines:
            edits = _edits(self._plan, name, changes)
            if edits is not None:
                _Editor(name, self._numbers[name], edits.inserted.shape[1], self._store).apply(edits)

    def chunks(self, timeline: str, key: str, since_us: int | None) -> Sequence[Chunk]:
        """Return the entity's rows in time order, at least those with event_time >= `since_us`; see TimelineReader.

        The arrays are views of the store, valid until the next `apply`, `commit` or `abort`.
        """
        prefix = _prefix(self._numbers[timeline], key)
        tail = self._store.get(prefix + b"\x01")
        if tail is None:
            return []
        width = ROW_FIXED + self._plan.timelines[timeline].slots
        rows = decode_tail(tail, width)
        found: list[Chunk] = []
        fence = _fence(tail)
        if fence[0] != FENCE_LOWEST and (since_us is None or since_us <= fence[0]):
            start = prefix + b"\x00" + (_bound((since_us, FENCE_LOWEST)) if since_us is not None else b"")
            closed = [decode_chunk(entry, width) for _, entry in self._store.scan(start, prefix + b"\x01")]
            found = [_chunk(columns) for columns in closed if columns.size]
        if len(rows):
            found.append(_chunk(np.ascontiguousarray(rows.T)))
        return found

    def commit(self, head: Head) -> None:
        """Commit what is staged, standing for the log up to `head`."""
        stored = _StoredHead(FORMAT, self._plan.timelines_hash, *head)
        self._store.put_many([(_HEAD, msgspec.json.encode(stored))])
        self._store.commit()

    def abort(self) -> None:
        """Drop what is staged."""
        self._store.abort()


class _Editor:
    """Applies edits to one timeline's rows in the store."""

    def __init__(self, timeline: str, number: int, width: int, store: StateTransaction) -> None:
        self._timeline, self._number, self._width, self._store = timeline, number, width, store

    def apply(self, edits: _Edits) -> None:
        """Merge the edits of all entities into their tails at once; those that reach below a fence one by one."""
        prefixes = [_prefix(self._number, key) for key in edits.keys]
        tails = self._store.get_many([prefix + b"\x01" for prefix in prefixes])
        sizes = [0 if tail is None else len(tail) // 8 for tail in tails]
        old = np.frombuffer(b"".join([tail for tail in tails if tail is not None]), dtype=np.int64)
        out, offsets, status = merge_tails(
            old, _offsets(sizes), self._width,
            edits.removed, edits.removed_offsets, edits.inserted, edits.inserted_offsets,
        )  # fmt: skip
        view, ends = memoryview(out).cast("B"), (offsets * 8).tolist()
        long = np.diff(offsets) * 8 > TAIL_BYTES_MAX
        plain = (status == MERGED) & ~long
        self._store.put_many(
            [(prefixes[i] + b"\x01", view[ends[i] : ends[i + 1]]) for i in np.flatnonzero(plain).tolist()]
        )
        for i in np.flatnonzero(~plain).tolist():
            if status[i] == UNDER_FENCE:
                self._apply_below(prefixes[i], edits, i)
            elif status[i] == MERGED:
                fence = (int(out[offsets[i]]), int(out[offsets[i] + 1]))
                rows = out[offsets[i] + HEADER_WORDS : offsets[i + 1]].reshape(-1, self._width)
                self._put_tail(prefixes[i], rows, fence)
            else:
                raise self._misfit(edits.keys[i])

    def _apply_below(self, prefix: bytes, edits: _Edits, i: int) -> None:
        """Apply one entity's edits, of which some fall into closed chunks."""
        removed = edits.removed[edits.removed_offsets[i] : edits.removed_offsets[i + 1]]
        inserted = edits.inserted[edits.inserted_offsets[i] : edits.inserted_offsets[i + 1]]
        tail = self._store.get(prefix + b"\x01")
        assert tail is not None, "a fence without a tail"
        fence, rows = _fence(tail), decode_tail(tail, self._width)
        while True:
            removed_below, inserted_below = _count_below(removed, fence), _count_below(inserted, fence)
            if not removed_below and not inserted_below:
                break
            lowest = min(_first(removed), _first(inserted))
            found = self._store.scan(prefix + b"\x00" + _bound(lowest, after=True), prefix + b"\x01", limit=1)
            assert found, "a fence without the chunk below it"
            name, entry = found[0]
            upper = _unbound(name[-16:])
            r, k = _count_below(removed, upper), _count_below(inserted, upper)
            self._put_chunk(name, self._merged(decode_chunk(entry, self._width).T, removed[:r], inserted[:k], prefix))
            removed, inserted = removed[r:], inserted[k:]
        self._put_tail(prefix, self._merged(rows, removed, inserted, prefix), fence)

    def _merged(self, rows: Words, removed: Words, inserted: Words, prefix: bytes) -> Words:
        status, merged = merge_rows(rows, removed, inserted)
        if status != MERGED:
            raise self._misfit(repr(prefix[3:]))
        return merged

    def _misfit(self, key: str) -> StateMisfit:
        return StateMisfit(
            f"the online state of {self._timeline} {key!r} does not fit the log: a row to remove is missing, or a row "
            "to insert is there already"
        )

    def _put_tail(self, prefix: bytes, rows: Words, fence: tuple[int, int]) -> None:
        """Store a tail, closing its older half while it is too long."""
        rows_max = (TAIL_BYTES_MAX // 8 - HEADER_WORDS) // self._width
        if len(rows) > rows_max:
            split = len(rows) - max(1, rows_max // 2)
            closing, rows = rows[:split], rows[split:]
            previous, fence = fence, (int(rows[0, 0]), int(rows[0, 1]))
            name = prefix + b"\x00" + _bound(previous)
            entry = self._store.get(name)
            if entry is not None and len(entry) // (8 * self._width) + len(closing) <= CHUNK_ROWS_MAX:
                closing = np.concatenate([decode_chunk(entry, self._width).T, closing])
                self._store.delete(name)
            self._put_chunk(prefix + b"\x00" + _bound(fence), closing)
        self._store.put_many([(prefix + b"\x01", encode_tail(rows, fence))])

    def _put_chunk(self, name: bytes, rows: Words) -> None:
        """Store a chunk, split in parts where it has grown too long; the last part keeps the name.

        A chunk that became empty stays: it is the upper bound that rows between its neighbours belong under.
        """
        parts = -(-len(rows) // CHUNK_ROWS_MAX) or 1
        cuts = [len(rows) * part // parts for part in range(parts + 1)]
        items = []
        for start, stop in pairwise(cuts):
            last = stop == len(rows)
            bound = name if last else name[:-16] + _bound((int(rows[stop, 0]), int(rows[stop, 1])))
            items.append((bound, encode_chunk(rows[start:stop])))
        self._store.put_many(items)


def _fits(head: Head, log: EventLog) -> bool:
    """Whether a state that stands at `head` was built from this log."""
    if head.log != log.id.hex():
        return False
    link = log.store.last_block_upto(head.sequence)
    return (link[0], link[1].hex()) == (head.sequence, head.chain) if link is not None else head.sequence == 0


def _chunk(columns: Words) -> Chunk:
    return Chunk(columns[0], columns[1], columns[2], columns[ROW_FIXED:])


def _prefix(number: int, key: str) -> bytes:
    """Return the start of an entity's keys in the store; the length keeps entities apart that begin alike."""
    text = key.encode()
    length = len(text)
    if length > KEY_BYTES_MAX:
        length, text = _DIGEST, hashlib.blake2b(text, digest_size=32).digest()
    return struct.pack(">BH", number, length) + text


def _bound(row: tuple[int, int], *, after: bool = False) -> bytes:
    """Return (event_time, root) as bytes that sort as it does; `after`: the least bound above it."""
    number = ((row[0] + _SIGN) << 64) + row[1] + _SIGN + after
    return number.to_bytes(16, "big")


def _unbound(bound: bytes) -> tuple[int, int]:
    time, root = struct.unpack(">QQ", bound)
    return time - _SIGN, root - _SIGN


def _fence(tail: Entry) -> tuple[int, int]:
    time, root = struct.unpack_from("=qq", tail)
    return time, root


def _first(rows: Words) -> tuple[int, int]:
    return (int(rows[0, 0]), int(rows[0, 1])) if len(rows) else (_SIGN, _SIGN)


def _count_below(rows: Words, bound: tuple[int, int]) -> int:
    """Return how many of the sorted `rows` are below `bound`."""
    time, root = bound
    return int(np.count_nonzero((rows[:, 0] < time) | ((rows[:, 0] == time) & (rows[:, 1] < root))))


def _offsets(sizes: Sequence[int]) -> Words:
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def _edits(plan: Plan, name: str, changes: WinnerChanges) -> _Edits | None:
    """Return what the changed winners do to the rows of one timeline; None where they do nothing."""
    removed = list(_projected(plan, name, changes.removed))
    inserted = list(_projected(plan, name, changes.inserted))
    if not removed and not inserted:
        return None
    width = ROW_FIXED + plan.timelines[name].slots
    keys = pa.chunked_array([rows.key for rows in [*removed, *inserted]], pa.string()).combine_chunks()
    encoded = keys.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    entities = len(encoded.dictionary)
    split = sum(len(rows.root) for rows in removed)
    gone, gone_offsets = _sorted(_matrix(removed, width), codes[:split], entities)
    new, new_offsets = _sorted(_matrix(inserted, width), codes[split:], entities)
    return _Edits(encoded.dictionary.to_pylist(), np.ascontiguousarray(gone[:, :2]), gone_offsets, new, new_offsets)


def _projected(plan: Plan, name: str, tables: Mapping[str, pa.Table]) -> Iterator[Rows]:
    for event in plan.timelines[name].events:
        if event in tables:
            rows = project(plan, name, event, tables[event])
            if len(rows):
                yield rows


def _matrix(parts: Sequence[Rows], width: int) -> Words:
    """Return the parts' rows as one matrix (n, width)."""
    matrix = np.empty((sum(map(len, parts)), width), dtype=np.int64)
    start = 0
    for rows in parts:
        stop = start + len(rows)
        matrix[start:stop, 0], matrix[start:stop, 1], matrix[start:stop, 2] = rows.event_time, rows.root, rows.mask
        matrix[start:stop, ROW_FIXED:] = rows.values
        start = stop
    return matrix


def _sorted(matrix: Words, codes: Words, entities: int) -> tuple[Words, Words]:
    """Return the rows sorted by entity and (event_time, root), and the offsets of the entities (n + 1)."""
    order = np.lexsort((matrix[:, 1], matrix[:, 0], codes))
    return matrix[order], np.searchsorted(codes[order], np.arange(entities + 1))
