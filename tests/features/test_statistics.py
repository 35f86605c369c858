"""Distributions: quantiles, shares and pictures that do not lie about what is missing or far out."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from obligor.features.plan import FeatureSpec
from obligor.features.statistics import QUANTILES, STEPS, distribution, picture
from obligor.features.typed import UNKNOWN

NAN = float("nan")


def spec(kind: Literal["integer", "real", "boolean", "category"], values: tuple[str, ...] | None = None) -> FeatureSpec:
    return FeatureSpec(
        name="f", program=(), type=kind, unit="", reason=None, monotone=0, description="", scored=True, values=values
    )


def test_numbers_have_quantiles_and_a_picture() -> None:
    numbers = np.array([*range(101), NAN, NAN, 1e9])
    found = distribution(spec("integer"), numbers)
    assert (found.rows, found.missing) == (104, 2)
    assert found.quantiles is not None
    assert list(found.quantiles) == [f"{q:.0%}" for q in QUANTILES]
    assert found.quantiles["50%"] == np.quantile(numbers[~np.isnan(numbers)], 0.5)
    assert found.edges is not None
    assert found.edges[1] < 110, "one outlier does not stretch the picture"
    assert len(found.steps) == STEPS
    assert sum(found.steps) == 102, "and yet is in it"
    assert found.shares is None


@pytest.mark.parametrize("numbers", [[], [NAN, NAN]])
def test_of_nothing_there_is_nothing_to_say(numbers: list[float]) -> None:
    found = distribution(spec("real"), np.array(numbers))
    assert (found.quantiles, found.mean, found.steps, found.missing) == (None, None, (), len(numbers))
    assert found.rows == len(numbers)
    assert distribution(spec("boolean"), np.array(numbers)).shares == {}


def test_one_value_is_one_bar() -> None:
    found = distribution(spec("real"), np.full(5, 7.0))
    assert (found.steps, found.edges, found.mean) == ((5,), (7.0, 7.0), 7.0)


def test_yes_no_and_categories_have_shares_of_those_known() -> None:
    found = distribution(spec("boolean"), np.array([1.0, 0.0, 1.0, NAN]))
    assert found.shares == {"no": 1 / 3, "yes": 2 / 3}
    assert found.quantiles is None
    found = distribution(spec("category", ("a", "b")), np.array([0.0, 2.0, 2.0, 0.0]))
    assert found.shares == {"a": 0.5, "b": 0.0, UNKNOWN: 0.5}


def test_a_picture_shows_all_that_is_there() -> None:
    assert picture((0, 1, 10_000)) == " ▁█"
    assert picture(()) == ""
    assert picture((0, 0)) == "  "
