"""Which steps must make exact integers: those that a whole result is made of; and when the number of a key is whole."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.features.plans import inner, keyed, measure

from obligor.features.measures import Measure, Per, Step
from obligor.features.wholeness import exact_steps, is_whole


def _per(program: list[list[Any]], *inners: dict[str, Any]) -> Per:
    return msgspec.convert(keyed("sum", *inners, program=program)["per"], Per)


TWICE = [Step("constant", 3), Step("constant", 2), Step("multiply")]


def test_nothing_must_be_exact_under_a_real_result() -> None:
    assert exact_steps(TWICE, False, []) == [False] * 3


@pytest.mark.parametrize(
    ("rest", "whole", "exact"),
    [
        ([Step("constant", 0.5), Step("less")], False, True),  # whatever it is compared with
        ([Step("constant", 0.5), Step("multiply"), Step("constant", 1), Step("less")], False, False),
        ([Step("constant", 1), Step("divide"), Step("constant", 1), Step("less")], True, False),
        ([Step("constant", 1), Step("less"), Step("constant", 3), Step("divide")], False, True),
        ([Step("fill", 0.5), Step("constant", 1), Step("less")], False, True),
        ([Step("constant", 0.5), Step("minimum"), Step("constant", 1), Step("less")], False, True),
    ],
)
def test_whole_numbers_that_are_compared_must_be_exact(rest: list[Step], whole: bool, exact: bool) -> None:
    assert exact_steps([*TWICE, *rest], whole, [])[2] is exact


@pytest.mark.parametrize(
    ("number", "whole"),
    [
        (measure("sum"), True),
        (measure("sum", scale=2), False),
        (measure("nth_last", parameters=[1]), True),
        (measure("count", slot=None), True),
        (measure("mean"), False),
        (measure("decayed_count", slot=None, parameters=[1, 1]), False),
        (keyed("max", inner("sum")), True),
        (keyed("mean", inner("sum")), False),
        (keyed("max", inner("mean")), False),
        (keyed("count", inner("mean")), True),
    ],
)
def test_what_measures_are_whole(number: dict[str, Any], whole: bool) -> None:
    assert is_whole(msgspec.convert(number, Measure)) is whole


@pytest.mark.parametrize(
    ("program", "whole"),
    [
        ([["measure", 0]], True),
        ([["measure", 1]], False),
        ([["measure", 2]], False),
        ([["measure", 0], ["constant", 2.0], ["multiply"]], True),
        ([["measure", 0], ["constant", 0.5], ["multiply"]], False),
        ([["measure", 0], ["measure", 0], ["divide"]], False),
        ([["measure", 1], ["measure", 2], ["less"]], True),
        ([["measure", 0], ["fill", 0.5]], False),
        ([["measure", 0], ["measure", 1], ["maximum"]], False),
    ],
)
def test_a_number_of_a_key_is_whole_by_what_it_is_made_of(program: list[list[Any]], whole: bool) -> None:
    assert is_whole(_per(program, inner("sum"), inner("mean"), inner("sum", scale=2))) is whole
