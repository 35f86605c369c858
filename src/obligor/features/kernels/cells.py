"""Cells: what a group of rows (a selection, looked at in one slot) adds up to. Zero, update, merge, finish.

A cell lies in consecutive words of an int64 array: ten words that every group has, then the sections that its measures
need. Rows are added newest first, and a cell is merged with an older one, so that "first" and "last", gaps and streaks
need no search. All numbers stay integers until `finish`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.compiling import inlined, kernel
from obligor.features.kernels.integers import (
    INT64_MAX,
    INTEGER_MAX,
    NULL,
    SMALL,
    ZERO,
    add_signed,
    add_square,
    difference,
    exact,
    multiply,
    scaled,
    signed_product,
    spread,
    to_float,
    total,
)
from obligor.features.kernels.lanes import (
    LANES,
    added,
    at_least,
    below,
    choose,
    common,
    count,
    differ,
    every,
    greater,
    greatest,
    least,
    lesser,
    load,
    shifted,
)
from obligor.features.kernels.lanes import total as total_of

__all__ = [
    "BASE_WORDS",
    "GAP_WORDS",
    "NEED_ENDS",
    "NEED_GAPS",
    "NEED_NUMBERS",
    "NEED_SLOPE",
    "NEED_SQUARES",
    "NEED_STREAK",
    "NEED_TIMES",
    "RESULTS",
    "ROWS",
    "SLOPE_WORDS",
    "SQUARE_WORDS",
    "STREAK_WORDS",
    "N",
    "add_lanes",
    "add_rows",
    "finish_cell",
    "finish_none",
    "finish_numbers",
    "first_at",
    "keep_numbers",
    "lanes_from",
    "merge_cell", "near",
    "no_lanes",
    "no_numbers",
    "numbers_of",
    "reset_cell",
    "update_cell",
    "update_numbers",
    "update_times",
    "with_lanes",
]  # fmt: skip

# The words of a cell.
ROWS, OLDEST_TIME, NEWEST_TIME, N, SUM_HIGH, SUM_LOW, LEAST, MOST, OLDEST, NEWEST = range(10)
BASE_WORDS, SQUARE_WORDS, GAP_WORDS, SLOPE_WORDS, STREAK_WORDS = 10, 3, 4, 5, 3
# The words of its sections, from where the group says that they begin.
LONGEST_GAP = 3  # after the three of the sum of squared gaps
TIMES, TIMES_SQUARED, PRODUCTS = 0, 1, 3  # of slope: seconds; their squares and their products with values, 2 each
NEWEST_RUN, OLDEST_RUN, LONGEST_RUN = range(3)

_ROWS, _N, _SUM_HIGH, _SUM_LOW = np.uint64(ROWS), np.uint64(N), np.uint64(SUM_HIGH), np.uint64(SUM_LOW)
_LEAST, _MOST = np.uint64(LEAST), np.uint64(MOST)
_EVERY_LANE = 2**LANES - 1
_NEAR_LANES = 64  # rows that `near` looks at eight by eight

# Flags of a group.
NEED_TIMES, NEED_NUMBERS, NEED_SQUARES, NEED_GAPS, NEED_SLOPE, NEED_STREAK, NEED_ENDS = 1, 2, 4, 8, 16, 32, 64

# The columns of a group in `layout.groups`.
G_BIT, G_SLOT, G_NEEDS, G_CELL, G_RESULTS, G_CONDITION, G_SQUARES, G_GAPS, G_SLOPE, G_STREAK, G_END = range(11)
GROUP_COLUMNS = 11

# The results of a cell: the first aggregates in the order of `measures.Aggregate`.
COUNT, SUM, MEAN, STD, SAMPLE_STD, MIN, MAX, FIRST, LAST, _, SINCE_FIRST, SINCE_LAST = range(12)
MEAN_GAP, STD_GAP, GREATEST_GAP, SLOPE, STREAK, LONGEST_STREAK = range(12, 18)
RESULTS = 18

_EXACT_HALF = 2**20  # upper halves of sums within which the sum is below 2**52
_SECOND_US = 1_000_000
_DAY_S = 86_400.0


@inlined
def reset_cell(state: Any, base: Any, group: Any) -> None:
    """Make the cell of a group empty; `base` is where the cells of one source or tile begin."""
    for word in range(base + group[G_CELL], base + group[G_END]):
        state[np.uint64(word)] = 0
    state[base + group[G_CELL] + LEAST], state[base + group[G_CELL] + MOST] = INT64_MAX, NULL


@inlined
def update_times(state: Any, at: Any, bit: Any, times: Any, masks: Any, base: Any, low: Any, high: Any) -> None:
    """Add the rows [low, high) to a cell: how many, when the oldest and the newest."""
    n, oldest, newest = 0, low, low
    for j in range(high - 1, low - 1, -1):
        if masks[np.uint64(j - base)] & bit != 0:
            newest = j if n == 0 else newest
            oldest = j
            n += 1
    if n != 0:
        state[at + OLDEST_TIME] = times[oldest]
        if state[at + ROWS] == 0:
            state[at + NEWEST_TIME] = times[newest]
        state[at + ROWS] += n


@inlined
def no_numbers() -> Any:
    """What no numbers add up to, to be held in registers."""
    return np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(INT64_MAX), np.int64(NULL)


@inlined
def numbers_of(state: Any, at: Any) -> Any:
    """What the numbers of a cell add up to, to be held in registers."""
    at = np.uint64(at)
    return (
        state[at + _ROWS], state[at + _N], state[at + _SUM_HIGH], state[at + _SUM_LOW], state[at + _LEAST],
        state[at + _MOST],
    )  # fmt: skip


@inlined
def keep_numbers(state: Any, at: Any, held: Any) -> None:
    """Write to a cell what its numbers add up to."""
    at = np.uint64(at)
    state[at + _ROWS], state[at + _N], state[at + _SUM_HIGH], state[at + _SUM_LOW] = held[0], held[1], held[2], held[3]
    state[at + _LEAST], state[at + _MOST] = held[4], held[5]


@inlined
def no_lanes() -> Any:
    """What no rows add up to, lane by lane: upper and lower halves of the sum, least and most."""
    return every(0), every(0), every(INT64_MAX), every(NULL)


@inlined
def add_lanes(lanes: Any, there: Any, v: Any) -> Any:
    """What lanes add up to with the numbers of some of eight rows."""
    sum_high, sum_low, least_of, most_of = lanes
    number = choose(there, v, every(0))
    return (
        added(sum_high, shifted(number, every(32))),
        added(sum_low, common(number, every(0xFFFFFFFF))),
        lesser(least_of, choose(there, v, every(INT64_MAX))),
        greater(most_of, choose(there, v, every(NULL))),
    )


@inlined
def with_lanes(held: Any, rows: Any, n: Any, lanes: Any) -> Any:
    """What numbers add up to with rows of which `n` have one; no row decides what happens to the next."""
    return (
        held[0] + rows, held[1] + n, held[2] + total_of(lanes[0]), held[3] + total_of(lanes[1]),
        min(held[4], least(lanes[2])), max(held[5], greatest(lanes[3])),
    )  # fmt: skip


@inlined
def lanes_from(first: Any) -> Any:
    """The lanes from the `first` on, all where it is negative; at most 8."""
    return _EVERY_LANE << max(first, 0)


@inlined
def update_numbers(
    state: Any, at: Any, bit: Any, slot: Any, ends: Any, values: Any, masks: Any, base: Any, low: Any, high: Any
) -> None:
    """Add rows [low, high) to a cell: how many, what their numbers add up to, and which were the `ends` if asked."""
    held, lanes, rows, n, j = numbers_of(state, at), no_lanes(), 0, 0, high
    numbers = values[slot]
    while j > low:
        j -= LANES
        here = lanes_from(low - j)
        seen = differ(common(load(masks, j - base, here), every(bit)), every(0))
        v = load(numbers, j, here)
        there = seen & differ(v, every(NULL))
        rows, n, lanes = rows + count(seen), n + count(there), add_lanes(lanes, there, v)
    if ends and n != 0:
        _update_ends(state, at, bit, slot, values, masks, base, low, high)
    keep_numbers(state, at, with_lanes(held, rows, n, lanes))


@inlined
def _update_ends(
    state: Any, at: Any, bit: Any, slot: Any, values: Any, masks: Any, base: Any, low: Any, high: Any
) -> None:
    """Note the oldest number of some rows, one of which has one, and the newest where the cell has none yet."""
    oldest, newest = low, high - 1
    while masks[np.uint64(oldest - base)] & bit == 0 or values[slot, np.uint64(oldest)] == NULL:
        oldest += 1
    state[at + OLDEST] = values[slot, np.uint64(oldest)]
    if state[at + N] == 0:
        while masks[np.uint64(newest - base)] & bit == 0 or values[slot, np.uint64(newest)] == NULL:
            newest -= 1
        state[at + NEWEST] = values[slot, np.uint64(newest)]


@kernel
def _update_squares(
    state: Any, at: Any, squares: Any, bit: Any, slot: Any, values: Any, masks: Any, base: Any, low: Any, high: Any
) -> None:
    """Add the squares of rows to a cell, whose least and most count these rows already."""
    if state[at + LEAST] > -SMALL and state[at + MOST] < SMALL:  # no product leaves 62 bits: halves need no carry
        sum_high, sum_low = 0, 0
        for j in range(low, high):
            v = values[slot, np.uint64(j)]
            w = v if (masks[np.uint64(j - base)] & bit != 0) & (v != NULL) else 0
            sum_high += w * w >> 32
            sum_low += w * w & 0xFFFFFFFF
        _, product_high, product_low = total(sum_high, sum_low)
        add_square(state, squares, product_high, product_low)
        return
    for j in range(low, high):
        v = values[slot, j]
        if (masks[j - base] & bit != 0) & (v != NULL):
            product_high, product_low = multiply(np.uint64(abs(v)), np.uint64(abs(v)))
            add_square(state, squares, product_high, product_low)


@kernel
def _add_gap(state: Any, gaps: Any, gap: Any) -> None:
    product_high, product_low = multiply(np.uint64(gap), np.uint64(gap))
    add_square(state, gaps, product_high, product_low)
    state[gaps + LONGEST_GAP] = max(state[gaps + LONGEST_GAP], gap)


@kernel
def _update_gaps(
    state: Any, at: Any, gaps: Any, bit: Any, times: Any, masks: Any, base: Any, low: Any, high: Any
) -> None:
    """Add the gaps between rows, that to the row before them included; the cell does not count these rows yet."""
    known, newer = state[at + ROWS] != 0, state[at + OLDEST_TIME]
    for j in range(high - 1, low - 1, -1):
        if masks[j - base] & bit != 0:
            if known:
                _add_gap(state, gaps, newer - times[j])
            known, newer = True, times[j]


@kernel
def _update_slope(
    state: Any, slope: Any, bit: Any, slot: Any, times: Any, values: Any, masks: Any, base: Any, low: Any, high: Any
) -> None:
    """Add seconds, their squares and their products with the values."""
    for j in range(low, high):
        v = values[slot, j]
        if (masks[j - base] & bit != 0) & (v != NULL):
            second = times[j] // _SECOND_US
            state[slope + TIMES] += second
            square_high, square_low = signed_product(second, second)
            add_signed(state, slope + TIMES_SQUARED, square_high, square_low)
            product_high, product_low = signed_product(second, v)
            add_signed(state, slope + PRODUCTS, product_high, product_low)


@kernel
def _update_streak(
    state: Any, at: Any, streak: Any, bit: Any, condition: Any, masks: Any, base: Any, low: Any, high: Any
) -> None:
    """Add rows to the runs of those that fulfil the condition; the cell does not count these rows yet."""
    rows = state[at + ROWS]
    for j in range(high - 1, low - 1, -1):
        if masks[j - base] & bit == 0:
            continue
        if masks[j - base] & condition != 0:
            if state[streak + NEWEST_RUN] == rows:
                state[streak + NEWEST_RUN] += 1
            state[streak + OLDEST_RUN] += 1
            state[streak + LONGEST_RUN] = max(state[streak + LONGEST_RUN], state[streak + OLDEST_RUN])
        else:
            state[streak + OLDEST_RUN] = 0
        rows += 1


@inlined
def update_cell(
    state: Any, origin: Any, group: Any, times: Any, values: Any, masks: Any, base: Any, low: Any, high: Any
) -> None:
    """Add the rows [low, high), older than those before, to a group's cell.

    Masks of invisible rows are 0; that of row j is masks[j - base].
    """
    at, bit, slot, needs = origin + group[G_CELL], group[G_BIT], group[G_SLOT], group[G_NEEDS]
    if needs & NEED_NUMBERS:
        update_numbers(state, at, bit, slot, needs & NEED_ENDS != 0, values, masks, base, low, high)
        if needs & NEED_SQUARES:
            _update_squares(state, at, origin + group[G_SQUARES], bit, slot, values, masks, base, low, high)
        if needs & NEED_SLOPE:
            _update_slope(state, origin + group[G_SLOPE], bit, slot, times, values, masks, base, low, high)
    if needs & NEED_TIMES:
        if needs & NEED_GAPS:
            _update_gaps(state, at, origin + group[G_GAPS], bit, times, masks, base, low, high)
        if needs & NEED_STREAK:
            condition = group[G_CONDITION]
            _update_streak(state, at, origin + group[G_STREAK], bit, condition, masks, base, low, high)
        update_times(state, at, bit, times, masks, base, low, high)


@kernel
def add_rows(
    state: Any, origin: Any, group: Any, times: Any, values: Any, masks: Any, base: Any, low: Any, high: Any
) -> None:
    """`update_cell`, compiled once for those who call it with many rows."""
    update_cell(state, origin, group, times, values, masks, base, low, high)


@inlined
def first_at(times: Any, instant: Any, low: Any, high: Any) -> Any:
    """The first place in [low, high) with times >= instant, found in steps that double from the newest."""
    step = 1
    while high - step >= low and times[np.uint64(high - step)] >= instant:
        high -= step
        step *= 2
    low = max(low, high - step)
    while low < high:
        middle = (low + high) >> 1
        if times[np.uint64(middle)] >= instant:
            high = middle
        else:
            low = middle + 1
    return low


@inlined
def near(times: Any, instant: Any, low: Any, high: Any, guess: Any) -> Any:
    """The first place in [low, high) with times >= instant, found by eights from a guess, then in steps that double."""
    first = min(max(guess, low), high)
    step, wanted, passed, end = 1, every(instant), LANES, first
    if first < high and times[np.uint64(first)] < instant:
        # Where to look next does not depend on what was found, so that the next eight are on their way already.
        until = first + _NEAR_LANES
        while first < min(high, until) and passed == LANES:
            here = _EVERY_LANE >> max(first + LANES - high, 0)
            passed = count(below(load(times, first, here), wanted) & here)
            first += LANES
        end = first = first - LANES + passed
        if passed == LANES:
            while end < high and times[np.uint64(end)] < instant:
                first = end + 1
                end = min(high, end + step)
                step *= 2
    else:
        until = first - _NEAR_LANES
        while first > max(low, until) and passed == LANES:
            first -= LANES
            here = lanes_from(low - first)
            passed = count(at_least(load(times, first, here), wanted) & here)
        end = first = first + LANES - passed if end > low else first
        if passed == LANES:
            while first > low and times[np.uint64(first - 1)] >= instant:
                end = first - 1
                first = max(low, first - step)
                step *= 2
    while first < end:
        middle = (first + end) >> 1
        if times[np.uint64(middle)] >= instant:
            end = middle
        else:
            first = middle + 1
    return first


@kernel
def merge_cell(state: Any, origin: Any, group: Any, tiles: Any, tile: Any) -> None:
    """Add a tile's cell, whose rows are all older, to a group's cell; `tile` is where the tile's cells begin."""
    a, b, needs = origin + group[G_CELL], tile + group[G_CELL], group[G_NEEDS]
    if tiles[b + ROWS] == 0:
        return
    if needs & NEED_GAPS:
        gaps, older = origin + group[G_GAPS], tile + group[G_GAPS]
        if state[a + ROWS] != 0:
            _add_gap(state, gaps, state[a + OLDEST_TIME] - tiles[b + NEWEST_TIME])
        _merge_squares(state, gaps, tiles, older)
        state[gaps + LONGEST_GAP] = max(state[gaps + LONGEST_GAP], tiles[older + LONGEST_GAP])
    if needs & NEED_STREAK:
        _merge_streak(state, a, origin + group[G_STREAK], tiles, b, tile + group[G_STREAK])
    if needs & NEED_TIMES:
        state[a + OLDEST_TIME] = tiles[b + OLDEST_TIME]
        if state[a + ROWS] == 0:
            state[a + NEWEST_TIME] = tiles[b + NEWEST_TIME]
    state[a + ROWS] += tiles[b + ROWS]
    if tiles[b + N] != 0:
        state[a + OLDEST] = tiles[b + OLDEST]
        if state[a + N] == 0:
            state[a + NEWEST] = tiles[b + NEWEST]
        state[a + N] += tiles[b + N]
        state[a + SUM_HIGH] += tiles[b + SUM_HIGH]
        state[a + SUM_LOW] += tiles[b + SUM_LOW]
        state[a + LEAST] = min(state[a + LEAST], tiles[b + LEAST])
        state[a + MOST] = max(state[a + MOST], tiles[b + MOST])
    if needs & NEED_SQUARES:
        _merge_squares(state, origin + group[G_SQUARES], tiles, tile + group[G_SQUARES])
    if needs & NEED_SLOPE:
        c, d = origin + group[G_SLOPE], tile + group[G_SLOPE]
        state[c + TIMES] += tiles[d + TIMES]
        for part in (TIMES_SQUARED, PRODUCTS):
            add_signed(state, c + part, tiles[d + part], np.uint64(tiles[d + part + 1]))


