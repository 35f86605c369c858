"""Metrics against scikit-learn and scipy, the bootstrap against repetition of rows, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from tests.models.fitted import Floats

from obligor.models.metrics import (
    Ranking,
    auc,
    bootstrap,
    by_score,
    calibration_line,
    interval,
    ks,
    measure,
    psi,
    psi_bins,
)


def _scored(seed: int, rows: int = 800, digits: int = 2) -> tuple[Floats, Floats]:
    """Return outcomes and PDs with many ties."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-1, 1, rows)
    pd = np.clip(np.round(1 / (1 + np.exp(-z)), digits), 0.01, 0.99)
    return (rng.random(rows) < pd).astype(np.float64), pd


@pytest.mark.parametrize("seed", range(5))
def test_equal_their_peers(seed: int) -> None:
    bad, pd = _scored(seed)
    got = measure(Ranking.of(bad, pd))
    assert got["auc"] == pytest.approx(roc_auc_score(bad, pd), abs=1e-12)
    assert got["auc"] == auc(bad, pd)
    assert got["gini"] == pytest.approx(2 * roc_auc_score(bad, pd) - 1, abs=1e-12)
    assert got["ks"] == pytest.approx(ks_2samp(pd[bad == 0], pd[bad == 1]).statistic, abs=1e-12)
    assert got["ks"] == ks(bad, pd)
    assert got["brier"] == pytest.approx(brier_score_loss(bad, pd), abs=1e-12)
    assert got["log_loss"] == pytest.approx(log_loss(bad, pd), abs=1e-12)
    assert got["observed_to_expected"] == pytest.approx(bad.sum() / pd.sum(), abs=1e-12)


def test_weights_are_repetitions() -> None:
    bad, pd = _scored(7, 200)
    times = np.random.default_rng(0).integers(0, 4, 200)
    weighted = measure(Ranking.of(bad, pd), times.astype(np.float64))
    assert weighted == pytest.approx(measure(Ranking.of(np.repeat(bad, times), np.repeat(pd, times))), abs=1e-12)


@pytest.mark.parametrize("shares", [False, True])
def test_rows_of_one_score_lie_by_what_they_are_and_not_as_they_came(shares: bool) -> None:
    bad, pd = _scored(9, 400, 1)
    lost = bad * np.linspace(1.0, 0.1, len(bad)) if shares else bad
    order, mixed = by_score(lost, pd), np.random.default_rng(1).permutation(len(bad))
    assert np.array_equal(pd[order], np.sort(pd))
    assert np.array_equal(np.sort(order), np.arange(len(bad)))
    assert np.array_equal(lost[order], lost[mixed][by_score(lost[mixed], pd[mixed])])
    for score in np.unique(pd):
        own = lost[order][np.sort(pd) == score]
        assert np.abs(np.cumsum(own) - own.mean() * np.arange(1, len(own) + 1)).max() < 1.0


def test_a_worse_order_is_caught() -> None:
    bad, pd = _scored(8)
    swapped = pd.copy()
    swapped[[np.argmax(pd), np.argmin(pd)]] = swapped[[np.argmin(pd), np.argmax(pd)]]
    assert measure(Ranking.of(bad, swapped)) != measure(Ranking.of(bad, pd))


def test_intervals_cover_the_truth() -> None:
    truth = auc(*_scored(1000, 200_000, 6))
    covered = 0
    for seed in range(40):
        bad, pd = _scored(seed, 400, 6)
        samples = bootstrap({"one": Ranking.of(bad, pd)}, resamples=100, rng=np.random.default_rng(seed))
        found = interval(samples["one"]["auc"])
        assert found is not None
        covered += found[0] <= truth <= found[1]
    assert 34 <= covered <= 40  # 95% nominal


def test_intervals_cover_the_truth_where_applicants_ask_again_and_again() -> None:
    """All loans of one turn out alike: drawn row by row, intervals would be far too narrow."""
    truth, covered, narrow = 0.3, 0, 0
    for seed in range(60):
        chance = np.random.default_rng(seed)
        sizes = chance.integers(1, 20, 80)
        bad = np.repeat((chance.random(80) < truth).astype(np.float64), sizes)
        whose = np.repeat(chance.permutation(80), sizes)
        one = {"one": Ranking.of(bad, np.full(len(bad), truth))}
        ends = interval(bootstrap(one, resamples=200, rng=chance, applicant=whose)["one"]["observed_to_expected"])
        alone = interval(bootstrap(one, resamples=200, rng=chance)["one"]["observed_to_expected"])
        assert ends is not None
        assert alone is not None
        covered += ends[0] <= 1 <= ends[1]
        narrow += alone[0] <= 1 <= alone[1]
    assert 52 <= covered <= 60  # 95% nominal
    assert narrow < 42


def test_paired_differences_are_narrower() -> None:
    bad, pd = _scored(9, 2000, 6)
    noisy = np.clip(pd * np.random.default_rng(0).lognormal(0, 0.3, 2000), 0.001, 0.999)
    rankings = {"a": Ranking.of(bad, pd), "b": Ranking.of(bad, noisy)}
    samples = bootstrap(rankings, resamples=200, rng=np.random.default_rng(1))
    assert np.std(samples["a"]["auc"] - samples["b"]["auc"]) < 0.6 * np.std(samples["a"]["auc"])
    again = bootstrap(rankings, resamples=200, rng=np.random.default_rng(1))
    assert again["a"]["auc"].tolist() == samples["a"]["auc"].tolist()


def test_one_class_has_no_ranking() -> None:
    got = measure(Ranking.of(np.zeros(5), np.full(5, 0.1)))
    assert np.isnan(got["auc"])
    assert np.isnan(got["ks"])
    assert interval(np.full(10, np.nan)) is None
    assert calibration_line(np.zeros(5), np.zeros(5)) is None
    assert calibration_line(np.array([0.0, 1.0, 0.0]), np.ones(3)) is None


def test_calibration_line_sees_what_is_wrong() -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(-1, 1, 20_000)
    bad = (rng.random(20_000) < 1 / (1 + np.exp(-z))).astype(np.float64)
    right, extreme = calibration_line(bad, z), calibration_line(bad, 2 * z + 0.5)
    assert right is not None
    assert extreme is not None
    assert abs(right["slope"] - 1) < 2.5 * right["slope_error"]
    assert extreme["slope"] == pytest.approx(0.5, abs=0.03)


def test_psi() -> None:
    rng = np.random.default_rng(4)
    before, same, moved = rng.normal(size=5000), rng.normal(size=5000), rng.normal(1, 1, 5000)
    edges = psi_bins(before)
    assert len(edges) == 9
    assert psi(before, same, edges) < 0.01
    assert psi(before, moved, edges) > 0.5
    half_null = np.where(np.arange(5000) % 2 == 0, np.nan, same)
    assert psi(before, half_null, edges) > 0.25
    assert psi_bins(np.full(10, np.nan)).size == 0
