"""Wholeness: which steps of a program must make exact integers.

Programs run over float64, in which integers are exact up to 2**53. Where the result is a whole number (minor units, a
count), every sum, difference and product that it is made of must stay below that, or it could be rounded without a
word. What becomes a part of a quotient or of a comparison need not: it is a real number like others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from obligor.features.measures import Aggregate, Inner, Per, Step

__all__ = ["exact_steps", "is_whole"]

_ARITHMETIC: Final = ("add", "subtract", "multiply")
_EITHER: Final = ("minimum", "maximum")
_INTEGERS: Final[tuple[Aggregate, ...]] = ("count", "sum", "min", "max", "first", "last")


def exact_steps(program: Sequence[Step], whole: bool) -> list[bool]:
    """Return of each step whether it makes a whole number by arithmetic, given whether the result is whole.

    >>> program = [Step("measure", 0), Step("measure", 1), Step("divide"), Step("constant", 2), Step("greater")]
    >>> exact_steps([*program, Step("measure", 2), Step("constant", 1), Step("add"), Step("multiply")], True)
    [False, False, False, False, False, False, False, True, True]
    """
    rests, found = [whole], []  # whether the result rests, as a whole number, on what is yet to come from the end
    for step in reversed(program):
        one = rests.pop()
        found.append(one and step.op in _ARITHMETIC)
        rests += [one and step.op in (*_ARITHMETIC, *_EITHER, "fill")] * _operands(step)
    return found[::-1]


def is_whole(per: Per) -> bool:
    """Return whether the number that each key has is a whole one."""
    stack: list[bool] = []
    for step in per.program:
        if step.op == "measure":
            stack.append(_is_integer(per.inner[int(step.value or 0)]))
        elif step.op == "constant":
            stack.append(float(step.value or 0).is_integer())
        elif step.op == "fill":
            stack[-1] &= float(step.value or 0).is_integer()
        else:
            right, left = stack.pop(), stack.pop()
            compares = step.op not in (*_ARITHMETIC, *_EITHER, "divide")
            stack.append(compares or (step.op != "divide" and left and right))
    return stack.pop()


def _is_integer(inner: Inner) -> bool:
    return inner.aggregate in _INTEGERS and inner.scale == 0


def _operands(step: Step) -> int:
    return 0 if step.op in ("measure", "request", "constant") else 1 if step.op == "fill" else 2
