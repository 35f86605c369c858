"""Kinds: what sort of number a value is, its unit, and which of them go together.

A kind is derived wherever a number is made, so that what has no meaning (NGN + EUR, a category in a sum) is refused
where it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from obligor.errors import DefinitionError, did_you_mean
from obligor.events.fields import Boolean, Category, Decimal, Entity, Field, Money, Text, Timestamp
from obligor.events.predicates import And, Comparison, Predicate
from obligor.features.delays import UNIT, Delay
from obligor.features.measures import Coding, Op

__all__ = [
    "COMPARISONS",
    "MOMENT",
    "UNIT_US",
    "Kind",
    "TimeUnit",
    "currencies_in",
    "kind_of_field",
    "one",
    "only_currency",
    "per_day",
    "spoken",
    "time_unit",
    "unit_of",
    "vocabulary_of",
    "withheld",
]

TimeUnit: TypeAlias = Literal["seconds", "hours", "days"]
UNIT_US: dict[str, int] = {"seconds": 1_000_000, "hours": 3_600_000_000, "days": 86_400_000_000}
MOMENT = "microseconds since 1970"  # the unit of a timestamp: an intermediate value, never a feature
COMPARISONS: tuple[Op, ...] = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
_PLAIN_UNITS = ("", "events", "values", "keys", "ratio")  # numbers that go with any other
_CURRENCY = re.compile(r"\b([A-Z]{3}) minor units")
_WORDS: dict[Op, str] = {"add": "add", "subtract": "subtract", "minimum": "take the minimum of"}
_WORDS |= {"maximum": "take the maximum of", "divide": "divide", "multiply": "multiply"}


def time_unit(unit: TimeUnit) -> TimeUnit:
    """Return a unit of time as it came; DefinitionError with the nearest valid one otherwise."""
    if unit not in UNIT_US:
        raise DefinitionError(f"unknown unit of time {unit!r}; {did_you_mean(unit, list(UNIT_US))}")
    return unit


@dataclass(frozen=True)
class Kind:
    """What a number is: its type, its unit ('' for none) and, of a category, its values."""

    type: Literal["integer", "real", "boolean", "category"]
    unit: str = ""
    values: tuple[str, ...] | None = None
    scale: int = 0  # decimal places of the stored integer

    @property
    def coding(self) -> Coding:
        """How a value of this kind is stored in a slot."""
        return "vocabulary" if self.values is not None else "integer"


def kind_of_field(field: Field, values: tuple[str, ...] | None, currency: str | None) -> Kind:
    """Return the kind of one stored value of a field; DefinitionError where it can be no feature.

    `values` is the vocabulary given for an open category, `currency` the one that a filter leaves of several.
    """
    where = f"{field.event_name}.{field.name}"
    withheld(field, where)
    if values is not None and not (isinstance(field, Category) and not field.values):
        raise DefinitionError(f"{where}: values= is for a category that does not declare its own")
    match field:
        case Category():
            vocabulary = field.values or values
            if not vocabulary:
                raise DefinitionError(
                    f"{where} is a category without declared values: a plan freezes its vocabulary, so declare them "
                    f"in the event, Category('a', 'b'), or here, values=('a', 'b')"
                )
            return Kind("category", "", tuple(vocabulary))
        case Money():
            return Kind("integer", f"{_currency(field, where, currency)} minor units")
        case Decimal():
            return Kind("real" if field.scale else "integer", "", None, field.scale)
        case Boolean():
            return Kind("boolean")
        case Timestamp():
            return Kind("integer", MOMENT)
        case Delay():
            return Kind("integer", UNIT)
        case Entity() | Text():
            what = "an entity's key" if isinstance(field, Entity) else "free text"
            hint = "; count its distinct values instead" if isinstance(field, Entity) else ""
            raise DefinitionError(f"{where} is {what}, which is no number{hint}")
    return Kind("integer")


def vocabulary_of(where: str, values: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the values given for an open category in their order, which a plan keeps; DefinitionError without one.

    >>> vocabulary_of("loan.bank", ["b", "a"])
    ('b', 'a')
    """
    if isinstance(values, str | set | frozenset):
        raise DefinitionError(f"{where}: expected a list of texts in values=, whose order a plan keeps, got {values!r}")
    return None if values is None else tuple(values)


def withheld(field: Field, where: str) -> None:
    """Raise DefinitionError where a field must not reach features."""
    if field.withheld:
        raise DefinitionError(f"{where} is {'personal' if field.personal else 'protected'}: it never enters features")


def only_currency(name: str, where: Predicate | None) -> str | None:
    """Return the one currency of field `name` that a filter leaves: a condition that always holds, not one of an or."""
    match where:
        case Comparison(field, "==", str(currency)) if field == f"{name}.currency":
            return currency
        case And(parts):
            return next((c for part in parts if (c := only_currency(name, part)) is not None), None)
    return None


def _currency(field: Money, where: str, currency: str | None) -> str:
    if len(field.currencies) == 1:
        return field.currencies[0]
    if currency is None:
        name = field.name
        raise DefinitionError(
            f"{where} mixes currencies ({', '.join(field.currencies)}); choose one with "
            f".where(<event>.{name}.currency_is({field.currencies[0]!r}))"
        )
    return currency


def per_day(unit: str) -> str:
    """Return the unit of a change by day.

    >>> per_day("EUR minor units"), per_day("")
    ('EUR minor units per day', 'per day')
    """
    return f"{unit} per day".strip()


def currencies_in(unit: str) -> set[str]:
    """Return the currencies whose amounts a unit is of.

    >>> currencies_in("EUR minor units per day"), currencies_in("loans")
    ({'EUR'}, set())
    """
    return set(_CURRENCY.findall(unit))


def unit_of(op: Op, a: Kind, b: Kind, a_constant: bool, b_constant: bool) -> str:
    """Return the unit of the result; a constant takes the other's, two dimensions must agree unless * or /."""
    left, right = ("" if k.unit in _PLAIN_UNITS else k.unit for k in (a, b))
    if MOMENT in (left, right) and not (op in (*COMPARISONS, "minimum", "maximum") and left == right):
        raise DefinitionError(f"cannot {_verb(op)} a moment; measure the time to as_of with as_of.since(...)")
    if len(currencies_in(left) | currencies_in(right)) > 1:
        raise DefinitionError(f"cannot {_verb(op)} amounts in different currencies: {left} and {right}")
    if op == "multiply":
        return f"{left} x {right}" if left and right else left or right
    if op == "divide":
        if left == right:
            return a.unit if b_constant else "ratio"
        return f"{left} per {right}".strip() if right else left
    if left and right and left != right:
        raise DefinitionError(f"cannot {_verb(op)} {left} and {right}")
    if a_constant or b_constant:
        return b.unit if a_constant else a.unit
    return left or right or (a.unit if a.unit == b.unit else "")


def _verb(op: Op) -> str:
    return _WORDS.get(op, "compare")


def spoken(kind: Kind) -> str:
    """Return a kind in words.

    >>> spoken(Kind("integer", "events")), spoken(Kind("category"))
    ('an integer in events', 'a category')
    """
    return one(kind.type) + (f" in {kind.unit}" if kind.unit else "")


def one(noun: str) -> str:
    """Return a noun with its article.

    >>> one("entity"), one("category")
    ('an entity', 'a category')
    """
    return f"{'an' if noun[0] in 'aei' else 'a'} {noun}"
