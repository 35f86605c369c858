"""Two levels: numbers for each key (each loan of a consumer), a program over them, then an aggregate over the keys.

A key's numbers lie in base words of cells (`cells.py`), one after the other; which row of them a key has says a hash
table. Rows come newest first, pieces of a timeline one after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.cells import (
    BASE_WORDS,
    LEAST,
    MOST,
    NEWEST,
    NEWEST_TIME,
    OLDEST,
    OLDEST_TIME,
    ROWS,
    SUM_HIGH,
    SUM_LOW,
    N,
)
from obligor.features.kernels.compiling import inlined, kernel
from obligor.features.kernels.integers import INT64_MAX, INTEGER_MAX, NULL, ZERO, exact, to_float, total
from obligor.features.kernels.programs import run_program
from obligor.features.kernels.sorting import sort
from obligor.features.kernels.values import find

__all__ = ["KEYS_MAX", "finish_keys", "reset_keys", "update_keys"]

KEYS_MAX = 4096  # different keys of one entity; beyond is an error

# The columns of `layout.inner`.
I_BIT, I_KEY, I_SLOT, I_AGGREGATE, I_OFFSET, I_LENGTH = range(6)
# The places of aggregates in `measures.Aggregate`.
COUNT, SUM, MEAN, STD, _, MIN, MAX, FIRST, LAST = range(9)
SINCE_FIRST, SINCE_LAST = 10, 11
HELD, OVER = 0, 1  # words after a table's entries

KEY, PLACE = 0, 1


@inlined
def reset_keys(table: Any, last: Any) -> None:
    """Empty a table (entries + 1, 2)."""
    for entry in range(last + 1):
        table[np.uint64(entry), KEY] = NULL
    table[last + 1, HELD] = table[last + 1, OVER] = 0


@kernel
def _place(table: Any, last: Any, key: Any, numbers: Any, words: Any) -> Any:
    """Where the words of a key begin, -1 where there would be too many keys."""
    entry = find(table[:, KEY], last, key)
    if table[entry, KEY] == NULL:
        held = table[last + 1, HELD]
        if held == KEYS_MAX:
            table[last + 1, OVER] = 1
            return -1
        table[entry, KEY], table[entry, PLACE] = key, held
        table[last + 1, HELD] = held + 1
        for at in range(held * words, held * words + words, BASE_WORDS):
            for word in range(BASE_WORDS):
                numbers[at + word] = 0
            numbers[at + LEAST], numbers[at + MOST] = INT64_MAX, NULL
    return table[entry, PLACE] * words


@inlined
def _add(numbers: Any, at: Any, time: Any, v: Any) -> None:
    """Add one row, older than those before, to a key's cell; v is null where there is no value."""
    numbers[at + OLDEST_TIME] = time
    if numbers[at + ROWS] == 0:
        numbers[at + NEWEST_TIME] = time
    numbers[at + ROWS] += 1
    if v != NULL:
        numbers[at + OLDEST] = v
        if numbers[at + N] == 0:
            numbers[at + NEWEST] = v
        numbers[at + N] += 1
        numbers[at + SUM_HIGH] += v >> 32
        numbers[at + SUM_LOW] += v & 0xFFFFFFFF
        numbers[at + LEAST], numbers[at + MOST] = min(numbers[at + LEAST], v), max(numbers[at + MOST], v)


