"""Values counted one by one, exactly, up to a limit: distinct values, frequencies, quantiles, the n-th last.

Each pass keeps what it met in newer rows and goes on in older ones, so nested windows share it. A map is an open hash
table of (value, how many, which row from the newest was the last of it). What there is too much of is minus infinity,
an integer that is not exact infinity.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.compiling import entry, inlined, kernel
from obligor.features.kernels.integers import NULL, exact
from obligor.features.kernels.sorting import place_rank, sort
from obligor.features.portable import log

__all__ = [
    "DISTINCT_MAX",
    "ORDERED_MAX",
    "entries",
    "find",
    "finish_map",
    "finish_ordered",
    "finish_recent",
    "log2",
    "ranked_entropy",
    "reset_map",
    "update_map",
    "update_ordered",
    "update_recent",
]  # fmt: skip

DISTINCT_MAX = 4096  # different values of one entity in one window, counted exactly; beyond is an error
ORDERED_MAX = 16_384  # values of one entity in one window that quantiles are taken of; beyond is an error

VALUE, TIMES, OLDEST = range(3)  # words of a map's entry
HELD, OVER, SEEN = range(3)  # words after its entries: how many it holds, whether it needed more, rows met so far

_LN2 = 0.6931471805599453
_ORDINAL = 2**32 - 1


@inlined
def find(keys: Any, last: Any, key: Any) -> Any:
    """The place of `key` in an open hash set of last + 1 entries (a power of two), or the empty one it would take."""
    mixed = (np.uint64(key) ^ (np.uint64(key) >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    place = np.int64(mixed >> np.uint64(32)) & last
    while keys[np.uint64(place)] != NULL and keys[np.uint64(place)] != key:
        place = (place + 1) & last
    return place


@entry
def entries(rows: Any) -> Any:
    """How many entries a hash table for at most `rows` rows has: a power of two, at least half of them free."""
    size = 2
    while size < 2 * min(rows, DISTINCT_MAX):
        size *= 2
    return size


@inlined
def reset_map(table: Any, last: Any) -> None:
    """Empty a map (entries + 1, 3)."""
    for place in range(last + 1):
        table[np.uint64(place), VALUE] = NULL
    table[last + 1, HELD] = table[last + 1, OVER] = table[last + 1, SEEN] = 0


@kernel
def update_map(
    table: Any, last: Any, bit: Any, slot: Any, values: Any, masks: Any, base: Any, low: Any, high: Any
) -> None:
    """Count the values of rows, all older than those before."""
    keys, seen = table[:, VALUE], table[last + 1, SEEN]
    for j in range(high - 1, low - 1, -1):
        v = values[slot, np.uint64(j)]
        if not ((masks[np.uint64(j - base)] & bit != 0) & (v != NULL)):
            continue
        place = find(keys, last, v)
        if keys[place] == NULL:
            if table[last + 1, HELD] == DISTINCT_MAX:
                table[last + 1, OVER] = 1
                return
            table[last + 1, HELD] += 1
            keys[place], table[place, TIMES] = v, 0
        table[place, TIMES] += 1
        table[place, OLDEST] = seen
        seen += 1
    table[last + 1, SEEN] = seen


@kernel
def log2(x: Any) -> Any:
    """The logarithm to base two, from the portable one."""
    return log(x) / _LN2


@kernel
def ranked_entropy(counts: Any, kinds: Any, n: Any) -> Any:
    """The entropy in bits of `kinds` counts in ascending order that add up to n."""
    if kinds == 1:
        return 0.0
    weighted = 0.0
    for i in range(kinds):
        weighted += np.float64(counts[i]) * log2(np.float64(counts[i]))
    return log2(np.float64(n)) - weighted / np.float64(n)


@kernel
def finish_map(table: Any, last: Any, kind: Any, parameter: Any, keys: Any, bounds: Any) -> Any:
    """One result of a map, infinite beyond a limit; `kind` is 0 distinct, 1 most frequent, 2 top share, 3 entropy."""
    held, n = table[last + 1, HELD], table[last + 1, SEEN]
    if table[last + 1, OVER] != 0:
        return -np.inf
    if kind == 0:
        return np.float64(held)
    if held == 0 or (kind == 1 and held < parameter):
        return np.nan
    # How often, then how early: a value met later from the newest row on occurs earlier.
    at = 0
    for place in range(last + 1):
        if table[place, VALUE] != NULL:
            keys[at] = table[place, TIMES] if kind == 3 else table[place, TIMES] << 32 | table[place, OLDEST]
            at += 1
    sort(keys, held, bounds)
    if kind == 3:
        return ranked_entropy(keys, held, n)
    if kind == 2:
        most = 0
        for i in range(min(parameter, held)):
            most += keys[held - 1 - i] >> 32
        return np.float64(most) / np.float64(n)
    wanted = keys[held - parameter]
    for place in range(last + 1):
        if table[place, VALUE] != NULL and (table[place, TIMES] << 32 | table[place, OLDEST]) == wanted:
            return exact(table[place, VALUE])
    return np.nan


@kernel
def update_ordered(
    buffer: Any, held: Any, bit: Any, slot: Any, values: Any, masks: Any, base: Any, low: Any, high: Any
) -> Any:
    """Put the values of rows behind the `held` ones; return how many there are, one too many beyond the limit."""
    for j in range(high - 1, low - 1, -1):
        v = values[slot, np.uint64(j)]
        if (masks[np.uint64(j - base)] & bit != 0) & (v != NULL):
            if held < ORDERED_MAX:
                buffer[held] = v
            held += 1
            if held > ORDERED_MAX:
                return held
    return held


@kernel
def between(low: Any, high: Any, part: Any) -> Any:
    """The value at `part` of the way between two, both exact."""
    return low + (high - low) * part


@kernel
def finish_ordered(buffer: Any, held: Any, q: Any) -> Any:
    """The quantile of held values, linear between the two nearest ranks."""
    if held > ORDERED_MAX:
        return -np.inf
    if held == 0:
        return np.nan
    position = q * np.float64(held - 1)
    rank = np.int64(np.floor(position))
    place_rank(buffer, held, rank)
    low = exact(buffer[rank])
    part = position - np.float64(rank)
    if part == 0.0:
        return low
    above = buffer[rank + 1]
    for i in range(rank + 2, held):
        above = min(above, buffer[i])
    high = exact(above)
    return np.inf if np.isinf(low) or np.isinf(high) else between(low, high, part)


@kernel
def update_recent(
    buffer: Any, held: Any, wanted: Any, bit: Any, slot: Any, values: Any, masks: Any, base: Any, low: Any, high: Any
) -> Any:
    """Put the newest values behind the `held` ones, up to `wanted`; return how many there are."""
    j = high - 1
    while j >= low and held < wanted:
        v = values[slot, np.uint64(j)]
        if (masks[np.uint64(j - base)] & bit != 0) & (v != NULL):
            buffer[held] = v
            held += 1
        j -= 1
    return held


@inlined
def finish_recent(buffer: Any, held: Any, n: Any) -> Any:
    """The n-th value from the newest, null of fewer."""
    return exact(buffer[n - 1]) if held >= n else np.nan
