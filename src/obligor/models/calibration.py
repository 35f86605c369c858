"""From a model's log-odds to a probability of default, fitted on a slice later than the one the model learned from.

`logistic` (Platt 1999): calibrated log-odds = intercept + slope * margin; few parameters, the default. `isotonic`
(pool adjacent violators): knots in between which the log-odds are interpolated; needs thousands of rows. Both are data,
scored with portable arithmetic. Calibrated log-odds end at +-LOG_ODDS_MAX by definition, so that a PD is strictly
between 0 and 1 in float64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from obligor.errors import BadInput, IntegrityError
from obligor.features.portable import sigmoid
from obligor.models.logistic import fit_logistic

__all__ = ["LOG_ODDS_MAX", "Calibration", "Method", "fit_calibration", "fit_or_rate", "fit_share", "remaining_loss"]

Floats = NDArray[np.float64]
Method = Literal["logistic", "isotonic"]

LOG_ODDS_MAX: Final = 30.0  # a PD of 9.4e-14
KNOTS_MAX: Final = 64


@dataclass(frozen=True)
class Calibration:
    """A non-decreasing map of margins to log-odds: linear (no knots), or linear between knots and level outside."""

    slope: float
    intercept: float
    knots: Floats  # (k,) margins, increasing; empty for logistic
    levels: Floats  # (k,) log-odds at the knots

    def log_odds(self, margin: float) -> float:
        """Return the calibrated log-odds of one margin."""
        return _log_odds(margin, self.slope, self.intercept, self.knots, self.levels)

    def pd(self, margin: float) -> float:
        """Return the calibrated probability of default of one margin, strictly between 0 and 1."""
        return sigmoid(self.log_odds(margin))

    def pds(self, margins: Floats) -> Floats:
        """Return the probability of default of all margins.  # (n,) -> (n,)"""
        return _pds(margins, self.slope, self.intercept, self.knots, self.levels)

    def all_log_odds(self, margins: Floats) -> Floats:
        """Return the calibrated log-odds of all margins.  # (n,) -> (n,)"""
        return _all_log_odds(margins, self.slope, self.intercept, self.knots, self.levels)

    def to_data(self) -> dict[str, Any]:
        """Return the calibration as JSON data."""
        if len(self.knots):
            return {"method": "isotonic", "margins": self.knots.tolist(), "log_odds": self.levels.tolist()}
        return {"method": "logistic", "slope": self.slope, "intercept": self.intercept}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Calibration:
        """Return the calibration that `to_data` described; IntegrityError where it is not one."""
        empty = np.empty(0)
        if data.get("method") == "logistic":
            slope, intercept = float(data["slope"]), float(data["intercept"])
            if math.isfinite(intercept) and 0 < slope < math.inf:
                return cls(slope, intercept, empty, empty)
        elif data.get("method") == "isotonic":
            knots, levels = np.array(data["margins"], dtype=np.float64), np.array(data["log_odds"], dtype=np.float64)
            finite = np.isfinite(knots).all() and np.isfinite(levels).all()
            ordered = (np.diff(knots) > 0).all() and (np.diff(levels) >= 0).all()
            if finite and ordered and 0 < len(knots) == len(levels):
                return cls(1.0, 0.0, knots, levels)
        raise IntegrityError(f"calibration: expected a rising logistic or isotonic map, got {str(data)[:200]}")


def fit_calibration(margins: Floats, bad: Floats, weights: Floats | None = None, *, method: Method) -> Calibration:
    """Return the calibration fitted on margins and outcomes (1 bad, 0 good) of a later slice.

    Raises BadInput where the slice has no good or no bad, or the margins rank it the wrong way round.
    """
    w = np.ones(len(bad)) if weights is None else weights
    bads, goods = float(np.sum(w * bad)), float(np.sum(w * (1 - bad)))
    if bads <= 0 or goods <= 0:
        raise BadInput(f"calibration needs goods and bads on its slice, got {int(bad.sum())} bad of {len(bad)} rows")
    if np.ptp(margins) == 0:
        raise BadInput("the model scores every row of its calibration slice alike: it found nothing to split on")
    intercept, slope = _line(margins, bad, w)
    if slope <= 0:
        raise BadInput(
            f"the model ranks the calibration slice the wrong way round (slope {slope:.3f}): it learned noise"
        )
    if method == "logistic":
        return Calibration(slope, intercept, np.empty(0), np.empty(0))
    knots, levels = _isotonic(margins, bad, w)
    return Calibration(1.0, 0.0, knots, levels)


def fit_or_rate(margins: Floats, bad: Floats, weights: Floats, *, method: Method) -> Calibration:
    """Return the calibration of margins, or the rate of all rows where they tell nothing: of what decides nothing."""
    try:
        return fit_calibration(margins, bad, weights, method=method)
    except BadInput:
        return _rate(bad, weights)


def _rate(bad: Floats, weights: Floats) -> Calibration:
    """Return the map of all margins to the mean of all rows."""
    rate = float(np.average(bad, weights=weights))
    return Calibration(1.0, 0.0, np.zeros(1), np.array([math.log(rate / (1 - rate))]))


