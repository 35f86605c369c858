"""Fusion: what the order of events tells reaches the trees out of fold, in a bundle that is the same each time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.sequence_lender import (
    CUTOFF,
    HEAD,
    MODEL,
    OUTCOME,
    POLICY,
    Asking,
    World,
    fused_world,
    plan,
    reading,
    trained,
)

from obligor.decisions.backtest import backtest
from obligor.decisions.policy import load_policy
from obligor.errors import BadInput, DefinitionError, IntegrityError
from obligor.models.alone import Alone
from obligor.models.boosting import DEFAULTS, Rows, Trial, fit_trees
from obligor.models.bundle import ALONE, PARTS, SEQUENCE_PARTS, Bundle, write_bundle
from obligor.models.fusing import Floats, Fused, _Learning, check_encoder, read_again, scored
from obligor.models.inputs import Inputs
from obligor.models.metrics import auc
from obligor.models.model import Model
from obligor.models.report import render_report, verdicts
from obligor.models.splits import folds
from obligor.models.training import _Fitting, cutoff_us, evaluate_bundle, split_of, train
from obligor.models.training import _fused as _fuse
from obligor.models.training_set import TrainingSet
from obligor.models.trees import Trees
from obligor.parts import read_parts, write_parts
from obligor.sequences.scoring import readouts
from obligor.sequences.tokens import KNOWN
from obligor.sequences.training.fold_heads import FoldHeads, fold_heads
from obligor.sequences.training.heads import Head
from obligor.sequences.views import Views


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = fused_world(tmp_path_factory.mktemp("fusing"))
    yield made
    made.log.close()


def _parts(bundle: Bundle) -> dict[str, bytes]:
    return read_parts(bundle.path, (*PARTS, *SEQUENCE_PARTS), 1 << 24)


def _fused(world: World, model: Model) -> Fused:
    """Learn the score of a model, as training does."""
    fused = _fuse(_fitting(world.data, model), world.encoder, reading(world.log), ())
    assert fused is not None
    return fused


def _fitting(data: TrainingSet, model: Model = MODEL) -> _Fitting:
    """Return what training fits the trees without the sequence with."""
    assert model.sequence is not None
    split = split_of(data, model)
    fold = folds(data, split.train, model.sequence.folds, model.seed)
    return _Fitting(data, model, split, fold, np.ones(len(data)), lambda step, done, total: None)


@pytest.fixture
def one_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the search find the same whatever the outcomes are."""
    found = Trial(dict(DEFAULTS), 20, 0.5, 0.6)
    monkeypatch.setattr("obligor.models.training.search", lambda *given: [found])


def test_the_sequence_tells_what_the_trees_cannot_see(world: World) -> None:
    fusion = world.bundle.evaluation["fusion"]
    found = {name: one["metrics"]["auc"]["value"] for name, one in fusion["models"].items()}
    assert 0.55 < found["trees"] < 0.7
    assert found["fused"] > found["trees"] + 0.1
    assert found["sequence"] > 0.7
    gained = fusion["difference"]["auc"]
    assert gained["value"] == pytest.approx(found["fused"] - found["trees"])
    assert 0 < gained["low"] <= gained["value"] <= gained["high"]
    assert world.bundle.evaluation["models"]["xgboost"]["metrics"] == fusion["models"]["fused"]["metrics"]


def test_the_same_snapshot_and_seed_give_the_same_bundle(world: World, tmp_path: Path) -> None:
    assert trained(world, tmp_path, dataclasses.replace(MODEL, threads=1)).hash == world.bundle.hash
    other = dataclasses.replace(MODEL, sequence=dataclasses.replace(HEAD, units=9))
    assert trained(world, tmp_path, other).hash != world.bundle.hash


def test_training_rows_are_scored_out_of_fold_and_all_others_as_they_are_served(world: World) -> None:
    data, bundle, score = world.data, world.bundle, world.bundle.sequence
    assert score is not None
    split = split_of(data, MODEL)
    fold = folds(data, split.train, HEAD.folds, MODEL.seed)
    assert bundle.alone is not None
    again = read_again(data, score, reading(world.log), fold, bundle.alone.heads)
    given = again.data.features[:, -1]
    served = scored(data, score, reading(world.log)).features[:, -1]
    with readouts(score, data.plan, world.log, data.requests(world.log.cut())) as found:
        read = found.copy()
    each = np.array([score.each(one) for one in read])
    for row in range(len(data)):
        assert served[row] == score.of(read[row])
        assert given[row] == (each[row, fold[row]] if split.train[row] else served[row])
        unaided = score.encoder.heads(read[row])
        told = [unaided[f"alone_fold_{number}"][0] for number in range(HEAD.folds)]
        assert again.unaided[row] == (told[fold[row]] if split.train[row] else pytest.approx(np.mean(told), abs=1e-12))
    assert (given[split.train] != served[split.train]).all()
    # The trees were fitted on these very numbers: the reference is one of the training rows.
    place = data.application_id.index(bundle.reference.application)
    assert bundle.reference.features[-1] == given[place]


