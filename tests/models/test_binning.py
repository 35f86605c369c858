"""Bins: their counts add up, they keep a declared direction, they find the value where risk jumps."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.fitted import Floats
from tests.models.lender import feature, plan

from obligor.features.plan import FeatureSpec
from obligor.models.binning import BINS, Bins, bin_feature


def _spec(**changes: Any) -> FeatureSpec:
    return plan(feature("x", **changes)).features[0]


def _oracle(values: Floats, bad: Floats, bins: Bins) -> tuple[list[int], list[int]]:
    """Return rows and bads of each bin, the null bin last, one row at a time."""
    rows, bads = [0] * (len(bins.edges) + 2), [0] * (len(bins.edges) + 2)
    for value, outcome in zip(values, bad, strict=True):
        place = len(bins.edges) + 1 if np.isnan(value) else sum(edge <= value for edge in bins.edges)
        rows[place] += 1
        bads[place] += int(outcome)
    return rows, bads


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), monotone=st.sampled_from([-1, 0, 1]), ties=st.booleans(), nulls=st.booleans())
def test_counts_and_direction(seed: int, monotone: int, ties: bool, nulls: bool) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=600)
    bad = (rng.random(600) < 1 / (1 + np.exp(-values))).astype(np.float64)
    if ties:
        values = np.round(values)
    if nulls:
        values[rng.random(600) < 0.2] = np.nan
    bins = bin_feature(values, bad, _spec(monotone=monotone))
    assert (list(bins.rows), list(bins.bads)) == _oracle(values, bad, bins)
    assert len(bins.edges) < BINS
    rates = [b / n for b, n in zip(bins.bads[:-1], bins.rows[:-1], strict=True) if n]
    assert all((b - a) * monotone >= 0 for a, b in itertools.pairwise(rates))
    assert min(bins.rows[:-1]) >= 0.05 * 600 or not bins.edges


def test_finds_the_jump() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(5000)
    bad = (rng.random(5000) < np.where(values > 0.7, 0.5, 0.05)).astype(np.float64)
    bins = bin_feature(values, bad, _spec())
    assert min(abs(edge - 0.7) for edge in bins.edges) < 0.03
    assert bins.information_value > 0.5
    assert bins.transform(np.array([0.9]))[0] < -0.5 < 0.2 < bins.transform(np.array([0.1]))[0]


def test_noise_says_little() -> None:
    rng = np.random.default_rng(1)
    bins = bin_feature(rng.random(20_000), (rng.random(20_000) < 0.1).astype(np.float64), _spec())
    assert bins.information_value < 0.02


def test_woe_is_the_textbook_one() -> None:
    values = np.repeat([0.0, 1.0], 500)
    bad = np.concatenate([np.repeat([1.0, 0.0], [50, 450]), np.repeat([1.0, 0.0], [150, 350])])
    bins = bin_feature(values, bad, _spec())
    assert bins.edges == (1.0,)
    assert bins.woe[0] == pytest.approx(np.log((450 / 800) / (50 / 200)), abs=0.01)
    assert bins.woe[1] == pytest.approx(np.log((350 / 800) / (150 / 200)), abs=0.01)
    assert bins.woe[2] == 0.0  # no null was seen


def test_rare_codes_share_their_weight() -> None:
    rng = np.random.default_rng(2)
    codes = rng.choice(4, 2000, p=[0.6, 0.38, 0.01, 0.01]).astype(np.float64)
    bad = (rng.random(2000) < 0.1 + 0.2 * codes / 3).astype(np.float64)
    bins = bin_feature(codes, bad, _spec(type="category", values=["a", "b", "c"]))
    assert bins.edges == (0.5, 1.5, 2.5)
    assert bins.woe[2] == bins.woe[3]
    assert bins.woe[0] != bins.woe[1]


def test_one_value_and_only_nulls() -> None:
    bad = np.array([0.0, 1.0] * 20)
    assert bin_feature(np.ones(40), bad, _spec()).edges == ()
    assert bin_feature(np.full(40, np.nan), bad, _spec()).rows == (0, 40)
