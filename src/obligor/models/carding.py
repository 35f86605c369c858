"""Fitting the scorecard: bins, a choice of features by information value, a logistic regression on their evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput
from obligor.features.plan import FeatureSpec
from obligor.models.binning import Bins, bin_feature
from obligor.models.logistic import fit_logistic
from obligor.models.scorecard import Card, Scorecard

__all__ = ["fit_scorecard"]

Floats = NDArray[np.float64]

INFORMATION_MIN: Final = 0.02  # below this a feature is usually called unpredictive (Siddiqi 2006)
CORRELATION_MAX: Final = 0.75  # between the evidence of two features
CARDS_MAX: Final = 15
_RIDGE: Final = 1.0


def fit_scorecard(features: Floats, bad: Floats, weights: Floats, specs: Sequence[FeatureSpec]) -> Scorecard:
    """Return the scorecard of the scored features.  # (n, features)

    A card whose coefficient would turn its evidence round (a feature that only corrects another) is left out, so that
    each card can be read by itself.
    """
    bins = {i: bin_feature(features[:, i], bad, spec) for i, spec in enumerate(specs) if spec.scored}
    evidence = {i: b.transform(features[:, i]) for i, b in bins.items()}
    chosen = _choose(bins, evidence)
    if not chosen:
        raise BadInput("no scored feature varies on the training rows: a scorecard needs at least one that does")
    while True:
        x = np.column_stack([-evidence[i] for i in chosen])  # (n, cards), rising with risk
        intercept, *coefficients = (float(b) for b in fit_logistic(x, bad, weights, ridge=_RIDGE))
        kept = [i for i, coefficient in zip(chosen, coefficients, strict=True) if coefficient > 0]
        if len(kept) == len(chosen) or not kept:
            break
        chosen = kept
    cards = [
        Card(specs[i].name, b.edges, b.woe, coefficient, b.information_value, b.rows, b.bads)
        for i, coefficient in zip(chosen, coefficients, strict=True)
        for b in (bins[i],)
    ]
    return Scorecard(intercept, cards, [spec.name for spec in specs])


def _choose(bins: dict[int, Bins], evidence: dict[int, Floats]) -> list[int]:
    """Return features by falling information value, none that repeats a better one; in the plan's order."""
    ranked = sorted((i for i in bins if evidence[i].std() > 0), key=lambda i: (-bins[i].information_value, i))
    chosen: list[int] = []
    for i in ranked:
        if chosen and (bins[i].information_value < INFORMATION_MIN or len(chosen) == CARDS_MAX):
            break
        if all(abs(_correlation(evidence[i], evidence[j])) <= CORRELATION_MAX for j in chosen):
            chosen.append(i)
    return sorted(chosen)


def _correlation(a: Floats, b: Floats) -> float:
    return float(np.mean((a - a.mean()) * (b - b.mean())) / (a.std() * b.std()))
