"""Streams: whose facts of which type, filtered; the beginning of every definition.

    Repayment.by("consumer").where(Repayment.channel == "app").mean("amount", "30d", "90d")
    Sale.by("merchant").count("7d")                              the merchant's history in a consumer's application
    Sale.by(["consumer", "merchant"]).count("90d")               what the two have had to do with one another
    Sale.by("consumer").since(Wage.by("consumer")).sum("amount") since the last wage
    Sale.by("consumer").pivot("method").count("30d")             a column for each method (see `pivot`)
    Repayment.by("consumer").per("loan").sum("amount")           a number for each loan (see `per_key`)

Everything about the event type is checked here, where the definition is written: fields, kinds, currencies, entities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from obligor.errors import DefinitionError, did_you_mean
from obligor.events import schema
from obligor.events.fields import Entity, Field
from obligor.events.predicates import Predicate
from obligor.features.aggregates import Aggregates
from obligor.features.expressions import Since, Source
from obligor.features.kinds import withheld
from obligor.features.per_key import KEY_KINDS, PerKey
from obligor.features.pivot import Pivot, pivot_values
from obligor.features.sources import fitting_field, narrowed, own_field

__all__ = ["Event", "Stream"]


class Event(schema.Event, abstract=True):
    """Base of a lender's event classes: `obligor.events`' own, whose facts can be selected `by` an entity.

    >>> from obligor.features import Entity, Money
    >>> class Repayment(Event):
    ...     consumer = Entity()
    ...     amount = Money("NGN")
    >>> Repayment.by("consumer").sum("amount", "30d", "90d")
    Feature(30d, 90d)
    >>> Repayment.by("consumer").sum("amuont", "30d")
    Traceback (most recent call last):
    obligor.errors.DefinitionError: Repayment has no field 'amuont'; did you mean 'amount'?
    """

    Decided: ClassVar[type[Event]]

    @classmethod
    def by(cls, entity: str | Field | Sequence[str | Field], *, via: str | Sequence[str] | None = None) -> Stream:
        """Return this type's facts as the history of the entity in field `entity`, or of several taken together.

        `via` names the application's field that holds the entity (one for each), where it has several of that type.
        """
        names = [entity] if isinstance(entity, str | Field) else list(entity)
        fields = [_entity(cls, name.name if isinstance(name, Field) else name) for name in names]
        through = None if via is None else [via] if isinstance(via, str) else list(via)
        if not fields or len({field.name for field in fields}) < len(fields):
            raise DefinitionError(f"{cls.__name__}.by: expected one entity or several different ones, got {names!r}")
        if through is not None and len(through) != len(fields):
            raise DefinitionError(f"{cls.__name__}.by: expected {len(fields)} fields in via, got {len(through)}")
        # In order of their types, so that however it is written, one combination of entities has one timeline.
        order = sorted(range(len(fields)), key=lambda i: fields[i].type)
        chosen = None if through is None else tuple(through[i] for i in order)
        return Stream(Source(cls, tuple(fields[i] for i in order), chosen))


@dataclass(frozen=True, eq=False)
class Stream(Aggregates):
    """Facts of one event type under one entity, or several taken together."""

    source: Source
    anchored: Since | None = None

    def where(self, *predicates: Predicate) -> Self:
        """Return the facts for which all predicates are true; a comparison with null is not.

        A comparison may be with the application (`Sale.merchant == application.merchant`) or as_of.
        """
        return replace(self, source=narrowed(self.source, predicates))

    def since(self, other: Stream) -> Stream:
        """Return these facts since the last fact of another stream of the same entity; null where it has none.

        The aggregates then take no windows.
        """
        if not isinstance(other, Stream):
            raise DefinitionError(f"since: expected facts, such as Wage.by('consumer'), got {other!r}")
        if other.source.given or other.anchored is not None:
            raise DefinitionError("since: the facts to count from are a type with a filter, without the application")
        if (other.source.entities, other.source.via) != (self.source.entities, self.source.via):
            raise DefinitionError(
                f"since: expected facts of the same entity, {_whose(self.source)}, got {_whose(other.source)}"
            )
        return replace(self, anchored=Since(other.source))

    def pivot(self, field: str | Field, *, values: Sequence[str] | None = None) -> Pivot:
        """Return the facts split by the declared values of a category or boolean; `values` are those of an open one.

        Every aggregate then has a column for each value, `spent_card`, `spent_wallet`.
        """
        split = pivot_values(own_field(self.source, field), values)
        return Pivot({label: narrowed(self.source, (one,)) for label, one in split.items()}, self.anchored)

    def per(self, key: str | Field) -> PerKey:
        """Return the facts grouped by a key within the entity, such as the loan: a number for each, then over them."""
        field = fitting_field(self.source, "per", key, KEY_KINDS)
        if self.anchored is not None:
            raise DefinitionError("per: numbers by key have windows of time, not since an event")
        withheld(field, f"{self.source.event.__name__}.{field.name}")
        return PerKey(self.source, field)

    def _sources(self) -> Mapping[tuple[str, ...], Source]:
        return {(): self.source}

    @property
    def _since(self) -> Since | None:
        return self.anchored


def _entity(event: type[schema.Event], name: str) -> Entity:
    entities = event.entities()
    if name not in entities:
        hint = f"entity fields: {', '.join(entities)}" if name in event.fields else did_you_mean(name, list(entities))
        raise DefinitionError(f"{event.__name__} has no entity {name!r}; {hint}")
    return entities[name]


def _whose(source: Source) -> str:
    return source.whose + ("" if source.via is None else f" via {', '.join(source.via)}")
