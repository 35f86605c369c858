"""The kernels' functions against mpmath and the portable ones, their sums against plain loops, and planted faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numba
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.sequences.examples import SIZES, events

from obligor.features import portable
from obligor.features.kernels.values import log2
from obligor.sequences.kernels import functions
from obligor.sequences.kernels.matrices import add_product, add_rows, fold, scale_to_unit
from obligor.sequences.kernels.tokens import NONE, first_wrong_slice
from obligor.sequences.state import NEVER

Floats = NDArray[np.float64]
CHANCE = np.random.default_rng(3)
AROUND_ZERO = np.concatenate([CHANCE.normal(0, 1e-9, 200), CHANCE.normal(0, 0.5, 3000), [0.0, 0.625, -0.625]])
EVERYWHERE = np.concatenate([AROUND_ZERO, CHANCE.uniform(-30, 30, 3000), CHANCE.uniform(-700, 700, 500)])
ANGLES = np.concatenate([AROUND_ZERO, CHANCE.uniform(-1.6e6, 1.6e6, 5000), np.arange(1, 3000) * (math.pi / 4)])


def over_arrays(function: Any) -> Callable[[Floats], Floats]:
    """Return a function of one number as a compiled loop."""

    @numba.njit(error_model="numpy")
    def loop(x: Any, out: Any) -> None:
        for j in range(x.shape[0]):
            out[j] = function(x[j])

    def call(x: Floats) -> Floats:
        out = np.empty_like(x)
        loop(x, out)
        return out

    return call


def worst(found: Floats, exact: Callable[[Any], Any], points: Floats, *, absolute: bool = False) -> float:
    """Return the largest error, in units in the last place or as it is."""
    errors = []
    with mpmath.workprec(150):
        for x, y in zip(points.tolist(), found.tolist(), strict=True):
            true = exact(mpmath.mpf(x))
            error = abs(mpmath.mpf(y) - true)
            errors.append(float(error if absolute or error == 0 else error / mpmath.mpf(math.ulp(float(true)))))
    return max(errors)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mpmath.exp(-x))


@pytest.mark.parametrize(
    ("name", "exact", "points", "bound"),
    [
        ("exp", mpmath.exp, EVERYWHERE, 1.0),
        ("sigmoid", sigmoid, EVERYWHERE, 3.0),
        ("tanh", mpmath.tanh, EVERYWHERE, 2.0),
        ("silu", lambda x: x * sigmoid(x), EVERYWHERE, 3.5),
    ],
)
def test_functions_are_accurate(name: str, exact: Callable[[Any], Any], points: Floats, bound: float) -> None:
    found = over_arrays(getattr(functions, name))(points)
    assert worst(found, exact, points) < bound
    assert worst(found * (1 + 1e-15), exact, points) > bound  # a lost digit would be caught


@pytest.mark.parametrize(("name", "exact"), [("sin", mpmath.sin), ("cos", mpmath.cos)])
def test_turns_are_accurate(name: str, exact: Callable[[Any], Any]) -> None:
    found = over_arrays(getattr(functions, name))(ANGLES)
    assert worst(found, exact, ANGLES, absolute=True) < 3e-16
    assert worst(found + 3e-16, exact, ANGLES, absolute=True) > 3e-16


def test_the_readouts_logarithm_is_accurate() -> None:
    points = np.concatenate([1.0 + np.abs(AROUND_ZERO), 10.0 ** CHANCE.uniform(0, 18, 3000)])
    found = over_arrays(log2)(points)
    assert worst(found, lambda x: mpmath.log(x, 2), points) < 2.0
    assert worst(found * (1 + 1e-15), lambda x: mpmath.log(x, 2), points) > 2.0


@pytest.mark.parametrize("name", ["exp", "sigmoid"])
def test_there_is_one_exp_and_one_sigmoid(name: str) -> None:
    one_by_one = np.array([getattr(portable, name)(x) for x in EVERYWHERE.tolist()])
    assert over_arrays(getattr(functions, name))(EVERYWHERE).tolist() == one_by_one.tolist()


@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh", "silu", "sin", "cos"])
def test_alone_and_among_others_give_the_same_bits(name: str) -> None:
    together = over_arrays(getattr(functions, name))
    alone = [float(together(EVERYWHERE[i : i + 1])[0]) for i in range(500)]
    assert together(EVERYWHERE)[:500].tolist() == alone


def test_edges() -> None:
    exp, tanh = over_arrays(functions.exp), over_arrays(functions.tanh)
    assert exp(np.array([0.0, 800.0, -800.0])).tolist() == [1.0, portable.exp(700.0), portable.exp(-700.0)]
    assert tanh(np.array([0.0, 50.0, -50.0, 1e300])).tolist() == [0.0, 1.0, -1.0, 1.0]
    assert over_arrays(functions.sigmoid)(np.array([1e300, -1e300]))[0] == 1.0


@numba.njit(error_model="numpy")
def _products(out: Any, weights: Any, x: Any) -> None:
    add_product(out, weights, x, x.shape[0], out.shape[0])


@numba.njit(error_model="numpy")
def _rows(out: Any, table: Any, rows: Any, shares: Any) -> None:
    add_rows(out, table, rows, shares, rows.shape[0], out.shape[0])


@numba.njit(error_model="numpy")
def _unit(out: Any, x: Any, weight: Any) -> None:
    scale_to_unit(out, x, weight, 0, x.shape[0])


def in_order(start: Floats, weights: NDArray[np.float32], x: Floats) -> list[float]:
    """Return start + weights (inputs, outputs) by x, one addition after another."""
    found: list[float] = start.tolist()
    for k, one in enumerate(x.tolist()):
        found = [a + float(w) * one for a, w in zip(found, weights[k], strict=True)]
    return found


@pytest.mark.parametrize("inputs", [1, 7, 8, 9, 16, 41])
@pytest.mark.parametrize("outputs", [1, 5, 8, 33, 96])
def test_sums_go_over_inputs_in_order(inputs: int, outputs: int) -> None:
    chance = np.random.default_rng(inputs * 100 + outputs)
    weights = chance.normal(size=(inputs, outputs)).astype(np.float32)
    x, start = chance.normal(size=inputs), chance.normal(size=outputs)
    out, rows = start.copy(), start.copy()
    _products(out, weights, x)
    _rows(rows, weights, np.arange(inputs), x)
    assert out.tolist() == rows.tolist() == in_order(start, weights, x)
    if inputs > 7 and outputs > 7:
        assert out.tolist() != in_order(start, weights[::-1], x[::-1])  # another order has other bits


def test_a_token_is_the_sum_of_folded_rows() -> None:
    chance = np.random.default_rng(4)
    table, weights = chance.normal(size=(6, 11)).astype(np.float32), chance.normal(size=(11, 9)).astype(np.float32)
    out = np.empty((6, 9), np.float32)
    fold(table, weights, np.empty(11), np.empty(9), out)
    exact = [in_order(np.zeros(9), weights, row) for row in table.astype(np.float64)]
    assert out.tolist() == np.array(exact, np.float32).tolist()


def test_scaling_to_unit() -> None:
    x, weight = np.random.default_rng(5).normal(size=20), np.linspace(0.5, 1.5, 20)
    out = np.empty(20)
    _unit(out, x, weight)
    assert out == pytest.approx(x / np.sqrt((x * x).mean() + 1e-5) * weight, rel=1e-14)


def _tables() -> NDArray[np.int64]:
    """Return what fields with tables alone are to the kernels."""
    none = np.full(len(SIZES) + 1, NONE)
    return np.array([np.append(0, np.cumsum(SIZES)), [*SIZES, 0], none], np.int64)


@pytest.mark.parametrize(
    ("what", "event", "field", "value"),
    [("codes", 3, 1, -1), ("codes", 3, 1, 9), ("parts", 4, 2, 1.5), ("parts", 4, 2, np.nan), ("time", 5, 5, -1)],
)
def test_the_first_wrong_place_is_found(what: str, event: int, field: int, value: float) -> None:
    come = events(10, 1)
    fields = _tables()
    # The third slice goes on with the second one.
    slices = (np.array([0, 2, 2]), np.array([2, 3, 10]), np.array([come.time[-1]] * 3))
    assert first_wrong_slice(fields, *come, *slices, NEVER) == (0, 0)
    array = getattr(come, what)
    if what == "time":
        array[event] = value
    else:
        array[event, field] = value
    assert first_wrong_slice(fields, *come, *slices, NEVER) == (2, 1 + (event - 2) * 6 + field)


def test_a_part_needs_a_row_after_its_code() -> None:
    come = events(3, 1)
    come.codes[1, 0], come.parts[1, 0] = SIZES[0] - 1, 0.25
    fields = _tables()
    slices = (np.array([0]), np.array([3]), np.array([come.time[-1]]))
    assert first_wrong_slice(fields, *come, *slices, NEVER) == (0, 1 + 6)
