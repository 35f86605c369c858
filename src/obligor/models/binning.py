"""Bins for the scorecard: fine quantiles merged until each holds enough rows and keeps its declared direction.

Merging goes by the pair of neighbours whose bad rates differ least, in standard errors. Where a feature declares how
risk moves with it, violators are pooled (pool adjacent violators), so that the card is monotone too. A category's codes
stay apart, the rare ones share one weight of evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from obligor.features.plan import FeatureSpec

__all__ = ["Bins", "bin_feature"]

Floats = NDArray[np.float64]

FINE_BINS: Final = 20
BINS: Final = 6
SHARE_MIN: Final = 0.05  # of the rows, in each bin
CODE_SHARE_MIN: Final = 0.02  # of the rows, for a category's code to have its own weight
_SMOOTHING: Final = 0.5  # goods and bads added to each bin, so that a pure one stays finite


@dataclass(frozen=True)
class Bins:
    """Edges of one feature's bins and, per bin with the null bin last, rows, bads and weight of evidence."""

    edges: tuple[float, ...]
    rows: tuple[int, ...]
    bads: tuple[int, ...]
    woe: tuple[float, ...]
    information_value: float

    def transform(self, values: Floats) -> Floats:
        """Return the weight of evidence of each value.  # (n,) -> (n,)"""
        null = np.isnan(values)
        place = np.searchsorted(np.array(self.edges), values, side="right")
        found: Floats = np.array(self.woe)[np.where(null, len(self.edges) + 1, place)]
        return found


def bin_feature(values: Floats, bad: Floats, spec: FeatureSpec) -> Bins:
    """Return the bins of one feature, fitted on outcomes `bad` (1 or 0)."""
    null = np.isnan(values)
    known, known_bad = values[~null], bad[~null]
    if spec.type == "category":
        edges = [code + 0.5 for code in range(len(spec.values or ()))]
    else:
        edges = _edges(known, known_bad, spec.monotone, len(values))
    place = np.searchsorted(np.array(edges), known, side="right")
    rows = np.append(np.bincount(place, minlength=len(edges) + 1), null.sum())
    bads = np.append(np.bincount(place, weights=known_bad, minlength=len(edges) + 1), bad[null].sum())
    woe = _weights(rows, bads, pooled=spec.type == "category")
    share_good = (rows - bads) / max(1.0, float((rows - bads).sum()))
    share_bad = bads / max(1.0, float(bads.sum()))
    value = float(np.sum((share_good - share_bad) * woe))
    return Bins(
        tuple(edges), tuple(int(n) for n in rows), tuple(int(n) for n in bads), tuple(woe.tolist()), max(0.0, value)
    )


def _weights(rows: NDArray[np.int64], bads: Floats, *, pooled: bool) -> Floats:
    """Return ln(share of goods / share of bads) of each bin; 0, no evidence, where a bin has no row."""
    goods = rows - bads
    rare = (rows[:-1] < CODE_SHARE_MIN * rows.sum()) if pooled else np.zeros(len(rows) - 1, dtype=np.bool_)
    rare = np.append(rare, False)
    g = np.where(rare, goods[rare].sum(), goods)
    b = np.where(rare, bads[rare].sum(), bads)
    woe = np.log((g + _SMOOTHING) / (goods.sum() + _SMOOTHING)) - np.log((b + _SMOOTHING) / (bads.sum() + _SMOOTHING))
    out: Floats = np.where(g + b > 0, woe, 0.0)
    return out


def _edges(values: Floats, bad: Floats, monotone: int, rows_all: int) -> list[float]:
    """Return the edges between the merged bins of non-null values."""
    if not len(values):
        return []
    fine = np.unique(np.quantile(values, np.linspace(0, 1, FINE_BINS + 1)[1:-1], method="inverted_cdf"))
    fine = fine[fine > values.min()]
    place = np.searchsorted(fine, values, side="right")
    counts = np.bincount(place, minlength=len(fine) + 1).tolist()
    bads = np.bincount(place, weights=bad, minlength=len(fine) + 1).tolist()
    edges: list[float] = fine.tolist()

    def join(i: int) -> None:
        counts[i] += counts.pop(i + 1)
        bads[i] += bads.pop(i + 1)
        edges.pop(i)

    while edges and min(counts) < SHARE_MIN * rows_all:
        small = counts.index(min(counts))
        pairs = [i for i in (small - 1, small) if 0 <= i < len(edges)]
        join(min(pairs, key=lambda i: _distance(counts, bads, i)))
    violators = _violators(counts, bads, monotone)
    while violators:
        join(violators[0])
        violators = _violators(counts, bads, monotone)
    while len(edges) >= BINS:
        join(min(range(len(edges)), key=lambda i: _distance(counts, bads, i)))
    return edges


def _violators(counts: list[int], bads: list[float], monotone: int) -> list[int]:
    rates = [b / n for b, n in zip(bads, counts, strict=True)]
    return [i for i in range(len(rates) - 1) if (rates[i + 1] - rates[i]) * monotone < 0]


def _distance(counts: list[int], bads: list[float], i: int) -> float:
    """Return how far the bad rates of bins i and i + 1 lie apart, in standard errors."""
    n, m = counts[i], counts[i + 1]
    pooled = (bads[i] + bads[i + 1] + 1) / (n + m + 2)
    error = math.sqrt(pooled * (1 - pooled) * (1 / max(n, 1) + 1 / max(m, 1)))
    return abs(bads[i] / max(n, 1) - bads[i + 1] / max(m, 1)) / error
