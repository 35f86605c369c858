"""The kernels: every aggregate defined once, for backfill, training, replay and the service alike.

A kernel is driven by a plan's arrays (`layout.Layout`); nothing is compiled from a plan. Rows are added newest first,
and where one lies beyond a window's edge that window's results are taken: nested windows cost one pass in one cell.
Numbers are accumulated as integers (sums in 96 bits, squares in 192) and become a float64 once, correctly rounded, at
the end: so results do not depend on order, chunks, threads or the CPU's vector extensions.

All functions that call one another live in this one file, because Numba's cache notices changes only in the file of
the function that was compiled, not in those that it calls. Programs are apart, in `programs.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from obligor.features.chunks import NULL

__all__ = [
    "CELL_WIDTH", "DISTINCT_MAX", "KEYS_MAX", "accumulate_chunk", "begin", "entries", "finish", "inlined", "kernel",
    "measure_rows",
]  # fmt: skip

# The order of `plan.Aggregate`, whose places the layout holds.
COUNT, SUM, MEAN, STD, MIN, MAX, FIRST, LAST, DISTINCT, SINCE_FIRST, SINCE_LAST, BALANCE = range(12)
TERM_ADD, TERM_SUBTRACT, TERM_CLOSE = range(3)

# The words of a cell: what one group (a selection, looked at in one slot) has added up to so far.
ROWS, OLDEST_TIME, NEWEST_TIME, N, SUM_HIGH, SUM_LOW, LEAST, MOST, OLDEST, NEWEST = range(10)
SQUARE_2, SQUARE_1, SQUARE_0, VALUES, VALUES_OVER = range(10, 15)
CELL_WIDTH = 16
# The words of a balance's entry: a key, whether it is closed, its adds less its subtracts as sums of halves.
KEY, CLOSED, NET_HIGH, NET_LOW = range(4)
HELD, HELD_OVER = 0, 1  # words of a table's last entry: how many it holds, whether it would have needed more

NEED_TIMES, NEED_NUMBERS, NEED_SQUARES, NEED_DISTINCT = 1, 2, 4, 8  # flags of a group
DISTINCT_MAX = 4096  # different values of one entity in one window, counted exactly; beyond is an error
KEYS_MAX = 4096  # different keys of one entity's balance; beyond is an error
HELD_MAX = max(DISTINCT_MAX, KEYS_MAX)
INTEGER_MAX = 2**53  # results that are integers must be exact in float64

OK, BEYOND_INTEGER, BEYOND_SQUARES, BEYOND_DISTINCT, BEYOND_KEYS = range(5)  # what went wrong
CODES = 8  # an error is the measure's place * CODES + one of these
_LIMITS = tuple({STD: BEYOND_SQUARES, DISTINCT: BEYOND_DISTINCT}.get(a, BEYOND_INTEGER) for a in range(BALANCE + 1))

_INT64_MAX = 2**63 - 1
_SEQUENCE = 2**48 - 1
_SMALL = 2**31
_EXACT_HALF = 2**20  # upper halves of sums within which the sum is below 2**52
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_ZERO, _ONE = np.uint64(0), np.uint64(1)
_POWERS = 2.0 ** np.arange(129)

_F = TypeVar("_F", bound=Callable[..., Any])


# No fastmath: no operation is reordered or fused. `_nrt`: arrays are only borrowed, so that no reference is counted.
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "fastmath": False, "error_model": "numpy", "_nrt": False}


def kernel(function: _F) -> _F:
    """Compile a function on first use, to the same arithmetic on every CPU; it must not allocate."""
    return cast(_F, numba.njit(**_OPTIONS)(function))


def inlined(function: _F) -> _F:
    """Compile a function into its callers: what is called for every request and takes many arrays."""
    return cast(_F, numba.njit(forceinline=True, **_OPTIONS)(function))


@kernel
def _multiply(a: Any, b: Any) -> Any:
    """The product of two uint64 as (high, low)."""
    a0, a1, b0, b1 = a & _LOW, a >> _32, b & _LOW, b >> _32
    p00, p01, p10, p11 = a0 * b0, a0 * b1, a1 * b0, a1 * b1
    middle = (p00 >> _32) + (p01 & _LOW) + (p10 & _LOW)
    return p11 + (p01 >> _32) + (p10 >> _32) + (middle >> _32), (p00 & _LOW) | (middle << _32)


@kernel
def _to_float(high: Any, low: Any) -> Any:
    """The float64 nearest to an unsigned 128-bit integer, ties to even."""
    if high == _ZERO:
        return np.float64(low)
    shift = 64
    while high >> np.uint64(63) == _ZERO:
        high = (high << _ONE) | (low >> np.uint64(63))
        low = low << _ONE
        shift -= 1
    if low != _ZERO:
        high = high | _ONE  # 64 leading bits and whether anything follows: one rounding gives the right result
    return np.float64(high) * _POWERS[shift]


@kernel
def _total(sum_high: Any, sum_low: Any) -> Any:
    """A sum kept as sums of upper and lower halves: (negative, high, low) of its magnitude."""
    low = np.uint64(sum_high) << _32
    total = low + np.uint64(sum_low)
    high = sum_high >> 32
    if total < low:
        high += 1
    if high >= 0:
        return False, np.uint64(high), total
    total = ~total + _ONE
    return True, ~np.uint64(high) + (_ONE if total == _ZERO else _ZERO), total


@kernel
def _add_square(state: Any, c: Any, high: Any, low: Any) -> None:
    """Add a 128-bit product to a cell's 192-bit sum of squares."""
    low_before = np.uint64(state[c, SQUARE_0])
    low_sum = low_before + low
    carry = _ONE if low_sum < low_before else _ZERO
    high_before = np.uint64(state[c, SQUARE_1])
    high_sum = high_before + high
    over = 1 if high_sum < high_before else 0
    high_sum_carried = high_sum + carry
    over += 1 if high_sum_carried < high_sum else 0
    state[c, SQUARE_0], state[c, SQUARE_1] = np.int64(low_sum), np.int64(high_sum_carried)
    state[c, SQUARE_2] += over


