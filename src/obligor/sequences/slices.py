"""Slices: which rows of its entity a question sees, in order, as ranges of the timeline.

A row is in the view of a question (as_of, cut, self_root) exactly where the kernels of the window features see it. Rows
lie in the order of a sequence already, so a slice is mostly one range, from the entity's first row to the last before
as_of. It has holes where a row was not known yet, was replaced, or is the application itself; only such rows are looked
at one by one: those that have other versions, those that somebody asks about, and what follows the first row that came
late. With one shard that is found by bisection; a cut through several shards looks at every row.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from obligor.features.kernels.compiling import entry, kernel
from obligor.features.kernels.integers import NULL
from obligor.features.layout import Rows, read_only

__all__ = ["Slices", "find_slices"]

Ints: TypeAlias = NDArray[np.int64]
_SEQUENCE = 2**48 - 1
_ONE_CUT, _EVERY_ROW = 1, 2  # how a cut is looked at: by bisection, or row by row; 0: it shows all there is


class Slices(NamedTuple):
    """The rows of q questions: those of piece after piece, each a range of the timeline's rows."""

    first: Ints  # (q + 1,) where each question's pieces begin
    start: Ints  # (pieces,)
    end: Ints  # (pieces,)
    previous: Ints  # (pieces,) when the row before happened, which the question sees; NULL for its first
    length: Ints  # (q,) rows of each
    last: Ints  # (q,) when the newest row happened; NULL where there is none


def find_slices(
    rows: Rows, entity: Ints, as_of: Ints, self_root: Ints, cuts: Ints, last: Ints, limit: int | None = None
) -> Slices:
    """Return the slices of questions: `entity` (q,) is a place in the timeline, negative where there is none.

    `self_root` (q,) is the application's own root or -1, `cuts` (q or 1, shards) the greatest visible sequences, `last`
    (shards,) the greatest that the rows have. With `limit` a slice has the newest so many rows.
    """
    asked_roots = self_root[self_root >= 0]
    special = rows.mask < 0
    if len(asked_roots):
        special = special | np.isin(rows.root, asked_roots)
    known, position = _running(rows)
    how = _looked_at(cuts, last)
    q = len(as_of)
    arguments = (
        rows.offsets, rows.event_time, rows.known, rows.position, rows.root, rows.version, rows.above_start,
        rows.above_end, rows.above_position, rows.above_known, read_only(np.flatnonzero(special)), read_only(known),
        read_only(position), read_only(entity), read_only(as_of), read_only(self_root), read_only(cuts), how,
        limit or 0,
    )  # fmt: skip
    counts, length, last_time = np.zeros(q + 1, np.int64), np.zeros(q, np.int64), np.full(q, NULL)
    nothing = np.empty(0, np.int64)
    _walk_all(*arguments, counts, length, last_time, nothing, nothing, nothing)
    first = np.cumsum(counts)
    start, end, previous = (np.empty(first[-1], np.int64) for _ in range(3))
    _walk_all(*arguments, first, length, last_time, start, end, previous)
    return Slices(first, start, end, previous, length, last_time)


def _running(rows: Rows) -> tuple[Ints, Ints]:
    """Return by row the greatest known_time and sequence of its entity's rows so far."""
    known, position = np.empty(len(rows.known), np.int64), np.empty(len(rows.known), np.int64)
    _accumulate(rows.offsets, rows.known, rows.position, known, position)
    return known, position


def _looked_at(cuts: Ints, last: Ints) -> int:
    if cuts.shape[1] >= len(last) and bool(np.all(cuts.min(axis=0, initial=_SEQUENCE)[: len(last)] >= last)):
        return 0
    return _ONE_CUT if len(last) == 1 else _EVERY_ROW


