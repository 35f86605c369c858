"""Selections: whose facts of which type, filtered; and the aggregates over them.

    Repayment.by("consumer").where(Repayment.channel == "app").mean("amount", "30d", "90d")
    Sale.by("merchant").count("7d")                              the merchant's history in a consumer's application
    Repayment.by("consumer").per("loan").amount("amount")        a flow by loan, for `outstanding` (see balance)

Everything about the event type is checked here, where the definition is written: fields, kinds, currencies, entities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Unpack

from obligor.errors import DefinitionError, did_you_mean
from obligor.events import schema
from obligor.events.fields import Category, Entity, Field, Money
from obligor.events.predicates import And, Comparison, Predicate
from obligor.events.schema import parse_duration
from obligor.features.definitions import Feature, Notes, Remarks
from obligor.features.delays import Delay, stored
from obligor.features.expressions import Aggregated, Kind, Source, TimeUnit, kind_of_field, time_unit
from obligor.features.filters import comparisons, flattened
from obligor.features.plan import Aggregate

__all__ = ["Event", "Flow", "PerKey", "Stream"]

LIFETIME = "lifetime"
_NUMBERS = ("money", "decimal", "integer", "boolean")
_ACCEPTED: dict[Aggregate, tuple[str, ...]] = {
    "sum": _NUMBERS,
    "mean": _NUMBERS,
    "std": _NUMBERS,
    "min": (*_NUMBERS, "timestamp"),
    "max": (*_NUMBERS, "timestamp"),
    "first": (*_NUMBERS, "timestamp", "category"),
    "last": (*_NUMBERS, "timestamp", "category"),
    "distinct": (*_NUMBERS, "timestamp", "category", "entity"),
}


class Event(schema.Event, abstract=True):
    """Base of a lender's event classes: `obligor.events`' own, whose facts can be selected `by` an entity.

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
    def by(cls, entity: str | Field, *, via: str | None = None) -> Stream:
        """Return this type's facts as the history of the entity in field `entity`.

        `via` names the application's field that holds the entity, when it has several of that entity type.
        """
        name = entity.name if isinstance(entity, Field) else entity
        entities = cls.entities()
        if name not in entities:
            hint = f"entity fields: {', '.join(entities)}" if name in cls.fields else did_you_mean(name, list(entities))
            raise DefinitionError(f"{cls.__name__} has no entity {name!r}; {hint}")
        return Stream(Source(cls, entities[name], via, None))