@inlined
def _update_rows(
    state: Any, c: Any, bit: Any, times: Any, masks: Any, base: Any, low: Any, high: Any, edge: Any
) -> Any:
    """Add rows up to an edge to a cell: how many, when the oldest and the newest. Returns where they start."""
    n, oldest, newest, j = 0, low, low, high - 1
    while j >= low and times[np.uint64(j)] >= edge:
        if masks[np.uint64(j - base)] & bit != 0:
            newest = j if n == 0 else newest
            oldest = j
            n += 1
        j -= 1
    if n != 0:
        state[c, OLDEST_TIME] = times[oldest]
        if state[c, ROWS] == 0:
            state[c, NEWEST_TIME] = times[newest]
        state[c, ROWS] += n
    return j + 1


@inlined
def _update_numbers(
    state: Any, c: Any, bit: Any, slot: Any, times: Any, values: Any, masks: Any, base: Any, low: Any, high: Any,
    edge: Any,
) -> Any:  # fmt: skip
    """Add rows up to an edge to a cell: how many, and what their numbers add up to. Returns where they start."""
    rows, n, sum_high, sum_low, least, most = 0, 0, 0, 0, state[c, LEAST], state[c, MOST]
    oldest, newest, j = low, low, high - 1
    while j >= low and times[np.uint64(j)] >= edge:
        v = values[slot, np.uint64(j)]
        if masks[np.uint64(j - base)] & bit != 0:
            rows += 1
            if v != NULL:
                newest = j if n == 0 else newest
                oldest = j
                n += 1
                sum_high += v >> 32
                sum_low += v & 0xFFFFFFFF
                least = min(least, v)
                most = max(most, v)
        j -= 1
    state[c, ROWS] += rows
    if n != 0:
        state[c, OLDEST] = values[slot, oldest]
        if state[c, N] == 0:
            state[c, NEWEST] = values[slot, newest]
        state[c, N] += n
        state[c, SUM_HIGH] += sum_high
        state[c, SUM_LOW] += sum_low
        state[c, LEAST], state[c, MOST] = least, most
    return j + 1