def fit_share(margins: Floats, share: Floats, weights: Floats, *, method: Method) -> Calibration:
    """Return the calibration of margins to a share in [0, 1]: a fractional logit (Papke and Wooldridge 1996).

    The share of all rows where the margins tell nothing, or the opposite.
    """
    assert method == "logistic", "a share has no isotonic map"
    if np.ptp(margins) > 0:
        intercept, slope = (float(one) for one in fit_logistic(margins[:, None], share, weights))
        if slope > 0:
            return Calibration(slope, intercept, np.empty(0), np.empty(0))
    return _rate(share, weights)


def remaining_loss(margins: Floats, bad: Floats, weights: Floats) -> float:
    """Return the log loss that is left once the margins have been calibrated on these very rows.

    It judges a ranking and its shape, not its level or spread, which calibration sets afterwards: on raw log loss, a
    month with another bad rate than the ones before it prefers whichever model happens to lie nearer its level.
    Margins that rank the wrong way round are worth no more than the rows' rate.
    """
    slope = 0.0
    if np.ptp(margins) > 0:
        intercept, slope = _line(margins, bad, weights)
    if slope <= 0:
        rate = float(np.average(bad, weights=weights))
        intercept, slope = math.log(rate / (1 - rate)), 0.0
    z = intercept + slope * margins
    return float(np.average(np.logaddexp(0.0, z) - bad * z, weights=weights))


def _line(margins: Floats, bad: Floats, w: Floats) -> tuple[float, float]:
    """Return intercept and slope of the log-odds on the margins, with Platt's guard against certainty."""
    bads, goods = float(np.sum(w * bad)), float(np.sum(w * (1 - bad)))
    target = np.where(bad > 0, (bads + 1) / (bads + 2), 1 / (goods + 2))
    intercept, slope = fit_logistic(margins[:, None], target, w)
    return float(intercept), float(slope)


def _isotonic(margins: Floats, bad: Floats, w: Floats) -> tuple[Floats, Floats]:
    """Return knots (mean margins of pooled blocks) and their smoothed log-odds.

    Blocks start as bins of about equal size; one more row at the overall rate smooths each, so that no block claims
    certainty. Violators are pooled after that.
    """
    rate = float(np.sum(w * bad) / np.sum(w))
    blocks: list[tuple[float, float, float]] = []  # (weight, weighted margin, weighted bad)
    for b in _bins(margins):
        weight = float(np.sum(w[b]))
        blocks.append((weight + 1.0, float(np.sum(w[b] * margins[b])) / weight * (weight + 1.0),
                       float(np.sum(w[b] * bad[b])) + rate))  # fmt: skip
        while len(blocks) > 1 and _falls(blocks[-2], blocks[-1]):
            last, previous = blocks.pop(), blocks.pop()
            blocks.append((last[0] + previous[0], last[1] + previous[1], last[2] + previous[2]))
    knots = np.array([m / n for n, m, _ in blocks])
    rates = np.array([k / n for n, _, k in blocks])
    return knots, np.log(rates / (1 - rates))


def _bins(margins: Floats) -> list[NDArray[np.int64]]:
    """Return the rows in bins of about equal size by rising margin; those of one margin stay together.

    Margins that are equal say the same of all their rows: in two bins they would rank these by their order in time.
    """
    order = np.argsort(margins, kind="stable")
    equal = np.array_split(order, min(KNOTS_MAX, max(1, len(order) // 50)))
    ends = np.cumsum([len(b) for b in equal])
    rises = np.append(np.flatnonzero(np.diff(margins[order])) + 1, len(order))
    return np.split(order, np.unique(rises[np.searchsorted(rises, ends)])[:-1])


def _falls(before: tuple[float, float, float], after: tuple[float, float, float]) -> bool:
    """Whether the later block's rate does not exceed the earlier's, or their margins are the same."""
    return after[2] / after[0] <= before[2] / before[0] or after[1] / after[0] <= before[1] / before[0]


@njit(cache=True, nogil=True, fastmath=False)
def _log_odds(margin: float, slope: float, intercept: float, knots: Floats, levels: Floats) -> float:
    n = knots.shape[0]
    if n == 0:
        z = intercept + slope * margin
    elif margin <= knots[0]:
        z = levels[0]
    elif margin >= knots[n - 1]:
        z = levels[n - 1]
    else:
        k = 1
        while knots[k] < margin:
            k += 1
        share = (margin - knots[k - 1]) / (knots[k] - knots[k - 1])
        z = levels[k - 1] + share * (levels[k] - levels[k - 1])
    if z > LOG_ODDS_MAX:
        return LOG_ODDS_MAX
    if z < -LOG_ODDS_MAX:
        return -LOG_ODDS_MAX
    return float(z)


@njit(cache=True, nogil=True, fastmath=False)
def _all_log_odds(margins: Floats, slope: float, intercept: float, knots: Floats, levels: Floats) -> Floats:
    out = np.empty(margins.shape[0], dtype=np.float64)
    for i in range(margins.shape[0]):
        out[i] = _log_odds(margins[i], slope, intercept, knots, levels)
    return out


@njit(cache=True, nogil=True, fastmath=False)
def _pds(margins: Floats, slope: float, intercept: float, knots: Floats, levels: Floats) -> Floats:
    out = np.empty(margins.shape[0], dtype=np.float64)
    for i in range(margins.shape[0]):
        out[i] = sigmoid(_log_odds(margins[i], slope, intercept, knots, levels))
    return out
