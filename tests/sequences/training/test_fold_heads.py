"""Heads on folds: out of fold they know nothing of the people they score, and learn what can be learnt."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from obligor.models.metrics import auc
from obligor.sequences.head import SequenceHead
from obligor.sequences.training.fold_heads import FoldHeads, fold_heads, fold_name

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


def _said(heads: FoldHeads, readouts: Floats) -> Floats:
    """The log-odds of each head, (n, folds), by the definition of a head."""
    found = []
    for number in range(SETTINGS.folds):
        own = {part: heads.tensors[f"head.{fold_name(number)}.{part}"].astype(np.float64) for part in
               ("norm_mean", "norm_scale", "hidden", "hidden_bias", "out", "out_bias")}  # fmt: skip
        below = ((readouts - own["norm_mean"]) * own["norm_scale"]) @ own["hidden"].T + own["hidden_bias"]
        found.append((below / (1 + np.exp(-below))) @ own["out"].T + own["out_bias"])
    return np.concatenate(found, axis=1)


def _out_of_fold(people: People, said: Floats) -> Floats:
    found: Floats = said[np.arange(len(said)), people.fold]
    return found


def test_what_can_be_learnt_is_learnt_out_of_fold() -> None:
    people = _people(1, learnable=True)
    heads = fold_heads(*people, SETTINGS, 7)
    assert auc(people.bad, _out_of_fold(people, _said(heads, people.readouts))) > 0.65
    assert [one["fold"] for one in heads.record] == list(range(SETTINGS.folds))
    assert all(one["rows"] == int((people.fold != one["fold"]).sum()) for one in heads.record)


def test_fates_drawn_by_person_cannot_be_told_out_of_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads that go on until they have memorised people must not leak: only of those they saw do they seem to know."""
    monkeypatch.setattr("obligor.sequences.training.fold_heads._steps", lambda inner, settings: (settings.steps, 0.0))
    keen = dataclasses.replace(SETTINGS, units=64, dropout=0.0, decay=0.0)
    inside, outside = [], []
    for seed in range(4):
        people = _people(seed, learnable=False)
        said = _said(fold_heads(*people, keen, seed), people.readouts)
        outside.append(auc(people.bad, _out_of_fold(people, said)))
        inside.append(auc(people.bad, said[np.arange(len(said)), (people.fold + 1) % SETTINGS.folds]))
    assert np.mean(outside) == pytest.approx(0.5, abs=0.05)
    assert np.mean(inside) > 0.9, "the control: they do learn what they see"


def test_what_foretells_nothing_is_not_learnt() -> None:
    people = _people(0, learnable=False)
    heads = fold_heads(*people, SETTINGS, 0)
    assert [one["steps"] for one in heads.record] == [0] * SETTINGS.folds
    assert len(np.unique(_said(heads, people.readouts).round(4))) == 1


def test_heads_say_the_same_on_average_whatever_their_folds_outcomes() -> None:
    people = _people(2, learnable=False)
    said = _said(fold_heads(*people, SETTINGS, 7), people.readouts)
    assert said.mean(axis=0) == pytest.approx(np.full(SETTINGS.folds, said[:, 0].mean()), abs=1e-4)


def test_the_same_rows_and_seed_give_the_same_heads() -> None:
    people = _people(3, learnable=True)
    quick = dataclasses.replace(SETTINGS, steps=40)
    one, two, other = (fold_heads(*people, quick, seed) for seed in (1, 1, 2))
    assert all(one.tensors[name].tobytes() == two.tensors[name].tobytes() for name in one.tensors)
    assert any(one.tensors[name].tobytes() != other.tensors[name].tobytes() for name in one.tensors)


def test_rows_weigh_what_they_weigh() -> None:
    people = _people(4, learnable=True)
    some = people.person % 2 == 0
    quick = dataclasses.replace(SETTINGS, steps=40)
    weighed = fold_heads(*people._replace(weights=np.where(some, 1.0, 1e-6)), quick, 1)
    flipped = people._replace(bad=np.where(some, people.bad, 1 - people.bad), weights=np.where(some, 1.0, 1e-6))
    again = fold_heads(*flipped, quick, 1)
    close = [np.allclose(weighed.tensors[name], again.tensors[name], atol=1e-3) for name in weighed.tensors]
    assert all(close)
    whole = fold_heads(*flipped._replace(weights=people.weights), quick, 1)
    assert not all(np.allclose(whole.tensors[name], again.tensors[name], atol=1e-3) for name in whole.tensors)