@entry
def _accumulate(offsets: Any, known: Any, position: Any, to_known: Any, to_position: Any) -> None:
    for e in range(offsets.shape[0] - 1):
        latest, greatest = NULL, 0
        for j in range(offsets[e], offsets[e + 1]):
            latest, greatest = max(latest, known[j]), max(greatest, position[j] & _SEQUENCE)
            to_known[j], to_position[j] = latest, greatest


@kernel
def _first_above(values: Any, low: int, high: int, bound: int) -> int:
    """The first of the ascending values in [low, high) that is greater than a bound, `high` if none is."""
    while low < high:
        middle = (low + high) >> 1
        if values[middle] > bound:
            high = middle
        else:
            low = middle + 1
    return low


@kernel
def _shown(position: int, cut: Any, how: int) -> bool:
    shard = position >> 48
    return how == 0 or (shard < cut.shape[0] and position & _SEQUENCE <= cut[shard])


@kernel
def _replaced(position: Any, known: Any, start: int, end: int, as_of: int, cut: Any, how: int) -> bool:
    """Whether one of the versions that rank above a row is in the view."""
    found = False
    for v in range(start, end):
        found |= known[v] <= as_of and _shown(position[v], cut, how)
    return found


@entry
def _walk_all(
    offsets: Any, time: Any, known: Any, position: Any, root: Any, version: Any, above_start: Any, above_end: Any,
    above_position: Any, above_known: Any, special: Any, latest: Any, greatest: Any, entity: Any, as_of: Any,
    self_root: Any, cuts: Any, how: int, limit: int, first: Any, length: Any, last: Any, start: Any, end: Any,
    previous: Any,
) -> None:  # fmt: skip
    """Count the pieces of each question to `first[i + 1]`, or where there is room write them from `first[i]` on."""
    writing = start.shape[0] > 0
    for i in range(as_of.shape[0]):
        e = entity[i]
        if e < 0:
            continue
        cut = cuts[i if cuts.shape[0] > 1 else 0]
        low = offsets[e]
        high = _first_above(time, low, offsets[e + 1], as_of[i] - 1)
        sure = _first_above(latest, low, high, as_of[i])
        if how == _EVERY_ROW:
            sure = low
        elif how == _ONE_CUT:
            sure = _first_above(greatest, low, sure, cut[0])
        at = _first_above(special, 0, special.shape[0], low - 1)
        # Once for the whole, and again without its oldest rows where there are more than the limit.
        skip, pieces, rows, rounds = 0, 0, 0, 2 if limit > 0 else 1
        if writing and limit > 0:
            skip, rounds = length[i], 1  # what the counting round has left there
        for turn in range(rounds):
            pieces, rows, left = 0, 0, skip
            begin, before, k, j = low, NULL, at, low
            while j <= high:
                if j < sure:  # go on to the next row that has to be looked at
                    while k < special.shape[0] and special[k] < j:
                        k += 1
                    j = special[k] if k < special.shape[0] and special[k] < sure else sure
                seen = False
                if j < high:
                    seen = known[j] <= as_of[i] and root[j] != self_root[i] and _shown(position[j], cut, how)
                    if seen and version[j] >= 0:
                        v, end_v = above_start[version[j]], above_end[version[j]]
                        seen = not _replaced(above_position, above_known, v, end_v, as_of[i], cut, how)
                if not seen:
                    if begin < j:
                        rows += j - begin
                        dropped = min(left, j - begin)
                        left -= dropped
                        if dropped > 0:
                            begin += dropped
                            before = time[begin - 1]
                        if begin < j:
                            if writing:
                                p = first[i] + pieces
                                start[p], end[p], previous[p] = begin, j, before
                            pieces += 1
                            before = time[j - 1]
                    begin = j + 1
                j += 1
            if turn == 0 and rounds == 2:
                skip = max(0, rows - limit)
                if skip == 0:
                    break
        last[i] = before
        if not writing:
            first[i + 1] = pieces
            length[i] = skip if limit > 0 else rows
        elif limit > 0:
            length[i] = rows - skip
