"""Programs: every step against the oracle, null through all of them, and results that are not finite refused."""

from __future__ import annotations

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


def run(program: list[list[Any]], a: int | None, b: int | None) -> float | None:
    """Evaluate a program over two request values."""
    plan = plan_of([], [program], REQUESTS)
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
        assert run(program, a, b) == oracle.feature(program, [], values)


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


def test_null_has_one_bit_pattern_and_zero_no_sign() -> None:
    plan = plan_of([], [[["request", 0]], [["constant", -0.0]], [["constant", 0.0], ["constant", -1.0], ["multiply"]]],
                   REQUESTS)  # fmt: skip
    found = evaluate_one(plan, Nothing(), 0, -1, {}, {})
    assert found.view(np.int64).tolist() == [0x7FF8 << 48, 0, 0]
