"""Heads on folds: out of fold they know nothing of the people they score, and learn what can be learnt."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from obligor.errors import BadInput
from obligor.models.metrics import auc
from obligor.sequences.head import OUTCOME, SequenceHead, fold_name
from obligor.sequences.lived import DEFAULTED, PREPAID, Lived
from obligor.sequences.training.fold_heads import FoldHeads, fold_heads
from obligor.sequences.training.heads import Head, Heads

SETTINGS = SequenceHead(sequence="history", reason="R", folds=4, units=8, steps=120, rate=5e-3, patience=4)
PEOPLE, EACH, SIZE = 160, 4, 12
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class People(NamedTuple):
    """Rows of people, whose readouts are much alike for all rows of one person."""

    readouts: Floats
    bad: Floats
    weights: Floats
    fold: Ints
    person: Ints


def _people(seed: int, *, learnable: bool) -> People:
    chance = np.random.default_rng(seed)
    person = np.repeat(np.arange(PEOPLE), EACH)
    of_person = chance.normal(size=(PEOPLE, SIZE))
    readouts = of_person[person] + 0.1 * chance.normal(size=(len(person), SIZE))
    fate = (chance.random(PEOPLE) < 0.3)[person]
    risk = 1 / (1 + np.exp(1.0 - 2.0 * readouts[:, 0]))
    bad = chance.random(len(person)) < risk if learnable else fate
    fold = (chance.permutation(PEOPLE) % SETTINGS.folds)[person]
    return People(readouts, bad.astype(np.float64), np.ones(len(person)), fold, person)


def _learnt(people: People, settings: SequenceHead, seed: int, **more: Any) -> FoldHeads:
    targets = {OUTCOME: people.bad}
    return fold_heads(people.readouts, targets, people.weights, people.fold, people.person, settings, seed, **more)


def _said(heads: FoldHeads, readouts: Floats) -> Floats:
    """The log-odds of each head, (n, folds), by the definition of a head."""
    found = []
    for number in range(SETTINGS.folds):
        own = {part: heads.tensors[f"head.{fold_name(number)}.{part}"].astype(np.float64) for part in
               ("norm_mean", "norm_scale", "hidden", "hidden_bias", "out", "out_bias")}  # fmt: skip
        below = ((readouts - own["norm_mean"]) * own["norm_scale"]) @ own["hidden"].T + own["hidden_bias"]
        found.append((below / (1 + np.exp(-below))) @ own["out"].T + own["out_bias"])
    return np.concatenate(found, axis=1)


def _twin(people: People, number: int, settings: SequenceHead, seed: int, steps: int, offset: Floats) -> Floats:
    """What a fold's head says of all rows, (n,), about 0: the same network, learnt by the textbook's loop."""
    own = torch.from_numpy(people.fold != number)
    x, y, given = (torch.from_numpy(one.astype(np.float32)) for one in (people.readouts, people.bad, offset))
    x = (x - x[own].mean(dim=0)) / x[own].std(dim=0, correction=0)
    drawn = Heads((Head(OUTCOME),), SIZE, settings.units, (seed + 1) * 1_000 + number)
    hidden, out = torch.nn.Linear(SIZE, settings.units), torch.nn.Linear(settings.units, 1)
    with torch.no_grad():
        hidden.weight.copy_(drawn.hidden[0])
        for zeros in (hidden.bias, out.weight, out.bias):
            zeros.zero_()
    network = torch.nn.Sequential(hidden, torch.nn.SiLU(), out)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=0.0)
    for _ in range(steps):
        optimiser.zero_grad()
        z = network(x[own])[:, 0] + given[own]
        (torch.nn.functional.softplus(z) - y[own] * z).mean().backward()
        optimiser.step()
    with torch.no_grad():
        said = network(x)[:, 0].double().numpy()
    found: Floats = said - said.mean()
    return found


def _out_of_fold(people: People, said: Floats) -> Floats:
    found: Floats = said[np.arange(len(said)), people.fold]
    return found


def test_too_little_to_learn_from_is_said() -> None:
    """One kind of outcome alone would give weights that are no numbers; too few people leave nobody to judge by."""
    people = _people(1, learnable=True)
    for kind in (0.0, 1.0):
        with pytest.raises(BadInput, match="outcome: expected good and bad outcomes, got one kind alone"):
            _learnt(people._replace(bad=np.full(len(people.bad), kind)), SETTINGS, 7)
    few = people._replace(person=people.person % 2, fold=people.person % 2)
    two = dataclasses.replace(SETTINGS, folds=2)
    with pytest.raises(BadInput, match=r"SequenceHead.folds: outcome: expected at least 2 applicants .* got 1 outside"):
        _learnt(few, two, 7)
    targets = {OUTCOME: few.bad}
    heads = fold_heads(
        few.readouts, targets, few.weights, few.fold, few.person, two, 7, steps=(2, 2)
    )  # so many steps need no one to judge by
    assert all(np.isfinite(tensor).all() for tensor in heads.tensors.values())
    with pytest.raises(BadInput, match="expected at least 1 applicants"):
        fold_heads(few.readouts, targets, few.weights, 0 * few.fold, few.person, two, 7, steps=(2, 2))


def test_what_can_be_learnt_is_learnt_out_of_fold() -> None:
    people = _people(1, learnable=True)
    heads = _learnt(people, SETTINGS, 7)
    assert auc(people.bad, _out_of_fold(people, _said(heads, people.readouts))) > 0.65
    assert [one["fold"] for one in heads.record[OUTCOME]] == list(range(SETTINGS.folds))
    assert all(one["rows"] == int((people.fold != one["fold"]).sum()) for one in heads.record[OUTCOME])


def test_fates_drawn_by_person_cannot_be_told_out_of_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that go on until they have memorised people must not leak: only of those they saw do they seem to know."""
    steps = "obligor.sequences.training.fold_heads._steps"
    monkeypatch.setattr(steps, lambda inner, settings: (settings.steps, {OUTCOME: 0.0}))
    keen = dataclasses.replace(SETTINGS, units=64, dropout=0.0, decay=0.0)
    inside, outside = [], []
    for seed in range(4):
        people = _people(seed, learnable=False)
        said = _said(_learnt(people, keen, seed), people.readouts)
        outside.append(auc(people.bad, _out_of_fold(people, said)))
        inside.append(auc(people.bad, said[np.arange(len(said)), (people.fold + 1) % SETTINGS.folds]))
    assert np.mean(outside) == pytest.approx(0.5, abs=0.05)
    assert np.mean(inside) > 0.9, "the control: they do learn what they see"


