"""Tiles: what many rows add up to, kept for runs of 64, 256, 1,024, ... rows of one entity.

A window over a million rows is then some tens of tiles and the rows at its two ends. A tile is recomputed when it is
needed after one of its rows came or went (from its rows, or from the four tiles below it): nothing is reverted, so
late, corrected and retracted facts are no special case. Dense counts and sketches are kept from 1,024 rows on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from obligor.features.kernels.cells import (
    G_BIT,
    G_CELL,
    G_NEEDS,
    G_SLOT,
    LEAST,
    MOST,
    NEED_ENDS,
    NEED_NUMBERS,
    NEWEST,
    OLDEST,
    ROWS,
    SUM_HIGH,
    SUM_LOW,
    N,
    add_rows,
    merge_cell,
    reset_cell,
    update_numbers,
)  # fmt: skip
from obligor.features.kernels.columns import (
    BUCKETED,
    COUNTED,
    DECAYED,
    L_GROUPS,
    L_GROUPS_END,
    L_PASSES,
    L_PASSES_END,
    L_TILED,
    P_BIT,
    P_CODES,
    P_KIND,
    P_SIZE,
    P_SLOT,
    P_TILE,
    REGISTERED,
    S_DENSE_WORDS,
    S_LADDERS,
    S_LADDERS_END,
    S_TILE_WORDS,
)  # fmt: skip
from obligor.features.kernels.compiling import entry, inlined, kernel
from obligor.features.kernels.dense import dense_code, merge_dense, update_coded
from obligor.features.kernels.integers import INT64_MAX, NULL, bits

__all__ = [
    "FAN",
    "LEAF",
    "LEVELS_MAX",
    "Tiles",
    "dense_over",
    "encode_rows",
    "tidy_tiles",
    "tiles_for",
    "touch",
    "walk_cells",
]

_LEAF_BITS, _FAN_BITS = 6, 2
LEAF, FAN = 1 << _LEAF_BITS, 1 << _FAN_BITS
DENSE_LEVEL = 2  # the first one with dense places
DENSE_ROWS = LEAF * FAN**DENSE_LEVEL
LEVELS_MAX = 12
KEPT_ROWS = 4 * LEAF  # in whole tiles, from which on what they add up to is kept


class Tiles(NamedTuple):
    """The tiles of one entity's rows, level after level; level 0 covers 64 rows a tile."""

    starts: NDArray[np.int64]  # (levels + 1,) where the tiles of a level begin
    cells: NDArray[np.int64]  # (tiles * words,) the groups' cells of every tile
    dense: NDArray[np.int32]  # (tiles from DENSE_LEVEL on, words)
    codes: NDArray[np.int32]  # (dense passes, rows) what the rows count as
    clean: NDArray[np.uint8]  # (tiles,) 0: to be recomputed
    steps: NDArray[np.int64]  # (passes that decay, 3): first step of time, where its partials begin and end
    partials: NDArray[np.int64]  # (steps, 3): how many values, sums of their upper and lower halves
    trail: NDArray[np.int64]  # (2, LEVELS_MAX) room for a refresh
    inner: NDArray[np.int64]  # (windows, 2) the rows [first, end) that a window had last in whole tiles
    middles: NDArray[np.int64]  # (windows, words) the groups' cells of these rows


