"""Interventional attribution against its definition by brute force, against shap, and its reconciliation."""

from __future__ import annotations

import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.models.fitted import Floats, booster

from obligor.models.attribution import Attribution
from obligor.models.trees import Trees


def oracle(trees: Trees, players: NDArray[np.int64], count: int, x: Floats, reference: Floats) -> list[float]:
    """Return the Shapley values from the definition: a sum over all coalitions."""

    def worth(coalition: set[int]) -> float:
        mixed = np.where([p in coalition for p in players], x, reference)
        return trees.margin(mixed)

    values = []
    for player in range(count):
        others = [p for p in range(count) if p != player]
        total = 0.0
        for size in range(count):
            weight = float(Fraction(math.factorial(size) * math.factorial(count - size - 1), math.factorial(count)))
            for coalition in itertools.combinations(others, size):
                total += weight * (worth({*coalition, player}) - worth(set(coalition)))
        values.append(total)
    return values


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_the_definition(seed: int) -> None:
    _, data, x = booster(seed, trees=15, depth=5)
    trees, players = Trees.from_xgboost(data), np.arange(5)
    attribution = Attribution(trees, players, 5, x[0])
    for row in x[1:25]:
        assert attribution.contributions(row) == pytest.approx(oracle(trees, players, 5, row, x[0]), abs=1e-12)


def test_columns_of_one_player_are_one() -> None:
    _, data, x = booster(3, trees=15, depth=5)
    trees, players = Trees.from_xgboost(data), np.array([0, 1, 1, 2, 1])
    attribution = Attribution(trees, players, 4, x[0])
    for row in x[1:25]:
        contributions = attribution.contributions(row)
        assert contributions == pytest.approx(oracle(trees, players, 4, row, x[0]), abs=1e-12)
        assert contributions[3] == 0.0


def test_equals_shap_with_that_reference() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shap's own use of matplotlib and numpy
        import shap
    model, data, x = booster(4, trees=60, depth=4)
    x = np.nan_to_num(x)
    trees = Trees.from_xgboost(data)
    explainer = shap.TreeExplainer(model, data=x[:1], feature_perturbation="interventional", model_output="raw")
    expected = np.asarray(explainer.shap_values(x[1:100]))
    attribution = Attribution(trees, np.arange(5), 5, x[0])
    got = np.array([attribution.contributions(row) for row in x[1:100]])
    assert np.abs(got - expected).max() < 1e-4


def test_reconciles_with_the_scores() -> None:
    _, data, x = booster(5, trees=200, depth=6)
    trees = Trees.from_xgboost(data)
    attribution = Attribution(trees, np.arange(5), 5, x[0])
    for row in x[:200]:
        difference = trees.margin(row) - trees.margin(x[0])
        assert abs(attribution.contributions(row).sum() - difference) < 1e-9


def test_the_reference_itself_has_no_reasons() -> None:
    _, data, x = booster(6)
    attribution = Attribution(Trees.from_xgboost(data), np.arange(5), 5, x[0])
    assert attribution.contributions(x[0]).tolist() == [0.0] * 5


def test_another_reference_is_caught() -> None:
    _, data, x = booster(7, trees=15)
    trees, players = Trees.from_xgboost(data), np.arange(5)
    planted = Attribution(trees, players, 5, x[2])
    assert planted.contributions(x[1]) != pytest.approx(oracle(trees, players, 5, x[1], x[0]), abs=1e-6)
