"""Boosting: the same bits twice, declared directions kept, weights felt, candidates sound."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import xgboost
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from tests.models.lender import SMALL, feature, plan, training_data

from obligor.errors import BadInput, DefinitionError
from obligor.models.boosting import DEFAULTS, Rows, bag_seeds, candidates, check_finite, fit_trees, search
from obligor.models.inputs import Inputs
from obligor.models.model import Model
from obligor.models.trees import Trees

BAGGED = dataclasses.replace(SMALL, bags=4)


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


def test_several_boosters_are_the_mean_of_each() -> None:
    rows, inputs = _rows()
    trees = Trees.from_xgboost(fit_trees(rows, inputs, BAGGED, DEFAULTS, 25))
    single = [
        Trees.from_xgboost(fit_trees(rows, inputs, dataclasses.replace(SMALL, seed=seed), DEFAULTS, 25))
        for seed in bag_seeds(BAGGED)
    ]
    margins = np.array([one.margins(rows.columns) for one in single])  # (boosters, rows)
    assert trees.count == 100
    assert np.abs(trees.margins(rows.columns) - margins.mean(axis=0)).max() < 1e-7
    assert np.abs(margins[1:] - margins[0]).max(axis=1).min() > 0.01, "each booster has a draw of its own"
    assert np.abs(trees.margins(rows.columns) - margins[:3].mean(axis=0)).max() > 1e-3, "none is left out"


def test_a_number_of_boosters_that_is_no_power_of_two_is_stored_as_it_is_scored() -> None:
    rows, inputs = _rows(1000)
    data = fit_trees(rows, inputs, dataclasses.replace(SMALL, bags=3), DEFAULTS, 10)
    for tree in data["learner"]["gradient_booster"]["model"]["trees"]:
        leaves = np.array(tree["split_conditions"])[np.array(tree["left_children"]) < 0]
        assert (leaves == leaves.astype(np.float32)).all()


def test_xgboost_reads_the_joined_boosters() -> None:
    rows, inputs = _rows()
    data = fit_trees(rows, inputs, BAGGED, DEFAULTS, 25)
    model = xgboost.Booster()
    model.load_model(bytearray(json.dumps(data).encode()))
    expected = model.predict(
        xgboost.DMatrix(rows.columns, feature_names=list(inputs.names)), output_margin=True, validate_features=False
    )
    assert model.num_boosted_rounds() == 100
    assert np.abs(Trees.from_xgboost(data).margins(rows.columns) - expected).max() < 1e-5


def test_threads_do_not_change_the_boosters() -> None:
    rows, inputs = _rows(1500)
    one, three = (fit_trees(rows, inputs, dataclasses.replace(BAGGED, threads=n), DEFAULTS, 15) for n in (1, 3))
    assert one == three
    assert one != fit_trees(rows, inputs, dataclasses.replace(BAGGED, seed=1), DEFAULTS, 15)


def test_several_boosters_leave_less_to_luck() -> None:
    rows, inputs = _rows(1500)
    later = _rows(3000, seed=1)[0]

    def spread(bags: int) -> float:
        margins = [
            Trees.from_xgboost(
                fit_trees(rows, inputs, dataclasses.replace(SMALL, bags=bags, seed=seed), DEFAULTS, 40)
            ).margins(later.columns)
            for seed in range(6)
        ]
        return float(np.std(margins, axis=0).mean())

    assert spread(8) < 0.5 * spread(1)  # independent draws would give 0.35


def test_the_number_of_boosters_is_checked() -> None:
    assert bag_seeds(SMALL) == [SMALL.seed]
    assert len(set(bag_seeds(dataclasses.replace(SMALL, bags=40)))) == 40
    for wrong in (0, -1, 41):
        with pytest.raises(DefinitionError, match="bags: expected 1 to 40"):
            Model(cutoff="2026-01-01", bags=wrong)


def _rolled(rows: Rows, parts: int) -> list[tuple[Rows, Rows]]:
    """Return the last half in parts, each with all rows before it."""
    number = np.arange(len(rows.bad))
    edges = np.linspace(len(number) // 2, len(number), parts + 1).astype(np.int64)
    return [
        (rows.take(number < edges[i]), rows.take((number >= edges[i]) & (number < edges[i + 1]))) for i in range(parts)
    ]


def test_search_stops_early_and_ranks_candidates() -> None:
    rows, inputs = _rows(4000)
    seen: list[int] = []
    model = dataclasses.replace(SMALL, rounds_max=300, learning_rate=0.3)
    trials = search(_rolled(rows, 3), inputs, model, seen.append)
    assert seen == [1, 2, 3]
    assert [t.log_loss for t in trials] == sorted(t.log_loss for t in trials)
    assert all(0 < t.rounds < 300 for t in trials)
    assert trials[0].auc > 0.75
    assert trials == search(_rolled(rows, 3), inputs, dataclasses.replace(model, threads=3))


def test_search_is_what_separate_fits_and_a_calibration_of_each_slice_give() -> None:
    rows, inputs = _rows(1500)  # of these the loss has a first least value at 20 rounds, and a lesser one at 80
    rows = dataclasses.replace(rows, weights=np.linspace(0.5, 1.5, len(rows.bad)))
    slices, model = _rolled(rows, 2), dataclasses.replace(SMALL, search=1, rounds_max=200, learning_rate=0.2)
    trial = search(slices, inputs, model)[0]
    losses = {rounds: _naive_loss(slices, inputs, model, rounds) for rounds in range(5, trial.rounds + 41, 5)}
    assert trial.rounds == min(losses, key=losses.__getitem__)
    assert trial.log_loss == pytest.approx(losses[trial.rounds], abs=1e-4)
    raw = {rounds: _naive_loss(slices, inputs, model, rounds, calibrated=False) for rounds in losses}
    assert abs(raw[trial.rounds] - trial.log_loss) > 1e-3, "the control: without calibration it is another loss"


def _naive_loss(
    slices: list[tuple[Rows, Rows]], inputs: Inputs, model: Model, rounds: int, *, calibrated: bool = True
) -> float:
    total, weight = 0.0, 0.0
    for fit, later in slices:
        margins = Trees.from_xgboost(fit_trees(fit, inputs, model, DEFAULTS, rounds)).margins(later.columns)
        line: Any = LogisticRegression(C=np.inf, tol=1e-8).fit(margins[:, None], later.bad, later.weights)
        pd = line.predict_proba(margins[:, None])[:, 1] if calibrated else 1 / (1 + np.exp(-margins))
        total += later.weights.sum() * log_loss(later.bad, pd, sample_weight=later.weights)
        weight += later.weights.sum()
    return float(total / weight)


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
