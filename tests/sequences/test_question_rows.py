"""Questions as rows: renumbered, each with its own tokens, and what scikit-learn makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline
from tests.sequences.test_branches import dataset  # noqa: F401 - a fixture
from tests.sequences.training.small import QUICK, source

from obligor.errors import BadInput
from obligor.sequences.batches import Batch, Branched
from obligor.sequences.branches import Branches
from obligor.sequences.dataset import Dataset
from obligor.sequences.loading import Loader
from obligor.sequences.question_rows import QuestionRows
from obligor.sequences.training import SequenceClassifier


def test_rows_are_numbered_in_their_own_order() -> None:
    made, _ = source(60, 1)
    whole = QuestionRows.of(made)
    some = whole[np.array([40, 3, 17])]
    assert (whole.shape, some.shape, some[1:].numbers.tolist()) == ((60,), (3,), [3, 17])
    seen: dict[int, NDArray[np.int32]] = {}
    for batch in some.batches(0, 0):
        assert isinstance(batch, Batch)
        seen |= {int(row): batch.codes[i, : batch.length[i]] for i, row in enumerate(batch.question)}
    for row, question in enumerate((40, 3, 17)):
        assert np.array_equal(seen[row], made.codes[made.start[question] : made.stop[question]])
    assert np.array_equal(whole[np.arange(60) < 5, ...].numbers, np.arange(5))
    with pytest.raises(BadInput, match="each question once"):
        whole[[1, 1]]


def test_rows_of_a_dataset_are_its_questions(dataset: Dataset) -> None:  # noqa: F811 - the fixture
    for one in (Loader(dataset), Branches(dataset)):
        rows = QuestionRows.of(one)[::-2]
        answered = []
        for batch in rows.batches(1, 1):
            asked = batch.tail if isinstance(batch, Branched) else batch
            answered += list(zip(asked.question.tolist(), asked.as_of.tolist(), strict=True))
        at = dict(zip(dataset.columns.question.tolist(), dataset.columns.as_of.tolist(), strict=True))
        assert sorted(answered) == [(row, at[question]) for row, question in enumerate(rows.numbers.tolist())]
        assert len(rows) == len(list(rows.batches(0, 0)))


def test_scikit_learn_cuts_them_into_folds() -> None:
    made, y = source(60, 1)
    model = SequenceClassifier(
        width=4, hidden=8, pretrained=False, quiet=True, trainer=replace(QUICK, epochs=2), blind=()
    )
    rows, groups = QuestionRows.of(made), np.arange(60) // 3
    told = cross_val_predict(model, rows, y, groups=groups, cv=GroupKFold(3), method="predict_proba")
    for learnt, asked in GroupKFold(3).split(np.zeros(60), y, groups):
        own = replace(made, start=made.start[learnt], stop=made.stop[learnt], as_of=made.as_of[learnt])
        other = replace(made, start=made.start[asked], stop=made.stop[asked], as_of=made.as_of[asked])
        assert np.array_equal(told[asked], model.fit(own, y[learnt]).predict_proba(other))
    pipeline = Pipeline([("model", model)]).fit(rows, y)
    assert set(pipeline.predict(rows)) <= {0, 1}