@kernel
def _update_squares(
    state: Any, c: Any, bit: Any, slot: Any, values: Any, masks: Any, base: Any, low: Any, high: Any
) -> None:
    """Add the squares of rows to a cell, whose least and most count these rows already."""
    if state[c, LEAST] > -_SMALL and state[c, MOST] < _SMALL:  # no product leaves 62 bits: halves need no carry
        sum_high, sum_low = 0, 0
        for j in range(low, high):
            v = values[slot, np.uint64(j)]
            w = v if (masks[np.uint64(j - base)] & bit != 0) & (v != NULL) else 0
            sum_high += w * w >> 32
            sum_low += w * w & 0xFFFFFFFF
        _, product_high, product_low = _total(sum_high, sum_low)
        _add_square(state, c, product_high, product_low)
        return
    for j in range(low, high):
        v = values[slot, j]
        if (masks[j - base] & bit != 0) & (v != NULL):
            product_high, product_low = _multiply(np.uint64(abs(v)), np.uint64(abs(v)))
            _add_square(state, c, product_high, product_low)


@kernel
def _find(keys: Any, last: Any, key: Any) -> Any:
    """The place of `key` in an open hash set of last + 1 entries (a power of two), or the empty one it would take."""
    mixed = (np.uint64(key) ^ (np.uint64(key) >> _32)) * np.uint64(0x9E3779B97F4A7C15)
    place = np.int64(mixed >> _32) & last
    while keys[place] != NULL and keys[place] != key:
        place = (place + 1) & last
    return place


@kernel
def _update_distinct(
    state: Any, c: Any, members: Any, last: Any, bit: Any, slot: Any, values: Any, masks: Any, base: Any,
    low: Any, high: Any,
) -> None:  # fmt: skip
    """Count values not seen in newer rows; `members` is an open hash set."""
    for j in range(high - 1, low - 1, -1):
        v = values[slot, j]
        if not ((masks[j - base] & bit != 0) & (v != NULL)):
            continue
        place = _find(members, last, v)
        if members[place] == v:
            continue
        if members[last + 1] == DISTINCT_MAX:
            state[c, VALUES_OVER] = 1
            return
        members[place] = v
        members[last + 1] += 1
        state[c, VALUES] += 1


@inlined
def _boundary(times: Any, instant: Any, low: Any, high: Any) -> Any:
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


@kernel
def _std(state: Any, c: Any) -> Any:
    """The population's deviation: sqrt((n * sum of squares - square of sum) / n**2); infinity beyond the limit."""
    n = np.uint64(state[c, N])
    _, high, low = _total(state[c, SUM_HIGH], state[c, SUM_LOW])
    squares_high, squares_low = np.uint64(state[c, SQUARE_1]), np.uint64(state[c, SQUARE_0])
    over, scaled_high = _multiply(squares_high, n)
    carry, scaled_low = _multiply(squares_low, n)
    scaled_high += carry
    if state[c, SQUARE_2] != 0 or high != _ZERO or over != _ZERO or scaled_high < carry or scaled_high >> np.uint64(63):
        return np.inf
    mean_high, mean_low = _multiply(low, low)
    rest_low = scaled_low - mean_low
    rest_high = scaled_high - mean_high - (_ONE if scaled_low < mean_low else _ZERO)
    count = np.float64(state[c, N])
    return np.sqrt(_to_float(rest_high, rest_low) / (count * count))