def tiles_for(
    rows: int, words: int, dense_words: int, dense: int = 0, spans: Sequence[tuple[int, int]] = (), windows: int = 0
) -> Tiles:
    """Return tiles for so many rows, none of them computed; `words` and `dense_words` of one tile.

    `dense` is the number of passes whose rows have codes, which the caller writes (`encode_rows`); `spans` are the
    first and last step of each pass that decays, whose partials are empty. Of so many `windows` what their whole tiles
    add up to is kept from one question to the next.
    """
    sizes: list[int] = []
    size = LEAF
    while not sizes or sizes[-1] > 1:
        sizes.append(-(-max(rows, 1) // size))
        size *= FAN
    sizes += [1] * max(0, DENSE_LEVEL + 1 - len(sizes))
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    tiles = int(starts[-1])
    ends = np.cumsum([last - first + 1 for first, last in spans]).astype(np.int64)
    steps = np.array([[first, end - (last - first + 1), end] for (first, last), end in zip(spans, ends, strict=True)])
    return Tiles(
        starts,
        np.empty(tiles * words, np.int64),
        np.empty((tiles - sum(sizes[:DENSE_LEVEL]) if dense_words else 0, dense_words), np.int32),
        np.empty((dense, rows), np.int32),
        np.zeros(tiles, np.uint8),
        steps.astype(np.int64).reshape(len(spans), 3),
        np.zeros((int(ends[-1]) if len(spans) else 0, 3), np.int64),
        np.empty((2, LEVELS_MAX), np.int64),
        np.zeros((windows, 2), np.int64),
        np.empty((windows, words), np.int64),
    )


@inlined
def touch(tiles: Any, row: Any) -> None:
    """Note that a row of these tiles came or went: above a tile that is not clean none is."""
    starts, clean, inner = tiles.starts, tiles.clean, tiles.inner
    for window in range(inner.shape[0]):
        if inner[window, 0] <= row < inner[window, 1]:
            inner[window, 1] = 0
    tile, level = row >> _LEAF_BITS, 0
    while level < starts.shape[0] - 1 and clean[starts[level] + tile] != 0:
        clean[starts[level] + tile] = 0
        tile >>= _FAN_BITS
        level += 1


@entry
def encode_rows(layout: Any, source: Any, tiles: Any, values: Any, start: Any, end: Any) -> None:
    """Write what the rows [start, end) count as in each dense pass of a source."""
    spec, passes = layout.sources[source], layout.passes
    for at in range(spec[S_LADDERS], spec[S_LADDERS_END]):
        for p in range(layout.ladders[at, L_PASSES], layout.ladders[at, L_PASSES_END]):
            if passes[p, P_CODES] >= 0:
                own, slot, kind = tiles.codes[passes[p, P_CODES]], passes[p, P_SLOT], passes[p, P_KIND] - COUNTED
                for j in range(start, end):
                    own[j] = dense_code(kind, values[slot, j])


@kernel
def _build_cells(
    spec: Any, ladders: Any, groups: Any, starts: Any, cells: Any, level: Any, index: Any, times: Any, values: Any,
    masks: Any, rows: Any,
) -> None:  # fmt: skip
    """Compute the cells of one tile from its rows, or from the tiles below it, which are clean."""
    words = spec[S_TILE_WORDS]
    origin = (starts[level] + index) * words
    for at in range(spec[S_LADDERS], spec[S_LADDERS_END]):
        if ladders[at, L_TILED] == 0:
            continue
        for g in range(ladders[at, L_GROUPS], ladders[at, L_GROUPS_END]):
            reset_cell(cells, origin, groups[g])
            if level == 0:
                low, high = index * LEAF, min(rows, (index + 1) * LEAF)
                add_rows(cells, origin, groups[g], times, values, masks, 0, low, high)
            else:
                first, last = index * FAN, min(starts[level] - starts[level - 1], (index + 1) * FAN)
                for child in range(last - 1, first - 1, -1):
                    merge_cell(cells, origin, groups[g], cells, (starts[level - 1] + child) * words)


@kernel
def _build_dense(
    spec: Any, ladders: Any, passes: Any, tiles: Any, level: Any, index: Any, masks: Any, rows: Any
) -> None:
    """Compute the dense places of one tile of DENSE_LEVEL or higher."""
    starts, dense = tiles.starts, tiles.dense
    below = starts[DENSE_LEVEL]
    places = dense[starts[level] + index - below]
    for at in range(spec[S_LADDERS], spec[S_LADDERS_END]):
        for p in range(ladders[at, L_PASSES], ladders[at, L_PASSES_END]):
            if passes[p, P_TILE] < 0 or passes[p, P_KIND] == DECAYED:
                continue
            kind = passes[p, P_KIND] - COUNTED
            start, end = passes[p, P_TILE], passes[p, P_TILE] + passes[p, P_SIZE]
            own = places[start:end]
            own[:] = 0
            if level == DENSE_LEVEL:
                low, high = index * DENSE_ROWS, min(rows, (index + 1) * DENSE_ROWS)
                update_coded(kind, own, passes[p, P_BIT], tiles.codes[passes[p, P_CODES]], masks, low, high)
            else:
                first, last = index * FAN, min(starts[level] - starts[level - 1], (index + 1) * FAN)
                for child in range(last - 1, first - 1, -1):
                    merge_dense(kind, own, dense[starts[level - 1] + child - below, start:end])


@kernel
def _refresh(
    spec: Any, ladders: Any, groups: Any, passes: Any, tiles: Any, level: Any, index: Any, times: Any, values: Any,
    masks: Any, rows: Any,
) -> None:  # fmt: skip
    """Make a tile clean, the tiles below it first."""
    starts, clean, trail = tiles.starts, tiles.clean, tiles.trail
    now = level
    trail[0, now], trail[1, now] = index, index * FAN
    while True:
        below = now - 1
        last = min(starts[now] - starts[below], (trail[0, now] + 1) * FAN) if now > 0 else 0
        while now > 0 and trail[1, now] < last and clean[starts[below] + trail[1, now]] != 0:
            trail[1, now] += 1
        if now > 0 and trail[1, now] < last:
            trail[0, below] = trail[1, now]
            trail[1, below] = trail[0, below] * FAN
            now = below
            continue
        _build_cells(spec, ladders, groups, starts, tiles.cells, now, trail[0, now], times, values, masks, rows)
        if now >= DENSE_LEVEL and spec[S_DENSE_WORDS] > 0:
            _build_dense(spec, ladders, passes, tiles, now, trail[0, now], masks, rows)
        clean[starts[now] + trail[0, now]] = 1
        if now == level:
            return
        now += 1


@entry
def tidy_tiles(layout: Any, source: Any, tiles: Any, times: Any, values: Any, masks: Any, rows: Any) -> None:
    """Make all tiles clean that lie within the first `rows` rows, so that no question has to."""
    spec, starts, size = layout.sources[source], tiles.starts, LEAF
    for level in range(starts.shape[0] - 1):
        for index in range(rows // size):
            if tiles.clean[starts[level] + index] == 0:
                _refresh(
                    spec, layout.ladders, layout.groups, layout.passes, tiles, level, index, times, values, masks, rows
                )  # fmt: skip
        size *= FAN


@inlined
def _level(starts: Any, low: Any, high: Any, lowest: Any) -> Any:
    """The greatest level of a tile that ends at `high` and lies in [low, high), -1 where there is none."""
    whole = bits(np.uint64(high & -high)) - 1  # that `high` is a multiple of so many twos
    level = (min(whole, bits(np.uint64(high - low)) - 1) - _LEAF_BITS) // _FAN_BITS
    level = min(level, starts.shape[0] - 2)
    return level if level >= lowest else -1


@inlined
def _flush(state: Any, at: Any, held: Any, n: Any, sums: Any, least: Any, most: Any, oldest: Any, newest: Any) -> None:
    """Add what tiles add up to, all older than what the cell holds."""
    state[at + ROWS] += held
    if n != 0:
        state[at + OLDEST] = oldest
        if state[at + N] == 0:
            state[at + NEWEST] = newest
        state[at + N] += n
        state[at + SUM_HIGH] += sums[0]
        state[at + SUM_LOW] += sums[1]
        state[at + LEAST], state[at + MOST] = min(state[at + LEAST], least), max(state[at + MOST], most)


@kernel
def _walk_numbers(
    spec: Any, ladders: Any, groups: Any, passes: Any, g: Any, tiles: Any, state: Any, times: Any, values: Any,
    masks: Any, rows: Any, low: Any, high: Any,
) -> None:  # fmt: skip
    """Add the rows [low, high) to a cell that has numbers only; tiles are added up in registers."""
    group, starts, cells, words = groups[g], tiles.starts, tiles.cells, spec[S_TILE_WORDS]
    at, held, n, sum_high, sum_low, oldest, newest = group[G_CELL], 0, 0, 0, 0, 0, 0
    least, most = INT64_MAX, NULL
    while high > low:
        level = _level(starts, low, high, 0)
        if level < 0:
            _flush(state, at, held, n, (sum_high, sum_low), least, most, oldest, newest)
            held, n, sum_high, sum_low, least, most = 0, 0, 0, 0, INT64_MAX, NULL
            start = max(low, (high - 1) // LEAF * LEAF)
            ends = group[G_NEEDS] & NEED_ENDS != 0
            update_numbers(state, at, group[G_BIT], group[G_SLOT], ends, values, masks, 0, start, high)
            high = start
            continue
        shift = _LEAF_BITS + level * _FAN_BITS
        index = (high >> shift) - 1
        tile = starts[level] + index
        if tiles.clean[tile] == 0:
            _refresh(spec, ladders, groups, passes, tiles, level, index, times, values, masks, rows)
        b = np.uint64(tile * words + at)
        held += cells[b + np.uint64(ROWS)]
        if cells[b + np.uint64(N)] != 0:
            oldest = cells[b + np.uint64(OLDEST)]
            newest = cells[b + np.uint64(NEWEST)] if n == 0 else newest
            n += cells[b + np.uint64(N)]
            sum_high += cells[b + np.uint64(SUM_HIGH)]
            sum_low += cells[b + np.uint64(SUM_LOW)]
            least = min(least, cells[b + np.uint64(LEAST)])
            most = max(most, cells[b + np.uint64(MOST)])
        high -= 1 << shift
    _flush(state, at, held, n, (sum_high, sum_low), least, most, oldest, newest)


@kernel
def _walk_cell(
    spec: Any, ladders: Any, groups: Any, passes: Any, g: Any, tiles: Any, state: Any, times: Any, values: Any,
    masks: Any, rows: Any, low: Any, high: Any,
) -> None:  # fmt: skip
    """Add the rows [low, high) to a cell of any kind."""
    starts = tiles.starts
    while high > low:
        level = _level(starts, low, high, 0)
        if level < 0:
            start = max(low, (high - 1) // LEAF * LEAF)
            add_rows(state, 0, groups[g], times, values, masks, 0, start, high)
            high = start
            continue
        shift = _LEAF_BITS + level * _FAN_BITS
        index = (high >> shift) - 1
        if tiles.clean[starts[level] + index] == 0:
            _refresh(spec, ladders, groups, passes, tiles, level, index, times, values, masks, rows)
        merge_cell(state, 0, groups[g], tiles.cells, (starts[level] + index) * spec[S_TILE_WORDS])
        high -= 1 << shift


@kernel
def _walk(
    spec: Any, ladders: Any, groups: Any, passes: Any, at: Any, tiles: Any, state: Any, times: Any, values: Any,
    masks: Any, rows: Any, low: Any, high: Any,
) -> None:  # fmt: skip
    """Add the rows [low, high) to the cells of a ladder's groups, by tiles where they fit."""
    for g in range(ladders[at, L_GROUPS], ladders[at, L_GROUPS_END]):
        if groups[g, G_NEEDS] & ~NEED_ENDS == NEED_NUMBERS:
            _walk_numbers(
                spec, ladders, groups, passes, g, tiles, state, times, values, masks, rows, low, high
            )  # fmt: skip
        else:
            _walk_cell(spec, ladders, groups, passes, g, tiles, state, times, values, masks, rows, low, high)


@inlined
def walk_cells(
    spec: Any, ladders: Any, groups: Any, passes: Any, at: Any, window: Any, tiles: Any, state: Any, times: Any,
    values: Any, masks: Any, rows: Any, low: Any, high: Any,
) -> None:  # fmt: skip
    """Add the rows [low, high) of a window to the cells of a ladder's groups, by tiles where they fit.

    Of questions that follow one another most have the same whole tiles, so what these add up to is kept.
    """
    first, end, inner = (low + LEAF - 1) & -LEAF, high & -LEAF, tiles.inner
    keeps = window < inner.shape[0] and end - first >= KEPT_ROWS
    known = keeps and inner[window, 0] == first and inner[window, 1] == end
    into, start, stop = state, low, high
    if keeps:
        into, start, stop = tiles.middles[window], first, end
    if keeps and not known:
        for g in range(ladders[at, L_GROUPS], ladders[at, L_GROUPS_END]):
            reset_cell(into, 0, groups[g])
    if not known:  # the one place where rows are walked: what is compiled into it is large
        _walk(spec, ladders, groups, passes, at, tiles, into, times, values, masks, rows, start, stop)
    if keeps:
        inner[window, 0], inner[window, 1] = first, end
        for g in range(ladders[at, L_GROUPS], ladders[at, L_GROUPS_END]):
            add_rows(state, 0, groups[g], times, values, masks, 0, end, high)
            merge_cell(state, 0, groups[g], into, 0)
            add_rows(state, 0, groups[g], times, values, masks, 0, low, first)


@kernel
def dense_over(
    spec: Any, ladders: Any, groups: Any, passes: Any, p: Any, tiles: Any, places: Any, times: Any, values: Any,
    masks: Any, rows: Any, low: Any, high: Any,
) -> None:  # fmt: skip
    """Add the rows [low, high) to the places of one dense pass, by tiles where they fit."""
    starts = tiles.starts
    kind, bit, size = passes[p, P_KIND] - COUNTED, passes[p, P_BIT], passes[p, P_SIZE]
    codes = tiles.codes[passes[p, P_CODES]]
    while high > low:
        level = _level(starts, low, high, DENSE_LEVEL)
        if level < 0:
            start = max(low, (high - 1) // DENSE_ROWS * DENSE_ROWS)
            update_coded(kind, places, bit, codes, masks, start, high)
            high = start
            continue
        shift = _LEAF_BITS + level * _FAN_BITS
        index = (high >> shift) - 1
        if tiles.clean[starts[level] + index] == 0:
            _refresh(spec, ladders, groups, passes, tiles, level, index, times, values, masks, rows)
        tile = tiles.dense[starts[level] + index - starts[DENSE_LEVEL]]
        merge_dense(kind, places, tile[passes[p, P_TILE] : passes[p, P_TILE] + size])
        high -= 1 << shift


assert (BUCKETED, REGISTERED) == (COUNTED + 1, COUNTED + 2), "kinds of dense passes follow one another as in dense.py"
