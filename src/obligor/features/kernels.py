"""The kernels: every aggregate defined once, for backfill, training, replay and the service alike.

A kernel is driven by a plan's arrays (`layout.Layout`); nothing is compiled from a plan. A row is updated into the
smallest window that holds it and windows are merged when a request is finished, so that nested windows cost one pass.
Numbers are accumulated as integers (sums in 96 bits, squares in 192) and become a float64 once, correctly rounded, at
the end: so results do not depend on order, chunks, threads or the CPU's vector extensions.

All compiled functions live in this one file, because Numba's cache notices changes only in the file of the function
that was compiled, not in those that it calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from obligor.features.chunks import NULL

__all__ = [
    "CELL_WIDTH",
    "DISTINCT_MAX",
    "KEYS_MAX",
    "accumulate_chunk",
    "entries",
    "finish_rows",
    "finish_source",
    "measure_rows",
    "reset",
]

# The order of `plan.Aggregate` and of `plan.Op`, whose places the layout holds.
COUNT, SUM, MEAN, STD, MIN, MAX, FIRST, LAST, DISTINCT, SINCE_FIRST, SINCE_LAST, BALANCE = range(12)
MEASURE, REQUEST, CONSTANT, ADD, SUBTRACT, MULTIPLY, DIVIDE, MINIMUM, MAXIMUM = range(9)
LESS, LESS_EQUAL, GREATER, GREATER_EQUAL, EQUAL, NOT_EQUAL, FILL = range(9, 16)
TERM_ADD, TERM_SUBTRACT, TERM_CLOSE = range(3)

# The words of a cell: what one group (a selection, looked at in one slot) adds up to over one stretch of time.
N, SUM_HIGH, SUM_LOW, SQUARE_2, SQUARE_1, SQUARE_0, LEAST, MOST, OLDEST, NEWEST, OLDEST_TIME, NEWEST_TIME = range(12)
VALUES, VALUES_OVER = 12, 13
CELL_WIDTH = 14
# The words of a balance's entry: a key, whether it is closed, its adds less its subtracts as sums of halves.
KEY, CLOSED, NET_HIGH, NET_LOW = range(4)
HELD, HELD_OVER = 0, 1  # words of a table's last entry: how many it holds, whether it would have needed more

NEED_SQUARES, NEED_ENDS, NEED_DISTINCT = 1, 2, 4  # flags of a group
DISTINCT_MAX = 4096  # different values of one entity in one window, counted exactly; beyond is an error
KEYS_MAX = 4096  # different keys of one entity's balance; beyond is an error
HELD_MAX = max(DISTINCT_MAX, KEYS_MAX)
STACK_MAX = 32  # operands that a feature's program may hold at once
INTEGER_MAX = 2**53  # results that are integers must be exact in float64

OK, BEYOND_INTEGER, BEYOND_SQUARES, BEYOND_DISTINCT, BEYOND_KEYS, BEYOND_FINITE = range(6)  # what went wrong
CODES = 8  # an error is (place of the measure or feature) * CODES + one of these

_INT64_MAX = 2**63 - 1
_SEQUENCE = 2**48 - 1
_SMALL = 2**31
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_ZERO, _ONE = np.uint64(0), np.uint64(1)
_POWERS = 2.0 ** np.arange(129)

_F = TypeVar("_F", bound=Callable[..., Any])


def _kernel(function: _F) -> _F:
    return cast(_F, numba.njit(cache=True, nogil=True, fastmath=False)(function))


@_kernel
def _multiply(a: Any, b: Any) -> Any:
    """The product of two uint64 as (high, low)."""
    a0, a1, b0, b1 = a & _LOW, a >> _32, b & _LOW, b >> _32
    p00, p01, p10, p11 = a0 * b0, a0 * b1, a1 * b0, a1 * b1
    middle = (p00 >> _32) + (p01 & _LOW) + (p10 & _LOW)
    return p11 + (p01 >> _32) + (p10 >> _32) + (middle >> _32), (p00 & _LOW) | (middle << _32)


@_kernel
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


@_kernel
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


@_kernel
def _add_square(into: Any, high: Any, low: Any) -> None:
    """Add a 128-bit product to a cell's 192-bit sum of squares."""
    low_before = np.uint64(into[SQUARE_0])
    low_sum = low_before + low
    carry = _ONE if low_sum < low_before else _ZERO
    high_before = np.uint64(into[SQUARE_1])
    high_sum = high_before + high
    over = 1 if high_sum < high_before else 0
    high_sum_carried = high_sum + carry
    over += 1 if high_sum_carried < high_sum else 0
    into[SQUARE_0], into[SQUARE_1] = np.int64(low_sum), np.int64(high_sum_carried)
    into[SQUARE_2] += over