@inlined
def _sum(state: Any, c: Any) -> Any:
    """A cell's sum as (float64 nearest to it, whether that is exact)."""
    high = state[c, SUM_HIGH] + (state[c, SUM_LOW] >> 32)
    if -_EXACT_HALF <= high < _EXACT_HALF:
        return np.float64((high << 32) + (state[c, SUM_LOW] & 0xFFFFFFFF)), True
    negative, high, low = _total(state[c, SUM_HIGH], state[c, SUM_LOW])
    total = _to_float(high, low)
    return (-total if negative else total), high == _ZERO and low <= np.uint64(INTEGER_MAX)


@inlined
def _exact(value: Any) -> Any:
    """An integer as float64, infinity beyond what is exact."""
    return np.float64(value) if -INTEGER_MAX <= value <= INTEGER_MAX else np.inf


@inlined
def _finish_cell(state: Any, c: Any, needs: Any, as_of: Any, results: Any, row: Any) -> Any:
    """Write a cell's aggregates to `results[row]`, infinity for one that crosses a limit; return whether any does."""
    rows, n = state[c, ROWS], state[c, N]
    results[row, COUNT] = np.float64(rows)
    if needs & NEED_TIMES:
        results[row, SINCE_FIRST] = np.float64(as_of - state[c, OLDEST_TIME]) / 1e6 if rows != 0 else np.nan
        results[row, SINCE_LAST] = np.float64(as_of - state[c, NEWEST_TIME]) / 1e6 if rows != 0 else np.nan
    if needs & NEED_DISTINCT:
        results[row, DISTINCT] = np.inf if state[c, VALUES_OVER] != 0 else np.float64(state[c, VALUES])
    crossed = needs & NEED_DISTINCT != 0 and state[c, VALUES_OVER] != 0
    if needs & NEED_NUMBERS:
        total, exact = _sum(state, c)
        results[row, SUM] = total if exact else np.inf
        results[row, MEAN] = total / np.float64(n) if n != 0 else np.nan
        results[row, MIN] = _exact(state[c, LEAST]) if n != 0 else np.nan
        results[row, MAX] = _exact(state[c, MOST]) if n != 0 else np.nan
        results[row, FIRST] = _exact(state[c, OLDEST]) if n != 0 else np.nan
        results[row, LAST] = _exact(state[c, NEWEST]) if n != 0 else np.nan
        crossed |= not exact or (n != 0 and (state[c, LEAST] < -INTEGER_MAX or state[c, MOST] > INTEGER_MAX))
    if needs & NEED_SQUARES:
        results[row, STD] = _std(state, c) if n != 0 else np.nan
        crossed |= np.isinf(results[row, STD])
    return crossed


@inlined
def _finish_window(ladder: Any, groups: Any, rung: Any, as_of: Any, state: Any, results: Any) -> Any:
    """Take the results of all groups for the window at `rung`; return whether any crosses a limit."""
    crossed = False
    for g in range(ladder[3], ladder[4]):
        crossed |= _finish_cell(state, g, groups[g, 2], as_of, results, groups[g, 3] + rung)
    return crossed


@inlined
def _accumulate(
    spec: Any, ladders: Any, rungs: Any, groups: Any, as_of: Any, times: Any, masks: Any, base: Any, values: Any,
    low: Any, high: Any, reached: Any, state: Any, sets: Any, last: Any, results: Any,
) -> Any:  # fmt: skip
    """Add the rows [low, high), all of them older than those added before; masks of invisible rows are 0.

    Returns whether a result crosses a limit.
    """
    crossed = False
    for at in range(spec[2], spec[3]):
        ladder = ladders[at]
        end = high if ladder[0] == 0 else _boundary(times, as_of - ladder[0], low, high)
        for rung in range(ladder[2] - ladder[1]):
            edge = as_of - ladder[0] - rungs[ladder[1] + rung]
            if end == low or times[np.uint64(end - 1)] < edge:
                continue
            while reached[at] < rung:
                crossed |= _finish_window(ladder, groups, reached[at], as_of, state, results)
                reached[at] += 1
            start = low  # until a group's pass finds where the window starts
            for g in range(ladder[3], ladder[4]):
                bit, slot, needs = groups[g, 0], groups[g, 1], groups[g, 2]
                if needs & NEED_NUMBERS:
                    start = _update_numbers(state, g, bit, slot, times, values, masks, base, start, end, edge)
                if needs & NEED_TIMES:
                    start = _update_rows(state, g, bit, times, masks, base, start, end, edge)
                if needs & NEED_SQUARES:
                    _update_squares(state, g, bit, slot, values, masks, base, start, end)
                if needs & NEED_DISTINCT:
                    start = _boundary(times, edge, start, end)
                    _update_distinct(state, g, sets[groups[g, 4]], last, bit, slot, values, masks, base, start, end)
            end = start
    return crossed


