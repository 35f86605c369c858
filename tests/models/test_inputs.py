"""Features to input columns: categories, nulls, features that are not scored, missing reasons."""

from __future__ import annotations

import numpy as np
import pytest
from tests.models.lender import feature, plan

from obligor.errors import DefinitionError, IntegrityError
from obligor.models.inputs import Inputs


def test_columns_of_the_plan() -> None:
    inputs = Inputs.of(plan().features)
    assert inputs.names == (
        "utilisation", "tenure", "channel=app", "channel=web", "channel=agent", "channel=(unknown)", "noise",
    )  # fmt: skip
    assert inputs.monotone == (1, -1, 0, 0, 0, 0, 0)
    assert inputs.source.tolist() == [0, 1, 2, 2, 2, 2, 4]


def test_one_hot_and_null() -> None:
    inputs = Inputs.of(plan().features)
    rows = np.array([[1.5, np.nan, 1.0, 9.0, 2.0], [0.0, 3.0, 3.0, np.nan, 1.0], [0.0, 3.0, np.nan, 0.0, 1.0]])
    assert inputs.expand(rows)[0].tolist()[2:] == [0.0, 1.0, 0.0, 0.0, 2.0]
    assert np.isnan(inputs.expand(rows)[0][1])
    assert inputs.expand(rows)[1].tolist() == [0.0, 3.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    assert np.isnan(inputs.expand(rows)[2][2:6]).all()


def test_reasons_are_asked_of_every_scored_feature() -> None:
    assert "exposure" not in Inputs.of(plan().features).reasons()
    lacking = plan(feature("a", reason=None), feature("b"), feature("c", reason=None))
    with pytest.raises(DefinitionError, match="no reason code") as caught:
        Inputs.of(lacking.features).reasons()
    assert [p.path for p in caught.value.problems] == ["$.features.a", "$.features.c"]


def test_a_plan_without_scored_features_is_refused() -> None:
    with pytest.raises(DefinitionError, match="no scored feature"):
        Inputs.of(plan(feature("a", scored=False)).features)


def test_a_model_of_other_inputs_is_refused() -> None:
    inputs = Inputs.of(plan().features)
    with pytest.raises(IntegrityError, match="are not the plan's"):
        inputs.check_names(("noise", *inputs.names[1:]))