@pytest.mark.parametrize("steps", [7, 30])
def test_the_last_look_is_at_the_last_step_however_many_there_are(steps: int) -> None:
    learnt = _learnt(_people(1, learnable=True), dataclasses.replace(SETTINGS, steps=steps), 7)
    assert {one["steps"] for one in learnt.record[OUTCOME]} == {steps}


def test_what_foretells_nothing_is_not_learnt() -> None:
    people = _people(0, learnable=False)
    heads = _learnt(people, SETTINGS, 0)
    assert [one["steps"] for one in heads.record[OUTCOME]] == [0] * SETTINGS.folds
    assert len(np.unique(_said(heads, people.readouts).round(4))) == 1


def test_heads_say_the_same_on_average_whatever_their_folds_outcomes() -> None:
    people = _people(2, learnable=False)
    said = _said(_learnt(people, SETTINGS, 7), people.readouts)
    assert said.mean(axis=0) == pytest.approx(np.full(SETTINGS.folds, said[:, 0].mean()), abs=1e-4)


def test_the_same_rows_and_seed_give_the_same_heads() -> None:
    people = _people(3, learnable=True)
    quick = dataclasses.replace(SETTINGS, steps=40)
    one, two, other = (_learnt(people, quick, seed) for seed in (1, 1, 2))
    assert all(one.tensors[name].tobytes() == two.tensors[name].tobytes() for name in one.tensors)
    assert any(one.tensors[name].tobytes() != other.tensors[name].tobytes() for name in one.tensors)


def test_rows_weigh_what_they_weigh() -> None:
    people = _people(4, learnable=True)
    some = people.person % 2 == 0
    quick = dataclasses.replace(SETTINGS, steps=40)
    weighed = _learnt(people._replace(weights=np.where(some, 1.0, 1e-6)), quick, 1)
    flipped = people._replace(bad=np.where(some, people.bad, 1 - people.bad), weights=np.where(some, 1.0, 1e-6))
    again = _learnt(flipped, quick, 1)
    close = [np.allclose(weighed.tensors[name], again.tensors[name], atol=1e-3) for name in weighed.tensors]
    assert all(close)
    whole = _learnt(flipped._replace(weights=people.weights), quick, 1)
    assert not all(np.allclose(whole.tensors[name], again.tensors[name], atol=1e-3) for name in whole.tensors)


