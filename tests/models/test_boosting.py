"""Boosting: the same bits twice, declared directions kept, weights felt, candidates sound."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.models.lender import SMALL, feature, plan, training_data

from obligor.errors import BadInput
from obligor.models.boosting import DEFAULTS, Rows, candidates, check_finite, fit_trees, search
from obligor.models.inputs import Inputs
from obligor.models.metrics import auc
from obligor.models.trees import Trees


def _rows(rows: int = 3000, seed: int = 0) -> tuple[Rows, Inputs]:
    data = training_data(rows, seed)
    inputs = Inputs.of(data.plan.features)
    known = data.matured
    return Rows(inputs.expand(data.features[known]), data.bad[known], data.weights[known]), inputs


def test_the_same_rows_and_seed_give_the_same_trees() -> None:
    rows, inputs = _rows()
    parameters = {**DEFAULTS, "subsample": 0.6}
    one = fit_trees(rows, inputs, SMALL, parameters, 30)
    assert one == fit_trees(rows, inputs, SMALL, parameters, 30)
    assert one != fit_trees(rows, inputs, dataclasses.replace(SMALL, seed=1), parameters, 30)


def test_declared_directions_hold() -> None:
    rows, inputs = _rows()
    trees = Trees.from_xgboost(fit_trees(rows, inputs, SMALL, DEFAULTS, 80))
    x = np.repeat(rows.columns[:200, None, :], 41, axis=1)
    x[:, :, 0] = np.linspace(-3, 3, 41)
    assert (np.diff(trees.margins(x.reshape(-1, x.shape[2])).reshape(200, 41)) >= 0).all()
    x[:, :, 1] = np.linspace(0, 1000, 41)
    x[:, :, 0] = 0.0
    assert (np.diff(trees.margins(x.reshape(-1, x.shape[2])).reshape(200, 41)) <= 0).all()


def test_an_undeclared_direction_is_free() -> None:
    free = Inputs.of(plan(*(feature(f"f{i}") for i in range(7))).features)
    rows, _ = _rows()
    trees = Trees.from_xgboost(fit_trees(rows, free, SMALL, DEFAULTS, 80))
    x = np.repeat(rows.columns[:200, None, :], 41, axis=1)
    x[:, :, 0] = np.linspace(-3, 3, 41)
    assert (np.diff(trees.margins(x.reshape(-1, x.shape[2])).reshape(200, 41)) < 0).any()


def test_search_stops_early_and_ranks_candidates() -> None:
    rows, inputs = _rows(4000)
    half = np.arange(len(rows.bad)) % 2 == 0
    seen: list[int] = []
    model = dataclasses.replace(SMALL, rounds_max=300, learning_rate=0.3)
    trials = search(rows.take(half), rows.take(~half), inputs, model, seen.append)
    assert seen == [1, 2, 3]
    assert [t.log_loss for t in trials] == sorted(t.log_loss for t in trials)
    assert all(0 < t.rounds < 300 for t in trials)
    assert trials[0].auc > 0.75
    refitted = Trees.from_xgboost(fit_trees(rows.take(half), inputs, model, trials[0].parameters, trials[0].rounds))
    assert auc(rows.bad[~half], refitted.margins(rows.columns[~half])) == pytest.approx(trials[0].auc, abs=1e-3)


def test_weights_are_felt() -> None:
    rows, inputs = _rows()
    heavy = Rows(rows.columns, rows.bad, np.where(rows.bad > 0, 5.0, 1.0))
    one, two = (Trees.from_xgboost(fit_trees(r, inputs, SMALL, DEFAULTS, 20)) for r in (rows, heavy))
    assert two.margins(rows.columns).mean() > one.margins(rows.columns).mean() + 1.0


def test_candidates_start_with_the_default_and_keep_the_depth() -> None:
    found = candidates(dataclasses.replace(SMALL, search=12, depth_max=3))
    assert found[0] == DEFAULTS
    assert len(found) == 12
    assert all(c["max_depth"] <= 3 for c in found)
    assert found == candidates(dataclasses.replace(SMALL, search=12, depth_max=3))


def test_names_that_xgboost_refuses_are_kept() -> None:
    inputs = Inputs.of(plan(feature("channel", type="category", values=["a<b", "[c]"])).features)
    rows = Rows(np.random.default_rng(0).random((200, 3)), (np.arange(200) % 2).astype(np.float64), np.ones(200))
    assert Trees.from_xgboost(fit_trees(rows, inputs, SMALL, DEFAULTS, 5)).names == inputs.names


def test_what_float32_cannot_hold_is_named() -> None:
    with pytest.raises(BadInput, match="float32") as caught:
        check_finite(np.array([[1.0, 1e39, np.nan, -np.inf]]), ("a", "b", "c", "d"))
    assert [p.path for p in caught.value.problems] == ["$.features.b", "$.features.d"]