@dataclass(frozen=True, eq=False)
class Stream:
    """Facts of one event type under one entity. Aggregates take windows ("90s", "15m", "36h", "30d", "8w", "lifetime").

    A window reaches from its length before as_of up to, and not including, as_of; no window means the lifetime. Nulls
    are skipped. The count, sum and number of distinct values of nothing are 0, all else is null.
    """

    source: Source

    def where(self, *predicates: Predicate) -> Stream:
        """Return the facts for which all predicates are true; a comparison with null is not."""
        known = () if self.source.where is None else (self.source.where,)
        for predicate in predicates:
            if not isinstance(predicate, Predicate):
                raise DefinitionError(f"where: expected a comparison such as {self._example()}, got {predicate!r}")
        parts = (*known, *predicates)
        if not parts:
            return self
        narrowed = replace(self.source, where=flattened(parts[0] if len(parts) == 1 else And(parts)))
        _check_predicate(narrowed)
        return Stream(narrowed)

    def count(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the number of facts."""
        return self._feature("count", None, windows, notes, Kind("integer", "events"))

    def sum(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the exact sum of a field."""
        return self._of("sum", field, windows, notes)

    def mean(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the mean of a field; of a boolean, the share of the true."""
        return self._of("mean", field, windows, notes)

    def std(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the population's standard deviation of a field."""
        return self._of("std", field, windows, notes)

    def min(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the least value of a field."""
        return self._of("min", field, windows, notes)

    def max(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the greatest value of a field."""
        return self._of("max", field, windows, notes)

    def first(
        self, field: str | Field, *windows: str, values: Sequence[str] | None = None, **notes: Unpack[Notes]
    ) -> Feature:
        """Return the earliest value; `values` freezes the vocabulary of an open category."""
        return self._of("first", field, windows, notes, values)

    def last(
        self, field: str | Field, *windows: str, values: Sequence[str] | None = None, **notes: Unpack[Notes]
    ) -> Feature:
        """Return the latest value; `values` freezes the vocabulary of an open category."""
        return self._of("last", field, windows, notes, values)

    def distinct(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the number of distinct values of a field, exact."""
        return self._of("distinct", field, windows, notes)

    def time_since_first(self, *windows: str, unit: TimeUnit = "seconds", **remarks: Unpack[Remarks]) -> Feature:
        """Return the time from the earliest fact to as_of."""
        return self._feature("time_since_first", None, windows, remarks, Kind("real", time_unit(unit)))

    def time_since_last(self, *windows: str, unit: TimeUnit = "seconds", **remarks: Unpack[Remarks]) -> Feature:
        """Return the time from the latest fact to as_of."""
        return self._feature("time_since_last", None, windows, remarks, Kind("real", time_unit(unit)))

    def per(self, key: str | Field) -> PerKey:
        """Return the facts grouped by a key within the entity, such as the loan, for `outstanding` and `reserved`."""
        field = self._field(key)
        if not isinstance(field, Entity) or field.optional:
            what = "an optional entity" if isinstance(field, Entity) else f"a {field.kind}"
            raise DefinitionError(f"per({field.name!r}): expected a required entity of {self._name}, got {what}")
        return PerKey(self, field.name)

    @property
    def _name(self) -> str:
        return self.source.event.__name__

    def _example(self) -> str:
        field = next((f for f in self.source.event.fields.values() if not isinstance(f, Entity)), self.source.by)
        return f"{self._name}.{field.name} == ..."

    def _field(self, field: str | Field) -> Field:
        if isinstance(field, str):
            return self.source.event.field(field)
        if self.source.event.fields.get(stored(field.name)) is not (field.of if isinstance(field, Delay) else field):
            raise DefinitionError(f"{field.event_name}.{field.name} is no field of {self._name}")
        return field

    def _of(
        self,
        aggregate: Aggregate,
        name: str | Field,
        windows: tuple[str, ...],
        notes: Notes,
        values: Sequence[str] | None = None,
    ) -> Feature:
        field = self._field(name)
        if field.kind not in _ACCEPTED[aggregate]:
            kinds = _ACCEPTED[aggregate]
            fitting = [n for n, f in self.source.event.fields.items() if f.kind in kinds and not f.withheld]
            raise DefinitionError(
                f"{aggregate}({field.name!r}): {self._name}.{field.name} is a {field.kind}, expected one of "
                f"{', '.join(kinds)}; such fields here: {', '.join(fitting) or 'none'}"
            )
        vocabulary = tuple(values) if values is not None else None
        if aggregate == "distinct":
            return self._feature("distinct", field, windows, notes, _distinct_kind(field, self.source.where))
        kind = kind_of_field(field, vocabulary, _only_currency(field.name, self.source.where))
        if aggregate in ("mean", "std"):
            kind = Kind("real", kind.unit, None, kind.scale)
        elif aggregate == "sum" and kind.type == "boolean":
            kind = Kind("integer", "events")
        return self._feature(aggregate, field, windows, notes, kind)

    def _feature(
        self, aggregate: Aggregate, field: Field | None, windows: tuple[str, ...], notes: Notes | Remarks, kind: Kind
    ) -> Feature:
        texts = field is not None and field.kind in ("entity", "category")
        coding = "hash" if aggregate == "distinct" and texts else kind.coding
        columns = {
            window if len(windows) > 1 else "": Aggregated(
                self.source, aggregate, field.name if field else None, coding, kind.values, length_us, kind
            )
            for window, length_us in _lengths(windows).items()
        }
        return Feature(columns, notes)


@dataclass(frozen=True, eq=False)
class PerKey:
    """Facts grouped by a key within the entity; as they are, they close their key."""

    stream: Stream
    key: str

    def amount(self, field: str | Field, *, expires: str | Field | None = None, lasts: str | None = None) -> Flow:
        """Return the amounts of these facts by key.

        A reservation ends by itself at the timestamp in field `expires`, or where that is null after `lasts` ("30m").
        """
        stream = self.stream
        amount = stream._field(field)
        if not isinstance(amount, Money) and amount.kind not in ("integer", "decimal"):
            raise DefinitionError(f"amount({amount.name!r}): expected money, decimal or integer, got a {amount.kind}")
        kind = kind_of_field(amount, None, _only_currency(amount.name, stream.source.where))
        until = None if expires is None else stream._field(expires)
        if until is not None and (until.kind != "timestamp" or until.withheld):
            raise DefinitionError(f"expires={until.name!r}: expected a timestamp field, got a {until.kind}")
        after_us = None if lasts is None else parse_duration(lasts)
        return Flow(stream.source, self.key, amount.name, kind, until.name if until is not None else None, after_us)


@dataclass(frozen=True)
class Flow:
    """Amounts by key, in one unit."""

    source: Source
    key: str
    amount: str
    kind: Kind
    expires: str | None
    expires_after_us: int | None


def _lengths(windows: tuple[str, ...]) -> dict[str, int | None]:
    """Return each window's length in microseconds, None for the lifetime, which no window at all means too."""
    lengths = {window: None if window == LIFETIME else parse_duration(window) for window in windows or (LIFETIME,)}
    if len(set(lengths.values())) < max(len(windows), 1):
        raise DefinitionError(f"windows repeat: {', '.join(windows)}")
    return lengths


def _distinct_kind(field: Field, where: Predicate | None) -> Kind:
    if field.withheld or isinstance(field, Money):
        kind_of_field(field, None, _only_currency(field.name, where))
    return Kind("integer", "values")


def _check_predicate(source: Source) -> None:
    for comparison in comparisons(source.where) if source.where is not None else ():
        name = stored(comparison.field).removesuffix(".currency")
        field = source.event.field(name)
        if field.withheld:
            flag = "personal" if field.personal else "protected"
            raise DefinitionError(f"where: {source.event.__name__}.{name} is {flag}: it never enters features")
        if isinstance(field, Money) and comparison.field == name and comparison.op not in ("is_null", "not_null"):
            kind_of_field(field, None, _only_currency(name, source.where))
        if isinstance(field, Category) and field.values and comparison.field == name:
            _check_values(source, field, comparison)


def _check_values(source: Source, field: Category, comparison: Comparison) -> None:
    # A comparison of another event's field of the same name could carry a value that this field never has.
    wanted = comparison.value if isinstance(comparison.value, tuple) else (comparison.value,)
    for text in wanted:
        if isinstance(text, str) and text not in field.values:
            raise DefinitionError(
                f"where: {source.event.__name__}.{field.name} is never {text!r}; {did_you_mean(text, field.values)}"
            )


def _only_currency(name: str, where: Predicate | None) -> str | None:
    """Return the one currency of field `name` that a filter leaves: a condition that always holds, not one of an or."""
    match where:
        case Comparison(field, "==", str(currency)) if field == f"{name}.currency":
            return currency
        case And(parts):
            return next((c for part in parts if (c := _only_currency(name, part)) is not None), None)
    return None
