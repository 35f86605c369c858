"""Training as a whole: the same bundle twice, honest slices, a sound reference, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tests.models.lender import DAY_US, OUTCOME, POLICY, SMALL, feature, plan, training_data

from obligor.errors import BadInput, DefinitionError
from obligor.models import training
from obligor.models.bundle import Bundle
from obligor.models.calibration import fit_calibration
from obligor.models.model import Model
from obligor.models.scorer import MODEL_NAMES
from obligor.models.training import cutoff_us, evaluate_bundle, split_of, train
from obligor.models.training_set import TrainingSet

FAST = dataclasses.replace(SMALL, search=2, rounds_max=30, bootstrap=10, segments=())


def _train(data: TrainingSet, root: Path, model: Model = FAST) -> Bundle:
    return train(data, model, policy=POLICY, outcome=OUTCOME, root=root)


def test_the_same_snapshot_and_seed_give_the_same_bundle(data: TrainingSet, tmp_path: Path) -> None:
    first = _train(data, tmp_path / "one")
    assert _train(training_data(), tmp_path / "two").hash == first.hash
    assert _train(data, tmp_path / "two", dataclasses.replace(FAST, threads=2)).hash == first.hash
    assert _train(data, tmp_path / "two", dataclasses.replace(FAST, seed=1)).hash != first.hash
    one_more = data.features.copy()
    one_more[np.flatnonzero(data.matured)[0], 0] += 1e-3
    assert _train(dataclasses.replace(data, features=one_more), tmp_path / "two").hash != first.hash


def test_outcomes_after_the_cutoff_teach_nothing(data: TrainingSet, bundle: Bundle, tmp_path: Path) -> None:
    split = split_of(data, FAST)
    flipped = np.where(split.train, data.bad, 1 - data.bad)
    first, second = _train(data, tmp_path), _train(dataclasses.replace(data, bad=flipped), tmp_path)
    for part in ("trees.json", "scorecard.json", "calibration.json", "reference.json"):
        assert (first.path / part).read_bytes() == (second.path / part).read_bytes()
    assert first.evaluation["models"]["xgboost"]["metrics"] != second.evaluation["models"]["xgboost"]["metrics"]
    some = split.train & (np.arange(len(data)) % 10 == 0)  # the control: training outcomes do teach
    third = _train(dataclasses.replace(data, bad=np.where(some, 1 - data.bad, data.bad)), tmp_path)
    assert (first.path / "trees.json").read_bytes() != (third.path / "trees.json").read_bytes()


def test_several_boosters_are_one_bundle_explained_and_calibrated_out_of_fold(
    data: TrainingSet, tmp_path: Path
) -> None:
    model = dataclasses.replace(FAST, search=1, bags=5)
    bundle = _train(data, tmp_path, model)
    assert _train(training_data(), tmp_path, dataclasses.replace(model, threads=3)).hash == bundle.hash
    assert bundle.trees.count == 5 * bundle.training["trials"][0]["rounds"]
    for row in data.features[:200]:
        assert abs(bundle.contributions(row).sum() - (bundle.score(row).margin - bundle.reference.margin)) < 1e-9
    train_rows = split_of(data, model).train
    margins = bundle.scores(data.features[train_rows], "xgboost").margin
    naive = fit_calibration(margins, data.bad[train_rows], method="logistic")
    assert naive.slope > bundle.calibrations["xgboost"].slope + 0.01


def test_learns_the_made_risk(bundle: Bundle) -> None:
    champion, card, ceiling = (bundle.evaluation["models"][n]["metrics"] for n in (*MODEL_NAMES, "ceiling"))
    assert champion["auc"]["value"] > ceiling["auc"]["value"] - 0.03
    assert card["auc"]["value"] > 0.7
    assert 0.75 < champion["observed_to_expected"]["value"] < 1.35


def test_the_reference_is_the_median_of_the_approved(bundle: Bundle, data: TrainingSet) -> None:
    split = split_of(data, SMALL)
    margins = bundle.scores(data.features[split.train]).margin
    assert bundle.reference.margin == np.sort(margins)[(len(margins) - 1) // 2]
    row = data.application_id.index(bundle.reference.application)
    assert split.train[row]
    assert np.array_equal(data.features[row], bundle.reference.features, equal_nan=True)
    assert bundle.score(bundle.reference.features).margin == bundle.reference.margin


def test_a_scorecard_can_be_the_champion(data: TrainingSet, tmp_path: Path) -> None:
    bundle = _train(data, tmp_path, dataclasses.replace(FAST, champion="scorecard"))
    row = data.features[0]
    assert bundle.score(row) == bundle.scorecard_score(row)
    assert bundle.reference.margin == bundle.scorecard.margin(bundle.reference.features)


def test_probabilities_are_learned_from_rows_the_model_did_not_see(
    bundle: Bundle, data: TrainingSet, truth: dict[str, float]
) -> None:
    split = split_of(data, SMALL)
    true = np.array([truth[name] for name in data.application_id])
    for model in MODEL_NAMES:
        pds = bundle.scores(data.features, model).pd
        assert pds[split.test].mean() == pytest.approx(true[split.test].mean(), rel=0.1)
        line = bundle.evaluation["models"][model]["calibration"]
        assert abs(line["slope"] - 1) < 3 * line["slope_error"]
    margins = bundle.scores(data.features[split.train], "xgboost").margin
    naive = fit_calibration(margins, data.bad[split.train], method="logistic")
    assert naive.slope > bundle.calibrations["xgboost"].slope  # on its own rows a model looks better than it is


def test_recent_rows_can_weigh_more(data: TrainingSet, tmp_path: Path) -> None:
    recent = _train(data, tmp_path, dataclasses.replace(FAST, weights="90d"))
    assert recent.trees.base != _train(data, tmp_path).trees.base
    with pytest.raises(DefinitionError, match="half-life"):
        _train(data, tmp_path, dataclasses.replace(FAST, weights="recent"))


def test_a_feature_without_a_reason_stops_it(data: TrainingSet, tmp_path: Path) -> None:
    lacking = plan(*(feature(name, reason=None if name == "tenure" else "R") for name in data.plan.names))
    with pytest.raises(DefinitionError, match=r"\$\.features\.tenure"):
        _train(dataclasses.replace(data, plan=lacking), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_test_period_stops_it_before_anything_is_fitted(
    data: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_Fitting", None)
    with pytest.raises(BadInput, match="nothing can be judged"):
        _train(data, tmp_path, dataclasses.replace(FAST, cutoff="2026-12-31"))
    assert list(tmp_path.iterdir()) == []


def test_a_later_evaluation_sees_newly_matured_rows(bundle: Bundle, data: TrainingSet) -> None:
    assert evaluate_bundle(bundle, data)["models"]["xgboost"] == bundle.evaluation["models"]["xgboost"]
    later = training_data(4000, days=900)
    assert evaluate_bundle(bundle, later)["rows"]["test"] > bundle.evaluation["rows"]["test"]
    other = dataclasses.replace(data, plan=plan(*(feature(name) for name in data.plan.names)))
    with pytest.raises(BadInput, match="the bundle scores the plan"):
        evaluate_bundle(bundle, other)


def test_the_cutoff_is_midnight_in_the_plans_zone() -> None:
    assert cutoff_us(plan(), Model(cutoff="1970-01-03")) == 2 * DAY_US
    assert cutoff_us(plan(), Model(cutoff="1970-01-03T01:00:00+01:00")) == 2 * DAY_US
    with pytest.raises(DefinitionError, match="expected a date"):
        cutoff_us(plan(), Model(cutoff="summer"))


def test_progress_is_told(data: TrainingSet, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    train(data, FAST, policy=POLICY, outcome=OUTCOME, root=tmp_path, progress=lambda *step: told.append(step))
    assert told[0] == ("search", 1, 2)
    assert told[-1] == ("evaluation", 1, 1)
