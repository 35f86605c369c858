"""Expressions: the tree behind a feature, and what kind of number it is.

A node is plain data. `kind_of` derives the type and the unit of a tree and refuses what has no meaning (NGN + EUR, a
category in a sum), so that a mistake is found where it is written. The fields of the application are known only when
a plan is compiled for it; until then such a part has the kind None, and the same check runs again at compilation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from obligor.errors import DefinitionError, did_you_mean
from obligor.events.fields import Boolean, Category, Decimal, Entity, Field, Money, Text, Timestamp
from obligor.events.predicates import Predicate
from obligor.events.schema import Event
from obligor.features.delays import UNIT, Delay
from obligor.features.plan import Aggregate, Coding, Op

__all__ = [
    "MOMENT",
    "UNIT_US",
    "Age",
    "Aggregated",
    "BalanceTerm",
    "Balanced",
    "Binary",
    "Calendar",
    "Constant",
    "Elapsed",
    "Filled",
    "Kind",
    "Label",
    "Node",
    "Requested",
    "Source",
    "TimeUnit",
    "kind_of",
    "kind_of_field",
    "time_unit",
]

TimeUnit: TypeAlias = Literal["seconds", "hours", "days"]
UNIT_US: dict[str, int] = {"seconds": 1_000_000, "hours": 3_600_000_000, "days": 86_400_000_000}
MOMENT = "microseconds since 1970"  # the unit of a timestamp: an intermediate value, never a feature
_PLAIN_UNITS = ("", "events", "values", "ratio")  # numbers that go with any other
_COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
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


@dataclass(frozen=True, eq=False)
class Source:
    """The facts that a measure reads: an event type under one of its entities, filtered."""

    event: type[Event]
    by: Entity
    via: str | None
    where: Predicate | None


@dataclass(frozen=True, eq=False)
class Aggregated:
    """An aggregate of a field (None: of the facts themselves) over a window (None: lifetime)."""

    source: Source
    aggregate: Aggregate
    field: str | None
    coding: Coding
    values: tuple[str, ...] | None
    window_us: int | None
    kind: Kind


@dataclass(frozen=True, eq=False)
class BalanceTerm:
    """Facts that add to the balance of their key, subtract from it, or close it."""

    source: Source
    role: Literal["add", "subtract", "close"]
    key: str
    amount: str | None
    expires: str | None
    expires_after_us: int | None


@dataclass(frozen=True, eq=False)
class Balanced:
    """The sum over keys of what is left of each."""

    terms: tuple[BalanceTerm, ...]
    kind: Kind


@dataclass(frozen=True)
class Requested:
    """A field of the application; `values` is the vocabulary of an open category."""

    name: str
    values: tuple[str, ...] | None


@dataclass(frozen=True)
class Age:
    """The time from a timestamp field of the application to as_of."""

    name: str
    unit: TimeUnit


@dataclass(frozen=True)
class Calendar:
    """A part of as_of in the plan's zone."""

    part: Literal["hour", "day_of_week", "day_of_month"]


@dataclass(frozen=True, eq=False)
class Elapsed:
    """The time from a moment (the last due date, ...) to as_of."""

    moment: Node
    unit: TimeUnit


@dataclass(frozen=True)
class Constant:
    """A number; it takes the unit of what it meets."""

    value: int | float


@dataclass(frozen=True)
class Label:
    """A text that a category is compared with or filled by."""

    text: str


@dataclass(frozen=True, eq=False)
class Binary:
    """An operation on two nodes."""

    op: Op
    left: Node
    right: Node


@dataclass(frozen=True, eq=False)
class Filled:
    """A node with its nulls replaced."""

    node: Node
    value: Constant | Label


Node: TypeAlias = Aggregated | Balanced | Requested | Age | Calendar | Elapsed | Constant | Label | Binary | Filled


def kind_of(node: Node, application: type[Event] | None = None) -> Kind | None:
    """Return a tree's kind; None while it depends on an application that is not given, DefinitionError if none fits."""
    match node:
        case Aggregated(kind=kind) | Balanced(kind=kind):
            return kind
        case Calendar():
            return Kind("integer")
        case Constant(value):
            return Kind("integer" if isinstance(value, int) else "real")
        case Label():
            return None
        case Requested(name, values):
            return None if application is None else _requested(application, name, values)
        case Age(name, unit):
            return Kind("real", unit) if application is None else _age(application, name, unit)
        case Elapsed(moment, unit):
            return _elapsed(kind_of(moment, application), unit)
        case Filled(inner, value):
            return _filled(kind_of(inner, application), value)
        case Binary(op, left, right):
            return _binary(op, left, right, kind_of(left, application), kind_of(right, application))


