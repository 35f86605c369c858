"""Operators: the arithmetic that features and numbers by key share, written once.

+ - * /        with one another and with numbers; division by zero is null
< <= > >= == !=    true or false, null stays null
& | ~          of comparisons
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Self, TypeAlias, TypeVar, overload

from obligor.errors import DefinitionError
from obligor.features.expressions import Constant, Label, Node, kind_of
from obligor.features.kinds import spoken
from obligor.features.measures import Op

__all__ = ["Number", "Operators", "constant", "maximum", "minimum", "operand"]

Number: TypeAlias = int | float
_Operators = TypeVar("_Operators", bound="Operators")


class Operators:
    """Something that combines with its like and with numbers, one operation of the plan at a time."""

    @abstractmethod
    def _combined(self, op: Op, left: Self | Constant | Label, right: Self | Constant | Label) -> Self:
        """Return the result of an operation; either operand is `self`."""

    @abstractmethod
    def _nodes(self) -> Iterable[Node]:
        """Return every expression in it."""

    def __add__(self, other: Self | Number) -> Self:
        return self._binary("add", self, other)

    def __radd__(self, other: Number) -> Self:
        return self._binary("add", other, self)

    def __sub__(self, other: Self | Number) -> Self:
        return self._binary("subtract", self, other)

    def __rsub__(self, other: Number) -> Self:
        return self._binary("subtract", other, self)

    def __mul__(self, other: Self | Number) -> Self:
        return self._binary("multiply", self, other)

    def __rmul__(self, other: Number) -> Self:
        return self._binary("multiply", other, self)

    def __truediv__(self, other: Self | Number) -> Self:
        return self._binary("divide", self, other)

    def __rtruediv__(self, other: Number) -> Self:
        return self._binary("divide", other, self)

    def __neg__(self) -> Self:
        return self._binary("subtract", 0, self)

    def __lt__(self, other: Self | Number) -> Self:
        return self._binary("less", self, other)

    def __le__(self, other: Self | Number) -> Self:
        return self._binary("less_equal", self, other)

    def __gt__(self, other: Self | Number) -> Self:
        return self._binary("greater", self, other)

    def __ge__(self, other: Self | Number) -> Self:
        return self._binary("greater_equal", self, other)

    def __eq__(self, other: Self | Number | str) -> Self:  # type: ignore[override]
        return self._binary("equal", self, other)

    def __ne__(self, other: Self | Number | str) -> Self:  # type: ignore[override]
        return self._binary("not_equal", self, other)

    def __and__(self, other: Self) -> Self:
        return self._logic("minimum", self, other)

    def __or__(self, other: Self) -> Self:
        return self._logic("maximum", self, other)

    def __invert__(self) -> Self:
        return self._logic("equal", self, 0)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError("a feature has no truth value: combine with & | ~ instead of and, or, not")

    def _binary(self, op: Op, left: Self | Number | str, right: Self | Number | str) -> Self:
        return self._combined(op, self._own(left), self._own(right))

    def _logic(self, op: Op, left: Self, right: Self | Number) -> Self:
        for one in (left, right):
            for node in one._nodes() if isinstance(one, Operators) else ():
                kind = kind_of(node)
                if kind is not None and kind.type != "boolean":
                    raise DefinitionError(f"& | ~ combine comparisons, got {spoken(kind)}; compare it first: x > 0")
        return self._binary(op, left, right)

    def _own(self, value: Self | Number | str) -> Self | Constant | Label:
        if isinstance(value, Operators):
            if not isinstance(value, type(self)):
                raise DefinitionError(
                    "a number by key meets only numbers by the same key; make a feature of it first, as in x.sum()"
                )
            return value
        return operand(value)


@overload
def minimum(left: _Operators, right: _Operators | Number) -> _Operators: ...
@overload
def minimum(left: Number, right: _Operators) -> _Operators: ...
def minimum(left: Operators | Number, right: Operators | Number) -> Operators:
    """Return the lesser of two; null if either is."""
    return _either("minimum", left, right)


@overload
def maximum(left: _Operators, right: _Operators | Number) -> _Operators: ...
@overload
def maximum(left: Number, right: _Operators) -> _Operators: ...
def maximum(left: Operators | Number, right: Operators | Number) -> Operators:
    """Return the greater of two; null if either is."""
    return _either("maximum", left, right)


def _either(op: Op, left: Operators | Number, right: Operators | Number) -> Operators:
    one = left if isinstance(left, Operators) else right
    if not isinstance(one, Operators):
        raise DefinitionError(f"{op}: expected a feature and a feature or number, got {left!r} and {right!r}")
    return one._binary(op, left, right)


def operand(value: object) -> Constant | Label:
    """Return a number or a text as a part of an expression; DefinitionError for anything else."""
    return Label(value) if isinstance(value, str) else constant(value)


def constant(value: object) -> Constant:
    """Return a number as a part of an expression; DefinitionError where it is none that is exact."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DefinitionError(f"expected a feature or a number, got {value!r}")
    if not math.isfinite(value) or (isinstance(value, int) and abs(value) > 2**53):
        raise DefinitionError(f"expected a finite number within 2^53, got {value!r}")
    return Constant(value)