FURTHER = (Head(OUTCOME), Head("late"), Head("life", "hazard", months=2))


def _further(people: People, bottom: Any, seed: int = 1, **changes: Any) -> FoldHeads:
    """Learn three heads; of the second nothing is known of a third of the people, of the third also of the others."""
    chance = np.random.default_rng(9)
    late = np.where(people.person % 3 > 0, people.bad, np.nan)
    lived = Lived(1 + (chance.random(len(late)) < 0.5), np.where(people.bad > 0, DEFAULTED, PREPAID))
    quick = dataclasses.replace(SETTINGS, steps=40, heads=("late",), bottom=bottom, experts=2)
    targets = {OUTCOME: people.bad, "late": late, "life": lived, **changes}
    return fold_heads(
        people.readouts, targets, people.weights, people.fold, people.person, quick, seed, heads=FURTHER
    )  # fmt: skip


def test_further_heads_leave_the_outcomes_alone_or_share_with_it() -> None:
    people = _people(5, learnable=True)
    alone = _learnt(people, dataclasses.replace(SETTINGS, steps=40), 1)
    own = _further(people, "own")
    assert all(np.array_equal(own.tensors[name], tensor) for name, tensor in alone.tensors.items())
    assert own.record[OUTCOME] == alone.record[OUTCOME]
    assert own.record["late"][0]["rows"] < own.record["life"][0]["rows"] == alone.record[OUTCOME][0]["rows"]
    assert {len(own.tensors[f"head.life_fold_{fold}.out_bias"]) for fold in range(SETTINGS.folds)} == {4}
    bottoms: tuple[Any, ...] = ("shared", "experts")
    for bottom in bottoms:
        shared = _further(people, bottom).tensors
        assert np.array_equal(shared["head.fold_2.hidden"], shared["head.late_fold_2.hidden"])
        assert not np.array_equal(shared["head.fold_2.hidden"], alone.tensors["head.fold_2.hidden"])
        assert shared["head.fold_2.hidden"].ndim == (3 if bottom == "experts" else 2)


@pytest.mark.parametrize("bottom", ["own", "shared", "experts"])
def test_no_target_of_a_fold_reaches_the_heads_of_that_fold(bottom: Any) -> None:
    """Outcomes that the people in fold 0 exchange change the other folds' heads, and not fold 0's."""
    people = _people(6, learnable=True)
    inside = people.fold == 0
    late = np.where(people.person % 3 > 0, people.bad, np.nan)
    exchanged = late.copy()
    exchanged[inside] = late[inside][::-1]  # as many as before: what is known of all together is their level
    one, two = (_without_level(_further(people, bottom, late=late)) for late in (late, exchanged))
    assert all(np.array_equal(one[0][name], two[0][name]) for name in one[0])
    assert not all(np.array_equal(one[1][name], two[1][name]) for name in one[1])


def test_heads_that_learn_together_each_know_something_outside_every_fold() -> None:
    people = _people(5, learnable=True)
    late = np.where(people.fold == 2, people.bad, np.nan)
    with pytest.raises(BadInput, match=r"SequenceHead.folds: late: expected something known .* outside fold 2"):
        _further(people, "shared", late=late)


def _without_level(heads: FoldHeads) -> list[dict[str, NDArray[np.float32]]]:
    """The weights of each fold's heads without the last biases, by which they say the same on average of all rows."""
    return [
        {name: tensor for name, tensor in heads.tensors.items() if f"fold_{fold}." in name and "out_bias" not in name}
        for fold in range(SETTINGS.folds)
    ]


@pytest.mark.parametrize("bottom", ["own", "shared"])
def test_all_folds_heads_say_the_same_on_average_in_each_month(bottom: Any) -> None:
    people = _people(7, learnable=True)
    tensors = _further(people, bottom).tensors
    told = []
    for fold in range(SETTINGS.folds):
        own = {part: tensors[f"head.life_fold_{fold}.{part}"].astype(np.float64) for part in
               ("norm_mean", "norm_scale", "hidden", "hidden_bias", "out", "out_bias")}  # fmt: skip
        below = ((people.readouts - own["norm_mean"]) * own["norm_scale"]) @ own["hidden"].T + own["hidden_bias"]
        told.append(((below / (1 + np.exp(-below))) @ own["out"].T + own["out_bias"]).mean(axis=0))
    assert np.ptp(told, axis=0).max() < 1e-4
    assert np.ptp(told[0]) > 0.1


