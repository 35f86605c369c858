"""Which steps must make exact integers: those that a whole result is made of; and when the number of a key is whole."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.features.plans import inner, keyed

from obligor.features.measures import Per, Step
from obligor.features.wholeness import exact_steps, is_whole


def _per(program: list[list[Any]], *inners: dict[str, Any]) -> Per:
    return msgspec.convert(keyed("sum", *inners, program=program)["per"], Per)


def test_nothing_must_be_exact_under_a_real_result() -> None:
    assert exact_steps([Step("measure", 0), Step("constant", 2), Step("multiply")], False) == [False] * 3


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