@_kernel
def _update_numbers(into: Any, bit: Any, column: Any, masks: Any, base: Any, low: Any, high: Any) -> None:
    """Add rows to a cell: how many, their sum, the least and the most."""
    n, sum_high, sum_low, least, most = 0, 0, 0, into[LEAST], into[MOST]
    for j in range(low, high):
        v = column[j]
        keep = (masks[j - base] & bit != 0) & (v != NULL)
        n += keep
        w = v if keep else 0
        sum_high += w >> 32
        sum_low += w & 0xFFFFFFFF
        least = min(least, v if keep else _INT64_MAX)
        most = max(most, v if keep else NULL)
    into[N] += n
    into[SUM_HIGH] += sum_high
    into[SUM_LOW] += sum_low
    into[LEAST], into[MOST] = least, most


@_kernel
def _update_squares(into: Any, bit: Any, column: Any, masks: Any, base: Any, low: Any, high: Any) -> None:
    """Add the squares of rows to a cell, whose least and most count these rows already."""
    if into[LEAST] > -_SMALL and into[MOST] < _SMALL:  # the cell's numbers are known: no product leaves 62 bits
        sum_high, sum_low = 0, 0
        for j in range(low, high):
            v = column[j]
            w = v if (masks[j - base] & bit != 0) & (v != NULL) else 0
            sum_high += w * w >> 32
            sum_low += w * w & 0xFFFFFFFF
        _, product_high, product_low = _total(sum_high, sum_low)
        _add_square(into, product_high, product_low)
        return
    for j in range(low, high):
        v = column[j]
        if (masks[j - base] & bit != 0) & (v != NULL):
            product_high, product_low = _multiply(np.uint64(abs(v)), np.uint64(abs(v)))
            _add_square(into, product_high, product_low)


@_kernel
def _update_ends(
    into: Any, seen: Any, bit: Any, column: Any, times: Any, masks: Any, base: Any, low: Any, high: Any
) -> None:
    """Set a cell's oldest and newest row; it holds `seen` rows, all of them newer than these."""
    for j in range(low, high):
        if (masks[j - base] & bit != 0) & (column[j] != NULL):
            into[OLDEST], into[OLDEST_TIME] = column[j], times[j]
            break
    else:
        return
    if seen == 0:
        j = high - 1
        while not ((masks[j - base] & bit != 0) & (column[j] != NULL)):
            j -= 1
        into[NEWEST], into[NEWEST_TIME] = column[j], times[j]


@_kernel
def _update_events(into: Any, bit: Any, times: Any, masks: Any, base: Any, low: Any, high: Any) -> None:
    """Add rows to a cell that looks at no column: how many, when the oldest and the newest."""
    n = 0
    for j in range(low, high):
        n += masks[j - base] & bit != 0
    if n == 0:
        return
    j = low
    while masks[j - base] & bit == 0:
        j += 1
    into[OLDEST_TIME] = times[j]
    if into[N] == 0:
        j = high - 1
        while masks[j - base] & bit == 0:
            j -= 1
        into[NEWEST_TIME] = times[j]
    into[N] += n


@_kernel
def _find(keys: Any, last: Any, key: Any) -> Any:
    """The place of `key` in an open hash set of last + 1 entries (a power of two), or the empty one it would take."""
    mixed = (np.uint64(key) ^ (np.uint64(key) >> _32)) * np.uint64(0x9E3779B97F4A7C15)
    place = np.int64(mixed >> _32) & last
    while keys[place] != NULL and keys[place] != key:
        place = (place + 1) & last
    return place


