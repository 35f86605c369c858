"""Judging further heads: the truth is found to be the truth, and a planted fault is seen, by month and by level."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from obligor.models.calibration import Calibration, fit_share
from obligor.models.further import Foretold, FurtherHead, Kind, fit_further
from obligor.models.further_evaluation import evaluate_further
from obligor.models.targets import Target
from obligor.sequences.lived import DEFAULTED, OPEN, PREPAID, Lived, hazards

Floats = NDArray[np.float64]
MONTHS, LOANS = 4, 6_000
SAME = Calibration(1.0, 0.0, np.empty(0), np.empty(0))


class _World(NamedTuple):
    """Loans whose chances are known; a third has not lived all months yet."""

    log_odds: Floats  # (n, 2 MONTHS) the truth
    lived: Lived
    watched: NDArray[np.int64]


def _world(seed: int) -> _World:
    chance = np.random.default_rng(seed)
    risk = chance.standard_normal((LOANS, 1))
    month = np.arange(MONTHS)
    truth = np.stack([-3.0 + 0.2 * month + risk, -2.0 + 0.3 * month - 0.5 * risk], axis=2)
    default, repaid = hazards(truth)
    drawn = chance.random((LOANS, MONTHS))
    end = np.where(drawn < default, DEFAULTED, np.where(drawn < default + repaid, PREPAID, OPEN))
    last = np.where((end > 0).any(axis=1), (end > 0).argmax(axis=1) + 1, MONTHS)
    how = end[np.arange(LOANS), last - 1]
    watched = np.where(chance.random(LOANS) < 2 / 3, MONTHS, chance.integers(0, MONTHS, LOANS))
    lived = Lived(np.minimum(last, watched), np.where(last <= watched, how, OPEN))
    return _World(truth.reshape(LOANS, -1), lived, watched)


def _head(kind: Kind, *calibration: Calibration) -> FurtherHead:
    return FurtherHead("one", kind, MONTHS if kind == "hazard" else 0, ("f",), calibration, {})


def _target(kind: Kind, known: Any, later: Any = None, watched: NDArray[np.int64] | None = None) -> Target:
    nobody = np.zeros(LOANS, np.int64) if watched is None else watched
    return Target("one", kind, MONTHS if kind == "hazard" else 0, known, known if later is None else later, nobody, {})


def _judged(target: Target, told: Foretold, later: NDArray[np.bool_] | None = None) -> dict[str, Any]:
    rows = np.ones(LOANS, np.bool_) if later is None else later
    found: dict[str, Any] = evaluate_further([target], [told], rows, np.arange(LOANS), resamples=60, seed=1)["heads"][
        "one"
    ]
    return found


def _inside(point: dict[str, float]) -> bool:
    return point["low"] <= 1.0 <= point["high"]


def test_true_hazards_are_calibrated_in_every_month_and_doubled_ones_are_not() -> None:
    world = _world(1)
    target = _target("hazard", world.lived, watched=world.watched)
    true = _judged(target, _head("hazard", SAME, SAME).calibrated(world.log_odds))
    assert sum(_inside(m["default"]["observed_to_expected"]) for m in true["months"]) >= MONTHS - 1
    assert sum(_inside(m["repaid"]["observed_to_expected"]) for m in true["months"]) >= MONTHS - 1
    assert sum(_inside(m["by_then"]["observed_to_expected"]) for m in true["months"]) >= MONTHS - 1
    assert all(m["by_then"]["auc"]["value"] > 0.65 for m in true["months"])
    doubled = Calibration(1.0, float(np.log(2)), np.empty(0), np.empty(0))
    false = _judged(target, _head("hazard", doubled, SAME).calibrated(world.log_odds))
    assert not any(_inside(m["default"]["observed_to_expected"]) for m in false["months"])
    assert not any(_inside(m["by_then"]["observed_to_expected"]) for m in false["months"])
    assert true["rows"] == int((world.lived.months > 0).sum())
    assert true["immature"] == int(((world.watched < MONTHS) & (world.lived.months > 0)).sum())
    # Who is known by an early end alone would make default look more frequent than it is.
    known = ((world.lived.months >= MONTHS) | (world.lived.ended != OPEN)).sum()
    assert true["months"][-1]["by_then"]["rows"] == int((world.watched >= MONTHS).sum()) < known


def test_hazards_are_calibrated_by_what_is_known_of_immature_loans() -> None:
    """Log-odds that are twice too wide and off by one are brought back, by lives that are cut off anywhere."""
    world = _world(2)
    wrong = np.empty_like(world.log_odds)
    wrong[:, ::2] = 2.0 * world.log_odds[:, ::2] + 1.0
    wrong[:, 1::2] = 2.0 * world.log_odds[:, 1::2] - 1.0
    head = fit_further(_target("hazard", world.lived), ("f",), wrong, np.ones(LOANS))
    found = [(one.slope, one.intercept) for one in head.calibration]
    assert found[0] == pytest.approx((0.5, -0.5), abs=0.1)
    assert found[1] == pytest.approx((0.5, 0.5), abs=0.1)
    # The control takes every loan for one that was still owed after all months.
    naive = Lived(np.where(world.lived.ended == OPEN, MONTHS, world.lived.months), world.lived.ended)
    biased = fit_further(_target("hazard", naive), ("f",), wrong, np.ones(LOANS)).calibrated(wrong)
    assert biased.by_month[:, -1].mean() < 0.9 * head.calibrated(wrong).by_month[:, -1].mean()


def test_shares_are_judged_by_level_and_by_what_is_foretold_of_their_spread() -> None:
    chance = np.random.default_rng(3)
    z = -2.0 + chance.standard_normal(LOANS)
    mean = 1 / (1 + np.exp(-z))
    lost = np.where(chance.random(LOANS) < mean, chance.beta(8, 2, LOANS) / 0.8, 0.0).clip(0, 1)
    target = _target("share", lost)
    line = fit_share(2.0 * z, lost, np.ones(LOANS), method="logistic")
    told = _head("share", line).calibrated(2.0 * z[:, None])
    found = _judged(target, told)
    assert _inside(found["metrics"]["observed_to_expected"])
    assert found["metrics"]["observed"]["value"] == pytest.approx(lost.mean())
    assert found["metrics"]["explained"]["low"] > 0.02
    assert found["metrics"]["mean_absolute_error"]["value"] == pytest.approx(np.abs(lost - told.value).mean())
    assert sum(one["low"] <= one["predicted"] <= one["high"] for one in found["reliability"]) >= 8
    shifted = dataclasses.replace(line, intercept=line.intercept + 0.3)
    high = _judged(target, _head("share", shifted).calibrated(2.0 * z[:, None]))
    assert high["metrics"]["observed_to_expected"]["high"] < 0.9
    nothing = fit_share(np.zeros(LOANS), lost, np.ones(LOANS), method="logistic")
    backwards = fit_share(-z, lost, np.ones(LOANS), method="logistic")
    assert nothing.pd(5.0) == backwards.pd(-5.0) == pytest.approx(lost.mean())


@pytest.mark.parametrize("scores", [1, 3])
def test_tenths_that_end_among_equal_shares_have_their_share_of_the_losses(scores: int) -> None:
    """What was lost, and of how many, falls from the first application to the last."""
    lost = np.linspace(1.0, 0.01, LOANS) ** 2 * (np.random.default_rng(5).random(LOANS) < np.linspace(1.0, 0.3, LOANS))
    z = np.asarray(np.arange(LOANS) % scores - 2, np.float64)  # says nothing of time
    tenths = _judged(_target("share", lost), _head("share", SAME).calibrated(z[:, None]))["reliability"]
    assert [one["observed"] for one in tenths] == pytest.approx([lost.mean()] * 10, rel=0.06)
    assert all(one["low"] < lost.mean() < one["high"] for one in tenths)


def test_outcomes_are_judged_where_both_kinds_are_known() -> None:
    chance = np.random.default_rng(4)
    z = -2.0 + chance.standard_normal(LOANS)
    bad = (chance.random(LOANS) < 1 / (1 + np.exp(-z))).astype(np.float64)
    bad[:500] = np.nan
    told = _head("binary", SAME).calibrated(z[:, None])
    found = _judged(_target("binary", bad), told)
    assert (found["rows"], found["bads"]) == (LOANS - 500, int(np.nansum(bad)))
    assert _inside(found["metrics"]["observed_to_expected"])
    assert found["calibration"]["slope"] == pytest.approx(1.0, abs=0.15)
    few = np.zeros(LOANS, np.bool_)
    few[np.flatnonzero(bad == 1)[:9]] = few[np.flatnonzero(bad == 0)[:50]] = True
    found = _judged(_target("binary", bad), told, few)
    assert (found["rows"], found["bads"], found["metrics"]) == (59, 9, None)


def test_few_and_none_are_no_error() -> None:
    world = _world(5)
    nobody = np.zeros(LOANS, np.bool_)
    told = _head("hazard", SAME, SAME).calibrated(world.log_odds)
    found = _judged(_target("hazard", world.lived, watched=world.watched), told, nobody)
    assert all(m["by_then"]["auc"] is None and m["default"]["observed_to_expected"] is None for m in found["months"])
    share = _judged(_target("share", np.full(LOANS, 0.0)), _head("share", SAME).calibrated(np.zeros((LOANS, 1))))
    assert share["metrics"] is None
    young = np.zeros(LOANS, np.bool_)
    young[np.flatnonzero((world.watched == MONTHS) & (world.lived.ended == OPEN))[:30]] = True
    found = _judged(_target("hazard", world.lived, watched=world.watched), told, young)
    assert [m["default"]["observed"] for m in found["months"]] == [0] * MONTHS
    assert 0 < found["months"][0]["default"]["expected"] < 10
    assert found["months"][0]["default"]["observed_to_expected"] is None
