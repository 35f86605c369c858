"""How well further heads foretell, on applications after the cut-off, with 95% bootstrap intervals over applicants.

binary   ranking and level of the outcome, where it is known now
share    what was lost against what was expected, and how much of its spread is foretold
hazard   by month: of those still at risk who defaults and who repays, against what was expected of them, immature
         loans as far as they have lived; and default by the end of each month, among the loans that are old enough
         for it, however soon they ended: the others would be known by their early ends alone
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from obligor.models.evaluation import CLASS_ROWS_MIN, point, reliability, with_intervals
from obligor.models.further import Foretold
from obligor.models.metrics import Ranking, bootstrap, by_score, calibration_line, drawn, measure
from obligor.models.targets import Target
from obligor.sequences.lived import DEFAULTED, PREPAID, Lived, hazards

__all__ = ["evaluate_further"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

TENTHS: Final = 10
Statistics = Callable[[Floats], Mapping[str, float]]  # of row weights


class _Resampling(NamedTuple):
    """How intervals are drawn: applicants with all their rows, so many times."""

    applicant: Ints  # (n,)
    resamples: int
    rng: np.random.Generator

    def of(self, rows: Bools) -> _Resampling:
        """Return the same of some of the rows."""
        return self._replace(applicant=self.applicant[rows])

    def metrics(self, ranking: Ranking) -> dict[str, Floats]:
        """Return what METRICS of a ranking are in each resample."""
        one = bootstrap({"one": ranking}, resamples=self.resamples, rng=self.rng, applicant=self.applicant)
        return one["one"]

    def points(self, statistics: Statistics) -> dict[str, dict[str, float | None]]:
        """Return statistics of all rows with their intervals."""
        each = [statistics(weights) for weights in drawn(self.applicant, self.resamples, self.rng)]
        values = statistics(np.ones(len(self.applicant)))
        return {name: point(value, np.array([one[name] for one in each])) for name, value in values.items()}


def evaluate_further(
    targets: Sequence[Target], foretold: Sequence[Foretold], later: Bools, applicant: Ints, *, resamples: int, seed: int
) -> dict[str, Any]:
    """Return how each head did on the applications of the test period, `later` (n,), matured or not.

    `applicant` (n,) says whose each is.
    """
    found = {}
    for place, (target, told) in enumerate(zip(targets, foretold, strict=True)):
        assert target.name == told.head.name
        judge = {"binary": _binary, "share": _share, "hazard": _hazard}[target.kind]
        learnt = {"rows": int(target.learnable.sum()), **_events(target.known)}
        resampling = _Resampling(applicant, resamples, np.random.default_rng([seed, 6, place]))
        found[target.name] = {"kind": target.kind, "learnt": learnt, **judge(target, told, later, resampling)}
    return {"heads": found}


def _events(known: Floats | Lived) -> dict[str, float]:
    if isinstance(known, Lived):
        return {"defaulted": int((known.ended == DEFAULTED).sum()), "repaid": int((known.ended == PREPAID).sum())}
    return {"mean": float(np.nanmean(known))}


def _binary(target: Target, told: Foretold, later: Bools, resampling: _Resampling) -> dict[str, Any]:
    assert not isinstance(target.later, Lived)
    rows = later & ~np.isnan(target.later)
    bad, pd = target.later[rows], told.value[rows]
    counts = {"rows": len(bad), "bads": int(bad.sum())}
    if min(counts["bads"], len(bad) - counts["bads"]) < CLASS_ROWS_MIN:
        return {**counts, "metrics": None, "calibration": None, "reliability": None}
    ranking = Ranking.of(bad, pd)
    return {
        **counts,
        "metrics": with_intervals(measure(ranking), resampling.of(rows).metrics(ranking)),
        "calibration": calibration_line(bad, told.log_odds[rows, 0]),
        "reliability": reliability(bad, pd),
    }


def _share(target: Target, told: Foretold, later: Bools, resampling: _Resampling) -> dict[str, Any]:
    assert not isinstance(target.later, Lived)
    assert not isinstance(target.known, Lived)
    rows = later & ~np.isnan(target.later)
    lost, expected = target.later[rows], told.value[rows]
    if int((lost > 0).sum()) < CLASS_ROWS_MIN:
        return {"rows": len(lost), "metrics": None, "reliability": None}
    before = float(np.nanmean(target.known))  # what is expected of everybody by who foretells nothing

    def statistics(weights: Floats) -> dict[str, float]:
        total = float(weights.sum())
        squares, level = (float((weights * (lost - one) ** 2).sum()) for one in (expected, before))
        return {
            "observed": float((weights * lost).sum()) / total,
            "expected": float((weights * expected).sum()) / total,
            "observed_to_expected": float((weights * lost).sum() / (weights * expected).sum()),
            "mean_absolute_error": float((weights * np.abs(lost - expected)).sum()) / total,
            "explained": 1.0 - squares / level,
        }

    order = by_score(lost, expected)
    tenths = [
        {"rows": len(own), "predicted": float(expected[own].mean()), "observed": float(lost[own].mean()),
         **_normal_interval(lost[own])}
        for own in np.array_split(order, min(TENTHS, len(order)))
    ]  # fmt: skip
    return {"rows": len(lost), "metrics": resampling.of(rows).points(statistics), "reliability": tenths}


def _hazard(target: Target, told: Foretold, later: Bools, resampling: _Resampling) -> dict[str, Any]:
    lived = target.later
    assert isinstance(lived, Lived)
    rows = later & (lived.months > 0)
    lived, watched, own = lived[rows], target.watched[rows], resampling.of(rows)
    default, repaid = hazards(told.lives[rows])
    by_month = told.by_month[rows]
    months = [
        {
            "month": month,
            "at_risk": int((lived.months >= month).sum()),
            "default": _ended(lived, default[:, month - 1], month, DEFAULTED, own),
            "repaid": _ended(lived, repaid[:, month - 1], month, PREPAID, own),
            "by_then": _by_then(lived, by_month[:, month - 1], watched, month, own),
        }
        for month in range(1, target.months + 1)
    ]
    return {"rows": int(rows.sum()), "immature": int((watched < target.months).sum()), "months": months}


def _ended(lived: Lived, chance: Floats, month: int, end: int, resampling: _Resampling) -> dict[str, Any]:
    """Return how many ended so in a month, of those at risk in it, and how many were expected to.

    A ratio of few to few is left out: its resamples know less of it than they seem to.
    """
    risk = lived.months >= month
    ended = ((lived.months == month) & (lived.ended == end))[risk].astype(np.float64)
    own = chance[risk]
    found: dict[str, Any] = {"observed": int(ended.sum()), "expected": float(own.sum())}
    if max(found["observed"], found["expected"]) < CLASS_ROWS_MIN:
        return {**found, "observed_to_expected": None}
    return {
        **found,
        **resampling.of(risk).points(
            lambda w: {"observed_to_expected": float((w * ended).sum() / (w * own).sum())},
        ),
    }


def _by_then(lived: Lived, pd: Floats, watched: Ints, month: int, resampling: _Resampling) -> dict[str, Any]:
    """Return how well default by the end of a month is foretold, of the loans that have been watched so long."""
    old = watched >= month
    bad = ((lived.months <= month) & (lived.ended == DEFAULTED))[old].astype(np.float64)
    found: dict[str, Any] = {"rows": len(bad), "observed": int(bad.sum()), "expected": float(pd[old].sum())}
    if min(found["observed"], len(bad) - found["observed"]) < CLASS_ROWS_MIN:
        return {**found, "auc": None, "observed_to_expected": None}
    ranking = Ranking.of(bad, pd[old])
    samples, values = resampling.of(old).metrics(ranking), measure(ranking)
    return {**found, **{name: point(values[name], samples[name]) for name in ("auc", "observed_to_expected")}}


def _normal_interval(values: Floats) -> dict[str, float]:
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return {"low": max(0.0, float(values.mean()) - half), "high": min(1.0, float(values.mean()) + half)}
