"""The operators are the same for features and for numbers by key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.features.lender import Repayment

from obligor.errors import DefinitionError
from obligor.features.definitions import Feature
from obligor.features.expressions import Binary, Constant, Label, Node
from obligor.features.operators import constant, maximum, minimum, operand
from obligor.features.per_key import ByKey

A, B = (Repayment.by("consumer").count(window) for window in ("1d", "2d"))
X, Y = (Repayment.by("consumer").per("loan").count(window) for window in ("1d", "2d"))

OPERATIONS: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("add", lambda a, b: a + b),
    ("subtract", lambda a, b: a - b),
    ("multiply", lambda a, b: a * b),
    ("divide", lambda a, b: a / b),
    ("less", lambda a, b: a < b),
    ("less_equal", lambda a, b: a <= b),
    ("greater", lambda a, b: a > b),
    ("greater_equal", lambda a, b: a >= b),
    ("equal", lambda a, b: a == b),
    ("not_equal", lambda a, b: a != b),
    ("minimum", minimum),
    ("maximum", maximum),
    ("minimum", lambda a, b: (a > 0) & (b > 0)),
    ("maximum", lambda a, b: (a > 0) | (b > 0)),
]


def node_of(result: Feature | ByKey) -> Node:
    return result.node if isinstance(result, ByKey) else result.columns[()]


@pytest.mark.parametrize(("op", "operation"), OPERATIONS, ids=[f"{i}-{op}" for i, (op, _) in enumerate(OPERATIONS)])
def test_an_operation_is_one_step_with_its_operands_in_order(op: str, operation: Callable[[Any, Any], Any]) -> None:
    for left, right, kind in ((A, B, Feature), (X, Y, ByKey)):
        result = operation(left, right)
        assert isinstance(result, kind)
        node = node_of(result)
        assert isinstance(node, Binary)
        assert node.op == op
        inner = [one.left if isinstance(one, Binary) else one for one in (node.left, node.right)]
        assert inner == [node_of(left), node_of(right)]


REFLECTED: list[tuple[str, Callable[[Any], Any]]] = [
    ("add", lambda x: 5 + x),
    ("subtract", lambda x: 5 - x),
    ("multiply", lambda x: 5 * x),
    ("divide", lambda x: 5 / x),
    ("maximum", lambda x: maximum(5, x)),
]


@pytest.mark.parametrize(("op", "operation"), REFLECTED, ids=[op for op, _ in REFLECTED])
def test_a_number_may_come_first(op: str, operation: Callable[[Any], Any]) -> None:
    for one in (A, X):
        node = node_of(operation(one))
        assert isinstance(node, Binary)
        assert (node.op, node.left, node.right) == (op, Constant(5), node_of(one))


def test_operands_are_numbers_or_texts() -> None:
    assert (operand("app"), operand(1.5), constant(7)) == (Label("app"), Constant(1.5), Constant(7))
    for wrong in (None, True, float("inf"), 2**54, [1]):
        with pytest.raises(DefinitionError, match="expected a f"):
            operand(wrong)