@kernel
def _update_balance(
    b: Any, balances: Any, terms: Any, table: Any, last: Any, as_of: Any, times: Any, masks: Any, base: Any,
    values: Any, low: Any, high: Any,
) -> None:  # fmt: skip
    """Add rows to the balances of their keys, in no particular order."""
    for j in range(low, high):
        for term in range(balances[b, 0], balances[b, 1]):
            role, key_slot, amount_slot = terms[term, 1], terms[term, 2], terms[term, 3]
            key = values[key_slot, j]
            if masks[j - base] & terms[term, 0] == 0 or key == NULL:
                continue
            if role == TERM_ADD:
                expiry = values[terms[term, 4], j] if terms[term, 4] >= 0 else NULL
                if expiry == NULL and terms[term, 5] != NULL:
                    expiry = times[j] + terms[term, 5]
                if expiry != NULL and as_of >= expiry:
                    continue
            place = _find(table[:, KEY], last, key)
            if table[place, KEY] == NULL:
                if table[last + 1, HELD] == KEYS_MAX:
                    table[last + 1, HELD_OVER] = 1
                    return
                table[last + 1, HELD] += 1
                table[place, KEY] = key
            amount = values[amount_slot, j] if amount_slot >= 0 else NULL
            if role == TERM_CLOSE:
                table[place, CLOSED] = 1
            elif amount != NULL:
                sign = 1 if role == TERM_ADD else -1
                table[place, NET_HIGH] += sign * (amount >> 32)
                table[place, NET_LOW] += sign * (amount & 0xFFFFFFFF)


@kernel
def entries(rows: Any) -> Any:
    """How many entries a hash set or table for at most `rows` rows has: a power of two, at least half of them free."""
    size = 2
    while size < 2 * min(rows, HELD_MAX):
        size *= 2
    return size


@inlined
def _reset_cells(spec: Any, ladders: Any, reached: Any, state: Any) -> None:
    for at in range(spec[2], spec[3]):
        reached[at] = 0
        for g in range(ladders[at, 3], ladders[at, 4]):
            for word in range(CELL_WIDTH):
                state[np.uint64(g), word] = 0
            state[g, LEAST], state[g, MOST] = _INT64_MAX, NULL


@kernel
def _reset_tables(spec: Any, last: Any, sets: Any, tables: Any) -> None:
    for members in range(spec[9], spec[10]):
        sets[members, : last + 1] = NULL
        sets[members, last + 1] = 0
    for b in range(spec[7], spec[8]):
        tables[b, : last + 2] = 0
        tables[b, : last + 1, KEY] = NULL


@kernel
def _balance(table: Any, last: Any) -> Any:
    """The sum over open keys of what is above zero; too many keys are minus infinity, too large a sum infinity."""
    if table[last + 1, HELD_OVER] != 0:
        return -np.inf
    total = _ZERO
    for place in range(last + 1):
        if table[place, KEY] == NULL or table[place, CLOSED] != 0:
            continue
        low = table[place, NET_LOW]
        negative, high, low = _total(table[place, NET_HIGH] + (low >> 32), low & 0xFFFFFFFF)
        if negative:
            continue
        if high != _ZERO or low > np.uint64(INTEGER_MAX) or total > np.uint64(INTEGER_MAX):
            return np.inf
        total += low
    return np.float64(total) if total <= np.uint64(INTEGER_MAX) else np.inf