@_kernel
def _update_distinct(
    into: Any, members: Any, last: Any, bit: Any, column: Any, masks: Any, base: Any, low: Any, high: Any
) -> None:
    """Count values not seen in newer rows; `members` is an open hash set."""
    for j in range(high - 1, low - 1, -1):
        v = column[j]
        if not ((masks[j - base] & bit != 0) & (v != NULL)):
            continue
        place = _find(members, last, v)
        if members[place] == v:
            continue
        if members[last + 1] == DISTINCT_MAX:
            into[VALUES_OVER] = 1
            return
        members[place] = v
        members[last + 1] += 1
        into[VALUES] += 1


@_kernel
def _merge(into: Any, newer: Any) -> None:
    """Add a cell of newer rows to the cell of the older rows next to them."""
    if newer[N] == 0:
        return
    if into[N] == 0:
        into[OLDEST], into[OLDEST_TIME] = newer[OLDEST], newer[OLDEST_TIME]
    into[NEWEST], into[NEWEST_TIME] = newer[NEWEST], newer[NEWEST_TIME]
    into[N] += newer[N]
    into[SUM_HIGH] += newer[SUM_HIGH]
    into[SUM_LOW] += newer[SUM_LOW]
    into[LEAST] = min(into[LEAST], newer[LEAST])
    into[MOST] = max(into[MOST], newer[MOST])
    _add_square(into, np.uint64(newer[SQUARE_1]), np.uint64(newer[SQUARE_0]))
    into[SQUARE_2] += newer[SQUARE_2]
    into[VALUES] += newer[VALUES]
    into[VALUES_OVER] |= newer[VALUES_OVER]


@_kernel
def _boundary(times: Any, instant: Any, low: Any, high: Any) -> Any:
    """The first place in [low, high) with times >= instant, found in steps that double from the newest."""
    step = 1
    while high - step >= low and times[high - step] >= instant:
        high -= step
        step *= 2
    low = max(low, high - step)
    while low < high:
        middle = (low + high) // 2
        if times[middle] >= instant:
            high = middle
        else:
            low = middle + 1
    return low


@_kernel
def _accumulate(
    layout: Any, source: Any, as_of: Any, times: Any, masks: Any, base: Any, values: Any,
    low: Any, high: Any, scratch: Any, last: Any,
) -> None:  # fmt: skip
    """Add the rows [low, high), all of them older than those added before; masks of invisible rows are 0."""
    for ladder in range(layout.sources[source, 2], layout.sources[source, 3]):
        spec = layout.ladders[ladder]
        offset, rung_start, rung_end, group_start, group_end = spec[0], spec[1], spec[2], spec[3], spec[4]
        end = high if offset == 0 else _boundary(times, as_of - offset, low, high)
        for rung in range(rung_start, rung_end):
            start = _boundary(times, as_of - offset - layout.rungs[rung], low, end)
            for g in range(group_start, group_end):
                if start == end:
                    break
                bit, slot, needs = layout.groups[g, 0], layout.groups[g, 1], layout.groups[g, 2]
                into = scratch.state[layout.groups[g, 3] + rung - rung_start]
                if slot < 0:
                    _update_events(into, bit, times, masks, base, start, end)
                    continue
                column = values[slot]
                seen = into[N]
                _update_numbers(into, bit, column, masks, base, start, end)
                if needs & NEED_SQUARES:
                    _update_squares(into, bit, column, masks, base, start, end)
                if needs & NEED_ENDS:
                    _update_ends(into, seen, bit, column, times, masks, base, start, end)
                if needs & NEED_DISTINCT:
                    _update_distinct(
                        into, scratch.sets[layout.groups[g, 4]], last, bit, column, masks, base, start, end
                    )
            end = start
    for b in range(layout.sources[source, 6], layout.sources[source, 7]):
        _update_balance(layout, b, scratch.tables[b], last, as_of, times, masks, base, values, low, high)


