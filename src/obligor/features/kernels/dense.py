"""Counts in a fixed number of places, however many the rows: vocabularies (exact), buckets and registers (sketches).

All three merge place by place in any order, so tiles, threads and lateness change nothing. Buckets hold numbers by sign
and six leading bits (after HdrHistogram); registers are HyperLogLog's (Flajolet et al. 2007) with 2,048 of them.

The places are int32. COUNTS of n codes: how often each came, for each how many rows were met before its oldest (ties go
to the earlier first row), how many were met in all. BUCKETS: how often each came, and, so that most of them need not be
looked at, how far the first and the last that came are from the ends (0: none came). REGISTERS: the greatest ranks,
four of them in a word, because what a question reads of tiles is what it costs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.compiling import inlined, kernel
from obligor.features.kernels.integers import NULL, bits
from obligor.features.kernels.sorting import sort
from obligor.features.kernels.values import between, ranked_entropy
from obligor.features.portable import log

__all__ = [
    "BUCKETS", "BUCKET_PLACES", "COUNTS", "REGISTERS", "REGISTER_PLACES", "dense_code", "finish_buckets",
    "finish_counts", "finish_registers", "merge_dense", "reset_dense", "update_coded", "update_dense",
]  # fmt: skip

COUNTS, BUCKETS, REGISTERS = range(3)  # kinds of dense passes

_EXACT_BELOW = 64
_HALF = _EXACT_BELOW + 57 * 32  # places of one sign; zero has the middle one
_BUCKETS = 2 * _HALF + 1
BUCKET_PLACES = _BUCKETS + 2
_PRECISION = 11
_REGISTERS = 1 << _PRECISION
REGISTER_PLACES = _REGISTERS // 4
_RANK_MAX = 64 - _PRECISION + 1
_ALPHA = 0.7213 / (1.0 + 1.079 / _REGISTERS)
_TOPS = np.uint32(0x80808080)  # the highest bit of each byte
_BYTE = np.uint32(0xFF)
NO_CODE = -1


@inlined
def _bucket(v: Any) -> Any:
    """The place of a number among the buckets, ascending."""
    magnitude = abs(v)
    place = magnitude
    if magnitude >= _EXACT_BELOW:
        shift = bits(np.uint64(magnitude)) - 6
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


@inlined
def dense_code(kind: Any, v: Any) -> Any:
    """What a value counts as: its place, for registers with the rank above it; NO_CODE of null."""
    code = np.int64(NO_CODE)
    if v != NULL:
        if kind == COUNTS:
            code = v
        elif kind == BUCKETS:
            code = _bucket(v)
        else:
            x = _mixed(v)
            rank = _RANK_MAX - bits((x << np.uint64(_PRECISION)) >> np.uint64(_PRECISION))
            code = np.int64(x >> np.uint64(64 - _PRECISION)) | rank << _PRECISION
    return code


@inlined
def _add(kind: Any, places: Any, codes: Any, code: Any) -> None:
    """Count a code that is older than those before."""
    if kind == COUNTS:
        places[code] += 1
        places[codes + code] = places[2 * codes]
        places[2 * codes] += 1
    elif kind == BUCKETS:
        places[code] += 1
        places[_BUCKETS] = max(places[_BUCKETS], np.int32(_BUCKETS - code))
        places[_BUCKETS + 1] = max(places[_BUCKETS + 1], np.int32(code + 1))
    else:
        register = code & (_REGISTERS - 1)
        word, shift = np.uint32(places[register >> 2]), np.uint32(8 * (register & 3))
        rank = np.uint32(code >> _PRECISION)
        if (word >> shift) & _BYTE < rank:
            places[register >> 2] = np.int32((word & ~(_BYTE << shift)) | (rank << shift))


@kernel
def update_dense(
    kind: Any, places: Any, bit: Any, slot: Any, values: Any, masks: Any, base: Any, low: Any, high: Any
) -> None:
    """Add the values of rows, all older than those before."""
    codes = places.shape[0] // 2
    for j in range(high - 1, low - 1, -1):
        if masks[np.uint64(j - base)] & bit != 0:
            code = dense_code(kind, values[slot, np.uint64(j)])
            if code != NO_CODE:
                _add(kind, places, codes, code)


@kernel
def update_coded(kind: Any, places: Any, bit: Any, coded: Any, masks: Any, low: Any, high: Any) -> None:
    """The same of rows whose codes are known."""
    codes = places.shape[0] // 2
    for j in range(high - 1, low - 1, -1):
        code = coded[np.uint64(j)]
        if (masks[np.uint64(j)] & bit != 0) & (code != NO_CODE):
            _add(kind, places, codes, code)


@inlined
def _bucket_range(places: Any) -> Any:
    """Where the buckets that came begin and end."""
    return _BUCKETS - places[_BUCKETS], places[_BUCKETS + 1]


@kernel
def reset_dense(kind: Any, places: Any) -> None:
    """Empty places that are zero or were filled by the functions here."""
    if kind == BUCKETS:
        first, end = _bucket_range(places)
        places[first:end] = 0
        places[_BUCKETS:] = 0
    else:
        places[:] = 0


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
        for i in range(REGISTER_PLACES):  # the greater of each byte; ranks are below 128
            a, b = np.uint32(places[np.uint64(i)]), np.uint32(tile[np.uint64(i)])
            at_least = (((a | _TOPS) - b) & _TOPS) >> np.uint32(7)
            taken = (at_least << np.uint32(8)) - at_least
            places[np.uint64(i)] = np.int32((a & taken) | (b & ~taken))
    else:
        first, end = _bucket_range(tile)
        for i in range(first, end):
            places[np.uint64(i)] += tile[np.uint64(i)]
        for word in (_BUCKETS, _BUCKETS + 1):
            places[word] = max(places[word], tile[word])


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
    first, end = _bucket_range(places)
    n = np.int64(0)
    for one in range(first, end):
        n += places[np.uint64(one)]
    if n == 0:
        return np.nan
    position = q * np.float64(n - 1)
    rank = np.int64(np.floor(position))
    part = position - np.float64(rank)
    below, place = np.int64(0), np.int64(first)
    while below + places[np.uint64(place)] <= rank:
        below += places[np.uint64(place)]
        place += 1
    low = _middle(place)
    if part == 0.0:
        return low
    if below + places[place] == rank + 1:  # the next rank is in another bucket
        place += 1
        while places[np.uint64(place)] == 0:
            place += 1
    return between(low, _middle(place), part)


@kernel
def finish_registers(places: Any, ranks: Any) -> Any:
    """About the number of distinct values; `ranks` is room for four times 64 counts (none waits for another)."""
    ranks[:] = 0
    for place in range(REGISTER_PLACES):
        word = np.uint32(places[np.uint64(place)])
        for lane in range(4):
            ranks[64 * lane + np.int64((word >> np.uint32(8 * lane)) & _BYTE)] += 1
    weight, power = 0.0, 1.0
    for rank in range(_RANK_MAX + 1):
        held = ranks[rank] + ranks[64 + rank] + ranks[128 + rank] + ranks[192 + rank]
        weight += np.float64(held) * power
        power *= 0.5
    m, zeros = np.float64(_REGISTERS), ranks[0] + ranks[64] + ranks[128] + ranks[192]
    estimate = _ALPHA * m * m / weight
    if estimate <= 2.5 * m and zeros > 0:
        return m * log(m / np.float64(zeros))
    return estimate
