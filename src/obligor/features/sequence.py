"""Sequences as a lender writes them: whose events a sequence model reads one by one, and what of each.

    history = Sequence.by("consumer", [Order, Repayment, Transfer.by("sender")])
    history = Sequence.by("consumer", {Order: ["amount", "merchant"], Repayment: None}, shared=["amount"])

An event type enters with all its fields that may (None), or with those named; neither personal nor protected ones may,
nor free text. A moment enters as the time from it to the event. The application's own type is always part of a
sequence: earlier applications are events like others, and the application itself is the last one. Nothing is computed
here: `compile_plan` turns definitions into data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from obligor.errors import DefinitionError, did_you_mean
from obligor.events import schema
from obligor.events.fields import Boolean, Category, Decimal, Entity, Field, Money, Text, Timestamp, minor_places
from obligor.features.delays import Delay, delay
from obligor.features.expressions import Source
from obligor.features.kinds import one, only_currency, withheld
from obligor.features.measures import Coding
from obligor.features.sequence_spec import SequenceKind
from obligor.features.stream import Event, Stream

__all__ = ["Entering", "Entrance", "Sequence", "Token", "entrance", "sequences"]

_SECONDS_PLACES = 6  # a delay is stored in microseconds
_T = TypeVar("_T")
Entering: TypeAlias = "type[Event] | Stream"
Named: TypeAlias = "Iterable[str | Field] | None"


@dataclass(frozen=True)
class Token:
    """One field of one event type as a sequence reads it."""

    column: str  # of the facts: a field, or `<field>.delay`
    kind: SequenceKind
    coding: Coding
    values: tuple[str, ...] | None
    scale: int
    unit: str  # what its numbers are counted in: values of different units share no field
    entity: bool  # the key of another entity


@dataclass(frozen=True)
class Entrance:
    """Facts that enter a sequence, and what of them is read."""

    source: Source
    tokens: tuple[Token, ...]


class Sequence:
    """One definition: the events of an entity in order of time, the application last.

    >>> from obligor.features import Entity, Event, Money
    >>> class Repayment(Event):
    ...     consumer = Entity()
    ...     amount = Money("NGN")
    >>> Sequence.by("consumer", [Repayment])
    Sequence(consumer: repayment)
    >>> Sequence.by("consumer", {Repayment: ["amuont"]})
    Traceback (most recent call last):
    obligor.errors.DefinitionError: Repayment has no field 'amuont'; did you mean 'amount'?
    """

    def __init__(
        self,
        entities: tuple[str, ...],
        entrances: tuple[Entrance, ...],
        via: tuple[str, ...] | None,
        shared: frozenset[str],
        slow: frozenset[str] | None,
        limit: int | None,
    ) -> None:
        self.entities, self.entrances, self.via = entities, entrances, via
        self.shared, self.slow, self.limit = shared, slow, limit

    @classmethod
    def by(
        cls,
        entity: str | Several[str],
        events: Iterable[Entering] | Mapping[Entering, Named],
        *,
        via: str | Several[str] | None = None,
        shared: Iterable[str] = (),
        slow: Iterable[str] | None = None,
        limit: int | None = None,
    ) -> Sequence:
        """Return the sequence of an entity type (or of several taken together): event types, or streams of them.

        `via` names the application's field that holds the entity, where it has several of that type. Fields named in
        `shared` mean the same in every event type and are one; others are told apart by type. `slow` names those that
        say who it is rather than what happens (default: the keys of other entities), `limit` how many of the newest
        events count (default: all).
        """
        kinds = [entity] if isinstance(entity, str) else list(entity)
        # In order of their types, so that however it is written, one combination of entities has one timeline.
        order = sorted(range(len(kinds)), key=kinds.__getitem__)
        entities = tuple(kinds[i] for i in order)
        named = events if isinstance(events, Mapping) else dict.fromkeys(_in_order("event types", events))
        if not entities or not named:
            raise DefinitionError("Sequence.by: expected an entity type and event types, such as [Order, Repayment]")
        entrances = tuple(entrance(_source(entities, one), fields) for one, fields in named.items())
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise DefinitionError(f"Sequence.by: expected a limit of at least one event, got {limit!r}")
        through = None if via is None else [via] if isinstance(via, str) else list(via)
        if through is not None and len(through) != len(entities):
            raise DefinitionError(f"Sequence.by: expected {len(entities)} fields in via, got {len(through)}")
        chosen = None if through is None else tuple(through[i] for i in order)
        return cls(
            entities, entrances, chosen, frozenset(_list_of(shared)), None if slow is None else frozenset(slow), limit
        )

    def __repr__(self) -> str:
        events = dict.fromkeys(one.source.event.event_name for one in self.entrances)
        return f"Sequence({' x '.join(self.entities)}: {', '.join(events)})"


def sequences(namespace: Mapping[str, object]) -> dict[str, Sequence]:
    """Return the sequences of a module's namespace by name; a leading underscore keeps one out."""
    return {n: v for n, v in namespace.items() if isinstance(v, Sequence) and not n.startswith("_")}