@_kernel
def _update_balance(
    layout: Any, b: Any, table: Any, last: Any, as_of: Any, times: Any, masks: Any, base: Any, values: Any,
    low: Any, high: Any,
) -> None:  # fmt: skip
    """Add rows to the balances of their keys, in no particular order."""
    for j in range(low, high):
        for term in range(layout.balances[b, 0], layout.balances[b, 1]):
            spec = layout.terms[term]
            bit, role, key_slot, amount_slot, expiry_slot, expiry_us = (
                spec[0],
                spec[1],
                spec[2],
                spec[3],
                spec[4],
                spec[5],
            )
            if masks[j - base] & bit == 0 or values[key_slot, j] == NULL:
                continue
            if role == TERM_ADD:
                expiry = values[expiry_slot, j] if expiry_slot >= 0 else NULL
                if expiry == NULL and expiry_us != NULL:
                    expiry = times[j] + expiry_us
                if expiry != NULL and as_of >= expiry:
                    continue
            key = values[key_slot, j]
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


@_kernel
def entries(rows: Any) -> Any:
    """How many entries a hash set or table for at most `rows` rows has: a power of two, at least half of them free."""
    size = 2
    while size < 2 * min(rows, HELD_MAX):
        size *= 2
    return size


@_kernel
def reset(layout: Any, source: Any, rows: Any, scratch: Any) -> Any:
    """Empty the cells, sets and tables of a source for at most `rows` rows; return the last place of its sets."""
    last = entries(rows) - 1
    for ladder in range(layout.sources[source, 2], layout.sources[source, 3]):
        spec = layout.ladders[ladder]
        rungs = spec[2] - spec[1]
        for g in range(spec[3], spec[4]):
            cell, members = layout.groups[g, 3], layout.groups[g, 4]
            for c in range(cell, cell + rungs):
                for word in range(CELL_WIDTH):
                    scratch.state[c, word] = 0
                scratch.state[c, LEAST], scratch.state[c, MOST] = _INT64_MAX, NULL
            if members >= 0:
                scratch.sets[members, : last + 1] = NULL
                scratch.sets[members, last + 1] = 0
    for b in range(layout.sources[source, 6], layout.sources[source, 7]):
        scratch.tables[b, : last + 2] = 0
        scratch.tables[b, : last + 1, KEY] = NULL
    return last


@_kernel
def _integer(negative: Any, high: Any, low: Any) -> Any:
    """An integer result as (float64, error)."""
    if high != _ZERO or low > np.uint64(INTEGER_MAX):
        return np.nan, BEYOND_INTEGER
    return (-np.float64(low) if negative else np.float64(low)), OK


@_kernel
def _std(cell: Any) -> Any:
    """The population's standard deviation: sqrt((n * sum of squares - square of sum) / n**2), as (float64, error)."""
    n = np.uint64(cell[N])
    _, high, low = _total(cell[SUM_HIGH], cell[SUM_LOW])
    squares_high, squares_low = np.uint64(cell[SQUARE_1]), np.uint64(cell[SQUARE_0])
    over, scaled_high = _multiply(squares_high, n)
    carry, scaled_low = _multiply(squares_low, n)
    scaled_high += carry
    if cell[SQUARE_2] != 0 or high != _ZERO or over != _ZERO or scaled_high < carry or scaled_high >> np.uint64(63):
        return np.nan, BEYOND_SQUARES
    mean_high, mean_low = _multiply(low, low)
    rest_low = scaled_low - mean_low
    rest_high = scaled_high - mean_high - (_ONE if scaled_low < mean_low else _ZERO)
    count = np.float64(cell[N])
    return np.sqrt(_to_float(rest_high, rest_low) / (count * count)), OK


@_kernel
def _balance(table: Any, last: Any) -> Any:
    """The sum over open keys of what is above zero, as (float64, error)."""
    if table[last + 1, HELD_OVER] != 0:
        return np.nan, BEYOND_KEYS
    total = _ZERO
    for place in range(last + 1):
        if table[place, KEY] == NULL or table[place, CLOSED] != 0:
            continue
        low = table[place, NET_LOW]
        negative, high, low = _total(table[place, NET_HIGH] + (low >> 32), low & 0xFFFFFFFF)
        if negative:
            continue
        if high != _ZERO or low > np.uint64(INTEGER_MAX):
            return np.nan, BEYOND_INTEGER
        total += low
        if total > np.uint64(INTEGER_MAX):
            return np.nan, BEYOND_INTEGER
    return np.float64(total), OK