@kernel
def _merge_squares(state: Any, at: Any, tiles: Any, older: Any) -> None:
    add_square(state, at, np.uint64(tiles[older + 1]), np.uint64(tiles[older + 2]))
    state[at] += tiles[older]


@kernel
def _merge_streak(state: Any, at: Any, streak: Any, tiles: Any, tile: Any, older: Any) -> None:
    """Merge runs; the numbers of rows in both cells are those before the merge."""
    across = state[streak + OLDEST_RUN] + tiles[older + NEWEST_RUN]
    longest = max(state[streak + LONGEST_RUN], tiles[older + LONGEST_RUN], across)
    if state[streak + NEWEST_RUN] == state[at + ROWS]:
        state[streak + NEWEST_RUN] += tiles[older + NEWEST_RUN]
    unbroken = tiles[older + OLDEST_RUN] == tiles[tile + ROWS]
    state[streak + OLDEST_RUN] = tiles[older + OLDEST_RUN] + (state[streak + OLDEST_RUN] if unbroken else 0)
    state[streak + LONGEST_RUN] = longest


@inlined
def _sum(high: Any, low: Any) -> Any:
    """A sum of upper and lower halves as (float64 nearest to it, whether that is exact)."""
    upper = high + (low >> 32)
    if -_EXACT_HALF <= upper < _EXACT_HALF:
        return np.float64((upper << 32) + (low & 0xFFFFFFFF)), True
    negative, above, below = total(high, low)
    rounded = to_float(above, below)
    return (-rounded if negative else rounded), above == ZERO and below <= np.uint64(INTEGER_MAX)


