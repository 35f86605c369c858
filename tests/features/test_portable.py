"""The portable functions against exact decimals, their edges, and a planted fault that the comparison catches."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest

from obligor.features.portable import exp, log, logit, sigmoid


def _error_ulp(value: float, exact: Decimal) -> float:
    """Return the distance from `exact` in units in the last place of `value`."""
    return float(abs(Decimal(value) - exact) / Decimal(math.ulp(value)))


def _exact_exp(x: float) -> Decimal:
    return Decimal(x).exp()


def _exact_log(x: float) -> Decimal:
    return Decimal(x).ln()


def _worst(function: Callable[[float], float], exact: Callable[[float], Decimal], points: np.ndarray) -> float:
    with localcontext() as context:
        context.prec = 60
        return max(_error_ulp(function(float(x)), exact(float(x))) for x in points)


def test_exp_is_within_one_ulp() -> None:
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.uniform(-700, 700, 1500), rng.normal(0, 2, 1500), rng.normal(0, 1e-6, 200)])
    assert _worst(exp, _exact_exp, points) < 1.0


def test_log_is_within_one_ulp() -> None:
    rng = np.random.default_rng(2)
    points = np.concatenate(
        [np.exp(rng.uniform(-700, 700, 1500)), rng.uniform(0, 2, 1500), 1 + rng.normal(0, 1e-6, 200)]
    )
    assert _worst(log, _exact_log, points[points != 1.0]) < 1.0


def test_a_lost_term_would_be_caught() -> None:
    def short(x: float) -> float:
        return exp(x) * (1.0 + 1e-15)

    assert _worst(short, _exact_exp, np.linspace(-3, 3, 50)) > 2.0


def test_edges() -> None:
    assert exp(0.0) == 1.0
    assert exp(710.0) == math.inf
    assert exp(-746.0) == 0.0
    assert exp(-745.0) == 5e-324
    assert math.isnan(exp(math.nan))
    assert exp(709.782712893384) == pytest.approx(1.797693134862273e308)
    assert log(1.0) == 0.0
    assert log(0.0) == -math.inf
    assert log(math.inf) == math.inf
    assert math.isnan(log(-1.0))
    assert log(5e-324) == pytest.approx(math.log(5e-324), rel=1e-15)
    assert sigmoid(800.0) == 1.0
    assert sigmoid(-800.0) == 0.0


@pytest.mark.parametrize("x", [-30.0, -5.5, -1e-9, 0.0, 0.3, 4.0, 20.0])
def test_sigmoid_and_logit_are_inverse(x: float) -> None:
    assert logit(sigmoid(x)) == pytest.approx(x, abs=1e-6, rel=1e-6)
    assert sigmoid(x) + sigmoid(-x) == pytest.approx(1.0, abs=1e-15)


def test_compiled_and_interpreted_agree_to_the_bit() -> None:
    rng = np.random.default_rng(3)
    for x in rng.normal(0, 20, 200):
        assert sigmoid(float(x)) == sigmoid.py_func(float(x))
        assert log(abs(float(x))) == log.py_func(abs(float(x)))