@_kernel
def _finish(aggregate: Any, cell: Any, as_of: Any) -> Any:
    """One measure but a balance, before its scale, as (float64, error)."""
    n = np.float64(cell[N])
    if aggregate == COUNT:
        return n, OK
    if aggregate == DISTINCT:
        return np.float64(cell[VALUES]), (BEYOND_DISTINCT if cell[VALUES_OVER] else OK)
    if aggregate == SUM:
        negative, high, low = _total(cell[SUM_HIGH], cell[SUM_LOW])
        return _integer(negative, high, low)
    if cell[N] == 0:
        return np.nan, OK
    if aggregate == MEAN:
        negative, high, low = _total(cell[SUM_HIGH], cell[SUM_LOW])
        total = _to_float(high, low)
        return (-total if negative else total) / n, OK
    if aggregate == STD:
        return _std(cell)
    if aggregate in (SINCE_FIRST, SINCE_LAST):
        time = cell[OLDEST_TIME] if aggregate == SINCE_FIRST else cell[NEWEST_TIME]
        return np.float64(as_of - time) / 1e6, OK
    value = cell[LEAST]
    if aggregate == MAX:
        value = cell[MOST]
    elif aggregate == FIRST:
        value = cell[OLDEST]
    elif aggregate == LAST:
        value = cell[NEWEST]
    return _integer(value < 0, _ZERO, np.uint64(abs(value)))


@_kernel
def finish_source(layout: Any, source: Any, entity: Any, as_of: Any, last: Any, scratch: Any, out: Any) -> Any:
    """Merge the windows of a source and write its measures to `out`; return the first error.

    `entity` is -2 where the application names none: every measure is null then.
    """
    error = OK
    for ladder in range(layout.sources[source, 2], layout.sources[source, 3]):
        spec = layout.ladders[ladder]
        rungs = spec[2] - spec[1]
        for g in range(spec[3], spec[4]):
            cell = layout.groups[g, 3]
            for c in range(cell + 1, cell + rungs):
                _merge(scratch.state[c], scratch.state[c - 1])
    for m in range(layout.sources[source, 4], layout.sources[source, 5]):
        place, aggregate, at = layout.measures[m, 0], layout.measures[m, 1], layout.measures[m, 2]
        if entity == -2:
            value, code = np.nan, OK
        elif aggregate == BALANCE:
            value, code = _balance(scratch.tables[at], last)
        else:
            value, code = _finish(aggregate, scratch.state[at], as_of)
        out[place] = value / layout.divisors[m]
        if code != OK and (error == OK or place * CODES + code < error):
            error = place * CODES + code
    return error


@_kernel
def _step(operation: Any, a: Any, b: Any) -> Any:
    """One step on two operands that are not null."""
    if operation == ADD:
        return a + b
    if operation == SUBTRACT:
        return a - b
    if operation == MULTIPLY:
        return a * b
    if operation == DIVIDE:
        return a / b if b != 0.0 else np.nan
    if operation == MINIMUM:
        return a if a < b else b
    if operation == MAXIMUM:
        return a if a > b else b
    true = (
        (operation == LESS and a < b)
        or (operation == LESS_EQUAL and a <= b)
        or (operation == GREATER and a > b)
        or (operation == GREATER_EQUAL and a >= b)
        or (operation == EQUAL and a == b)
        or (operation == NOT_EQUAL and a != b)
    )
    return 1.0 if true else 0.0


