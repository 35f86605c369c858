"""The evaluation's parts add up, intervals hold their values, and segments, months and the ceiling are right."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from tests.models.lender import SMALL

from obligor.errors import BadInput, DefinitionError, Problem
from obligor.models.bundle import Bundle
from obligor.models.evaluation import evaluate_scorer
from obligor.models.metrics import Ranking, auc, bootstrap, interval, psi, psi_bins
from obligor.models.splits import applicants
from obligor.models.training import foretell, split_of
from obligor.models.training_set import TrainingSet
from obligor.parts import encode_json


def _evaluate(bundle: Bundle, data: TrainingSet, **changes: Any) -> dict[str, Any]:
    split = split_of(data, SMALL)
    arguments = {"train": split.train, "test": split.test, "cutoff_us": split.cutoff_us, "resamples": 20, **changes}
    return evaluate_scorer(bundle, data, **arguments)


def test_is_json_and_the_same_twice(bundle: Bundle, data: TrainingSet) -> None:
    first = _evaluate(bundle, data)
    assert encode_json(first) == encode_json(_evaluate(bundle, data))
    assert json.loads(encode_json(bundle.evaluation)) == bundle.evaluation


def test_metrics_lie_in_their_intervals(bundle: Bundle) -> None:
    for model in bundle.evaluation["models"].values():
        for point in model["metrics"].values():
            assert point["low"] <= point["value"] <= point["high"]


def test_intervals_are_over_applicants(bundle: Bundle, data: TrainingSet) -> None:
    data = dataclasses.replace(data, application_id=tuple(f"a-{row % 40}" for row in range(len(data))))
    test = split_of(data, SMALL).test
    names = np.array(applicants(data), dtype=np.str_)[test]  # of this plan's applications each is somebody's own
    ranking = {"one": Ranking.of(data.bad[test], bundle.scores(data.features).pd[test])}
    found = _evaluate(bundle, data)["models"]["xgboost"]["metrics"]["auc"]
    ends = [
        interval(bootstrap(ranking, resamples=20, rng=np.random.default_rng([0, 2]), applicant=whose)["one"]["auc"])
        for whose in (np.unique(names, return_inverse=True)[1], None)
    ]
    assert (found["low"], found["high"]) == ends[0] != ends[1]


def test_groups_add_up(bundle: Bundle, data: TrainingSet) -> None:
    evaluation, split = bundle.evaluation, split_of(data, SMALL)
    rows, bads = int(split.test.sum()), int(data.bad[split.test].sum())
    assert (evaluation["rows"]["test"], evaluation["rows"]["test_bads"]) == (rows, bads)
    assert sum(evaluation["rows"]["by_status"].values()) == len(data)
    groups = [evaluation["deciles"], evaluation["models"]["xgboost"]["reliability"]]
    groups += [segment["values"] for segment in evaluation["segments"]]
    groups += [[m["test"] for m in evaluation["months"] if "test" in m]]
    for group in groups:
        assert sum(g["rows"] for g in group) == rows
        assert sum(g["bads"] for g in group) == bads
        assert all(g["low"] <= g["observed"] <= g["high"] for g in group)
    assert evaluation["deciles"][-1]["caught"] == 1.0
    assert sum(evaluation["distribution"]["good"]) + sum(evaluation["distribution"]["bad"]) == rows
    assert sum(sum(m["by_status"].values()) for m in evaluation["months"]) == len(data)


def test_a_segment_is_judged_on_its_own_rows(bundle: Bundle, data: TrainingSet) -> None:
    channel = next(s for s in bundle.evaluation["segments"] if s["name"] == "channel")
    agent = next(v for v in channel["values"] if v["value"] == "agent")
    mask = split_of(data, SMALL).test & (data.features[:, 2] == 2)
    assert agent["rows"] == mask.sum()
    assert agent["auc"]["value"] == pytest.approx(auc(data.bad[mask], bundle.scores(data.features[mask]).pd))
    fields = _evaluate(bundle, data, segments=("product", "amount"))["segments"]
    assert [v["value"] for v in fields[0]["values"]] in (["card", "loan"], ["loan", "card"])
    assert len(fields[1]["values"]) == 1  # one value, one quarter
    with pytest.raises(DefinitionError, match="did you mean 'channel'"):
        _evaluate(bundle, data, segments=("chanel",))


def test_the_ceiling_is_measured_on_the_same_rows(bundle: Bundle, data: TrainingSet, truth: dict[str, float]) -> None:
    test = split_of(data, SMALL).test
    true = np.array([truth[data.application_id[i]] for i in np.flatnonzero(test)])
    assert bundle.evaluation["models"]["ceiling"]["metrics"]["auc"]["value"] == pytest.approx(auc(data.bad[test], true))
    with pytest.raises(BadInput, match="no true PD"):
        _evaluate(bundle, data, ceiling={})


def test_the_difference_is_paired(bundle: Bundle) -> None:
    difference = bundle.evaluation["difference"]["auc"]
    one, two = (bundle.evaluation["models"][name]["metrics"]["auc"] for name in ("xgboost", "scorecard"))
    assert difference["value"] == pytest.approx(one["value"] - two["value"])
    assert difference["high"] - difference["low"] < one["high"] - one["low"]


def test_drivers_are_mean_contributions(bundle: Bundle, data: TrainingSet) -> None:
    test = split_of(data, SMALL).test
    parts = np.array([bundle.contributions(row) for row in data.features[test]])
    found = {d["name"]: d["mean_absolute"] for d in bundle.evaluation["drivers"]}
    assert found["tenure"] == pytest.approx(np.abs(parts[:, 1]).mean())
    assert max(found, key=lambda name: found[name]) == "utilisation"
    assert "exposure" not in found


def test_every_month_and_segment_has_its_psi(bundle: Bundle, data: TrainingSet) -> None:
    assert all(month["psi"] >= 0 for month in bundle.evaluation["months"])
    split, pd = split_of(data, SMALL), bundle.scores(data.features).pd
    agent = data.features[:, 2] == 2
    before, after = pd[split.train & agent], pd[split.test & agent]
    channel = next(s for s in bundle.evaluation["segments"] if s["name"] == "channel")
    found = next(v["psi"] for v in channel["values"] if v["value"] == "agent")
    assert found == pytest.approx(psi(before, after, psi_bins(before)))


def test_rows_without_features_have_no_score(bundle: Bundle, data: TrainingSet) -> None:
    rows = np.flatnonzero((data.months == data.months[0]) & ~data.matured)
    assert len(rows)
    features = data.features.copy()
    features[rows] = np.nan
    limited = dataclasses.replace(data, features=features, limits={int(row): Problem("$", "too many") for row in rows})
    first, before = _evaluate(bundle, limited)["months"][0], _evaluate(bundle, data)["months"][0]
    others = (data.months == data.months[0]) & data.matured
    assert first["mean_pd"] == pytest.approx(bundle.scores(data.features).pd[others].mean())
    assert first["mean_pd"] != before["mean_pd"]
    told = foretell(bundle, limited)["pd"]
    assert told.is_null().arg_true().to_list() == rows.tolist()
    assert told.drop_nulls().to_list() == bundle.scores(np.delete(features, rows, axis=0)).pd.tolist()


def test_groups_that_end_among_equal_scores_have_their_share_of_the_bads(bundle: Bundle, data: TrainingSet) -> None:
    data = dataclasses.replace(data, bad=data.bad.copy(), features=np.repeat(data.features[:1], len(data), axis=0))
    split = split_of(data, SMALL)
    rows = np.flatnonzero(split.test)
    data.bad[rows] = np.arange(len(rows)) < len(rows) // 5  # all bads come first
    found = _evaluate(bundle, data)
    for group in [*found["deciles"], *found["models"]["xgboost"]["reliability"]]:
        assert group["observed"] == pytest.approx(0.2, abs=1 / group["rows"])
    assert [d["caught"] for d in found["deciles"]] == pytest.approx(np.arange(1, 11) / 10, abs=0.01)
    assert all(p["bad_rate"] == pytest.approx(0.2, abs=0.01) for p in found["strategy"]["scorecard"])


def test_strategy_rises_to_the_whole(bundle: Bundle) -> None:
    for curve in bundle.evaluation["strategy"].values():
        assert curve[-1]["approved"] == 1.0
        assert curve[-1]["bad_rate"] == pytest.approx(
            bundle.evaluation["rows"]["test_bads"] / bundle.evaluation["rows"]["test"]
        )
        assert [p["pd"] for p in curve] == sorted(p["pd"] for p in curve)


def test_a_moved_feature_shows(bundle: Bundle, data: TrainingSet) -> None:
    split = split_of(data, SMALL)
    moved = data.features.copy()
    moved[split.test, 1] *= 3
    shifted = dataclasses.replace(data, features=moved)
    before, after = (
        {f["name"]: f["psi"] for f in _evaluate(bundle, d)["stability"]["features"]} for d in (data, shifted)
    )
    assert before["tenure"] < 0.1 < 0.25 < after["tenure"]
    assert after["utilisation"] == before["utilisation"]
