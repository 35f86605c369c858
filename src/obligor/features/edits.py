"""Edits: what changed winners do to the rows of a timeline, and the editor that carries it out in the store.

The tails of all entities that a change touches are merged by one kernel call; an entity with an edit below its fence
has the chunk rewritten that the row falls in. A tail that grows too long closes its older half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from obligor.errors import IntegrityError
from obligor.features.entries import Row, chunk_key, chunks_start, fence_of, prefixes, tail_key, unbound
from obligor.features.indexed import RUN
from obligor.features.plan import Plan
from obligor.features.projection import Rows, project
from obligor.features.state_store import Entry, StateTransaction
from obligor.features.tails import (
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

__all__ = [
    "CHUNK_ROWS_MAX",
    "TAIL_BYTES_MAX",
    "Editor",
    "Edits",
    "StateMisfit",
    "WinnerChanges",
    "edits_of",
    "in_order",
]

Words = NDArray[np.int64]

TAIL_BYTES_MAX = 1920  # so that a tail and its key fit in half a page of the store
CHUNK_ROWS_MAX = RUN
CHUNK_ROWS_CLOSED = 192  # rows with which a chunk is left behind, so that late ones find room in it
ENTITIES_AT_ONCE = 4096  # bounds what one kernel call holds
_ABOVE_ALL = (2**63, 2**63)


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


Changed = Callable[[bytes, bytes, Entry | None], None]  # how an entity's keys begin, the key of a chunk, its entry


class Edits(NamedTuple):
    """What happens to the rows of n entities of one timeline, sorted by entity and (event_time, root)."""

    keys: list[bytes]  # (n,) as a store has them in order: shorter ones first
    removed: Words  # (m, 2) event_time, root
    removed_offsets: Words  # (n + 1,)
    inserted: Words  # (k, width)
    inserted_offsets: Words  # (n + 1,)

    def part(self, start: int, stop: int) -> Edits:
        """Return the edits of entities `start` to `stop`."""
        return Edits(
            self.keys[start:stop],
            self.removed,
            self.removed_offsets[start : stop + 1],
            self.inserted,
            self.inserted_offsets[start : stop + 1],
        )

    def since(self, time_us: int) -> Edits:
        """Return the edits of rows with event_time >= `time_us`."""
        removed, removed_offsets = _since(self.removed, self.removed_offsets, time_us)
        inserted, inserted_offsets = _since(self.inserted, self.inserted_offsets, time_us)
        return Edits(self.keys, removed, removed_offsets, inserted, inserted_offsets)

    def of(self, i: int) -> tuple[Words, Words]:
        """Return the rows removed from and inserted into entity i."""
        return (
            self.removed[self.removed_offsets[i] : self.removed_offsets[i + 1]],
            self.inserted[self.inserted_offsets[i] : self.inserted_offsets[i + 1]],
        )


class Editor:
    """Applies edits to one timeline's rows in the store; `changed` is told of every chunk that is put or deleted."""

    def __init__(self, timeline: str, number: int, width: int, store: StateTransaction, changed: Changed) -> None:
        self._timeline, self._number, self._width, self._store = timeline, number, width, store
        self._changed = changed

    def apply(self, edits: Edits) -> None:
        """Merge the edits of all entities into their tails; those that reach below a fence one by one."""
        for start in range(0, len(edits.keys), ENTITIES_AT_ONCE):
            self._apply(edits.part(start, start + ENTITIES_AT_ONCE))

    def _apply(self, edits: Edits) -> None:
        starts = prefixes(self._number, edits.keys)
        names = [start + b"\x01" for start in starts]
        tails = self._store.get_many(names)
        sizes = [0 if tail is None else len(tail) // 8 for tail in tails]
        old = np.frombuffer(b"".join([tail for tail in tails if tail is not None]), dtype=np.int64)
        out, offsets, status = merge_tails(
            old, _offsets(sizes), self._width,
            edits.removed, edits.removed_offsets, edits.inserted, edits.inserted_offsets,
        )  # fmt: skip
        merged, ends = out.tobytes(), (offsets * 8).tolist()
        plain = (status == MERGED) & (np.diff(offsets) * 8 <= TAIL_BYTES_MAX)
        self._store.put_many((names[i], merged[ends[i] : ends[i + 1]]) for i in np.flatnonzero(plain).tolist())
        rest = np.flatnonzero(~plain).tolist()
        if rest and self._store.far:
            closing = (i for i in rest if status[i] == MERGED)
            fences = ((i, (int(out[offsets[i]]), int(out[offsets[i] + 1]))) for i in closing)
            self._store.fetch([chunk_key(starts[i], fence) for i, fence in fences])
        for i in rest:
            if status[i] == UNDER_FENCE:
                self._apply_below(starts[i], *edits.of(i))
            elif status[i] == MERGED:
                fence = (int(out[offsets[i]]), int(out[offsets[i] + 1]))
                rows = out[offsets[i] + HEADER_WORDS : offsets[i + 1]].reshape(-1, self._width)
                self._put_tail(starts[i], rows, fence)
            else:
                raise self._misfit(edits.keys[i])

    def _apply_below(self, start: bytes, removed: Words, inserted: Words) -> None:
        """Apply one entity's edits, of which some fall into closed chunks."""
        tail = self._store.get(tail_key(start))
        assert tail is not None, "a fence without a tail"
        fence, rows = fence_of(tail), decode_tail(tail, self._width)
        while _count_below(removed, fence) or _count_below(inserted, fence):
            lowest = min(_first(removed), _first(inserted))
            found = self._store.scan(chunks_start(start, lowest), tail_key(start), limit=1)
            assert found, "a fence without the chunk below it"
            name, entry = found[0]
            upper = unbound(name)
            r, k = _count_below(removed, upper), _count_below(inserted, upper)
            merged = self._merged(decode_chunk(entry, self._width).T, removed[:r], inserted[:k], start)
            self._put_chunk(start, name, merged)
            removed, inserted = removed[r:], inserted[k:]
        self._put_tail(start, self._merged(rows, removed, inserted, start), fence)

    def _merged(self, rows: Words, removed: Words, inserted: Words, start: bytes) -> Words:
        status, merged = merge_rows(rows, removed, inserted)
        if status != MERGED:
            raise self._misfit(start[3:])
        return merged

    def _misfit(self, key: bytes) -> StateMisfit:
        return StateMisfit(
            f"the online state of {self._timeline} {key.decode(errors='replace')!r} does not fit the log: "
            "a row to remove is missing, or a row to insert is there already"
        )

    def _put_tail(self, start: bytes, rows: Words, fence: Row) -> None:
        """Store a tail, closing its older half while it is too long."""
        rows_max = (TAIL_BYTES_MAX // 8 - HEADER_WORDS) // self._width
        if len(rows) > rows_max:
            split = len(rows) - max(1, rows_max // 2)
            closing, rows = rows[:split], rows[split:]
            previous, fence = fence, (int(rows[0, 0]), int(rows[0, 1]))
            name = chunk_key(start, previous)
            entry = self._store.get(name)
            if entry is not None and len(entry) // (8 * self._width) + len(closing) <= CHUNK_ROWS_CLOSED:
                closing = np.concatenate([decode_chunk(entry, self._width).T, closing])
                self._store.delete(name)
                self._changed(start, name, None)
            self._put_chunk(start, chunk_key(start, fence), closing)
        self._store.put_many([(tail_key(start), encode_tail(rows, fence))])

    def _put_chunk(self, start: bytes, name: bytes, rows: Words) -> None:
        """Store a chunk, split in parts where it has grown too long; the last part keeps the name.

        A chunk that became empty stays: it is the upper bound that rows between its neighbours belong under.
        """
        parts = 1 if len(rows) <= CHUNK_ROWS_MAX else -(-len(rows) // CHUNK_ROWS_CLOSED)
        cuts = [len(rows) * part // parts for part in range(parts + 1)]
        items: list[tuple[bytes, Entry]] = []
        for first, stop in pairwise(cuts):
            own = name if stop == len(rows) else chunk_key(start, (int(rows[stop, 0]), int(rows[stop, 1])))
            items.append((own, encode_chunk(rows[first:stop])))
            self._changed(start, *items[-1])
        self._store.put_many(items)


def _since(rows: Words, offsets: Words, time_us: int) -> tuple[Words, Words]:
    """Return the rows from `time_us` on, and the offsets of the entities among them."""
    there = rows[:, 0] >= time_us
    if there.all():
        return rows, offsets
    before = np.concatenate([[0], np.cumsum(there)])
    return rows[there], before[offsets]


def _first(rows: Words) -> Row:
    return (int(rows[0, 0]), int(rows[0, 1])) if len(rows) else _ABOVE_ALL


def _count_below(rows: Words, upper: Row) -> int:
    """Return how many of the sorted `rows` are below `upper`."""
    time, root = upper
    return int(np.count_nonzero((rows[:, 0] < time) | ((rows[:, 0] == time) & (rows[:, 1] < root))))


def _offsets(sizes: Sequence[int]) -> Words:
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets


def edits_of(plan: Plan, name: str, changes: WinnerChanges) -> Edits | None:
    """Return what the changed winners do to the rows of one timeline; None where they do nothing."""
    removed = list(_projected(plan, name, changes.removed))
    inserted = list(_projected(plan, name, changes.inserted))
    if not removed and not inserted:
        return None
    width = ROW_FIXED + plan.timelines[name].slots
    keys = pa.chunked_array([rows.key for rows in [*removed, *inserted]], pa.string()).combine_chunks()
    names, codes = _numbered(keys)
    split = sum(len(rows.root) for rows in removed)
    gone, gone_offsets = _sorted(_matrix(removed, width), codes[:split], len(names))
    new, new_offsets = _sorted(_matrix(inserted, width), codes[split:], len(names))
    return Edits(names, np.ascontiguousarray(gone[:, :2]), gone_offsets, new, new_offsets)


def _numbered(keys: pa.StringArray) -> tuple[list[bytes], Words]:
    """Return the distinct keys in the order in which a store has them, and the number of each row's key."""
    encoded = keys.dictionary_encode()
    names = encoded.dictionary.cast(pa.binary())
    order = in_order(names)
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return names.take(pa.array(order)).to_pylist(), rank[encoded.indices.to_numpy(zero_copy_only=False)]


def in_order(names: pa.BinaryArray) -> Words:
    """Return the places of entities' names in the order in which a store has them: shorter ones first."""
    by_name = pa.table([pc.binary_length(names), names], names=["length", "name"])
    order: Words = pc.sort_indices(by_name, sort_keys=[("length", "ascending"), ("name", "ascending")]).to_numpy()
    return order.astype(np.int64)


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
