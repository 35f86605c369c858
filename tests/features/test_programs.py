"""Programs: every step against the oracle, null through all of them, and results that are not finite refused."""

from __future__ import annotations

import operator
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.features import oracle
from tests.features.worlds import plan_of

from obligor.errors import LimitError
from obligor.features.history import History
from obligor.features.measures import Op
from obligor.features.online import evaluate_one
from obligor.features.pieces import pieces

BINARY = [op for op in get_args(Op) if op not in ("measure", "request", "constant", "fill")]
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.1, 3.0, 1e15, -7.25])
REQUESTS = [{"source": "field", "name": name, "coding": "integer", "values": None, "scale": 0} for name in "ab"]


class Nothing:
    """A reader of an empty state."""

    def read(self, timeline: str, key: str, since_us: int | None) -> History:
        """Return no rows."""
        return History(pieces([]), None)


def run(program: list[list[Any]], a: int | None, b: int | None, kind: str = "real") -> float | None:
    """Evaluate a program over two request values."""
    plan = plan_of([], [program], REQUESTS, kind)
    found = float(evaluate_one(plan, Nothing(), 0, -1, {}, {"a": a, "b": b})[0])
    return None if np.isnan(found) else found


@pytest.mark.parametrize("op", BINARY)
@given(a=st.none() | st.integers(-3, 3), b=st.none() | st.integers(-3, 3), c=NUMBERS)
@settings(max_examples=40, derandomize=True, deadline=None)
def test_steps_equal_the_oracle(op: str, a: int | None, b: int | None, c: float) -> None:
    values = [None if v is None else float(v) for v in (a, b)]
    programs: list[list[list[Any]]] = [
        [["request", 0], ["request", 1], [op]],
        [["request", 0], ["constant", c], [op], ["request", 1], [op]],
        [["request", 0], ["fill", 2.0], ["request", 1], ["fill", c], [op]],
        [["constant", c], ["request", 0], ["request", 1], [op], ["subtract"]],
    ]
    for program in programs:
        assert run(program, a, b) == oracle.feature(program, [], values, samples=[1, 1])


def test_the_order_of_operands_matters() -> None:
    assert run([["request", 0], ["request", 1], ["subtract"]], 5, 3) == 2.0
    assert run([["request", 0], ["request", 1], ["divide"]], 6, 3) == 2.0
    assert run([["request", 0], ["request", 1], ["less"]], 5, 3) == 0.0


def test_division_by_zero_is_null_and_can_be_filled() -> None:
    divided: list[list[Any]] = [["request", 0], ["request", 1], ["divide"]]
    assert run(divided, 1, 0) is None
    assert run([*divided, ["fill", -1.0]], 1, 0) == -1.0


@pytest.mark.parametrize(
    "program",
    [
        [["constant", 1e308], ["constant", 10.0], ["multiply"]],
        [["constant", 1.0], ["constant", 1e308], ["constant", 10.0], ["multiply"], ["divide"]],
        [["constant", -1e308], ["constant", 1e308], ["subtract"], ["fill", 0.0]],
    ],
)
def test_a_step_that_is_not_finite_is_refused_wherever_it_stands(program: list[list[Any]]) -> None:
    with pytest.raises(LimitError, match=r"\$\.features\.f0: a number in it has no finite"):
        run(program, None, None)


def test_a_request_value_that_is_not_exact_is_refused() -> None:
    assert run([["request", 0]], 2**53, None) == 2.0**53
    with pytest.raises(LimitError, match=r"\$\.features\.f0: a number in it"):
        run([["request", 0]], 2**53 + 1, None)


