"""Expressions: the tree behind a feature, and what kind of number it is.

A node is plain data. `kind_of` derives the kind of a tree and refuses what has no meaning. The fields of the
application are known only when a plan is compiled for it; until then such a part has the kind None, and the same check
runs again at compilation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from obligor.errors import DefinitionError, did_you_mean
from obligor.events.fields import Entity, Money, Timestamp
from obligor.events.predicates import Predicate, Relation
from obligor.events.schema import Event
from obligor.features.kinds import COMPARISONS, MOMENT, Kind, TimeUnit, kind_of_field, one, spoken, unit_of
from obligor.features.measures import Aggregate, Coding, Op
from obligor.features.windows import Fixed

__all__ = [
    "Age",
    "Aggregated",
    "Binary",
    "Calendar",
    "Constant",
    "Elapsed",
    "Filled",
    "Label",
    "Node",
    "OverKeys",
    "Requested",
    "Since",
    "Source",
    "kind_of",
    "leaves",
    "moved",
]


@dataclass(frozen=True, eq=False)
class Source:
    """The facts that a measure reads: an event type under one entity or several, filtered.

    `where` is what the facts alone decide, `given` what they decide together with the question.
    """

    event: type[Event]
    by: tuple[Entity, ...]
    via: tuple[str, ...] | None
    where: Predicate | None = None
    given: tuple[Relation, ...] = ()

    @property
    def entities(self) -> tuple[str, ...]:
        """The entity types of the key."""
        return tuple(entity.type for entity in self.by)

    @property
    def whose(self) -> str:
        """The name of the timeline: the entity types of the key."""
        return " x ".join(self.entities)


@dataclass(frozen=True, eq=False)
class Since:
    """The window from the last fact of another source up to as_of."""

    anchor: Source


@dataclass(frozen=True, eq=False)
class Aggregated:
    """An aggregate of a field (None: of the facts themselves) over a window."""

    source: Source
    aggregate: Aggregate
    field: str | None
    coding: Coding
    window: Fixed | Since
    kind: Kind
    values: tuple[str, ...] | None = None  # the vocabulary of coding `vocabulary`
    parameters: tuple[int | float, ...] = ()
    condition: Source | None = None  # of streaks
    key: str | None = None  # the field that it is taken by, within an OverKeys


@dataclass(frozen=True, eq=False)
class OverKeys:
    """An aggregate, over the keys of an entity, of a number that each key has; its leaves have a `key`."""

    aggregate: Aggregate
    number: Node
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


Node: TypeAlias = Aggregated | OverKeys | Requested | Age | Calendar | Elapsed | Constant | Label | Binary | Filled


def kind_of(node: Node, application: type[Event] | None = None) -> Kind | None:
    """Return a tree's kind; None while it depends on an application that is not given, DefinitionError if none fits."""
    match node:
        case Aggregated(kind=kind) | OverKeys(kind=kind):
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


def leaves(node: Node) -> Iterator[Aggregated]:
    """Yield every aggregate of a tree, also those within two levels."""
    match node:
        case Aggregated():
            yield node
        case OverKeys(number=inner) | Filled(node=inner) | Elapsed(moment=inner):
            yield from leaves(inner)
        case Binary(left=left, right=right):
            yield from leaves(left)
            yield from leaves(right)


def moved(node: Node, move: Callable[[Fixed], Fixed]) -> Node:
    """Return a tree with each of its windows moved; DefinitionError for one since an event, which cannot be."""
    match node:
        case Aggregated(window=Since()):
            raise DefinitionError("there is no window before one since an event; use a window of time")
        case Aggregated(window=window):
            return replace(node, window=move(window))  # type: ignore[arg-type]  # Since is the case above
        case OverKeys(number=inner):
            return replace(node, number=moved(inner, move))
        case Elapsed(moment=inner):
            return replace(node, moment=moved(inner, move))
        case Filled(node=inner):
            return replace(node, node=moved(inner, move))
        case Binary(left=left, right=right):
            return replace(node, left=moved(left, move), right=moved(right, move))
    return node


def _requested(application: type[Event], name: str, values: tuple[str, ...] | None) -> Kind:
    field = application.field(name)
    if isinstance(field, Money) and len(field.currencies) > 1:
        raise DefinitionError(f"request({name!r}): {field.event_name}.{name} mixes currencies; declare one of them")
    return kind_of_field(field, values, None)


def _age(application: type[Event], name: str, unit: TimeUnit) -> Kind:
    field = application.field(name)
    if not isinstance(field, Timestamp):
        raise DefinitionError(f"request.age({name!r}): {field.event_name}.{name} is {one(field.kind)}, not a timestamp")
    kind_of_field(field, None, None)
    return Kind("real", unit)


def _elapsed(moment: Kind | None, unit: TimeUnit) -> Kind | None:
    if moment is not None and moment.unit != MOMENT:
        raise DefinitionError(f"as_of.since needs a moment, such as the last of a timestamp, got {spoken(moment)}")
    return Kind("real", unit)


def _filled(kind: Kind | None, value: Constant | Label) -> Kind | None:
    if kind is None:
        return None
    if (kind.type == "category") != isinstance(value, Label):
        raise DefinitionError(f"cannot fill {spoken(kind)} with {_value(value)!r}")
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
    if isinstance(left, Label) or (isinstance(right, Label) and op not in ("equal", "not_equal")):
        raise DefinitionError("a text is compared with a category by == or !=, and nothing else")
    if isinstance(right, Label):
        if a is not None and a.type != "category":
            raise DefinitionError(f"cannot compare {spoken(a)} with the text {right.text!r}")
        if a is not None:
            _check_label(a, right)
        return Kind("boolean")
    for kind in (a, b):
        if kind is not None and kind.type == "category":
            raise DefinitionError(
                f"{spoken(kind)} has no arithmetic; compare it with one of its values, == or !=, or count by value"
            )
    if a is None or b is None:
        return Kind("boolean") if op in COMPARISONS else None
    unit = unit_of(op, a, b, isinstance(left, Constant), isinstance(right, Constant))
    if op in COMPARISONS:
        return Kind("boolean")
    if op in ("minimum", "maximum") and a.type == b.type:
        return Kind(a.type, unit)
    whole = op != "divide" and "real" not in (a.type, b.type)
    return Kind("integer" if whole else "real", unit)
