"""Controls of learning: with its defaults a model finds what lies in order, and nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.sequences.training.wide import NAME, wide

from obligor.models.metrics import auc
from obligor.sequences.training import SequenceClassifier, TrainerConfig

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