def test_a_fate_drawn_by_person_is_not_told_out_of_fold(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that are the person's own and nothing else: a head that knew its people would tell them."""
    steps = "obligor.sequences.training.fold_heads._steps"
    monkeypatch.setattr(steps, lambda inner, settings: (settings.steps, dict.fromkeys(inner[0].names, 0.0)))
    chance = np.random.default_rng(5)
    fate = {name: float(chance.random() < 0.4) for name in dict.fromkeys(world.data.fields["consumer"].to_pylist())}
    bad = np.array([fate[name] for name in world.data.fields["consumer"].to_pylist()])
    blind = dataclasses.replace(world.data, bad=np.where(world.data.matured, bad, np.nan))
    keen = dataclasses.replace(HEAD, units=64, dropout=0.0, decay=0.0)
    model = dataclasses.replace(MODEL, sequence=keen)
    split = split_of(blind, model)
    fold = folds(blind, split.train, HEAD.folds, model.seed)
    made = _fused(world._replace(data=blind), model)
    value = made.data.features[split.train, -1]
    assert auc(blind.bad[split.train], value) == pytest.approx(0.5, abs=0.08)
    seen = made.score
    served = scored(blind, seen, reading(world.log)).features[split.train, -1]
    assert auc(blind.bad[split.train], served) > auc(blind.bad[split.train], value) + 0.05, "the control"
    assert set(fold[split.train]) == set(range(HEAD.folds))


def test_a_later_evaluation_says_what_each_part_is_worth(world: World) -> None:
    found = evaluate_bundle(world.bundle, world.data, reading=reading(world.log))
    assert found == world.bundle.evaluation
    alone = world.bundle.alone
    assert isinstance(alone, Alone)
    fold = np.full(len(world.data), -1)
    assert world.bundle.sequence is not None
    read = read_again(world.data, world.bundle.sequence, reading(world.log), fold, alone.heads)
    data = read.data
    pds = alone.pds(data.features, read.unaided)
    assert {name: len(pd) for name, pd in pds.items()} == {"trees": len(data), "sequence": len(data)}
    row = 17
    assert pds["sequence"][row] == alone.sequence_calibration.pd(float(read.unaided[row]))
    assert read.unaided[row] != data.features[row, -1]
    columns = alone.inputs.expand(data.features[[row], :-1])[0]
    assert pds["trees"][row] == alone.trees_calibration.pd(alone.trees.margin(columns))


def test_the_report_says_what_the_sequence_adds(world: World) -> None:
    bundle, evaluation = world.bundle, world.bundle.evaluation
    page = render_report(evaluation, training=bundle.training, outcome=bundle.outcome, bundle_hash=bundle.hash)
    assert "What does the sequence add?" in page
    assert f"{world.encoder.hash}, of what was known at 2026-01-01T00:00:00Z" in page
    gained = evaluation["fusion"]["difference"]["auc"]
    assert f"{gained['value']:+.4f}" in page
    assert ("ok", "The sequence adds to the trees") in [one[:2] for one in verdicts(evaluation)]
    for low, high, heading in ((-0.02, -0.01, "The sequence takes"), (-0.01, 0.01, "No proven gain from the sequence")):
        other = {
            "models": evaluation["fusion"]["models"],
            "difference": {"auc": {"value": 0.0, "low": low, "high": high}},
        }
        assert any(one[1].startswith(heading) for one in verdicts({**evaluation, "fusion": other}))
    plain = {name: part for name, part in evaluation.items() if name != "fusion"}
    assert "sequence" not in render_report(plain, training={}, outcome=bundle.outcome, bundle_hash=bundle.hash)


def test_the_fallback_sees_no_sequence(world: World) -> None:
    bundle = world.bundle
    assert "history_score" not in [card.feature for card in bundle.scorecard.cards]
    low, high = (np.append(world.data.features[3], value) for value in (-3.0, 3.0))
    assert bundle.scorecard_score(low) == bundle.scorecard_score(high)
    assert bundle.score(low).pd < bundle.score(high).pd
    assert bundle.contributions(high)[-1] > 0 > bundle.contributions(low)[-1]


@pytest.mark.parametrize("name", SEQUENCE_PARTS)
def test_a_bundle_has_all_parts_of_a_sequence_or_none(world: World, name: str, tmp_path: Path) -> None:
    parts = _parts(world.bundle)
    del parts[name]
    with pytest.raises(BadInput, match="a bundle has the parts"):
        write_bundle(tmp_path, parts)
    with pytest.raises(IntegrityError, match=name):
        Bundle.load(write_parts(tmp_path, parts))


def test_parts_that_were_not_made_for_one_another_are_refused(world: World, tmp_path: Path) -> None:
    parts = _parts(world.bundle)
    description = json.loads(parts["sequence.json"])
    without = plan(with_sequence=False)
    wrong = {
        "no head": ("sequence.json", json.dumps(description | {"heads": ["fold_9"]}).encode(), "expected heads among"),
        "twice": ("sequence.json", json.dumps(description | {"heads": ["fold_0"] * 2}).encode(), "different heads"),
        "no sequence": (
            "sequence.json",
            json.dumps(description | {"sequence": "other"}).encode(),
            "no sequence 'other'",
        ),
        "taken": ("sequence.json", json.dumps(description | {"name": "amount"}).encode(), "the score's name 'amount'"),
        "no plan": ("plan.json", without.canonical, "no sequence 'history'"),
        "other trees": ("trees.json", json.dumps(json.loads(parts[ALONE])["trees"]).encode(), "the model's inputs"),
    }
    for name, (part, content, message) in wrong.items():
        with pytest.raises(IntegrityError, match=message):
            Bundle.load(write_parts(tmp_path / name, parts | {part: content}))


def test_without_a_sequence_nothing_is_otherwise(world: World, tmp_path: Path) -> None:
    plain = dataclasses.replace(MODEL, sequence=None)
    data = dataclasses.replace(world.data, plan=plan(with_sequence=False))
    bundle = train(data, plain, policy=POLICY, outcome=OUTCOME.describe(), root=tmp_path)
    assert {entry.name for entry in bundle.path.iterdir()} == {*PARTS, "manifest.json"}
    assert bundle.sequence is None
    assert bundle.alone is None
    assert bundle.features == bundle.plan.features
    assert bundle.described is bundle.plan.data
    assert "sequence" not in bundle.training["model"]
    assert "fusion" not in bundle.evaluation
    assert bundle.training["data_sha256"] == data.sha256
    # The trees that the fused ones are compared with are these very trees, found by the same search.
    assert json.loads(_parts(world.bundle)[ALONE])["trees"] == json.loads((bundle.path / "trees.json").read_bytes())


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"model": {"sequence": "clicks"}}, "reads 'clicks', the model 'history'; pretrain again"),
        ({"snapshot": {"cutoff_us": 1_790_000_000_000_000}}, "has learnt from what was known at 2026-09-21T"),
    ],
)
def test_an_encoder_that_must_not_be_used(world: World, training: dict[str, object], message: str) -> None:
    held = dataclasses.replace(world.encoder, training={**world.encoder.training, **training})
    with pytest.raises(DefinitionError) as found:
        check_encoder(held, HEAD, world.data.plan, cutoff_us(world.data.plan, MODEL))
    assert message in str(found.value)


