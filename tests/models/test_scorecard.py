"""The scorecard: scored as a sum over its cards, explained by their differences, fitted in the right direction."""

from __future__ import annotations

import numpy as np
import pytest
from tests.models.fitted import Floats
from tests.models.lender import plan, training_data

from obligor.errors import BadInput, IntegrityError
from obligor.models.carding import fit_scorecard
from obligor.models.metrics import auc
from obligor.models.scorecard import Card, Scorecard

NAMES = ("a", "b", "c")


def _card(feature: str, edges: tuple[float, ...], woe: tuple[float, ...], coefficient: float = 1.0) -> Card:
    counts = (0,) * len(woe)
    return Card(feature, edges, woe, coefficient, 0.1, counts, counts)


def _scorecard() -> Scorecard:
    cards = [_card("c", (0.0, 10.0), (1.0, 0.0, -1.0, 0.25)), _card("a", (), (0.0, -0.5), 1.4)]
    return Scorecard(-2.0, cards, NAMES)


def _oracle(card: Scorecard, row: Floats) -> float:
    total = card.intercept
    for c in card.cards:
        value = row[NAMES.index(c.feature)]
        place = len(c.edges) + 1 if np.isnan(value) else sum(edge <= value for edge in c.edges)
        total += -c.coefficient * c.woe[place]
    return total


def test_scores_as_a_sum_of_cards() -> None:
    card = _scorecard()
    rows = np.array([[v, 0.0, w] for v in (0.0, np.nan) for w in (-1.0, 0.0, 9.99, 10.0, 1e9, np.nan)])
    expected = [_oracle(card, row) for row in rows]
    assert card.margins(rows).tolist() == expected
    assert [card.margin(row) for row in rows] == expected
    assert len(set(expected)) == 8  # bins are told apart


def test_contributions_reconcile() -> None:
    card = _scorecard()
    x, reference = np.array([np.nan, 5.0, 20.0]), np.array([1.0, 0.0, -5.0])
    parts = card.contributions(x, reference)
    assert parts.tolist() == [0.7, 0.0, 2.0]
    assert parts.sum() == pytest.approx(card.margin(x) - card.margin(reference), abs=1e-12)


def test_survives_json_to_the_bit() -> None:
    card = _scorecard()
    again = Scorecard.from_data(card.to_data(), NAMES)
    assert again.cards == card.cards
    assert again.margin(np.array([1.0, 2.0, 3.0])) == card.margin(np.array([1.0, 2.0, 3.0]))


def test_points_double_the_odds() -> None:
    card = _scorecard()
    assert card.points(-np.log(50.0)) == pytest.approx(600.0)
    assert card.points(-np.log(100.0)) == pytest.approx(620.0)


def test_fitted_on_the_right_features() -> None:
    data = training_data(6000)
    rows = data.matured
    card = fit_scorecard(data.features[rows], data.bad[rows], data.weights[rows], plan().features)
    chosen = {c.feature: c for c in card.cards}
    assert {"utilisation", "tenure", "channel"} <= set(chosen)
    assert "exposure" not in chosen  # not scored
    assert all(c.coefficient > 0 for c in card.cards)
    assert list(chosen["utilisation"].woe[:-1]) == sorted(chosen["utilisation"].woe[:-1], reverse=True)
    assert auc(data.bad[rows], card.margins(data.features[rows])) > 0.75


def test_a_copy_of_a_feature_is_left_out() -> None:
    data = training_data(3000)
    x = data.features[data.matured].copy()
    x[:, 4] = x[:, 0]
    card = fit_scorecard(x, data.bad[data.matured], np.ones(len(x)), plan().features)
    assert len({"utilisation", "noise"} & {c.feature for c in card.cards}) == 1


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(BadInput, match="no scored feature varies"):
        fit_scorecard(np.ones((50, 5)), (np.arange(50) % 2).astype(np.float64), np.ones(50), plan().features)


@pytest.mark.parametrize(
    "card",
    [
        _card("unknown", (), (0.0, 0.0)),
        _card("a", (1.0, 1.0), (0.0, 0.0, 0.0, 0.0)),
        _card("a", (1.0,), (0.0, 0.0)),
        _card("a", (), (0.0, float("nan"))),
    ],
)
def test_cards_that_do_not_fit_are_refused(card: Card) -> None:
    with pytest.raises(IntegrityError, match="scorecard"):
        Scorecard(0.0, [card], NAMES)
