"""Counts in a fixed number of places, however many the rows: vocabularies (exact), buckets and registers (sketches).

All three merge place by place in any order, so tiles, threads and lateness change nothing. Buckets hold numbers by sign
and six leading bits (after HdrHistogram); registers are HyperLogLog's (Flajolet et al. 2007) with 2,048 of them.
A dense array is int32: ranks, or counts; behind the counts of a vocabulary of n codes stand, for each code, how many
rows were met before its oldest (ties go to the earlier first row), and how many were met in all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.compiling import inlined, kernel
from obligor.features.kernels.integers import NULL
from obligor.features.kernels.sorting import sort
from obligor.features.kernels.values import between, ranked_entropy
from obligor.features.portable import log

__all__ = [
    "BUCKETS", "BUCKET_PLACES", "COUNTS", "REGISTERS", "REGISTER_PLACES", "finish_buckets", "finish_counts",
    "finish_registers", "merge_dense", "update_dense",
]  # fmt: skip

COUNTS, BUCKETS, REGISTERS = range(3)  # kinds of dense passes

_EXACT_BELOW = 64
_HALF = _EXACT_BELOW + 57 * 32  # places of one sign; zero has the middle one
BUCKET_PLACES = 2 * _HALF + 1
_PRECISION = 11
REGISTER_PLACES = 1 << _PRECISION
_RANK_MAX = 64 - _PRECISION + 1
_ALPHA = 0.7213 / (1.0 + 1.079 / REGISTER_PLACES)


@inlined
def _bits(v: Any) -> Any:
    """How many bits a positive int64 has."""
    n, x = 0, np.uint64(v)
    for step in (32, 16, 8, 4, 2, 1):
        if x >> np.uint64(step) != np.uint64(0):
            x = x >> np.uint64(step)
            n += step
    return n + 1


@inlined
def _bucket(v: Any) -> Any:
    """The place of a number among the buckets, ascending."""
    magnitude = abs(v)
    place = magnitude
    if magnitude >= _EXACT_BELOW:
        shift = _bits(magnitude) - 6
        place = _EXACT_BELOW + (shift - 1) * 32 + (magnitude >> shift) - 32
    return _HALF + place if v >= 0 else _HALF - place


@inlined
def _middle(place: Any) -> Any:
    """The number that stands for a bucket."""
    offset = abs(place - _HALF)
    middle = np.float64(offset)
    if offset >= _EXACT_BELOW:
        shift = (offset - _EXACT_BELOW) // 32 + 1
        leading = (offset - _EXACT_BELOW) % 32 + 32
        middle = np.float64(leading << shift) + np.float64(1 << (shift - 1))
    return middle if place >= _HALF else -middle


@inlined
def _mixed(v: Any) -> Any:
    """A value's 64 bits, mixed by the finaliser of splitmix64."""
    x = np.uint64(v)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def update_dense(
    kind: Any, places: Any, bit: Any, slot: Any, values: Any, masks: Any, base: Any, low: Any, high: Any
) -> None:
    """Add the values of rows, all older than those before."""
    codes = places.shape[0] // 2
    for j in range(high - 1, low - 1, -1):
        v = values[slot, np.uint64(j)]
        if not ((masks[np.uint64(j - base)] & bit != 0) & (v != NULL)):
            continue
        if kind == COUNTS:
            places[v] += 1
            places[codes + v] = places[2 * codes]
            places[2 * codes] += 1
        elif kind == BUCKETS:
            places[_bucket(v)] += 1
        else:
            x = _mixed(v)
            register = np.int64(x >> np.uint64(64 - _PRECISION))
            rest = np.int64((x << np.uint64(_PRECISION)) >> np.uint64(_PRECISION))
            rank = _RANK_MAX - _bits(rest) if rest != 0 else _RANK_MAX
            places[register] = max(places[register], np.int32(rank))


@kernel
def merge_dense(kind: Any, places: Any, tile: Any) -> None:
    """Add a tile's places, whose rows are all older."""
    if kind == COUNTS:
        codes = places.shape[0] // 2
        for code in range(codes):
            if tile[code] != 0:
                places[code] += tile[code]
                places[codes + code] = places[2 * codes] + tile[codes + code]
        places[2 * codes] += tile[2 * codes]
    elif kind == REGISTERS:
        for i in range(places.shape[0]):
            places[np.uint64(i)] = max(places[np.uint64(i)], tile[np.uint64(i)])
    else:
        for i in range(places.shape[0]):
            places[np.uint64(i)] += tile[np.uint64(i)]


@kernel
def finish_counts(places: Any, kind: Any, parameter: Any, keys: Any, bounds: Any) -> Any:
    """One result of counts by code; `kind` is 0 distinct, 1 most frequent, 2 top share, 3 entropy."""
    codes, held = places.shape[0] // 2, 0
    n = np.int64(places[2 * codes])
    for code in range(codes):
        if places[code] != 0:
            times = np.int64(places[code])
            keys[held] = times if kind == 3 else times << 32 | np.int64(places[codes + code])
            held += 1
    if kind == 0:
        return np.float64(held)
    if held == 0 or (kind == 1 and held < parameter):
        return np.nan
    sort(keys, held, bounds)
    if kind == 3:
        return ranked_entropy(keys, held, n)
    if kind == 2:
        most = 0
        for i in range(min(parameter, held)):
            most += keys[held - 1 - i] >> 32
        return np.float64(most) / np.float64(n)
    wanted = keys[held - parameter]
    for code in range(codes):
        if places[code] == wanted >> 32 and places[codes + code] == wanted & 0xFFFFFFFF:
            return np.float64(code)
    return np.nan


@kernel
def finish_buckets(places: Any, q: Any) -> Any:
    """The quantile of the buckets' middles."""
    n = 0
    for place in range(places.shape[0]):
        n += places[np.uint64(place)]
    if n == 0:
        return np.nan
    position = q * np.float64(n - 1)
    rank = np.int64(np.floor(position))
    part = position - np.float64(rank)
    below, place = 0, 0
    while below + places[np.uint64(place)] <= rank:
        below += places[np.uint64(place)]
        place += 1
    low = _middle(place)
    if part == 0.0 or below + places[place] > rank + 1:
        return low if part == 0.0 else between(low, low, part)
    place += 1
    while places[np.uint64(place)] == 0:
        place += 1
    return between(low, _middle(place), part)


@kernel
def finish_registers(places: Any, ranks: Any) -> Any:
    """About the number of distinct values; `ranks` is room for 54 counts."""
    ranks[: _RANK_MAX + 1] = 0
    for register in range(REGISTER_PLACES):
        ranks[np.uint64(places[np.uint64(register)])] += 1
    weight, power = 0.0, 1.0
    for rank in range(_RANK_MAX + 1):
        weight += np.float64(ranks[rank]) * power
        power *= 0.5
    m = np.float64(REGISTER_PLACES)
    estimate = _ALPHA * m * m / weight
    if estimate <= 2.5 * m and ranks[0] > 0:
        return m * log(m / np.float64(ranks[0]))
    return estimate