def _known(people: People) -> Floats:
    """Log-odds by the readout's second coordinate, of which outcomes drawn by `_beside` are too."""
    return -1.0 + 2.0 * people.readouts[:, 1]


def _beside(seed: int, *, adds: float = 1.0) -> People:
    """People whose outcomes are of what is known and, as much as it adds, of another coordinate."""
    people = _people(seed, learnable=True)
    z = _known(people) + adds * people.readouts[:, 0]
    bad = np.random.default_rng(seed + 50).random(len(z)) < 1 / (1 + np.exp(-z))
    return people._replace(bad=bad.astype(np.float64))


def test_heads_beside_an_offset_are_those_of_a_naive_twin() -> None:
    people, steps = _beside(1), 60
    exact = dataclasses.replace(SETTINGS, dropout=0.0, decay=0.0, batch=1000)
    offset = _known(people)
    said = _told(people, _learnt(people, exact, 3, steps=(steps,) * exact.folds, offset=offset))
    for number in range(exact.folds):
        twin, without = (_twin(people, number, exact, 3, steps, one) for one in (offset, 0.0 * offset))
        assert said[:, number] == pytest.approx(twin, abs=1e-3)
        assert np.abs(said[:, number] - without).max() > 0.3, "the control"


def test_heads_beside_an_offset_say_what_it_lacks_about_zero() -> None:
    people, quick = _beside(2), dataclasses.replace(SETTINGS, steps=80)
    plain, beside = (_told(people, _learnt(people, quick, 7, offset=one)) for one in (None, _known(people)))
    alone, said = (_out_of_fold(people, one) for one in (plain, beside))
    known, adds = people.readouts[:, 1], people.readouts[:, 0]
    assert np.corrcoef(alone, known)[0, 1] > 0.6
    assert np.corrcoef(said, adds)[0, 1] > 0.6 > 0.3 > abs(np.corrcoef(said, known)[0, 1])
    assert auc(people.bad, said + _known(people)) > auc(people.bad, _known(people)) + 0.02
    assert beside.mean(axis=0) == pytest.approx(np.zeros(SETTINGS.folds), abs=1e-4)
    none = _beside(3, adds=0.0)
    heads = _learnt(none, quick, 7, offset=_known(none))
    assert sorted(one["steps"] for one in heads.record[OUTCOME])[:3] == [0] * 3
    assert np.std(_told(none, heads)) < 0.25 * np.std(beside)


def _told(people: People, heads: FoldHeads) -> Floats:
    return _said(heads, people.readouts)


def test_an_offset_is_of_the_outcome_alone() -> None:
    """With a bottom of their own further heads are to the bit the same; with a shared one they are not."""
    people = _people(5, learnable=True)
    offset = np.where(np.isnan(people.bad), np.nan, _known(people))
    quick = dataclasses.replace(SETTINGS, steps=20, heads=("late",))
    late = np.where(people.person % 3 > 0, people.bad, np.nan)
    unknown = np.where(people.person % 5 > 0, people.bad, np.nan)
    heads = (Head(OUTCOME), Head("late"))

    def learnt(bottom: Any, offset: Floats | None) -> dict[str, NDArray[np.float32]]:
        targets = {OUTCOME: unknown, "late": late}
        settings = dataclasses.replace(quick, bottom=bottom)
        return fold_heads(
            people.readouts, targets, people.weights, people.fold, people.person, settings, 1, heads=heads,
            steps=(20,) * SETTINGS.folds, offset=offset,
        ).tensors  # fmt: skip

    with_gaps = np.where(np.isnan(unknown), np.nan, offset)
    own, plain = learnt("own", with_gaps), learnt("own", None)
    same = {name for name in own if np.array_equal(own[name], plain[name])}
    assert {name for name in own if "late" in name} <= same
    assert "head.fold_0.out" not in same
    shared, aside = learnt("shared", with_gaps), learnt("shared", None)
    assert all(np.isfinite(tensor).all() for tensor in shared.values())
    assert not np.array_equal(shared["head.fold_0.out"], aside["head.fold_0.out"])
    for wrong in (offset[:-1], np.where(people.person == 3, np.nan, offset)):
        with pytest.raises(BadInput, match=r"\$\.offset: expected finite log-odds of the 512 rows with an outcome"):
            learnt("own", wrong)
