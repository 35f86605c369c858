"""The classifier: it learns what lies in order alone, and nothing where there is nothing to learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightgbm import LGBMClassifier
from sklearn.base import clone
from tests.sequences.test_loading import datasets  # noqa: F401 - a fixture
from tests.sequences.training.small import PRETRAIN, QUICK, same, source

from obligor.errors import BadInput, ObligorError
from obligor.models.metrics import auc
from obligor.sequences.dataset import Dataset
from obligor.sequences.loading import Loader
from obligor.sequences.memory import MemorySource
from obligor.sequences.training import Head, Lived, Objectives, SequenceClassifier
from obligor.sequences.training.heads import Targets
from obligor.sequences.weights import Kind

TRAINING = replace(QUICK, epochs=12, look_steps=30)


def _model(kind: Kind = "gru", **given: object) -> SequenceClassifier:
    small = {"width": 8, "hidden": 16, "units": 16, "quiet": True, "objectives": PRETRAIN, "pretrainer": QUICK}
    return SequenceClassifier(kind=kind, trainer=TRAINING).set_params(**{**small, **given})


def _counts(made: MemorySource) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """A bag of events: how often each code of each field is in a sequence."""
    rows = zip(made.start, made.stop, strict=True)
    return np.array(
        [
            np.concatenate([np.bincount(made.codes[a:b, f], minlength=n) for f, n in enumerate(made.sizes)])
            for a, b in rows
        ]
    )


@pytest.mark.parametrize("kind", ["gru", "linear_attention", "transformer"])
def test_it_learns_from_order_what_a_bag_of_events_cannot_see(kind: Kind) -> None:
    made, y = source(1000, 1)
    later, truth = source(500, 2)
    permuted, _ = source(500, 2, permuted=True)
    model = _model(kind).fit(made, y)
    assert auc(truth, model.predict_proba(later)[:, 1]) > 0.95
    assert 0.4 < auc(truth, model.predict_proba(permuted)[:, 1]) < 0.6
    bag = LGBMClassifier(n_estimators=50, n_jobs=1, verbose=-1).fit(_counts(made), y)
    assert 0.4 < auc(truth, np.asarray(bag.predict_proba(_counts(later)))[:, 1]) < 0.6
    curve = [look["score"] for look in model.training_.curve]
    assert min(curve) < 0.6 * curve[0] or min(curve) < 0.05


def test_shuffled_outcomes_teach_nothing() -> None:
    made, y = source(1000, 1)
    later, truth = source(500, 2)
    model = _model().fit(made, np.random.default_rng(0).permutation(y))
    assert 0.42 < auc(truth, model.predict_proba(later)[:, 1]) < 0.58


def test_answers_are_those_of_each_question_whatever_its_batch() -> None:
    made, y = source(300, 1)
    model = _model(trainer=QUICK).fit(made, y)
    other = replace(made, tokens_max=100)
    assert np.abs(model.embed(made) - model.embed(other)).max() < 1e-5
    assert model.embed(made).shape == (300, 7 * 16 + 2)
    chance = model.predict_proba(made)
    assert chance.sum(axis=1) == pytest.approx(1.0)
    assert np.log(chance[:, 1] / chance[:, 0]) == pytest.approx(model.decision_function(made))


def test_several_heads_at_once() -> None:
    made, y = source(400, 1)
    months = np.random.default_rng(3).integers(1, 5, 400)
    heads = (Head("default"), Head("loss", "share"), Head("hazard", "hazard", months=4))
    lived = Lived(months, np.where(y == 1, 1, np.random.default_rng(4).integers(0, 2, 400) * 2))
    targets: Targets = {"default": y, "loss": np.where(y == 1, 0.6, np.nan), "hazard": lived}
    model = _model(heads=heads, bottom="shared").fit(made, targets)
    told = model.log_odds(made)
    assert {name: value.shape for name, value in told.items()} == {
        "default": (400,), "loss": (400,), "hazard": (400, 4, 2),
    }  # fmt: skip
    assert auc(y, told["default"]) > 0.9
    assert 1 / (1 + np.exp(-told["loss"].mean())) == pytest.approx(0.6, abs=0.05)
    first = _model(heads=heads[2:], pretrained=False).fit(made, {"hazard": lived})
    assert auc(y, first.decision_function(made)) > 0.8


def test_a_hazard_of_months_that_nobody_has_lived_is_refused() -> None:
    made, y = source(40, 1)
    lived = Lived(np.full(40, 3), y.astype(np.int64))
    model = _model(heads=(Head("time", "hazard", months=6),), pretrained=False)
    with pytest.raises(BadInput, match=r"\$.y.time: expected somebody at risk in month 6, got lives of at most 3"):
        model.fit(made, {"time": lived})


def test_outcomes_that_are_not_known_and_groups() -> None:
    made, y = source(400, 1)
    groups = np.arange(400) // 4
    model = _model(trainer=QUICK, pretrained=False, held_share=0.3)
    held = model._held(400, groups)
    assert 0.1 < held.mean() < 0.5
    assert all(len(set(held[groups == g])) == 1 for g in range(100))
    y[200:] = np.nan
    assert model.fit(made, y, groups=groups).training_.best is not None


def test_frozen_leaves_the_encoder_as_pretraining_made_it() -> None:
    made, y = source(300, 1)
    model = _model(trainer=QUICK, frozen=True).pretrain(made)
    before = {name: value.clone() for name, value in model.encoder_.state_dict().items()}
    model.fit(made, y)
    assert same(before, model.encoder_.state_dict())
    assert all(parameter.requires_grad for parameter in model.encoder_.parameters())


def test_fit_goes_on_from_its_checkpoints(tmp_path: Path) -> None:
    made, y = source(300, 1)
    expected = _model(trainer=QUICK).fit(made, y)
    first = _model(trainer=QUICK, checkpoints=tmp_path).fit(made, y)
    again = _model(trainer=QUICK, checkpoints=tmp_path).fit(made, y)
    for model in (first, again):
        assert np.array_equal(model.decision_function(made), expected.decision_function(made))
    with pytest.raises(ObligorError, match="of another run"):
        _model(trainer=QUICK, checkpoints=tmp_path).fit(made, 1 - y)


def test_checkpoints_of_other_sequences_or_other_weights_to_begin_with_are_refused(tmp_path: Path) -> None:
    made, y = source(300, 1)
    codes = made.codes.copy()
    codes[:, 1] = np.where(codes[:, 1] > 3, codes[:, 1] - 3, codes[:, 1])
    other = replace(made, codes=codes)  # as many batches, other numbers
    _model(checkpoints=tmp_path).pretrain(made)
    for seed, sequences, why in ((0, other, r"\(data: "), (1, made, r"\(start: ")):
        with pytest.raises(ObligorError, match=f"of another run {why}"):
            _model(checkpoints=tmp_path, seed=seed).pretrain(sequences)
    model = _model(trainer=QUICK, checkpoints=tmp_path).pretrain(made)
    model.fit(made, y)
    model.checkpoints = None
    model.pretrainer = replace(model.pretrainer, rate=1e-3)
    model.pretrain(made)
    model.checkpoints = tmp_path
    with pytest.raises(ObligorError, match=r"of another run \(start: "):
        model.fit(made, y)


def test_it_learns_from_a_dataset_on_disk(datasets: tuple[Dataset, Dataset]) -> None:  # noqa: F811 - the fixture
    """Pretrained on everyone, fitted on applications: whether the consumer had more events than most."""
    everyone, applications = (Loader(dataset, tokens_max=2048, rows_max=64) for dataset in datasets)
    model = _model(trainer=replace(QUICK, epochs=30)).pretrain(everyone)
    length = datasets[1].columns.length.astype(np.float64)
    y = np.empty(len(length))
    y[datasets[1].columns.question] = length > np.median(length)
    chance = model.fit(applications, y).predict_proba(applications)[:, 1]
    assert auc(y, chance) > 0.95
    assert np.array_equal(chance, model.predict_proba(applications)[:, 1])


def test_it_is_an_estimator_to_scikit_learn() -> None:
    model = _model(hidden=24)
    assert clone(model).get_params() == model.get_params()
    with pytest.raises(BadInput, match=r"\$\.depth: no such parameter"):
        model.set_params(depth=3)


def test_a_fit_forgets_the_one_before() -> None:
    """Else what one fold has taught would answer for the applicants of the next."""
    made, y = source(80, 1)
    short = replace(QUICK, epochs=1)
    model = _model(trainer=short, pretrainer=short)
    first = model.fit(made, y).decision_function(made)
    model.fit(made, 1 - y)
    assert np.array_equal(model.fit(made, y).decision_function(made), first)
    assert model.set_params(hidden=24).fit(made, y).embed(made).shape == (80, (5 + 2) * 24 + 2)


def test_each_fit_begins_with_what_pretrain_left() -> None:
    made, y = source(80, 1)
    short = replace(QUICK, epochs=1)
    model = _model(trainer=short, pretrainer=short).pretrain(made)
    begun = {name: value.clone() for name, value in model.encoder_.state_dict().items()}
    first = model.fit(made, y).decision_function(made)
    assert not same(begun, model.encoder_.state_dict())
    assert np.array_equal(model.fit(made, y).decision_function(made), first)
    assert not np.array_equal(_model(trainer=short, pretrained=False).fit(made, y).decision_function(made), first)
    with pytest.raises(BadInput, match=r"pretrained as .*call pretrain again"):
        model.set_params(hidden=24).fit(made, y)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "gur"}, r"Invalid enum value 'gur' - at `\$\.kind`"),
        ({"hidden": 0}, r"Expected `int` >= 1 - at `\$\.hidden`"),
        ({"reads": "lst"}, r"\$\.reads: did you mean 'last'"),
        ({"bottom": "shard"}, r"\$\.bottom: 'shard'; did you mean 'shared'"),
        ({"units": -1}, r"\$\.units: expected 0 or more"),
        ({"dropout": 1.0}, r"\$\.dropout: expected a share from 0 to below 1, got 1\.0"),
        ({"held_share": 2.0}, r"\$\.held_share: expected a share"),
        ({"heads": ()}, r"\$\.heads: expected one or more"),
        ({"heads": (Head("a"), Head("a"))}, r"\$\.heads: .* each of a name of its own"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(changes: dict[str, object], told: str) -> None:
    made, y = source(10, 1)
    with pytest.raises(BadInput, match=told):
        _model().set_params(pretrained=False, **changes).fit(made, y)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"precision": "fp16"}, r"\$\.precision: expected one of float32, bfloat16, got 'fp16'"),
        ({"device": "gpu"}, r"\$\.device: expected one of auto, cpu, cuda"),
        ({"rate": np.nan}, r"\$\.rate: expected a number above 0, got nan"),
        ({"steps_max": 0}, r"\$\.steps_max: expected at least 1"),
    ],
)
def test_a_trainer_that_cannot_learn_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        replace(QUICK, **changes)


def test_objectives_that_cannot_be_learnt_are_refused() -> None:
    for changes in ({"contrastive": np.nan}, {"masked_share": 2.0}, {"slice_min": 300}, {"slices": 1}):
        with pytest.raises(BadInput, match=r"\$\.objectives"):
            Objectives(**changes)


def test_outcomes_and_sources_that_do_not_fit_are_refused() -> None:
    made, y = source(20, 1)
    model = _model(pretrained=False, trainer=replace(QUICK, epochs=1))
    with pytest.raises(BadInput, match=r"\$\.y: expected a row for each question, question 19 too, got 10 rows"):
        model.fit(replace(made, tokens_max=10_000), y[:10])
    with pytest.raises(BadInput, match=r"\$\.y\.default: expected something to learn from, got nothing known"):
        model.fit(made, np.full(20, np.nan))
    with pytest.raises(BadInput, match=r"\$\.y\.default: expected one number a question, .* \(20, 1\)"):
        model.fit(made, y[:, None])
    with pytest.raises(BadInput, match=r"\$\.held: expected questions to learn from"):
        model.fit(made, y, held=np.ones(20, np.bool_))
    with pytest.raises(BadInput, match=r"\$\.groups: expected a group of each of 20 rows, got \(7,\)"):
        model.fit(made, y, groups=np.arange(7))
    with pytest.raises(BadInput, match=r"\$\.sizes: expected tables of \(6, 7, 8\) rows, got \(7, 7, 8\)"):
        model.fit(made, y).predict_proba(replace(made, sizes=(7, 7, 8)))


def test_what_was_not_fitted_cannot_answer() -> None:
    made, y = source(20, 1)
    with pytest.raises(ObligorError, match="call fit or pretrain first"):
        _model().embed(made)
    with pytest.raises(ObligorError, match="call fit first"):
        _model().pretrain(made).predict_proba(made)
    with pytest.raises(BadInput, match="expected as many rows for each head"):
        _model(heads=(Head("a"), Head("b"))).fit(made, {"a": y, "b": y[:3]})


def test_an_unlabelled_entity_without_events_is_answered() -> None:
    made, y = source(50, 1)
    empty = replace(made, stop=np.where(np.arange(50) < 3, made.start, made.stop))
    model = _model(trainer=QUICK).fit(empty, y)
    told = model.decision_function(empty)
    assert np.isfinite(told).all()
    assert told[0] == told[1] == told[2]
    assert torch.isfinite(model.encoder_.readout.empty).all()


def test_beside_an_offset_it_learns_what_that_lacks() -> None:
    made, order = source(600, 1)
    later, truth = source(400, 2)
    known = 3 * (order - 0.5)
    y = (np.random.default_rng(3).random(600) < 1 / (1 + np.exp(-known))).astype(np.float64)
    model = _model(pretrained=False, units=0)
    alone = model.fit(made, y).decision_function(later)
    beside = _model(pretrained=False, units=0).fit(made, y, offset=known).decision_function(later)
    assert auc(truth, alone) > 0.9
    assert np.abs(beside).mean() < 0.3 * np.abs(alone).mean()  # there was nothing left


@pytest.mark.parametrize(
    ("offset", "head", "message"),
    [
        (np.zeros(7), Head("default"), r"\$\.offset: expected finite log-odds \(20,\), got \(7,\)"),
        (np.full(20, np.nan), Head("default"), r"\$\.offset: expected finite log-odds \(20,\)"),
        (np.zeros(20), Head("default", "hazard", 3), r"\$\.offset: expected none for the hazard 'default', got one"),
    ],
)
def test_an_offset_that_does_not_fit_is_refused(offset: np.ndarray, head: Head, message: str) -> None:
    made, y = source(20, 1)
    target = Lived(np.ones(20, np.int64), np.zeros(20, np.int64)) if head.kind == "hazard" else y
    with pytest.raises(BadInput, match=message):
        _model(heads=(head,)).fit(made, {"default": target}, offset=offset)
