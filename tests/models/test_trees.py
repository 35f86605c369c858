"""The portable tree scorer against XGBoost's own prediction, and what it refuses to read."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import xgboost
from tests.models.fitted import booster

from obligor.errors import IntegrityError
from obligor.models.trees import Trees


@pytest.mark.parametrize(("seed", "depth"), [(0, 1), (1, 4), (2, 7)])
def test_margins_are_xgboosts(seed: int, depth: int) -> None:
    model, data, x = booster(seed, trees=60, depth=depth)
    trees = Trees.from_xgboost(data)
    expected = model.predict(xgboost.DMatrix(x, feature_names=list(trees.names)), output_margin=True)
    assert np.abs(trees.margins(x) - expected).max() < 1e-5
    assert trees.count == 60


def test_one_row_is_the_matrix_to_the_bit() -> None:
    _, data, x = booster(3)
    trees = Trees.from_xgboost(data)
    assert [trees.margin(row) for row in x[:50]] == trees.margins(x[:50]).tolist()


def test_a_value_at_the_threshold_goes_right() -> None:
    _, data, _ = booster(4, trees=1, depth=1)
    trees = Trees.from_xgboost(data)
    row = np.full(5, np.nan)
    row[trees.column[0]] = float(trees.threshold[0])
    assert trees.margin(row) == trees.base + trees.value[trees.right[0]]
    row[trees.column[0]] = float(np.nextafter(trees.threshold[0], np.float32(-np.inf)))
    assert trees.margin(row) == trees.base + trees.value[trees.left[0]]
    # Between the two, what float32 rounds to decides, as in XGBoost.
    row[trees.column[0]] = float(np.nextafter(float(trees.threshold[0]), -np.inf))
    assert trees.margin(row) == trees.base + trees.value[trees.right[0]]


def test_a_moved_threshold_is_caught() -> None:
    model, data, x = booster(5)
    tree = data["learner"]["gradient_booster"]["model"]["trees"][0]
    tree["split_conditions"][0] += 0.5
    trees = Trees.from_xgboost(data)
    expected = model.predict(xgboost.DMatrix(x, feature_names=list(trees.names)), output_margin=True)
    assert np.abs(trees.margins(x) - expected).max() > 1e-5


def test_no_trees_is_the_base() -> None:
    _, data, x = booster(6)
    data["learner"]["gradient_booster"]["model"]["trees"] = []
    trees = Trees.from_xgboost(data)
    assert trees.margins(x[:3]).tolist() == [trees.base] * 3


def _first_tree(data: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = data["learner"]["gradient_booster"]["model"]["trees"][0]
    return tree


@pytest.mark.parametrize("fault", ["objective", "booster", "cycle", "column", "categorical", "lengths", "threshold"])
def test_what_cannot_be_scored_is_refused(fault: str) -> None:
    _, original, _ = booster(7, trees=2)
    data = copy.deepcopy(original)
    tree = _first_tree(data)
    if fault == "objective":
        data["learner"]["objective"]["name"] = "reg:squarederror"
    elif fault == "booster":
        data["learner"]["gradient_booster"]["name"] = "dart"
    elif fault == "cycle":
        tree["left_children"][1] = 0
    elif fault == "column":
        tree["split_indices"][0] = 99
    elif fault == "categorical":
        tree["split_type"][0] = 1
    elif fault == "lengths":
        tree["default_left"].pop()
    else:
        tree["split_conditions"][0] = float("nan")
    with pytest.raises(IntegrityError, match="trees: not a model"):
        Trees.from_xgboost(data)
