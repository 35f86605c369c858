"""A weight-of-evidence scorecard: the baseline that a champion must beat, and the fallback when it cannot be asked.

Each feature falls into a bin, null into one of its own; log-odds of bad = intercept - sum of coefficient * WoE, with
WoE = ln(share of goods / share of bads) (Siddiqi 2006), summed in the order of the plan. Being additive, its exact
attribution against the reference is the difference of each feature's term. Points are the same numbers rescaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from obligor.errors import IntegrityError

__all__ = ["POINTS_PER_DOUBLING", "Card", "Scorecard"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POINTS_PER_DOUBLING: Final = 20.0  # points that double the odds of good
POINTS_BASE: Final = 600.0  # points at odds of POINTS_BASE_ODDS good to one bad
POINTS_BASE_ODDS: Final = 50.0
BINS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Card:
    """One feature's bins: bin i holds edges[i-1] <= value < edges[i]; the last entry of `woe` is the null bin."""

    feature: str
    edges: tuple[float, ...]  # (bins - 1,), increasing
    woe: tuple[float, ...]  # (bins + 1,)
    coefficient: float
    information_value: float
    rows: tuple[int, ...]  # (bins + 1,) rows it was fitted on
    bads: tuple[int, ...]  # (bins + 1,)

    def to_data(self) -> dict[str, Any]:
        """Return the card as JSON data."""
        return {
            "feature": self.feature,
            "edges": list(self.edges),
            "woe": list(self.woe),
            "coefficient": self.coefficient,
            "information_value": self.information_value,
            "rows": list(self.rows),
            "bads": list(self.bads),
            "points": self.points(),
        }

    def points(self) -> list[float]:
        """Return the points of each bin, rounded to a tenth, for reading; scores are never made from these."""
        factor = POINTS_PER_DOUBLING / float(np.log(2.0))
        return [round(factor * self.coefficient * w, 1) for w in self.woe]


class Scorecard:
    """All cards, and the arrays that score a vector of the plan's features."""

    def __init__(self, intercept: float, cards: Sequence[Card], features: Sequence[str]) -> None:
        """`features` are the names of the plan's features in order; IntegrityError where a card has none."""
        self.intercept, self.cards, self._width = float(intercept), tuple(cards), len(features)
        place = {name: i for i, name in enumerate(features)}
        for card in cards:
            _check(card, place)
        self._feature = np.array([place[card.feature] for card in cards], dtype=np.int64)  # (cards,)
        self._edges = np.array([e for card in cards for e in card.edges], dtype=np.float64)
        self._start = np.cumsum([0, *(len(card.edges) for card in cards)], dtype=np.int64)  # (cards + 1,)
        terms = [-card.coefficient * w for card in cards for w in card.woe]
        self._terms = np.array(terms, dtype=np.float64)  # two more entries than edges a card

    @classmethod
    def from_data(cls, data: Mapping[str, Any], features: Sequence[str]) -> Scorecard:
        """Return the scorecard that `to_data` described; IntegrityError where it is not one."""
        try:
            cards = [
                Card(
                    feature=str(c["feature"]),
                    edges=tuple(float(e) for e in c["edges"]),
                    woe=tuple(float(w) for w in c["woe"]),
                    coefficient=float(c["coefficient"]),
                    information_value=float(c["information_value"]),
                    rows=tuple(int(n) for n in c["rows"]),
                    bads=tuple(int(n) for n in c["bads"]),
                )
                for c in data["cards"]
            ]
            return cls(float(data["intercept"]), cards, features)
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"scorecard: expected an intercept and cards: {error!r}") from error

    def to_data(self) -> dict[str, Any]:
        """Return the scorecard as JSON data."""
        return {"intercept": self.intercept, "cards": [card.to_data() for card in self.cards]}

    def margin(self, features: Floats) -> float:
        """Return the log-odds of bad of one vector of the plan's features."""
        return _margin(features, self.intercept, self._feature, self._edges, self._start, self._terms)

    def margins(self, features: Floats) -> Floats:
        """Return the log-odds of bad of all rows.  # (n, features) -> (n,)"""
        return _margins(
            np.ascontiguousarray(features), self.intercept, self._feature, self._edges, self._start, self._terms
        )

    def contributions(self, features: Floats, reference: Floats) -> Floats:
        """Return each feature's part of score - reference score.  # (features,) -> (features,)"""
        out = np.zeros(self._width)
        for k, feature in enumerate(self._feature):
            out[feature] = self._term(k, features[feature]) - self._term(k, reference[feature])
        return out

    def points(self, margin: float) -> float:
        """Return the score on the usual scale: 600 at 50:1, 20 points double the odds of good."""
        factor = POINTS_PER_DOUBLING / float(np.log(2.0))
        return POINTS_BASE - factor * (margin + float(np.log(POINTS_BASE_ODDS)))

    def _term(self, k: int, value: float) -> float:
        return float(_term_of(k, float(value), self._edges, self._start, self._terms))


def _check(card: Card, place: Mapping[str, int]) -> None:
    if card.feature not in place:
        raise IntegrityError(f"scorecard: the plan has no feature {card.feature!r}")
    numbers = [*card.edges, *card.woe, card.coefficient]
    rising = all(a < b for a, b in zip(card.edges, card.edges[1:], strict=False))
    if not (np.isfinite(numbers).all() and rising and len(card.woe) == len(card.edges) + 2 <= BINS_MAX + 1):
        raise IntegrityError(f"scorecard: the card of {card.feature!r} needs rising edges and one WoE a bin and null")


@njit(cache=True, nogil=True, fastmath=False)
def _term_of(k: int, value: float, edges: Floats, start: Ints, terms: Floats) -> float:
    """Return card k's part of the log-odds of bad."""
    first, last = start[k], start[k + 1]
    offset = first + 2 * k
    if value != value:
        return float(terms[offset + last - first + 1])
    bin_ = 0
    while first + bin_ < last and edges[first + bin_] <= value:
        bin_ += 1
    return float(terms[offset + bin_])


@njit(cache=True, nogil=True, fastmath=False)
def _margin(features: Floats, intercept: float, feature: Ints, edges: Floats, start: Ints, terms: Floats) -> float:
    total = intercept
    for k in range(feature.shape[0]):
        total = total + _term_of(k, features[feature[k]], edges, start, terms)
    return total


@njit(cache=True, nogil=True, fastmath=False)
def _margins(features: Floats, intercept: float, feature: Ints, edges: Floats, start: Ints, terms: Floats) -> Floats:
    out = np.empty(features.shape[0], dtype=np.float64)
    for row in range(features.shape[0]):
        out[row] = _margin(features[row], intercept, feature, edges, start, terms)
    return out
