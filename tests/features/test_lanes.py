"""Eight rows at a time, against numpy's arithmetic; places found by eights, against a search from the beginning."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from obligor.features.kernels.cells import BASE_WORDS, LEAST, MOST, SUM_HIGH, SUM_LOW, N, near, update_numbers
from obligor.features.kernels.integers import INT64_MAX, NULL
from obligor.features.kernels.lanes import (
    LANES,
    added,
    at_least,
    at_most,
    below,
    choose,
    common,
    count,
    differ,
    every,
    fetch,
    first_of,
    greater,
    greatest,
    least,
    lesser,
    load,
    load_all,
    shifted,
    store,
    total,
)

Ints = NDArray[np.int64]
_EXTREMES = [NULL, NULL + 1, -1, 0, 1, 2**32, -(2**32), INT64_MAX]


@numba.njit
def _each(a: Any, b: Any, lanes: Any, out: Any, sets: Any, across: Any) -> None:
    fetch(a, 3)
    x, y = load_all(a, 0), load_all(b, 0)
    store(out[0], 0, added(x, y))
    store(out[1], 0, common(x, y))
    store(out[2], 0, shifted(x, every(32)))
    store(out[3], 0, lesser(x, y))
    store(out[4], 0, greater(x, y))
    store(out[5], 0, choose(lanes, x, y))
    store(out[6], 0, load(a, 0, lanes))
    sets[0], sets[1], sets[2], sets[3] = at_least(x, y), at_most(x, y), below(x, y), differ(x, y)
    across[0], across[1], across[2] = total(x), least(x), greatest(x)
    across[3], across[4] = count(lanes), first_of(lanes)


@numba.njit
def _edges(array: Any, out: Any) -> None:
    """Lanes beyond both ends of an array, which are not read."""
    store(out[0], 0, load(array, -5, 0xFF << 5))
    store(out[1], 0, load(array, array.shape[0] - 3, 0xFF >> 5))


@numba.njit
def _near(times: Any, instant: Any, low: Any, high: Any, guess: Any) -> Any:
    return near(times, instant, low, high, guess)


@numba.njit
def _summed(state: Any, values: Any, masks: Any, base: Any, low: Any, high: Any) -> None:
    update_numbers(state, 0, 2, 1, False, values, masks, base, low, high)


def _set(lanes: NDArray[np.bool_]) -> int:
    return int(sum(1 << i for i in np.flatnonzero(lanes).tolist()))


def _draws() -> list[tuple[Ints, Ints]]:
    chance = np.random.default_rng(3)
    free = [tuple(chance.integers(NULL, INT64_MAX, (2, LANES), endpoint=True)) for _ in range(50)]
    pairs = [tuple(chance.choice(np.array(_EXTREMES), (2, LANES))) for _ in range(50)]
    return [(a, b) for a, b in [*free, *pairs]]


@pytest.mark.parametrize("lanes", [0, 1, 0x80, 0x5A, 0xFF])
def test_each_lane_is_numpys(lanes: int) -> None:
    chosen = np.array([lanes >> i & 1 for i in range(LANES)], np.bool_)
    for a, b in _draws():
        out, sets, across = np.zeros((7, LANES), np.int64), np.zeros(4, np.int64), np.zeros(5, np.int64)
        _each(a, b, lanes, out, sets, across)
        expected = [a + b, a & b, a >> 32, np.minimum(a, b), np.maximum(a, b), np.where(chosen, a, b)]
        np.testing.assert_array_equal(out, [*expected, np.where(chosen, a, 0)])
        assert sets.tolist() == [_set(a >= b), _set(a <= b), _set(a < b), _set(a != b)]
        first = int(np.flatnonzero(chosen)[0]) if lanes else LANES
        assert across.tolist() == [int(a.sum()), int(a.min()), int(a.max()), int(chosen.sum()), first]


def test_lanes_that_are_left_out_may_lie_beyond_an_array() -> None:
    array, out = np.arange(1, 11), np.zeros((2, LANES), np.int64)
    _edges(array, out)
    assert out.tolist() == [[0, 0, 0, 0, 0, 1, 2, 3], [8, 9, 10, 0, 0, 0, 0, 0]]


def test_a_place_is_found_from_every_guess() -> None:
    chance = np.random.default_rng(4)
    for rows in (1, 7, 8, 9, 64, 200, 3000):
        times = np.sort(chance.integers(0, rows, rows))  # with ties
        for _ in range(300):
            low, high = np.sort(chance.integers(0, rows + 1, 2)).tolist()
            instant, guess = chance.integers(-2, rows + 2, 2).tolist()
            expected = low + int(np.searchsorted(times[low:high], instant))
            assert _near(times, instant, low, high, guess) == expected, (rows, low, high, instant, guess)


def test_numbers_are_those_of_the_rows_that_are_seen() -> None:
    chance = np.random.default_rng(5)
    for _ in range(300):
        rows = int(chance.integers(1, 60))
        values = chance.integers(-(2**40), 2**40, (2, rows))
        values[1, chance.random(rows) < 0.2] = NULL
        masks, base = chance.integers(0, 4, rows + 3), -3
        low, high = np.sort(chance.integers(0, rows + 1, 2)).tolist()
        state = np.zeros(BASE_WORDS, np.int64)
        state[LEAST], state[MOST] = INT64_MAX, NULL
        _summed(state, values, masks, base, low, high)
        seen = [j for j in range(low, high) if masks[j - base] & 2]
        numbers = [int(values[1, j]) for j in seen if values[1, j] != NULL]
        assert (state[0], state[N]) == (len(seen), len(numbers))
        assert (int(state[SUM_HIGH]) << 32) + int(state[SUM_LOW]) == sum(numbers)
        assert (state[LEAST], state[MOST]) == (min(numbers, default=INT64_MAX), max(numbers, default=NULL))