@kernel
def update_keys(
    inner: Any, start: Any, end: Any, table: Any, last: Any, numbers: Any, as_of: Any, times: Any, values: Any,
    masks: Any, base: Any, low: Any, high: Any,
) -> None:  # fmt: skip
    """Add rows to the numbers of their keys."""
    words, any_bit = (end - start) * BASE_WORDS, 0
    for k in range(start, end):
        any_bit |= inner[k, I_BIT]
    for j in range(high - 1, low - 1, -1):
        mask = masks[np.uint64(j - base)]
        if mask & any_bit == 0:
            continue
        for k in range(start, end):
            until = as_of - inner[k, I_OFFSET]
            if mask & inner[k, I_BIT] == 0 or times[j] >= until or times[j] < until - inner[k, I_LENGTH]:
                continue
            key = values[inner[k, I_KEY], j]
            if key == NULL:
                continue
            at = _place(table, last, key, numbers, words)
            if at < 0:
                return
            v = values[inner[k, I_SLOT], j] if inner[k, I_SLOT] >= 0 else NULL
            _add(numbers, at + (k - start) * BASE_WORDS, times[j], v)


@kernel
def _number(numbers: Any, at: Any, aggregate: Any, as_of: Any) -> Any:
    """One inner aggregate, infinity where an integer is not exact."""
    if aggregate == COUNT:
        return np.float64(numbers[at + ROWS])
    if aggregate in (SINCE_FIRST, SINCE_LAST):
        moment = numbers[at + (OLDEST_TIME if aggregate == SINCE_FIRST else NEWEST_TIME)]
        return np.float64(as_of - moment) / 1e6 if numbers[at + ROWS] != 0 else np.nan
    if aggregate in (SUM, MEAN):
        negative, high, low = total(numbers[at + SUM_HIGH], numbers[at + SUM_LOW])
        added = -to_float(high, low) if negative else to_float(high, low)
        if aggregate == SUM:
            return added if high == ZERO and low <= np.uint64(INTEGER_MAX) else np.inf
        return added / np.float64(numbers[at + N]) if numbers[at + N] != 0 else np.nan
    if numbers[at + N] == 0:
        return np.nan
    if aggregate in (MIN, MAX):
        return exact(numbers[at + (LEAST if aggregate == MIN else MOST)])
    return exact(numbers[at + (OLDEST if aggregate == FIRST else NEWEST)])


@kernel
def _over_keys(found: Any, n: Any, aggregate: Any, whole: Any) -> Any:
    """The outer aggregate of n numbers in ascending order; infinity of a sum of whole numbers that may be rounded."""
    if aggregate == COUNT:
        return np.float64(n)
    added, most = 0.0, 0.0
    for i in range(n):
        added += found[i]
        most = max(most, np.abs(added))
    if aggregate == SUM:
        return np.inf if whole and most >= INTEGER_MAX and n > 1 else added
    if n == 0:
        return np.nan
    if aggregate in (MIN, MAX):
        return found[0 if aggregate == MIN else n - 1]
    mean = added / np.float64(n)
    if aggregate == MEAN:
        return mean
    squares = 0.0
    for i in range(n):
        squares += (found[i] - mean) * (found[i] - mean)
    return np.sqrt(squares / np.float64(n))


@kernel
def finish_keys(
    inner: Any, start: Any, end: Any, divisors: Any, steps: Any, program: Any, program_end: Any, constants: Any,
    aggregate: Any, whole: Any, table: Any, last: Any, numbers: Any, as_of: Any, row: Any, stack: Any, found: Any,
    bounds: Any,
) -> Any:  # fmt: skip
    """The measure; minus infinity of too many keys, infinity where a number of a key is not finite or not exact."""
    if table[last + 1, OVER] != 0:
        return -np.inf
    words, n, crossed = (end - start) * BASE_WORDS, 0, False
    for place in range(table[last + 1, HELD]):
        for k in range(start, end):
            value = _number(numbers, place * words + (k - start) * BASE_WORDS, inner[k, I_AGGREGATE], as_of)
            crossed |= np.isinf(value)
            row[k - start] = value / divisors[k]
        value, is_exact = run_program(steps, program, program_end, constants, row, row, stack)
        crossed |= not is_exact
        if not np.isnan(value):
            found[n] = value
            n += 1
    if crossed:
        return np.inf
    sort(found, n, bounds)
    return _over_keys(found, n, aggregate, whole)