@inlined
def finish_none(results: Any, row: Any) -> None:
    """Write the aggregates of no rows' numbers from results[row] on."""
    row = np.uint64(row)
    results[row + np.uint64(COUNT)] = results[row + np.uint64(SUM)] = 0.0
    results[row + np.uint64(MEAN)] = results[row + np.uint64(MIN)] = results[row + np.uint64(MAX)] = np.nan


@inlined
def finish_numbers(held: Any, results: Any, row: Any) -> Any:
    """Write the aggregates of numbers from results[row] on, infinity beyond a limit; return whether any is."""
    rows, n, sum_high, sum_low, least, most = held
    row, some = np.uint64(row), n != 0
    added, is_exact = _sum(sum_high, sum_low)
    results[row + np.uint64(COUNT)] = np.float64(rows)
    results[row + np.uint64(SUM)] = added if is_exact else np.inf
    results[row + np.uint64(MEAN)] = added / np.float64(n) if some else np.nan
    results[row + np.uint64(MIN)] = exact(least) if some else np.nan
    results[row + np.uint64(MAX)] = exact(most) if some else np.nan
    return not is_exact or (some and (least < -INTEGER_MAX or most > INTEGER_MAX))


@kernel
def _finish_squares(state: Any, at: Any, squares: Any, results: Any, row: Any) -> Any:
    n = np.float64(state[at + N])
    rest = spread(
        state[squares], state[squares + 1], state[squares + 2], state[at + SUM_HIGH], state[at + SUM_LOW], state[at + N]
    )
    results[row + STD] = np.sqrt(rest / (n * n)) if state[at + N] != 0 else np.nan
    results[row + SAMPLE_STD] = np.sqrt(rest / (n * (n - 1.0))) if state[at + N] > 1 else np.nan
    return state[at + N] != 0 and np.isinf(rest)