@kernel
def _first_error(spec: Any, measures: Any, results: Any) -> Any:
    """The error of the first measure of a source whose result crosses a limit."""
    error = OK
    for m in range(spec[4], spec[6]):
        value = results[measures[m, 1], measures[m, 2]]
        code = _LIMITS[measures[m, 2]] if value > 0 else BEYOND_KEYS
        if np.isinf(value) and (error == OK or measures[m, 0] * CODES + code < error):
            error = measures[m, 0] * CODES + code
    return error


@inlined
def _finish_source(
    spec: Any, ladders: Any, groups: Any, measures: Any, divisors: Any, entity: Any, as_of: Any, last: Any,
    reached: Any, state: Any, tables: Any, results: Any, crossed: Any, i: Any, measured: Any, out: Any,
) -> Any:  # fmt: skip
    """Write a source's measures to row `i`: of `out` those that are features, of `measured` those for programs.

    Returns the first error. `entity` is -2 where the application names none: every measure is null then.
    """
    for at in range(spec[2], spec[3]):
        ladder = ladders[at]
        for rung in range(reached[at], ladder[2] - ladder[1]):
            crossed |= _finish_window(ladder, groups, rung, as_of, state, results)
    for b in range(spec[7], spec[8]):
        row = results.shape[0] - tables.shape[0] + b
        results[row, BALANCE] = _balance(tables[b], last)
        crossed |= np.isinf(results[row, BALANCE])
    for m in range(spec[4], spec[6]):
        u = np.uint64(m)
        value = results[np.uint64(measures[u, 1]), np.uint64(measures[u, 2])] if entity != -2 else np.nan
        value = value if divisors[u] == 1.0 else value / divisors[u]
        if m < spec[5]:
            out[i, np.uint64(measures[u, 3])] = value
        else:
            measured[i, np.uint64(measures[u, 0])] = value
    return _first_error(spec, measures, results) if crossed and entity != -2 else OK


@kernel
def begin(layout: Any, source: Any, rows: Any, scratch: Any) -> Any:
    """Online: empty what a source of `rows` rows is accumulated in; return the last place of its sets and tables."""
    spec = layout.sources[source]
    last = entries(rows) - 1
    _reset_cells(spec, layout.ladders, scratch.reached, scratch.state)
    _reset_tables(spec, last, scratch.sets, scratch.tables)
    return last


@kernel
def accumulate_chunk(
    layout: Any, source: Any, as_of: Any, self_root: Any, times: Any, roots: Any, masks: Any, values: Any,
    scratch: Any, last: Any,
) -> Any:  # fmt: skip
    """Online: add a chunk of winners, older than the chunks added before; return whether a result crosses a limit."""
    spec, visible = layout.sources[source], scratch.visible
    high = _boundary(times, as_of, 0, times.shape[0])
    low = _boundary(times, as_of - spec[1], 0, high)
    for j in range(low, high):
        visible[np.uint64(j - low)] = masks[np.uint64(j)] if roots[np.uint64(j)] != self_root else 0
    crossed = _accumulate(
        spec, layout.ladders, layout.rungs, layout.groups, as_of, times, visible, low, values, low, high,
        scratch.reached, scratch.state, scratch.sets, last, scratch.results,
    )  # fmt: skip
    for b in range(spec[7], spec[8]):
        _update_balance(
            b, layout.balances, layout.terms, scratch.tables[b], last, as_of, times, visible, low, values, low, high
        )
    return crossed


@kernel
def finish(
    layout: Any, source: Any, entity: Any, as_of: Any, last: Any, scratch: Any, crossed: Any, measured: Any, out: Any
) -> Any:
    """Online: write a source's measures to the first row; return the first error."""
    return _finish_source(
        layout.sources[source], layout.ladders, layout.groups, layout.measures, layout.divisors, entity, as_of, last,
        scratch.reached, scratch.state, scratch.tables, scratch.results, crossed, 0, measured, out,
    )  # fmt: skip


