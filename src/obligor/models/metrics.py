"""How good a score is: ranking (AUC, Gini, KS), probabilities (Brier, log loss, reliability), stability (PSI).

Intervals are percentiles of a seeded bootstrap over applicants: all applications of one are drawn together, because
they turn out alike and many of them tell less than as many of strangers would (Field and Welsh 2007, "Bootstrapping
clustered data"). A champion and a challenger are compared on the same resamples (paired). Resampling is by row weights,
so that each score is sorted once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput
from obligor.models.logistic import fit_logistic

__all__ = [
    "METRICS", "Ranking", "auc", "bootstrap", "by_score", "calibration_line", "drawn", "interval", "ks", "measure",
    "psi", "psi_bins",
]  # fmt: skip

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

METRICS: Final = ("auc", "gini", "ks", "brier", "log_loss", "observed_to_expected")
INTERVAL: Final = (2.5, 97.5)
_GOLDEN: Final = (5**0.5 - 1) / 2  # what its multiples leave above whole numbers fills 0 to 1 evenly (Weyl 1916)


@dataclass(frozen=True)
class Ranking:
    """A score sorted once: `order` by rising score, `starts` of runs of equal scores."""

    order: Ints
    starts: Ints
    bad: Floats  # in order
    pd: Floats  # in order

    @classmethod
    def of(cls, bad: Floats, pd: Floats) -> Ranking:
        """Return the ranking of rows with outcome `bad` (1 or 0) by `pd`."""
        order = np.argsort(pd, kind="stable")
        ranked = pd[order]
        starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        return cls(order, starts, bad[order], ranked)

    def curve(self, weights: Floats | None = None) -> tuple[Floats, Floats]:
        """Return the weights of goods and of bads in each run of equal scores, from safest to riskiest."""
        w = np.ones(len(self.bad)) if weights is None else weights[self.order]
        bads = np.add.reduceat(w * self.bad, self.starts)
        return np.add.reduceat(w, self.starts) - bads, bads


def measure(ranking: Ranking, weights: Floats | None = None) -> dict[str, float]:
    """Return all METRICS of a ranking under row weights; NaN where a class is absent."""
    goods, bads = ranking.curve(weights)
    n_good, n_bad = float(goods.sum()), float(bads.sum())
    w = np.ones(len(ranking.bad)) if weights is None else weights[ranking.order]
    p, y, total = ranking.pd, ranking.bad, float(w.sum())
    loss = -np.where(y > 0, np.log(p), np.log1p(-p))
    expected = float(np.sum(w * p))
    both = n_good > 0 and n_bad > 0
    below = np.cumsum(goods) - goods
    area = float(np.sum(bads * (below + goods / 2))) / (n_good * n_bad) if both else np.nan
    gap = float(np.max(np.abs(np.cumsum(goods) / n_good - np.cumsum(bads) / n_bad))) if both else np.nan
    return {
        "auc": area,
        "gini": 2 * area - 1,
        "ks": gap,
        "brier": float(np.sum(w * (p - y) ** 2)) / total,
        "log_loss": float(np.sum(w * loss)) / total,
        "observed_to_expected": n_bad / expected,
    }


def auc(bad: Floats, score: Floats, weights: Floats | None = None) -> float:
    """Return the chance that a bad scores above a good, ties counted half, under row weights.

    >>> auc(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    goods, bads = Ranking.of(bad, score).curve(weights)
    return float(np.sum(bads * (np.cumsum(goods) - goods / 2))) / (float(goods.sum()) * float(bads.sum()))


def ks(bad: Floats, score: Floats) -> float:
    """Return the greatest gap between the cumulative shares of goods and of bads."""
    goods, bads = Ranking.of(bad, score).curve()
    return float(np.max(np.abs(np.cumsum(goods) / goods.sum() - np.cumsum(bads) / bads.sum())))


def by_score(bad: Floats, score: Floats) -> Ints:
    """Return the rows by rising score, (n,); among equal scores bads lie evenly between goods.

    Nothing tells such rows apart, so a group that ends among them is to have its share of their bads. In their own
    order, which is that of time, it would have those of their first months. `bad` may be a share that was lost: among
    equal scores the large lie evenly between the small, too.

    >>> by_score(np.array([1.0, 1.0, 0.0, 0.0]), np.full(4, 0.2)).tolist()
    [2, 0, 3, 1]
    """
    order = np.lexsort((bad, score))
    run = np.concatenate([[0], np.cumsum(np.diff(score[order]) != 0)])
    place = np.empty(len(order))
    for kind in (bad[order] > 0, bad[order] <= 0):
        own = run[kind]  # rising
        rank = np.arange(len(own)) - np.searchsorted(own, own)
        mixed = np.lexsort((rank * _GOLDEN % 1.0, own))  # a run's ranks, neighbours far apart
        place[np.flatnonzero(kind)[mixed]] = (rank + 0.5) / np.bincount(own)[own]
    return order[np.lexsort((place, run))]


def drawn(applicant: Ints, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Yield row weights, (n,), resample by resample: how often each row's applicant (n,) is drawn, with replacement.

    >>> [weights.tolist() for weights in drawn(np.array([7, 5, 7]), 2, np.random.default_rng(1))]
    [[1.0, 1.0, 1.0], [2.0, 0.0, 2.0]]
    """
    names, place = np.unique(applicant, return_inverse=True)
    for _ in range(resamples):
        yield np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names)).astype(np.float64)[place]


def bootstrap(
    rankings: Mapping[str, Ranking], *, resamples: int, rng: np.random.Generator, applicant: Ints | None = None
) -> dict[str, dict[str, Floats]]:
    """Return each model's METRICS over the same resamples, so that their differences are paired.  # (resamples,)

    `applicant` (n,) says whose each row is; None: each row is its own.
    """
    whose = np.arange(len(next(iter(rankings.values())).bad)) if applicant is None else applicant
    out = {name: {metric: np.empty(resamples) for metric in METRICS} for name in rankings}
    for i, weights in enumerate(drawn(whose, resamples, rng)):
        for name, ranking in rankings.items():
            for metric, value in measure(ranking, weights).items():
                out[name][metric][i] = value
    return out


def interval(values: Floats) -> tuple[float, float] | None:
    """Return the 95% percentile interval of bootstrap values; None where fewer than half are defined."""
    defined = values[~np.isnan(values)]
    if 2 * len(defined) < max(len(values), 2):
        return None
    low, high = np.percentile(defined, INTERVAL)
    return float(low), float(high)


def calibration_line(bad: Floats, log_odds: Floats) -> dict[str, float] | None:
    """Return intercept and slope of observed log-odds on predicted ones (Cox 1958), with standard errors.

    Perfect is intercept 0 and slope 1; a slope below 1 means too extreme. None where a class is absent or separable, or
    all rows score alike.
    """
    if not 0 < bad.sum() < len(bad) or np.ptp(log_odds) == 0:
        return None
    try:
        intercept, slope = (float(b) for b in fit_logistic(log_odds[:, None], bad))
    except BadInput:
        return None
    p = 1 / (1 + np.exp(-(intercept + slope * log_odds)))
    design = np.column_stack([np.ones(len(bad)), log_odds])
    covariance = np.linalg.pinv(np.einsum("nk,nl->kl", design * (p * (1 - p))[:, None], design))
    return {
        "intercept": intercept,
        "intercept_error": float(np.sqrt(covariance[0, 0])),
        "slope": slope,
        "slope_error": float(np.sqrt(covariance[1, 1])),
    }


def psi_bins(expected: Floats, bins: int = 10) -> Floats:
    """Return inner edges that cut the expected values into about equal shares; fewer where values repeat."""
    known = expected[~np.isnan(expected)]
    if not len(known):
        return np.empty(0)
    edges: Floats = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1]))
    return edges


def psi(expected: Floats, actual: Floats, edges: Floats) -> float:
    """Return the population stability index over the bins and a bin of nulls; below 0.1 is usually read as stable.

    Half a row is added to every bin, so that an empty one gives a large number and not infinity.
    """
    e, a = (_shares(values, edges) for values in (expected, actual))
    return float(np.sum((a - e) * np.log(a / e)))


def _shares(values: Floats, edges: Floats) -> Floats:
    null = np.isnan(values)
    counts = np.bincount(np.searchsorted(edges, values[~null], side="right"), minlength=len(edges) + 1)
    filled = np.append(counts, null.sum()) + 0.5
    shares: Floats = filled / filled.sum()
    return shares