@kernel
def _finish_gaps(state: Any, at: Any, gaps: Any, results: Any, row: Any) -> Any:
    """Write the gaps' mean, deviation and greatest, in seconds; return whether a limit is crossed."""
    n = state[at + ROWS] - 1
    if n < 1:
        results[row + MEAN_GAP] = results[row + STD_GAP] = results[row + GREATEST_GAP] = np.nan
        return False
    length = state[at + NEWEST_TIME] - state[at + OLDEST_TIME]
    count = np.float64(n)
    results[row + MEAN_GAP] = np.float64(length) / count / 1e6
    rest = spread(state[gaps], state[gaps + 1], state[gaps + 2], length >> 32, length & 0xFFFFFFFF, n)
    results[row + STD_GAP] = np.sqrt(rest / (count * count)) / 1e6
    results[row + GREATEST_GAP] = np.float64(state[gaps + LONGEST_GAP]) / 1e6
    return np.isinf(rest)


@kernel
def _finish_slope(state: Any, at: Any, slope: Any, results: Any, row: Any) -> Any:
    """Write the slope per day; return whether a part of it leaves 127 bits."""
    n, seconds = state[at + N], state[slope + TIMES]
    results[row + SLOPE] = np.nan
    if n == 0:
        return False
    negative, high, low, over = scaled(state[slope + TIMES_SQUARED], np.uint64(state[slope + TIMES_SQUARED + 1]), n)
    times_high, times_low = multiply(np.uint64(abs(seconds)), np.uint64(abs(seconds)))
    below = difference(negative, high, low, False, times_high, times_low)
    p_negative, p_high, p_low, p_over = scaled(state[slope + PRODUCTS], np.uint64(state[slope + PRODUCTS + 1]), n)
    s_negative, s_high, s_low = total(state[at + SUM_HIGH], state[at + SUM_LOW])
    s_over = s_high >> np.uint64(63) != ZERO
    _, m_high, m_low, m_over = scaled(np.int64(s_high), s_low, abs(seconds))
    if over or p_over or s_over or m_over:
        results[row + SLOPE] = np.inf
        return True
    if below != 0.0:
        above = difference(p_negative, p_high, p_low, s_negative != (seconds < 0), m_high, m_low)
        results[row + SLOPE] = above / below * _DAY_S
    return False