def test_an_encoder_of_another_definition_must_not_be_used(world: World) -> None:
    other = dataclasses.replace(world.encoder, tokenizer=dataclasses.replace(world.encoder.tokenizer, definition="0"))
    with pytest.raises(DefinitionError, match="another definition of 'history'; pretrain again"):
        check_encoder(other, HEAD, world.data.plan, cutoff_us(world.data.plan, MODEL))


def test_models_say_what_sequence_they_cannot_have() -> None:
    with pytest.raises(DefinitionError, match=r"sequence: expected SequenceHead"):
        Model(cutoff=CUTOFF, sequence="history")  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="for the trees, but the champion is the scorecard"):
        Model(cutoff=CUTOFF, champion="scorecard", sequence=HEAD)
    assert Model.from_data(json.loads(json.dumps(MODEL.to_data()))) == dataclasses.replace(MODEL)
    assert Model.from_data(Model(cutoff=CUTOFF).to_data()) == Model(cutoff=CUTOFF)


def test_who_borrowed_last_is_blamed_for_it_and_who_repaid_last_is_not(world: World) -> None:
    score = world.bundle.sequence
    assert score is not None
    views = Views(score, world.bundle.plan, world.log, world.data.requests(world.log.cut()))
    data = scored(world.data, score, reading(world.log))
    policy = load_policy(world.bundle.policy, world.bundle.described, Asking.describe())
    result = backtest(data, world.bundle, policy, cut=world.log.cut(), seed=len, coalitions=views.coalitions)
    divided = [row for row, one in enumerate(result.decisions) if "BORROWED" in one.contributions]
    assert len(divided) > 100
    place = score.tokenizer.names.index("transfer.way")
    values = score.tokenizer.fields[place].values
    assert values is not None
    borrowed = np.array([values[views[row].rows.codes[-1, place] - KNOWN] == 0 for row in divided])
    parts = np.array([result.decisions[row].contributions["BORROWED"] for row in divided])
    assert parts[borrowed].mean() > 0.3 > 0.1 > parts[~borrowed].mean()
    assert np.median(parts[borrowed]) > 0.3 > 0.0 >= np.median(parts[~borrowed])
    for row in divided:
        assert result.decisions[row].outcome != "approve"
        explained = world.bundle.contributions(data.features[row]).sum()
        assert sum(result.decisions[row].contributions.values()) == pytest.approx(explained, rel=0, abs=1e-9)
    assert result.summary()["reasons"]["BORROWED"] > 20


