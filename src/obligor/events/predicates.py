"""Predicates over the fields of one event, as plain data.

`Repayment.channel == "app"` builds a `Comparison`; `&`, `|` and `~` combine them. Nothing is evaluated here: the
features room turns predicates into bit masks, and JSON (`to_json`) is the only form in which they are stored.
A comparison with null is false, its negation too (SQL's three values, read by WHERE). A comparison with what is known
only when a question is asked (`Purchase.merchant == application.merchant`) is a `Relation`, which has no JSON form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Union

from obligor.errors import DefinitionError

__all__ = ["And", "Comparison", "Json", "Not", "Operator", "Or", "Placeholder", "Predicate", "Relation"]

Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in", "is_null", "not_null"]
Json = Union[None, bool, int, str, list["Json"], dict[str, "Json"]]  # noqa: UP007 - a recursive alias needs Union


class Predicate:
    """Base of the three forms; combine with `&`, `|`, `~`."""

    def __and__(self, other: Predicate) -> Predicate:
        return And((self, other))

    def __or__(self, other: Predicate) -> Predicate:
        return Or((self, other))

    def __invert__(self) -> Predicate:
        return Not(self)

    def __bool__(self) -> bool:
        raise TypeError("a predicate has no truth value: combine with & | ~ instead of and, or, not")

    def to_json(self) -> Json:
        """Return the predicate as JSON data, the form that the plan holds."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Comparison(Predicate):
    """`field op value`; the value is already in the field's stored form (minor units, scaled, microseconds, text)."""

    field: str
    op: Operator
    value: int | str | bool | tuple[int | str, ...] | None

    def to_json(self) -> Json:
        value: Json = list(self.value) if isinstance(self.value, tuple) else self.value
        return {"field": self.field, "op": self.op, "value": value}


class Placeholder:
    """A value that is known only when a question is asked: a field of the application, or as_of."""


@dataclass(frozen=True, eq=False)
class Relation(Predicate):
    """`field op placeholder`: only a feature's `where` takes it, and only as a condition of its own."""

    field: str
    op: Operator
    value: Placeholder

    def to_json(self) -> Json:
        raise DefinitionError(
            f"{self.field} {self.op} {self.value!r}: a comparison with the application stands alone in the where of a "
            f"feature, or joined to others by & or a comma; not inside | or ~, and nowhere else"
        )


@dataclass(frozen=True, eq=False)
class And(Predicate):
    """True where all parts are."""

    parts: tuple[Predicate, ...]

    def to_json(self) -> Json:
        return {"and": [part.to_json() for part in self.parts]}


@dataclass(frozen=True, eq=False)
class Or(Predicate):
    """True where a part is."""

    parts: tuple[Predicate, ...]

    def to_json(self) -> Json:
        return {"or": [part.to_json() for part in self.parts]}


@dataclass(frozen=True, eq=False)
class Not(Predicate):
    """True where the part is false; null stays null, which WHERE reads as false."""

    part: Predicate

    def to_json(self) -> Json:
        return {"not": self.part.to_json()}
