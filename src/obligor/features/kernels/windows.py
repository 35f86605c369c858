"""Windows: where they begin in a piece of a timeline, and what is added up on the way there.

Rows are added newest first, piece by piece; where one lies beyond a window's edge that window's results are taken, so
nested windows cost one pass. A ladder is a set of windows that share the search for their edges: nested lengths of
time, or a single window by rows, by calendar or since an anchor.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.cells import (
    G_BIT,
    G_CELL,
    G_RESULTS,
    G_SLOT,
    RESULTS,
    ROWS,
    add_lanes,
    add_rows,
    finish_cell,
    finish_none,
    finish_numbers,
    first_at,
    keep_numbers,
    lanes_from,
    near,
    no_lanes,
    no_numbers,
    numbers_of,
    reset_cell,
    update_cell,
    with_lanes,
)  # fmt: skip
from obligor.features.kernels.columns import (
    BY_ROWS,
    CALENDAR,
    L_BIT,
    L_GROUPS,
    L_GROUPS_END,
    L_KIND,
    L_NUMBERS,
    L_PASSES,
    L_PASSES_END,
    L_RUNGS,
    L_RUNGS_END,
    L_TILED,
    L_VALUE,
    P_OUTPUTS,
    P_OUTPUTS_END,
    P_RESULTS,
    S_LADDERS,
    S_LADDERS_END,
    S_TILE_WORDS,
    SINCE,
    TIME,
)  # fmt: skip
from obligor.features.kernels.compiling import inlined, kernel
from obligor.features.kernels.integers import NULL
from obligor.features.kernels.lanes import LANES, at_least, common, count, differ, every, load, load_all
from obligor.features.kernels.passes import finish_pass, reset_pass, update_pass, update_tiled_pass
from obligor.features.kernels.tiles import LEAF, walk_cells

__all__ = ["accumulate", "accumulate_tiled", "finish_windows", "reset_windows"]

_UNKNOWN = 2**62  # the edge of a window since an anchor that was not met yet


@inlined
def reset_windows(spec: Any, ladders: Any, groups: Any, passes: Any, last: Any, room: Any, whole: Any) -> None:
    """Make the ladders of a source empty; `whole`: but those that are done within one call of `accumulate`."""
    for at in range(spec[S_LADDERS], spec[S_LADDERS_END]):
        if whole and ladders[at, L_NUMBERS] != 0:
            continue
        room.reached[at] = 0
        room.progress[at] = _UNKNOWN if ladders[at, L_KIND] == SINCE else ladders[at, L_VALUE]
        for g in range(ladders[at, L_GROUPS], ladders[at, L_GROUPS_END]):
            reset_cell(room.state, 0, groups[g])
        for p in range(ladders[at, L_PASSES], ladders[at, L_PASSES_END]):
            reset_pass(passes, p, last, room)


@kernel
def _finish_passes(layout: Any, ladder: Any, rung: Any, as_of: Any, last: Any, room: Any) -> Any:
    crossed, passes = False, layout.passes
    for p in range(ladder[L_PASSES], ladder[L_PASSES_END]):
        at = passes[p, P_RESULTS] + rung * (passes[p, P_OUTPUTS_END] - passes[p, P_OUTPUTS])
        crossed |= finish_pass(
            passes, p, layout.outputs, layout.parameters, layout.weights, as_of, last, room, at
        )  # fmt: skip
    return crossed


@kernel
def _no_window(ladder: Any, groups: Any, passes: Any, results: Any) -> None:
    """Null in all results of a window that has no beginning."""
    for g in range(ladder[L_GROUPS], ladder[L_GROUPS_END]):
        results[groups[g, G_RESULTS] : groups[g, G_RESULTS] + RESULTS] = np.nan
    for p in range(ladder[L_PASSES], ladder[L_PASSES_END]):
        width = passes[p, P_OUTPUTS_END] - passes[p, P_OUTPUTS]
        results[passes[p, P_RESULTS] : passes[p, P_RESULTS] + width] = np.nan


@inlined
def _finish_window(layout: Any, ladder: Any, groups: Any, at: Any, rung: Any, as_of: Any, last: Any, room: Any) -> Any:
    """Take the results of all groups and passes for the window at `rung`; return whether any crosses a limit."""
    if ladder[L_KIND] == SINCE and room.progress[at] == _UNKNOWN:
        _no_window(ladder, groups, layout.passes, room.results)
        return False
    crossed = False
    for g in range(ladder[L_GROUPS], ladder[L_GROUPS_END]):
        crossed |= finish_cell(room.state, groups[g], as_of, room.results, groups[g, G_RESULTS] + rung * RESULTS)
    if ladder[L_PASSES] < ladder[L_PASSES_END]:
        crossed |= _finish_passes(layout, ladder, rung, as_of, last, room)
    return crossed


@kernel
def _take_window(layout: Any, ladder: Any, groups: Any, at: Any, rung: Any, as_of: Any, last: Any, room: Any) -> Any:
    """`_finish_window`, compiled once for those who call it rarely."""
    return _finish_window(layout, ladder, groups, at, rung, as_of, last, room)


@inlined
def finish_windows(layout: Any, spec: Any, as_of: Any, last: Any, room: Any, whole: Any) -> Any:
    """Take the results of all windows that were not passed; return whether any crosses a limit."""
    crossed = False
    for at in range(spec[S_LADDERS], spec[S_LADDERS_END]):
        ladder = layout.ladders[at]
        if whole and ladder[L_NUMBERS] != 0:
            continue
        for rung in range(room.reached[at], ladder[L_RUNGS_END] - ladder[L_RUNGS]):
            crossed |= _finish_window(layout, ladder, layout.groups, at, rung, as_of, last, room)
    return crossed


@kernel
def _start_of_rows(ladder: Any, at: Any, progress: Any, masks: Any, base: Any, low: Any, high: Any) -> Any:
    """Where a window of rows begins in a piece; what is still missing goes on in the next."""
    j, missing = high, progress[at]
    while j > low and missing > 0:
        j -= 1
        if masks[np.uint64(j - base)] & ladder[L_BIT] != 0:
            missing -= 1
    progress[at] = missing
    return j


@kernel
def _start_of_since(ladder: Any, at: Any, progress: Any, times: Any, masks: Any, base: Any, low: Any, high: Any) -> Any:
    """Where a window since an anchor begins in a piece: rows at the very moment of the anchor belong to it."""
    j = high
    while j > low and progress[at] == _UNKNOWN:
        j -= 1
        if masks[np.uint64(j - base)] & ladder[L_BIT] != 0:
            progress[at] = times[j]
    if progress[at] != _UNKNOWN:
        j = first_at(times, progress[at], low, high)
    return j


@inlined
def _edge(ladder: Any, rungs: Any, rung: Any, as_of: Any, periods: Any) -> Any:
    """The first moment of a window of time."""
    if ladder[L_KIND] == CALENDAR:
        return periods[ladder[L_VALUE], 0]
    return as_of - ladder[L_VALUE] - rungs[ladder[L_RUNGS] + rung]


@inlined
def _end(ladder: Any, as_of: Any, periods: Any, times: Any, low: Any, high: Any) -> Any:
    """Where the windows of a ladder end in a piece."""
    if ladder[L_KIND] == CALENDAR:
        return first_at(times, periods[ladder[L_VALUE], 1], low, high)
    if ladder[L_KIND] == TIME and ladder[L_VALUE] != 0:
        return first_at(times, as_of - ladder[L_VALUE], low, high)
    return high


@inlined
def _pass_windows(
    ladder: Any, rungs: Any, group: Any, reached: Any, as_of: Any, times: Any, masks: Any, base: Any, values: Any,
    low: Any, high: Any, room: Any, whole: Any,
) -> Any:  # fmt: skip
    """Add the rows [low, high) to a group of numbers and take the results of nested windows on the way.

    `reached` is the window that rows are added to. Returns the one that it is then, and whether a result crosses a
    limit. The numbers stay in registers, lane by lane until a window's result is taken. `whole`: no rows came before,
    none will come, and the results of all windows are taken.
    """
    state, at, bit, numbers = room.state, group[G_CELL], group[G_BIT], values[group[G_SLOT]]
    first, last = ladder[L_RUNGS], ladder[L_RUNGS_END] - 1
    before = no_numbers() if whole else numbers_of(state, at)
    crossed, until, row = False, as_of - ladder[L_VALUE], group[G_RESULTS]
    lanes, rows, n, edge, j = no_lanes(), 0, 0, until - rungs[np.uint64(first + reached)], high
    while j > low:
        j -= LANES
        here = lanes_from(low - j)
        seen = differ(common(load_all(masks, j - base), every(bit)), every(0)) & here
        t, v = load(times, j, here), load(numbers, j, here)
        full = differ(v, every(NULL))
        oldest = times[np.uint64(max(j, low))]
        while oldest < edge:  # the rows of these eight that still belong to the window
            within = seen & at_least(t, every(edge))
            rows, n, lanes = rows + count(within), n + count(within & full), add_lanes(lanes, within & full, v)
            seen ^= within
            if first + reached == last:
                seen, j = 0, low
                break
            if before[0] + rows == 0:
                finish_none(room.results, row + reached * RESULTS)
            else:
                crossed |= finish_numbers(with_lanes(before, rows, n, lanes), room.results, row + reached * RESULTS)
            reached += 1
            edge = until - rungs[np.uint64(first + reached)]
        rows, n, lanes = rows + count(seen), n + count(seen & full), add_lanes(lanes, seen & full, v)
    held = with_lanes(before, rows, n, lanes)
    if whole:
        for rung in range(reached, last - first + 1):
            crossed |= finish_numbers(held, room.results, row + rung * RESULTS)
    else:
        keep_numbers(state, at, held)
    return reached, crossed


@inlined
def accumulate(
    layout: Any, spec: Any, ladders: Any, groups: Any, as_of: Any, periods: Any, times: Any, masks: Any, base: Any,
    values: Any, low: Any, high: Any, last: Any, room: Any, whole: Any,
) -> Any:  # fmt: skip
    """Add the rows [low, high), all older than those added before; masks[j - base] of invisible rows are 0.

    The masks begin `LANES` words before row `low`. Returns whether a result crosses a limit. `whole`: these are all
    rows that there are; then ladders of numbers need no reset before and are finished after.
    """
    crossed = False
    for at in range(spec[S_LADDERS], spec[S_LADDERS_END]):
        ladder = ladders[at]
        end = _end(ladder, as_of, periods, times, low, high)
        if ladder[L_NUMBERS] != 0:
            first = 0 if whole else room.reached[at]
            reached = first
            for g in range(ladder[L_GROUPS], ladder[L_GROUPS_END]):
                reached, over = _pass_windows(
                    ladder, layout.rungs, groups[g], first, as_of, times, masks, base, values, low, end, room, whole
                )
                crossed |= over
            room.reached[at] = reached
            continue
        for rung in range(ladder[L_RUNGS_END] - ladder[L_RUNGS]):
            if ladder[L_KIND] == BY_ROWS:
                start = _start_of_rows(ladder, at, room.progress, masks, base, low, end)
            elif ladder[L_KIND] == SINCE:
                start = _start_of_since(ladder, at, room.progress, times, masks, base, low, end)
            else:
                edge = _edge(ladder, layout.rungs, rung, as_of, periods)
                if end == low or times[np.uint64(end - 1)] < edge:
                    continue
                while room.reached[at] < rung:
                    crossed |= _finish_window(layout, ladder, groups, at, room.reached[at], as_of, last, room)
                    room.reached[at] += 1
                start = first_at(times, edge, low, end)
            for g in range(ladder[L_GROUPS], ladder[L_GROUPS_END]):
                update_cell(room.state, 0, groups[g], times, values, masks, base, start, end)
            if ladder[L_PASSES] < ladder[L_PASSES_END]:
                for p in range(ladder[L_PASSES], ladder[L_PASSES_END]):
                    update_pass(
                        layout.passes, p, layout.weights, as_of, last, room, times, values, masks, base, start, end
                    )
            end = start
    return crossed


@kernel
def _rows_by_tiles(
    ladder: Any, at: Any, progress: Any, group: Any, tiles: Any, words: Any, masks: Any, low: Any, high: Any
) -> Any:
    """Where a window of rows begins, passing by runs of 64 rows whose clean tile holds fewer than are missing."""
    tiled = ladder[L_TILED] != 0
    while high > low and progress[at] > 0:
        tile = high // LEAF - 1
        if tiled and high % LEAF == 0 and high - LEAF >= low and tiles.clean[tile] != 0:
            held = tiles.cells[tile * words + group[G_CELL] + ROWS]
            if held < progress[at]:
                progress[at] -= held
                high -= LEAF
                continue
        high = _start_of_rows(ladder, at, progress, masks, 0, max(low, (high - 1) // LEAF * LEAF), high)
    return high


@inlined
def accumulate_tiled(
    layout: Any, spec: Any, as_of: Any, periods: Any, times: Any, masks: Any, values: Any, tiles: Any, low: Any,
    high: Any, last: Any, room: Any,
) -> Any:  # fmt: skip
    """The same for an entity with tiles."""
    crossed, ladders, groups, passes, rows = False, layout.ladders, layout.groups, layout.passes, times.shape[0]
    for at in range(spec[S_LADDERS], spec[S_LADDERS_END]):
        ladder = ladders[at]
        end, rungs = high, layout.rungs.shape[0]
        if ladder[L_KIND] == CALENDAR or (ladder[L_KIND] == TIME and ladder[L_VALUE] != 0):
            until = periods[ladder[L_VALUE], 1] if ladder[L_KIND] == CALENDAR else as_of - ladder[L_VALUE]
            end = near(times, until, low, high, room.guesses[rungs + at])
            room.guesses[rungs + at] = end
        for rung in range(ladder[L_RUNGS_END] - ladder[L_RUNGS]):
            if ladder[L_KIND] == BY_ROWS:
                group, words = groups[ladder[L_GROUPS]], spec[S_TILE_WORDS]
                start = _rows_by_tiles(ladder, at, room.progress, group, tiles, words, masks, low, end)
            elif ladder[L_KIND] == SINCE:
                start = _start_of_since(ladder, at, room.progress, times, masks, 0, low, end)
            else:
                edge = _edge(ladder, layout.rungs, rung, as_of, periods)
                if end == low or times[np.uint64(end - 1)] < edge:
                    continue
                while room.reached[at] < rung:
                    crossed |= _take_window(layout, ladder, groups, at, room.reached[at], as_of, last, room)
                    room.reached[at] += 1
                start = near(times, edge, low, end, room.guesses[ladder[L_RUNGS] + rung])
                room.guesses[ladder[L_RUNGS] + rung] = start
            if ladder[L_TILED] != 0:
                walk_cells(
                    spec, ladders, groups, passes, at, ladder[L_RUNGS] + rung, tiles, room.state, times, values, masks,
                    rows, start, end,
                )  # fmt: skip
            else:
                for g in range(ladder[L_GROUPS], ladder[L_GROUPS_END]):
                    add_rows(room.state, 0, groups[g], times, values, masks, 0, start, end)
            for p in range(ladder[L_PASSES], ladder[L_PASSES_END]):
                update_tiled_pass(
                    spec, ladders, groups, passes, p, layout.weights, as_of, last, room, tiles, times, values, masks,
                    start, end,
                )  # fmt: skip
            end = start
    return crossed