@pytest.mark.usefixtures("one_candidate")
def test_the_search_sees_scores_of_heads_that_had_not_seen_the_roll(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other outcomes from a roll on change none of the scores that candidates are fitted and judged on there."""
    steps = "obligor.sequences.training.fold_heads._steps"
    monkeypatch.setattr(steps, lambda inner, settings: (40, dict.fromkeys(inner[0].names, 0.0)))
    split = split_of(world.data, MODEL)
    later = split.train & (world.data.as_of >= split.rolls[-1].from_us)
    flipped = dataclasses.replace(world.data, bad=np.where(later, 1 - world.data.bad, world.data.bad))
    one, other = (_fused(world._replace(data=data), MODEL) for data in (world.data, flipped))
    assert len(one.before) == len(split.rolls) > 1
    for values, again in zip(one.before, other.before, strict=True):
        assert np.array_equal(values, again)
    assert not np.array_equal(one.data.features[later, -1], other.data.features[later, -1]), "the control"
    assert not np.array_equal(one.before[-1], one.data.features[:, -1])


def test_candidates_are_judged_on_these_scores(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that are the outcomes themselves, in the search alone, make its figure perfect and nothing else."""

    def knowing(learning: _Learning, moment_us: int, offset: Floats, learnt: FoldHeads) -> Floats:
        return 8.0 * np.nan_to_num(learning.data.bad) - 4.0

    monkeypatch.setattr(_Learning, "before", knowing)
    bundle = trained(world, tmp_path)
    assert bundle.training["trials"][0]["auc"] > 0.99 > world.bundle.training["trials"][0]["auc"] + 0.1
    assert bundle.evaluation["models"]["xgboost"]["metrics"]["auc"]["value"] < 0.85
    assert json.loads(_parts(bundle)[ALONE])["trees"] == json.loads(_parts(world.bundle)[ALONE])["trees"]


@pytest.mark.usefixtures("one_candidate")
def test_offsets_are_those_of_trees_that_have_not_seen_the_applicant(world: World) -> None:
    """By a naive twin: trees are fitted again without each fold, on all training rows and on those before a roll."""
    fitting = _fitting(world.data)
    inputs = Inputs.of(world.data.plan.features)
    rows = Rows(inputs.expand(world.data.features), world.data.bad, np.ones(len(world.data)))
    roll = fitting.split.rolls[-1]
    for given, among in ((fitting.without.held, fitting.split.train), (fitting.held_before(roll), roll.fit)):
        expected = np.full(len(world.data), np.nan)
        for number in range(HEAD.folds):
            others = [row for row in np.flatnonzero(among) if fitting.fold[row] != number]
            mask = np.isin(np.arange(len(world.data)), others)
            trees = Trees.from_xgboost(fit_trees(rows.take(mask), inputs, MODEL, DEFAULTS, 20))
            for row in np.flatnonzero(among & (fitting.fold == number)):
                expected[row] = trees.margin(rows.columns[row])
        assert np.array_equal(given, expected, equal_nan=True)
    assert not np.allclose(fitting.without.held[roll.fit], fitting.without.margins[roll.fit]), "the control"


@pytest.mark.usefixtures("one_candidate")
def test_no_outcome_reaches_its_own_offset_or_that_of_an_earlier_roll(world: World) -> None:
    fitting, bad = _fitting(world.data), world.data.bad
    roll, own = fitting.split.rolls[-1], fitting.fold == 0
    later = fitting.split.train & (world.data.as_of >= roll.from_us)
    within, after = (
        _fitting(dataclasses.replace(world.data, bad=np.where(flipped, 1 - bad, bad))) for flipped in (own, later)
    )
    assert np.array_equal(within.without.held[own], fitting.without.held[own])
    assert not np.array_equal(
        within.without.held[~own & fitting.split.train], fitting.without.held[~own & fitting.split.train]
    )
    assert np.array_equal(after.held_before(roll), fitting.held_before(roll), equal_nan=True)
    assert not np.array_equal(after.without.held, fitting.without.held, equal_nan=True), "the control"


@pytest.mark.usefixtures("one_candidate")
def test_heads_of_the_score_learn_beside_these_offsets_and_others_without(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is learnt is what heads learn that are given readouts, outcomes and offsets by hand, and nothing more."""
    calls: list[tuple[Any, ...]] = []

    def heard(*given: Any) -> FoldHeads:
        calls.append(given)
        return fold_heads(*given)

    monkeypatch.setattr("obligor.sequences.training.fold_heads.fold_heads", heard)
    quick = dataclasses.replace(HEAD, steps=40)
    fused, fitting = _fused(world, dataclasses.replace(MODEL, sequence=quick)), _fitting(world.data)
    train, rolls = fitting.split.train, fitting.split.rolls
    score, unaided, *before = calls
    assert np.array_equal(score[-1], fitting.without.held[train])
    assert unaided[1].keys() == {"alone"}
    assert len(unaided) == 9, "no steps, no offset"
    for given, roll in zip(before, rolls, strict=True):
        assert np.array_equal(given[-1], fitting.held_before(roll)[roll.fit])
        assert np.array_equal(given[1]["outcome"], world.data.bad[roll.fit])
    tensors = fused.score.weights.tensors
    with readouts(world.encoder, world.data.plan, world.log, world.data.requests(world.log.cut())) as found:
        read = found[train]
    people = np.unique(world.data.fields["consumer"].to_pylist(), return_inverse=True)[1][train]
    for offset, prefix in ((fitting.without.held[train], "fold_"), (None, "alone_fold_")):
        name = "outcome" if offset is not None else "alone"
        expected = fold_heads(
            read, {name: world.data.bad[train]}, np.ones(int(train.sum())), fitting.fold[train], people, quick,
            MODEL.seed, heads=(Head(name),), offset=offset,
        )  # fmt: skip
        assert all(name.startswith(f"head.{prefix}") for name in expected.tensors)
        assert all(np.array_equal(tensors[name], tensor) for name, tensor in expected.tensors.items())
    assert not np.array_equal(tensors["head.fold_0.out"], tensors["head.alone_fold_0.out"])


def test_a_score_that_was_learnt_by_itself_is_what_its_sequence_says_alone(world: World, tmp_path: Path) -> None:
    """Bundles from before heads learnt beside trees have one family of heads, and are evaluated as ever."""
    bundle = Bundle.load(next((Path(__file__).parents[1] / "golden" / "v2" / "bundles").iterdir()))
    assert bundle.alone is not None
    assert bundle.alone.heads == ("fold_0", "fold_1", "fold_2")
    parts = _parts(world.bundle)
    described = json.loads(parts[ALONE])
    assert described["heads"] == ["alone_fold_0", "alone_fold_1", "alone_fold_2"]
    for wrong in (["fold_9"] * 3, ["alone_fold_0"]):
        other = Bundle.load(write_parts(tmp_path, parts | {ALONE: json.dumps(described | {"heads": wrong}).encode()}))
        with pytest.raises(IntegrityError, match=r"alone\.json.heads: expected 3 heads of the weights"):
            assert other.alone
    del described["heads"]
    old = Bundle.load(write_parts(tmp_path, parts | {ALONE: json.dumps(described).encode()}))
    found = evaluate_bundle(old, world.data, reading=reading(world.log))["fusion"]["models"]
    assert found["trees"] == world.bundle.evaluation["fusion"]["models"]["trees"]
    assert found["sequence"] != world.bundle.evaluation["fusion"]["models"]["sequence"]