@_kernel
def _program(layout: Any, feature: Any, measures: Any, requests: Any, stack: Any) -> Any:
    """Run one feature's program; NaN is null."""
    top = 0
    for s in range(layout.programs[feature], layout.programs[feature + 1]):
        operation, operand = layout.steps[s, 0], layout.steps[s, 1]
        if operation == MEASURE:
            stack[top] = measures[operand]
            top += 1
        elif operation == REQUEST:
            stack[top] = requests[operand]
            top += 1
        elif operation == CONSTANT:
            stack[top] = layout.constants[operand]
            top += 1
        elif operation == FILL:
            if np.isnan(stack[top - 1]):
                stack[top - 1] = layout.constants[operand]
        else:
            top -= 1
            a, b = stack[top - 1], stack[top]
            stack[top - 1] = np.nan if np.isnan(a) or np.isnan(b) else _step(operation, a, b)
    return stack[0]


@_kernel
def finish_rows(layout: Any, measures: Any, requests: Any, errors: Any, out: Any) -> None:
    """Run all programs of all rows; a row with an error is null throughout."""
    stack = np.empty(STACK_MAX, np.float64)
    for i in range(out.shape[0]):
        for feature in range(out.shape[1]):
            if errors[i] != OK:
                out[i, feature] = np.nan
                continue
            value = _program(layout, feature, measures[i], requests[i], stack)
            if np.isinf(value):
                errors[i] = feature * CODES + BEYOND_FINITE
            # One bit pattern for null, and +0 for -0.
            out[i, feature] = np.nan if np.isnan(value) else value + 0.0


@_kernel
def accumulate_chunk(
    layout: Any, source: Any, as_of: Any, self_root: Any, times: Any, roots: Any, masks: Any, values: Any,
    visible: Any, scratch: Any, last: Any,
) -> None:  # fmt: skip
    """Online: add a chunk of winners, older than the chunks added before; `visible` is room for its masks."""
    end = _boundary(times, as_of, 0, times.shape[0])
    start = _boundary(times, as_of - layout.sources[source, 1], 0, end)
    for j in range(start, end):
        visible[j - start] = masks[j] if roots[j] != self_root else 0
    _accumulate(layout, source, as_of, times, visible, start, values, start, end, scratch, last)


@_kernel
def _superseded(rows: Any, j: Any, as_of: Any, cut: Any) -> Any:
    """Whether a version that ranks above row j is in the view."""
    version = rows.version[j]
    for k in range(rows.above_start[version], rows.above_end[version]):
        position = rows.above_position[k]
        if rows.above_known[k] <= as_of and position & _SEQUENCE <= cut[position >> 48]:
            return True
    return False


@_kernel
def _view(rows: Any, as_of: Any, self_root: Any, cut: Any, start: Any, end: Any, visible: Any) -> None:
    """Offline: write the masks of rows [start, end) to `visible`, 0 where a row is not in the view."""
    for j in range(start, end):
        mask = rows.mask[j]
        position = rows.position[j]
        keep = rows.known[j] <= as_of and position & _SEQUENCE <= cut[position >> 48] and rows.root[j] != self_root
        if keep and mask < 0:
            keep = not _superseded(rows, j, as_of, cut)
        visible[j - start] = mask & _INT64_MAX if keep else 0


@_kernel
def measure_rows(
    layout: Any, source: Any, rows: Any, as_of: Any, self_root: Any, cuts: Any, entity: Any,
    scratch: Any, errors: Any, out: Any,
) -> None:  # fmt: skip
    """Offline: the measures of one source for many requests; `entity` is -1 without facts, -2 where none is named."""
    visible = np.empty(1024, np.int64)
    for i in range(as_of.shape[0]):
        low, high = 0, 0
        if entity[i] >= 0:
            low, high = rows.offsets[entity[i]], rows.offsets[entity[i] + 1]
        high = _boundary(rows.event_time, as_of[i], low, high)
        low = _boundary(rows.event_time, as_of[i] - layout.sources[source, 1], low, high)
        if high - low > visible.shape[0]:
            visible = np.empty(2 * (high - low), np.int64)
        _view(rows, as_of[i], self_root[i], cuts[i % cuts.shape[0]], low, high, visible)
        last = reset(layout, source, high - low, scratch)
        _accumulate(layout, source, as_of[i], rows.event_time, visible, low, rows.values, low, high, scratch, last)
        error = finish_source(layout, source, entity[i], as_of[i], last, scratch, out[i])
        if error != OK and (errors[i] == OK or error < errors[i]):
            errors[i] = error