@inlined
def finish_cell(state: Any, group: Any, as_of: Any, results: Any, row: Any) -> Any:
    """Write a cell's aggregates from results[row] on, infinity beyond a limit; return whether any is."""
    at, needs, crossed = group[G_CELL], group[G_NEEDS], False
    rows = state[at + ROWS]
    results[row + COUNT] = np.float64(rows)
    if needs & NEED_TIMES:
        results[row + SINCE_FIRST] = np.float64(as_of - state[at + OLDEST_TIME]) / 1e6 if rows != 0 else np.nan
        results[row + SINCE_LAST] = np.float64(as_of - state[at + NEWEST_TIME]) / 1e6 if rows != 0 else np.nan
    if needs & NEED_NUMBERS:
        crossed |= finish_numbers(numbers_of(state, at), results, row)
        if needs & NEED_ENDS:
            some = state[at + N] != 0
            results[row + FIRST] = exact(state[at + OLDEST]) if some else np.nan
            results[row + LAST] = exact(state[at + NEWEST]) if some else np.nan
    if needs & NEED_SQUARES:
        crossed |= _finish_squares(state, at, group[G_SQUARES], results, row)
    if needs & NEED_SLOPE:
        crossed |= _finish_slope(state, at, group[G_SLOPE], results, row)
    if needs & NEED_GAPS:
        crossed |= _finish_gaps(state, at, group[G_GAPS], results, row)
    if needs & NEED_STREAK:
        results[row + STREAK] = np.float64(state[group[G_STREAK] + NEWEST_RUN])
        results[row + LONGEST_STREAK] = np.float64(state[group[G_STREAK] + LONGEST_RUN])
    return crossed