@pytest.mark.parametrize(
    ("program", "a", "b"),
    [
        ([["request", 0], ["constant", 1], ["add"]], 2**53, None),  # 2**53 + 1 rounds to 2**53
        ([["request", 0], ["request", 1], ["subtract"]], -(2**52), 2**52),
        ([["request", 0], ["constant", 3], ["multiply"]], 2**53 - 1, None),
        ([["request", 0], ["request", 1], ["add"], ["constant", 1], ["subtract"]], 2**52, 2**52),
        ([["request", 0], ["request", 1], ["add"], ["fill", 0.0], ["constant", 5], ["minimum"]], 2**53, 2**53),
    ],
)
def test_a_whole_number_that_may_be_rounded_is_refused_where_a_real_one_is_not(
    program: list[list[Any]], a: int, b: int | None
) -> None:
    with pytest.raises(LimitError, match=r"\$\.features\.f0: a number in it"):
        run(program, a, b, "integer")
    with pytest.raises(oracle.Limit):
        oracle.feature(program, [], [a, b], True, [1, 1])
    assert run(program, a, b) == oracle.feature(program, [], [float(a), None if b is None else float(b)])


def test_what_is_only_divided_or_no_whole_number_may_be_large() -> None:
    product: list[list[Any]] = [["request", 0], ["request", 1], ["multiply"]]
    for program in (
        [*product, ["constant", 0.5], ["multiply"], ["constant", 3], ["greater"], ["constant", 7], ["multiply"]],
        [*product, ["request", 0], ["divide"], ["constant", 2], ["greater"], ["constant", 7], ["multiply"]],
    ):
        for kind in ("integer", "real"):
            found = oracle.feature(program, [], [2.0**40, 2.0**40], kind == "integer", [1, 1])
            assert run(program, 2**40, 2**40, kind) == 7.0 == found


NEAR = st.integers(2**53 - 3, 2**53) | st.integers(-(2**53), 3 - 2**53) | st.sampled_from([0, 1, 2**27, 2**52, -1])
COMPARED: dict[str, Any] = {
    "less": operator.lt, "less_equal": operator.le, "greater": operator.gt, "greater_equal": operator.ge,
    "equal": operator.eq, "not_equal": operator.ne,
}  # fmt: skip
COMPUTED: dict[str, Any] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "minimum": min,
    "maximum": max,
}


@given(
    op=st.sampled_from(list(COMPARED)), first=st.sampled_from(list(COMPUTED)), then=st.sampled_from(list(COMPUTED)),
    a=NEAR, b=NEAR, c=NEAR, by=NEAR | st.just(0.5), swapped=st.booleans(),
)  # fmt: skip
@settings(max_examples=300, derandomize=True, deadline=None)
def test_a_comparison_of_whole_numbers_is_exact_or_refused(
    op: str, first: str, then: str, a: int, b: int, c: int, by: float, swapped: bool
) -> None:
    side: list[list[Any]] = [["request", 0], ["request", 1], [first], ["constant", c], [then], ["fill", 0.5]]
    other: list[list[Any]] = [["constant", by]]
    inner = COMPUTED[first](a, b)
    number = COMPUTED[then](inner, c)
    expected = COMPARED[op](by, number) if swapped else COMPARED[op](number, by)
    program = [*(other + side if swapped else side + other), [op]]
    for kind in ("boolean", "real", "integer"):
        try:
            assert run(program, a, b, kind) == float(expected)
        except LimitError:
            assert max(abs(inner), abs(number)) >= 2**53
            with pytest.raises(oracle.Limit):
                oracle.feature(program, [], [a, b], kind == "integer", [1, 1])


@given(a=st.integers(-(2**53), 2**53), b=st.sampled_from([0, 1, -1, 2, 3, 2**20, 2**52, 2**53 - 1]))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_a_whole_number_is_exact_or_refused(a: int, b: int) -> None:
    for op, exact in (("add", a + b), ("subtract", a - b), ("multiply", a * b)):
        try:
            assert run([["request", 0], ["request", 1], [op]], a, b, "integer") == exact
        except LimitError:
            assert abs(exact) >= 2**53


def test_null_has_one_bit_pattern_and_zero_no_sign() -> None:
    plan = plan_of([], [[["request", 0]], [["constant", -0.0]], [["constant", 0.0], ["constant", -1.0], ["multiply"]]],
                   REQUESTS)  # fmt: skip
    found = evaluate_one(plan, Nothing(), 0, -1, {}, {})
    assert found.view(np.int64).tolist() == [0x7FF8 << 48, 0, 0]