@inlined
def _view(
    known: Any, position: Any, root: Any, mask: Any, as_of: Any, self_root: Any, cut: Any, low: Any, high: Any,
    visible: Any,
) -> Any:  # fmt: skip
    """Write the masks of rows [low, high) to `visible`, 0 where a row is not in the view; say if any has rivals.

    A cut of no shards is one that every row is in.
    """
    rivals = np.int64(0)
    for j in range(low, high):
        u = np.uint64(j)
        seen = mask[u] if known[u] <= as_of else 0
        rivals |= seen
        visible[np.uint64(j - low)] = seen
    if self_root >= 0 or cut.shape[0] > 0:
        for j in range(low, high):
            shown = root[j] != self_root and (cut.shape[0] == 0 or position[j] & _SEQUENCE <= cut[position[j] >> 48])
            visible[j - low] = visible[j - low] if shown else 0
    return rivals < 0


@kernel
def _drop_superseded(
    mask: Any, version: Any, start: Any, end: Any, position: Any, known: Any, as_of: Any, cut: Any, low: Any,
    high: Any, visible: Any,
) -> None:  # fmt: skip
    """Clear the masks of rows for which a version that ranks above is in the view, and their sign bits."""
    for j in range(low, high):
        if visible[j - low] < 0:
            visible[j - low] &= _INT64_MAX
            for k in range(start[version[j]], end[version[j]]):
                if known[k] <= as_of and (cut.shape[0] == 0 or position[k] & _SEQUENCE <= cut[position[k] >> 48]):
                    visible[j - low] = 0


@kernel
def measure_rows(
    layout: Any, source: Any, rows: Any, as_of: Any, self_root: Any, cuts: Any, entity: Any,
    scratch: Any, errors: Any, measured: Any, out: Any,
) -> None:  # fmt: skip
    """Offline: the measures of one source for many requests; `entity` is -1 without facts, -2 where none is named."""
    # Named tuples stay here: the functions called for every request take only the arrays that they need.
    spec, ladders, rungs, groups = layout.sources[source], layout.ladders, layout.rungs, layout.groups
    measures, divisors, reached, results = layout.measures, layout.divisors, scratch.reached, scratch.results
    times, known, position, root, mask, values = (
        rows.event_time, rows.known, rows.position, rows.root, rows.mask, rows.values,
    )  # fmt: skip
    state, sets, tables = scratch.state, scratch.sets, scratch.tables
    visible, last = scratch.visible, 0
    for i in range(as_of.shape[0]):
        low, high, cut = 0, 0, cuts[i if cuts.shape[0] > 1 else 0]
        if entity[i] >= 0:
            low, high = rows.offsets[entity[i]], rows.offsets[entity[i] + 1]
        high = _boundary(times, as_of[i], low, high)
        low = _boundary(times, as_of[i] - spec[1], low, high)
        if _view(known, position, root, mask, as_of[i], self_root[i], cut, low, high, visible):
            _drop_superseded(
                mask, rows.version, rows.above_start, rows.above_end, rows.above_position, rows.above_known,
                as_of[i], cut, low, high, visible,
            )  # fmt: skip
        _reset_cells(spec, ladders, reached, state)
        if spec[7] < spec[8] or spec[9] < spec[10]:
            last = entries(high - low) - 1
            _reset_tables(spec, last, sets, tables)
        crossed = _accumulate(
            spec, ladders, rungs, groups, as_of[i], times, visible, low, values, low, high, reached, state, sets, last,
            results,
        )  # fmt: skip
        for b in range(spec[7], spec[8]):
            _update_balance(
                b, layout.balances, layout.terms, tables[b], last, as_of[i], times, visible, low, values, low, high
            )
        error = _finish_source(
            spec, ladders, groups, measures, divisors, entity[i], as_of[i], last, reached, state, tables, results,
            crossed, i, measured, out,
        )  # fmt: skip
        if error != OK and (errors[i] == OK or error < errors[i]):
            errors[i] = error