def entrance(source: Source, fields: Named = None) -> Entrance:
    """Return what of facts a sequence reads: the fields named, None for all that may."""
    event = source.event
    own = {one.name for one in source.by}
    if fields is None:
        found = [f for f in event.fields.values() if f.name not in own and not f.withheld and not isinstance(f, Text)]
    else:
        found = [_own(source, name) for name in _in_order(f"fields of {event.__name__}", fields)]
        twice = next((one.name for one in found if one.name in own), None)
        if twice is not None:
            raise DefinitionError(f"{event.__name__}.{twice} says whose sequence it is; leave it out")
    return Entrance(source, tuple(dict.fromkeys(_token(source, one) for one in found)))


def _source(entities: tuple[str, ...], entering: Entering) -> Source:
    """Return the facts of an event type under the entities, or a stream's own."""
    if isinstance(entering, Stream):
        if entering.source.given or entering.anchored is not None:
            raise DefinitionError("Sequence.by: a sequence takes filters of the events alone, without the application")
        if entering.source.via is not None:
            raise DefinitionError("Sequence.by: say via= of the sequence, not of its streams")
        if entering.source.entities != entities:
            raise DefinitionError(
                f"Sequence.by: expected events of {' x '.join(entities)}, got those of {entering.source.whose}"
            )
        return entering.source
    if not (isinstance(entering, type) and issubclass(entering, Event)):
        raise DefinitionError(f"Sequence.by: expected event types or streams such as Order.by(...), got {entering!r}")
    return Source(entering, tuple(_field_of(entering, kind) for kind in entities), None)


def _field_of(event: type[schema.Event], kind: str) -> Entity:
    fitting = [field for field in event.entities().values() if field.type == kind]
    if not fitting:
        kinds = list(dict.fromkeys(field.type for field in event.entities().values()))
        raise DefinitionError(f"{event.__name__} names no {kind}; {did_you_mean(kind, kinds)}")
    if len(fitting) > 1:
        choice = " or ".join(f"{event.__name__}.by({field.name!r})" for field in fitting)
        raise DefinitionError(f"{event.__name__} names {len(fitting)} of type {kind}; choose with {choice}")
    return fitting[0]


def _own(source: Source, name: str | Field) -> Field:
    if isinstance(name, str):
        return source.event.field(name)
    inner = name.of if isinstance(name, Delay) else name
    if not isinstance(inner, Field) or source.event.fields.get(inner.name) is not inner:
        raise DefinitionError(f"expected fields of {source.event.__name__}, got {name!r}")
    return name


def _token(source: Source, field: Field) -> Token:
    """Return how a field is read; DefinitionError where it must not or cannot be."""
    where = f"{source.event.__name__}.{field.name}"
    withheld(field, where)
    if isinstance(field, Timestamp):
        field = delay(field)
    match field:
        case Text():
            raise DefinitionError(f"{where} is {one('text')}, which no token is made of; name a category or a number")
        case Category() if field.values:
            return Token(field.name, "category", "vocabulary", field.values, 0, "", False)
        case Category() | Entity():
            return Token(field.name, "category", "hash", None, 0, "", isinstance(field, Entity))
        case Boolean():
            return Token(field.name, "category", "integer", None, 0, "truth", False)
        case Money():
            currency = field.currencies[0] if len(field.currencies) == 1 else only_currency(field.name, source.where)
            if currency is None:
                raise DefinitionError(
                    f"{where} mixes currencies ({', '.join(field.currencies)}); choose one with .where("
                    f"{where}.currency_is({field.currencies[0]!r})), or name the fields that enter without it"
                )
            return Token(field.name, "magnitude", "integer", None, minor_places(currency), currency, False)
        case Delay():
            return Token(field.name, "magnitude", "integer", None, _SECONDS_PLACES, "seconds", False)
        case Decimal():
            return Token(field.name, "number", "integer", None, field.scale, "", False)
    return Token(field.name, "number", "integer", None, 0, "", False)


def _in_order(what: str, names: Iterable[_T]) -> list[_T]:
    """Return names whose order a plan keeps; DefinitionError for a set, which has none."""
    if isinstance(names, set | frozenset):
        raise DefinitionError(f"expected a list of {what}, whose order a plan keeps, got {names!r:.80}")
    return _list_of(names)


def _list_of(names: Iterable[_T]) -> list[_T]:
    if isinstance(names, str):
        raise DefinitionError(f"expected a list of names, got {names!r}")
    return list(names)
