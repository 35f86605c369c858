"""Conditions on the question: filters that mention the application or as_of.

    from obligor.features import application, as_of

    Purchase.by("consumer").where(Purchase.merchant == application.merchant).count("90d")
    Decided.by("consumer").where(Decided.offer_expires_at > as_of).count()

Such a comparison cannot be decided when a fact is stored, so it becomes a condition of the plan (`given`), which the
kernels test row by row. It is false where either side is null: an application that names no merchant has no purchases
at its merchant.
"""

from __future__ import annotations

from obligor.errors import DefinitionError, did_you_mean
from obligor.events.fields import Category, Entity, Field, Money, Text
from obligor.events.predicates import And, Placeholder, Predicate, Relation
from obligor.events.schema import Event
from obligor.features.delays import SUFFIX, Delay, stored
from obligor.features.expressions import Source
from obligor.features.filters import comparisons, flattened
from obligor.features.kinds import MOMENT, Kind, kind_of_field, one, only_currency, spoken, withheld
from obligor.features.measures import Coding

__all__ = ["AsOf", "OfApplication", "application", "check_relation", "coding_of", "fit_application", "split"]


class AsOf(Placeholder):
    """The instant of the question."""

    def __repr__(self) -> str:
        return "as_of"


class OfApplication(Placeholder):
    """A field of the application; it is checked when a plan is compiled for an application type."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"application.{self.name}"


class _Application:
    """The application of the question: `application.merchant` is its field of that name."""

    def __getattr__(self, name: str) -> OfApplication:
        if name.startswith("_"):
            raise AttributeError(name)
        return OfApplication(name)

    def __repr__(self) -> str:
        return "application"


application = _Application()


def split(predicate: Predicate) -> tuple[Predicate | None, tuple[Relation, ...]]:
    """Return the part of a filter that the facts alone decide, and its conditions on the question.

    DefinitionError where such a condition stands inside an or or a not.
    """
    flat = flattened(predicate)
    parts = flat.parts if isinstance(flat, And) else (flat,)
    plain = tuple(part for part in parts if not isinstance(part, Relation))
    where = None if not plain else plain[0] if len(plain) == 1 else And(plain)
    if where is not None:
        list(comparisons(where))  # raises where one is left within
    return where, tuple(part for part in parts if isinstance(part, Relation))


def check_relation(source: Source, relation: Relation) -> None:
    """Raise DefinitionError where a condition's own side cannot be compared so; the other waits for compilation."""
    field = _field(source, relation)
    asked = f"{source.event.__name__}.{relation.field} {relation.op} {relation.value!r}"
    withheld(field, f"where: {source.event.__name__}.{field.name}")
    if isinstance(field, Text):
        raise DefinitionError(f"{asked}: free text compares only with a text")
    if isinstance(field, Entity | Category):
        kind = None
    else:
        kind = kind_of_field(field, None, only_currency(field.name, source.where))
    if isinstance(relation.value, AsOf) and (kind is None or kind.unit != MOMENT):
        raise DefinitionError(f"{asked}: only a timestamp compares with as_of, and {field.name} is {one(field.kind)}")


def coding_of(source: Source, relation: Relation) -> Coding:
    """Return how both sides of a condition are coded: keys and texts by their hash, numbers as they are."""
    return "hash" if isinstance(_field(source, relation), Entity | Category) else "integer"


def fit_application(source: Source, relation: Relation, asker: type[Event]) -> None:
    """Raise DefinitionError where a condition's two sides do not go together, for an application type."""
    if not isinstance(relation.value, OfApplication):
        return
    field, name = _field(source, relation), relation.value.name
    asked = f"{source.event.__name__}.{relation.field} {relation.op} application.{name}"
    other = asker.field(name)
    withheld(other, f"{asked}: {asker.__name__}.{name}")
    mine, theirs = _described(field, source), _described(other, None)
    if mine != theirs:
        hint = did_you_mean(name, [n for n, f in asker.fields.items() if not f.withheld and _fits(f, mine)])
        raise DefinitionError(f"{asked}: expected {mine}, {asker.__name__}.{name} is {theirs}; {hint}")
    vocabularies = [set(one.values) for one in (field, other) if isinstance(one, Category)]
    if all(vocabularies) and vocabularies and not set.intersection(*vocabularies):
        raise DefinitionError(f"{asked}: the two have no value in common")


def _field(source: Source, relation: Relation) -> Field:
    field = source.event.field(stored(relation.field))
    return Delay(field) if relation.field.endswith(SUFFIX) else field  # type: ignore[arg-type]  # a delay's is a moment


def _fits(field: Field, wanted: str) -> bool:
    return _described(field, None) == wanted


def _described(field: Field, source: Source | None) -> str:
    """Return what a field compares as, in words: two sides of one description go together."""
    if isinstance(field, Entity):
        return f"a key of type {field.type}"
    if isinstance(field, Category):
        return "a category"
    if isinstance(field, Text):
        return "free text"
    if isinstance(field, Money) and source is None and len(field.currencies) > 1:
        return f"an amount of several currencies ({', '.join(field.currencies)})"
    where = None if source is None else source.where
    kind = kind_of_field(field, None, only_currency(field.name, where))
    places = f" with {kind.scale} decimal places" if kind.scale else ""
    return spoken(Kind(kind.type, kind.unit)) + places
