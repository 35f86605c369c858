"""What kernels rest on, on its own: exact integers against Python's, sorting against `sorted`.

Everything that a plan can ask of the kernels is held to the oracle by `test_measures.py`.
"""

from __future__ import annotations

import itertools
from typing import Any

import numba
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from obligor.features.kernels import integers
from obligor.features.kernels.sorting import place_rank, sort
from obligor.features.kernels.values import ORDERED_MAX

WORD = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
VALUES = st.integers(-(2**63) + 1, 2**63 - 1) | st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63) + 1])


@numba.njit
def _multiplied(a: Any, b: Any) -> Any:
    return integers.multiply(a, b)


@numba.njit
def _floated(high: Any, low: Any) -> Any:
    return integers.to_float(high, low)


@numba.njit
def _added(values: Any, squares: Any, products: Any) -> Any:
    sum_high, sum_low = 0, 0
    for v in values:
        sum_high += v >> 32
        sum_low += v & 0xFFFFFFFF
        high, low = integers.multiply(np.uint64(abs(v)), np.uint64(abs(v)))
        integers.add_square(squares, 0, high, low)
    for i in range(1, values.shape[0]):  # partners of at most 2**32, so that the sum does not leave 128 bits
        high_signed, low = integers.signed_product(values[i], values[i - 1] >> 31)
        integers.add_signed(products, 0, high_signed, low)
    return integers.total(sum_high, sum_low)


@numba.njit
def _sorted(keys: Any, bounds: Any) -> None:
    sort(keys, keys.shape[0], bounds)


@numba.njit
def _ranked(keys: Any, rank: Any) -> None:
    place_rank(keys, keys.shape[0], rank)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(WORD, WORD)
def test_products_and_their_roundings_are_exact(a: int, b: int) -> None:
    high, low = map(int, _multiplied(np.uint64(a), np.uint64(b)))
    assert high << 64 | low == a * b
    assert _floated(np.uint64(high), np.uint64(low)) == float(a * b)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.integers(0, 63), WORD, WORD)
@example(1, 2**63, 1)
def test_a_tie_is_seen_through_all_the_lower_bits(shift: int, high: int, low: int) -> None:
    number = high >> shift << 64 | low
    for near in (number, max(number - 1, 0), min(number + 1, 2**128 - 1)):
        assert _floated(np.uint64(near >> 64), np.uint64(near & (2**64 - 1))) == float(near)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.lists(VALUES, max_size=30))
def test_sums_are_those_of_unbounded_integers(values: list[int]) -> None:
    squares, products = np.zeros(3, np.int64), np.zeros(2, np.int64)
    negative, high, low = _added(np.array(values, np.int64), squares, products)
    total = int(high) << 64 | int(low)
    assert (-total if negative else total) == sum(values)
    assert sum(int(np.uint64(w)) << 64 * (2 - i) for i, w in enumerate(squares)) == sum(v * v for v in values)
    pairs = sum(b * (a >> 31) for a, b in itertools.pairwise(values))
    assert (int(products[0]) << 64) + int(np.uint64(products[1])) == pairs


def _hard(n: int) -> list[list[int]]:
    """Orders that are hard for a sort by partition."""
    up = list(range(n))
    return [up, up[::-1], [0] * n, up[::2] + up[1::2][::-1], [i % 7 for i in up], [min(i, n - i) for i in up]]


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.lists(VALUES, max_size=200) | st.sampled_from([one for n in (25, 1000, ORDERED_MAX) for one in _hard(n)]))
def test_sorting_and_ranks(values: list[int]) -> None:
    expected, keys = sorted(values), np.array(values, np.int64)
    _sorted(keys, np.empty(128, np.int64))
    assert keys.tolist() == expected
    for rank in {0, len(values) // 3, len(values) - 1} if values else ():
        keys = np.array(values, np.int64)
        _ranked(keys, rank)
        assert keys[rank] == expected[rank]
        assert not rank or keys[:rank].max() <= keys[rank]
        assert keys[rank:].min() == keys[rank]
        assert sorted(keys.tolist()) == expected
