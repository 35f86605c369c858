"""Wholeness: which steps of a program must make exact integers.

Programs run over float64, in which integers are exact up to 2**53. Where the result is a whole number (minor units, a
count), or what is compared is one, every sum, difference and product that it is made of must stay below that: it could
be rounded without a word, and then equal what it does not. What becomes a part of a quotient, or of a real number, need
not: it is a real number like others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from obligor.features.measures import Aggregate, Inner, Measure, Per, Step
from obligor.features.plan import RequestValue

__all__ = ["exact_steps", "is_whole"]

_ARITHMETIC: Final = ("add", "subtract", "multiply")
_CHOICES: Final = ("minimum", "maximum", "fill")
_COMPARISONS: Final = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
_COUNTS: Final[tuple[Aggregate, ...]] = ("count", "distinct", "streak", "longest_streak")
_CHOSEN: Final[tuple[Aggregate, ...]] = ("sum", "min", "max", "first", "last", "nth_last", "most_frequent")
_OVER_KEYS: Final[tuple[Aggregate, ...]] = ("sum", "min", "max")  # whole where the numbers of the keys are

_Number = Measure | Inner | RequestValue


def exact_steps(
    program: Sequence[Step], whole: bool, measures: Sequence[_Number], requests: Sequence[_Number] = ()
) -> list[bool]:
    """Return of each step whether it makes a whole number by arithmetic that must not round; of the result, `whole`.

    >>> program = [Step("constant", 3), Step("constant", 1), Step("divide"), Step("constant", 2), Step("greater")]
    >>> exact_steps([*program, Step("constant", 5), Step("constant", 1), Step("add"), Step("multiply")], True, [])
    [False, False, False, False, False, False, False, True, True]
    """
    own = _whole_steps(program, measures, requests)
    rests: list[bool | None] = [whole]  # whether what is yet to come, from the end on, must be; None: where it is whole
    found = []
    for step, is_own in zip(reversed(program), reversed(own), strict=True):
        rest = rests.pop()
        must = is_own if rest is None else rest
        found.append(must and step.op in _ARITHMETIC)
        compared = step.op in _COMPARISONS or (rest is None and step.op in _CHOICES)
        rests += [None if compared else must and step.op in (*_ARITHMETIC, *_CHOICES)] * _operands(step)
    return found[::-1]


def is_whole(number: _Number | Per) -> bool:
    """Return whether a measure, the number of a key, or a value of the request is a whole number."""
    if isinstance(number, Per):
        return _whole_steps(number.program, number.inner, ())[-1]
    if isinstance(number, RequestValue):
        return number.source != "age" and number.scale == 0
    if isinstance(number, Measure) and number.per is not None:
        return number.aggregate == "count" or (number.aggregate in _OVER_KEYS and is_whole(number.per))
    return number.aggregate in _COUNTS or (number.aggregate in _CHOSEN and number.scale == 0)


def _whole_steps(program: Sequence[Step], measures: Sequence[_Number], requests: Sequence[_Number]) -> list[bool]:
    """Return of each step whether what it makes is a whole number."""
    stack: list[bool] = []
    found = []
    for step in program:
        operands = [stack.pop() for _ in range(_operands(step))]
        if step.op in ("measure", "request"):
            one = is_whole((measures if step.op == "measure" else requests)[int(step.value or 0)])
        elif step.op in ("constant", "fill"):
            one = all(operands) and float(step.value or 0).is_integer()
        else:
            one = step.op in _COMPARISONS or (step.op != "divide" and all(operands))
        stack.append(one)
        found.append(one)
    return found


def _operands(step: Step) -> int:
    return 0 if step.op in ("measure", "request", "constant") else 1 if step.op == "fill" else 2