def kind_of_field(field: Field, values: tuple[str, ...] | None, currency: str | None) -> Kind:
    """Return the kind of one stored value of a field; DefinitionError where it can be no feature.

    `values` is the vocabulary given for an open category, `currency` the one that a filter leaves of several.
    """
    where = f"{field.event_name}.{field.name}"
    if field.withheld:
        flag = "personal" if field.personal else "protected"
        raise DefinitionError(f"{where} is {flag}: it never enters features")
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


def _requested(application: type[Event], name: str, values: tuple[str, ...] | None) -> Kind:
    field = application.field(name)
    if isinstance(field, Money) and len(field.currencies) > 1:
        raise DefinitionError(f"request({name!r}): {field.event_name}.{name} mixes currencies; declare one of them")
    return kind_of_field(field, values, None)


def _age(application: type[Event], name: str, unit: TimeUnit) -> Kind:
    field = application.field(name)
    if not isinstance(field, Timestamp):
        raise DefinitionError(f"request.age({name!r}): {field.event_name}.{name} is a {field.kind}, not a timestamp")
    kind_of_field(field, None, None)
    return Kind("real", unit)


def _elapsed(moment: Kind | None, unit: TimeUnit) -> Kind | None:
    if moment is not None and moment.unit != MOMENT:
        raise DefinitionError(f"as_of.since needs a moment, such as the last of a timestamp field, got {_say(moment)}")
    return Kind("real", unit)


def _filled(kind: Kind | None, value: Constant | Label) -> Kind | None:
    if kind is None:
        return None
    if (kind.type == "category") != isinstance(value, Label):
        raise DefinitionError(f"cannot fill {_say(kind)} with {_value(value)!r}")
    if isinstance(value, Label):
        _check_label(kind, value)
        return kind
    whole = isinstance(value.value, int) or value.value.is_integer()
    if kind.type == "boolean":
        return kind if value.value in (0, 1) else replace(kind, type="integer" if whole else "real")
    return kind if whole else replace(kind, type="real")


def _value(value: Constant | Label) -> int | float | str:
    return value.text if isinstance(value, Label) else value.value


def _check_label(kind: Kind, label: Label) -> None:
    if label.text not in (kind.values or ()):
        raise DefinitionError(
            f"{label.text!r} is not among the category's values; {did_you_mean(label.text, kind.values or ())}"
        )


def _binary(op: Op, left: Node, right: Node, a: Kind | None, b: Kind | None) -> Kind | None:
    if isinstance(right, Label):
        if a is not None and a.type != "category":
            raise DefinitionError(f"cannot compare {_say(a)} with the text {right.text!r}")
        if a is not None:
            _check_label(a, right)
        return Kind("boolean")
    for kind in (a, b):
        if kind is not None and kind.type == "category":
            raise DefinitionError(f"{_say(kind)} has no arithmetic; compare it with one of its values, == or !=")
    if a is None or b is None:
        return Kind("boolean") if op in _COMPARISONS else None
    unit = _unit(op, a, b, isinstance(left, Constant), isinstance(right, Constant))
    if op in _COMPARISONS:
        return Kind("boolean")
    if op in ("minimum", "maximum") and a.type == b.type:
        return Kind(a.type, unit)
    whole = op != "divide" and "real" not in (a.type, b.type)
    return Kind("integer" if whole else "real", unit)


def _unit(op: Op, a: Kind, b: Kind, a_constant: bool, b_constant: bool) -> str:
    """Return the unit of the result; a constant takes the other's, two dimensions must agree unless * or /."""
    left, right = ("" if k.unit in _PLAIN_UNITS else k.unit for k in (a, b))
    if MOMENT in (left, right) and not (op in (*_COMPARISONS, "minimum", "maximum") and left == right):
        raise DefinitionError(f"cannot {_verb(op)} a moment; measure the time to as_of with as_of.since(...)")
    currencies = {unit.split()[0] for unit in (left, right) if unit.endswith("minor units")}
    if len(currencies) > 1:
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


def _say(kind: Kind) -> str:
    return f"a {kind.type}" + (f" in {kind.unit}" if kind.unit else "")
