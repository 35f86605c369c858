"""Controls of learning: with its defaults a model finds what lies in order, and nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.sequences.training.wide import NAME, wide

from obligor.models.metrics import auc
from obligor.sequences.memory import MemorySource
from obligor.sequences.training import Objectives, SequenceClassifier, TrainerConfig
from obligor.sequences.training.encoder import SequenceEncoder
from obligor.sequences.training.finetuning import embed
from obligor.sequences.training.pretraining import Pretraining
from obligor.sequences.training.trainer import train

SHORT = TrainerConfig(epochs=5, steps_min=0, rate=4e-3, look_steps=50)


def _model(**given: object) -> SequenceClassifier:
    """The defaults, on a fresh encoder, for a few epochs."""
    return SequenceClassifier(width=16, hidden=32, pretrained=False, trainer=SHORT, quiet=True).set_params(**given)


@pytest.fixture(scope="module")
def fitted() -> SequenceClassifier:
    made, y = wide(1000, 1)
    return _model().fit(made, y)


def test_it_finds_what_lies_in_the_order_of_two_events_among_many(fitted: SequenceClassifier) -> None:
    later, truth = wide(600, 2)
    assert auc(truth, fitted.predict_proba(later)[:, 1]) > 0.85


def test_events_in_another_order_tell_less(fitted: SequenceClassifier) -> None:
    later, truth = wide(600, 2, permuted=True)
    assert 0.4 < auc(truth, fitted.predict_proba(later)[:, 1]) < 0.6


def test_shuffled_outcomes_teach_nothing() -> None:
    made, y = wide(1000, 1)
    later, truth = wide(600, 2)
    model = _model(trainer=replace(SHORT, epochs=3)).fit(made, np.random.default_rng(0).permutation(y))
    assert 0.43 < auc(truth, model.predict_proba(later)[:, 1]) < 0.57  # 3 standard errors of 600 rows


def test_a_field_that_names_does_not_destroy_the_defaults(fitted: SequenceClassifier) -> None:
    """Read, it is learnt by heart and hides what lies in order; by default the encoder is blind to it."""
    assert fitted.encoder_.blind == (NAME,)
    made, y = wide(1000, 1)
    later, truth = wide(600, 2)
    reads = _model(blind=()).fit(made, y)
    blind = auc(truth, fitted.predict_proba(later)[:, 1])
    assert auc(truth, reads.predict_proba(later)[:, 1]) < blind - 0.02
    assert not fitted.encoder_.token.tables()[NAME].any()


def _habits(entities: int, seed: int) -> tuple[MemorySource, NDArray[np.float64]]:
    """Sequences of two sorts of entities: an event in ten is of type 2, or one in fifty; none of the last ten is."""
    chance = np.random.default_rng(seed)
    length = chance.integers(60, 120, entities)
    stop = np.cumsum(length)
    start, n = stop - length, int(stop[-1])
    often = chance.integers(2, size=entities).astype(np.float64)
    owner = np.repeat(np.arange(entities), length)
    rare = chance.random(n) < np.where(often > 0, 0.1, 0.02)[owner]
    rare &= np.arange(n) < stop[owner] - 10
    codes = np.stack((np.where(rare, 2, chance.integers(3, 9, n)), chance.integers(1, 7, n)), axis=1).astype(np.int32)
    time = np.arange(n)
    parts = np.zeros(codes.shape, np.float32)
    return MemorySource((9, 8), codes, parts, time, start, stop, time[stop - 1], tokens_max=4096), often


def _told_apart(vectors: NDArray[np.float32], often: NDArray[np.float64]) -> float:
    """Return the AUC of a ridge regression from the vectors of every second entity, on the others."""
    z = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0)
    weights = np.linalg.solve(z[::2].T @ z[::2] + 10 * np.eye(z.shape[1]), z[::2].T @ (often[::2] - 0.5))
    return auc(often[1::2], z[1::2] @ weights)


def test_contrast_finds_how_often_something_rare_happens() -> None:
    """The control: an encoder that begins without a memory for it learns what came last, in as many steps."""
    made, often = _habits(400, 1)
    wanted = Objectives(contrastive=1.0, times_ahead=0.0, slices=3, slice_min=20, slice_max=60)
    short = TrainerConfig(epochs=3, steps_min=0, rate=6e-3)
    model = SequenceClassifier(width=8, hidden=32, objectives=wanted, pretrainer=short, blind=(), quiet=True)
    assert _told_apart(model.pretrain(made).embed(made)[:, :32], often) > 0.8
    forgetful = SequenceEncoder(model.encoder_.config, seed=0)
    train(Pretraining(forgetful, wanted, made, seed=0), made, short)
    assert _told_apart(embed(forgetful, made)[1][:, :32], often) < 0.7
