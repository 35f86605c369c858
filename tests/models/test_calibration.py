"""Calibration: what it recovers, what it promises (a PD strictly inside 0 and 1, never falling), what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.fitted import Floats

from obligor.errors import BadInput, IntegrityError
from obligor.features.portable import sigmoid
from obligor.models.calibration import LOG_ODDS_MAX, Calibration, Method, fit_calibration, fit_or_rate, remaining_loss


def _slice(seed: int = 0, rows: int = 20_000) -> tuple[Floats, Floats, Floats]:
    """Return margins, outcomes and the true PDs: the margins are too extreme by 2 and too low by 1."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-2, 1, rows)
    pd = 1 / (1 + np.exp(-z))
    return 2 * z + 2, (rng.random(rows) < pd).astype(np.float64), pd


METHODS: tuple[Method, ...] = ("logistic", "isotonic")


@pytest.mark.parametrize("method", METHODS)
def test_recovers_the_true_probabilities(method: Method) -> None:
    margins, bad, pd = _slice()
    calibration = fit_calibration(margins, bad, method=method)
    assert np.abs(calibration.pds(margins) - pd).mean() < 0.01
    assert np.abs(1 / (1 + np.exp(-margins)) - pd).mean() > 0.05  # what it would be without


def test_logistic_finds_slope_and_intercept() -> None:
    margins, bad, _ = _slice()
    calibration = fit_calibration(margins, bad, method="logistic")
    assert calibration.slope == pytest.approx(0.5, abs=0.03)
    assert calibration.intercept == pytest.approx(-1.0, abs=0.05)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(a=st.floats(-1e6, 1e6), b=st.floats(-1e6, 1e6))
def test_never_falls_and_stays_inside(method: Method, a: float, b: float) -> None:
    margins, bad, _ = _slice(1, 3_000)
    calibration = _FITTED.setdefault(method, fit_calibration(margins, bad, method=method))
    low, high = sorted((a, b))
    assert 0.0 < calibration.pd(low) <= calibration.pd(high) < 1.0
    assert abs(calibration.log_odds(a)) <= LOG_ODDS_MAX
    assert calibration.pd(a) == sigmoid(calibration.log_odds(a)) == calibration.pds(np.array([a]))[0]


_FITTED: dict[str, Calibration] = {}


@pytest.mark.parametrize("method", METHODS)
def test_survives_json_to_the_bit(method: Method) -> None:
    margins, bad, _ = _slice(2, 3_000)
    calibration = fit_calibration(margins, bad, method=method)
    again = Calibration.from_data(calibration.to_data())
    assert again.pds(margins).tolist() == calibration.pds(margins).tolist()


def test_one_class_is_refused() -> None:
    with pytest.raises(BadInput, match="goods and bads"):
        fit_calibration(np.arange(10.0), np.zeros(10), method="logistic")


def test_one_score_for_all_is_refused() -> None:
    with pytest.raises(BadInput, match="every row of its calibration slice alike"):
        fit_calibration(np.ones(10), (np.arange(10) % 2).astype(np.float64), method="logistic")


def test_a_reversed_model_is_refused() -> None:
    margins, bad, _ = _slice(3, 3_000)
    with pytest.raises(BadInput, match="wrong way round"):
        fit_calibration(-margins, bad, method="logistic")


@pytest.mark.parametrize(
    "data",
    [
        {"method": "logistic", "slope": -1.0, "intercept": 0.0},
        {"method": "isotonic", "margins": [0.0, 0.0], "log_odds": [0.0, 1.0]},
        {"method": "isotonic", "margins": [0.0, 1.0], "log_odds": [1.0, 0.0]},
        {"method": "isotonic", "margins": [], "log_odds": []},
        {"method": "magic"},
    ],
)
def test_what_does_not_rise_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match="expected a rising"):
        Calibration.from_data(data)


def test_rows_of_one_margin_have_one_rate_whatever_their_order() -> None:
    """A scorecard has few margins; the bads of each come late here."""
    margins = np.repeat([-3.1, -2.7, -2.2, -1.3], 1_000)
    share = np.repeat([0.02, 0.05, 0.09, 0.2], 1_000)
    bad = (np.tile(np.arange(1_000), 4) >= 1_000 * (1 - share)).astype(np.float64)
    calibration = fit_calibration(margins, bad, method="isotonic")
    rates = {m: (bad[margins == m].sum() + bad.mean()) / 1_001 for m in np.unique(margins)}
    assert calibration.pds(np.array(list(rates))) == pytest.approx(np.array(list(rates.values())), rel=1e-9)
    order = np.random.default_rng(4).permutation(len(bad))
    again = fit_calibration(margins[order], bad[order], method="isotonic")
    assert calibration.pds(margins) == pytest.approx(again.pds(margins), rel=1e-9)


def test_what_calibration_leaves_does_not_depend_on_level_or_spread() -> None:
    margins, bad, _ = _slice(2, 2_000)
    weights = np.linspace(0.5, 1.5, len(bad))
    left = remaining_loss(margins, bad, weights)
    assert remaining_loss(0.3 * margins - 4.0, bad, weights) == pytest.approx(left, abs=1e-6)
    assert remaining_loss(margins + np.sin(5 * margins), bad, weights) > left + 1e-3
    lines = [(a, b) for a in np.linspace(-2, 0, 41) for b in np.linspace(0.2, 0.8, 61)]
    z = np.array([a + b * margins for a, b in lines])  # the best of many lines
    naive = np.average(np.logaddexp(0, z) - bad * z, axis=1, weights=weights).min()
    assert left == pytest.approx(naive, abs=2e-4)


def test_a_wrong_or_level_ranking_leaves_what_the_rate_alone_does() -> None:
    margins, bad, _ = _slice(3, 2_000)
    weights = np.ones(len(bad))
    rate = bad.mean()
    alone = -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate))
    assert remaining_loss(-margins, bad, weights) == pytest.approx(alone)
    assert remaining_loss(np.full(len(bad), 0.7), bad, weights) == pytest.approx(alone)
    assert remaining_loss(margins, bad, weights) < alone - 0.01


def test_what_decides_nothing_may_tell_nothing() -> None:
    chance = np.random.default_rng(3)
    margins = chance.normal(size=400)
    bad = (chance.random(400) < 1 / (1 + np.exp(-margins))).astype(np.float64)
    weights = chance.uniform(0.5, 2.0, 400)
    for method in METHODS:
        told = fit_or_rate(margins, bad, weights, method=method)
        assert told.to_data() == fit_calibration(margins, bad, weights, method=method).to_data()
        for untold in (-margins, np.zeros(400)):  # it ranks the wrong way round, or not at all
            flat = fit_or_rate(untold, bad, weights, method=method)
            assert flat.pds(untold) == pytest.approx(np.full(400, np.average(bad, weights=weights)))
            assert Calibration.from_data(flat.to_data()).pd(5.0) == flat.pd(-5.0)
