"""Two levels: a number for each key within an entity, then an aggregate over the keys.

    due = InstalmentDue.by("consumer").per("loan").sum("amount")           a number for each of the consumer's loans
    paid = Repayment.by("consumer").per("loan").sum("amount")
    behind = (due > paid).count()                                          how many loans are behind
    most = maximum(0, due - paid).max()                                    the most that is behind on one
    usual = Repayment.by("consumer").per("loan").count("90d").mean()

The keys are those of all the facts that a number looks at. Of a key without facts of one of them, its count and sum are
0, anything else null; `.fill` says otherwise. Keys whose number is null are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Unpack

from obligor.errors import DefinitionError
from obligor.events.fields import Entity, Field
from obligor.events.schema import parse_duration
from obligor.features.definitions import Feature, Notes
from obligor.features.expressions import Aggregated, Binary, Constant, Filled, Label, Node, OverKeys, Source, kind_of
from obligor.features.kinds import (
    MOMENT,
    Kind,
    TimeUnit,
    kind_of_field,
    only_currency,
    spoken,
    time_unit,
    vocabulary_of,
    withheld,
)
from obligor.features.measures import Aggregate, Op, TimeWindow
from obligor.features.operators import Operators, operand
from obligor.features.recipes import accepted, field_kind
from obligor.features.sources import fitting_field
from obligor.features.windows import parse_window

__all__ = ["KEY_KINDS", "ByKey", "Flow", "PerKey"]

KEY_KINDS = ("entity", "category")


class ByKey(Operators):
    """A number for each key. It combines with others by the same key, and with numbers; then it is aggregated.

    `+ - * /`, comparisons, `& | ~`, `minimum`, `maximum` and `.fill` as for features.
    """

    def __init__(self, of: PerKey, node: Node) -> None:
        self.of, self.node = of, node  # the facts that it is of, for their entity and key
        kind = kind_of(node)
        assert kind is not None, "nothing in it depends on the application"
        self.kind = kind

    def fill(self, value: float | str) -> ByKey:
        """Return it with nulls replaced."""
        return ByKey(self.of, Filled(self.node, operand(value)))

    def count(self, **notes: Unpack[Notes]) -> Feature:
        """Return the number of keys: of a comparison, those for which it is true; else those that have a number."""
        counted: Aggregate = "sum" if self.kind.type == "boolean" else "count"
        return Feature({(): OverKeys(counted, self.node, Kind("integer", "keys"))}, notes)

    def sum(self, **notes: Unpack[Notes]) -> Feature:
        """Return the sum over the keys; 0 of none."""
        kind = self._number("sum")
        return self._over("sum", Kind("integer", "keys") if kind.type == "boolean" else kind, notes)

    def mean(self, **notes: Unpack[Notes]) -> Feature:
        """Return the mean over the keys; of a comparison, the share of the keys for which it is true."""
        return self._over("mean", Kind("real", self._number("mean").unit), notes)

    def std(self, **notes: Unpack[Notes]) -> Feature:
        """Return the population's standard deviation over the keys."""
        return self._over("std", Kind("real", self._number("std").unit), notes)

    def min(self, **notes: Unpack[Notes]) -> Feature:
        """Return the least over the keys; of a comparison, whether it is true for all."""
        return self._over("min", self._number("min", moments=True), notes)

    def max(self, **notes: Unpack[Notes]) -> Feature:
        """Return the greatest over the keys; of a comparison, whether it is true for any."""
        return self._over("max", self._number("max", moments=True), notes)

    @property
    def unit(self) -> str:
        """The unit of the number."""
        return self.kind.unit

    def _number(self, aggregate: str, moments: bool = False) -> Kind:
        kind = self.kind
        if kind.type == "category":
            raise DefinitionError(f"{aggregate} over keys: {spoken(kind)} is no number; compare it first, x == 'value'")
        if kind.unit == MOMENT and not moments:
            raise DefinitionError(f"{aggregate} over keys: a moment has only a min and a max")
        return Kind(kind.type, kind.unit)

    def _over(self, aggregate: Aggregate, kind: Kind, notes: Notes) -> Feature:
        return Feature({(): OverKeys(aggregate, self.node, kind)}, notes)

    def _nodes(self) -> Iterable[Node]:
        return (self.node,)

    def _combined(self, op: Op, left: ByKey | Constant | Label, right: ByKey | Constant | Label) -> ByKey:
        both = [one for one in (left, right) if isinstance(one, ByKey)]
        if both[0].of.whose != both[-1].of.whose:
            raise DefinitionError(
                f"numbers by key combine where entity and key are the same, got {both[0].of} and {both[-1].of}"
            )
        a, b = (one.node if isinstance(one, ByKey) else one for one in (left, right))
        return ByKey(self.of, Binary(op, a, b))

    def __repr__(self) -> str:
        return f"ByKey({self.of})"


@dataclass(frozen=True, eq=False)
class PerKey:
    """Facts grouped by a key within the entity. Each aggregate takes one window of time; none means the lifetime."""

    source: Source
    key: Field

    @property
    def whose(self) -> tuple[object, ...]:
        """What numbers must share to combine: the entity, the way to it, and what the key is."""
        key = self.key.type if isinstance(self.key, Entity) else f"category {self.key.name}"
        return self.source.entities, self.source.via, key

    def count(self, window: str = "lifetime") -> ByKey:
        """Return the number of facts of each key."""
        return self._of("count", None, window, Kind("integer", "events"))

    def sum(self, field: str | Field, window: str = "lifetime") -> ByKey:
        """Return the sum of a field by key."""
        return self._of("sum", field, window)

    def mean(self, field: str | Field, window: str = "lifetime") -> ByKey:
        """Return the mean of a field by key."""
        return self._of("mean", field, window)

    def min(self, field: str | Field, window: str = "lifetime") -> ByKey:
        """Return the least value of a field by key."""
        return self._of("min", field, window)

    def max(self, field: str | Field, window: str = "lifetime") -> ByKey:
        """Return the greatest value of a field by key."""
        return self._of("max", field, window)

    def first(self, field: str | Field, window: str = "lifetime", *, values: Sequence[str] | None = None) -> ByKey:
        """Return the earliest value of a field by key; `values` freezes the vocabulary of an open category."""
        return self._of("first", field, window, values=values)

    def last(self, field: str | Field, window: str = "lifetime", *, values: Sequence[str] | None = None) -> ByKey:
        """Return the latest value of a field by key; `values` freezes the vocabulary of an open category."""
        return self._of("last", field, window, values=values)

    def time_since_first(self, window: str = "lifetime", unit: TimeUnit = "seconds") -> ByKey:
        """Return the time from the earliest fact of each key to as_of."""
        return self._of("time_since_first", None, window, Kind("real", time_unit(unit)))

    def time_since_last(self, window: str = "lifetime", unit: TimeUnit = "seconds") -> ByKey:
        """Return the time from the latest fact of each key to as_of."""
        return self._of("time_since_last", None, window, Kind("real", time_unit(unit)))

    def amount(self, field: str | Field, *, expires: str | Field | None = None, lasts: str | None = None) -> Flow:
        """Return the amounts of these facts by key, for `outstanding` and `reserved`.

        A reservation ends by itself at the timestamp in field `expires`, or where that is null after `lasts` ("30m").
        """
        amount = fitting_field(self.source, "amount", field, ("money", "decimal", "integer"))
        kind_of_field(amount, None, only_currency(amount.name, self.source.where))
        until = None if expires is None else fitting_field(self.source, "expires", expires, ("timestamp",))
        if until is not None:
            withheld(until, f"{self.source.event.__name__}.{until.name}")
        lasts_us = None if lasts is None else parse_duration(lasts)
        if lasts_us == 0:
            raise DefinitionError(f"amount: expected a length above 0 in lasts, got {lasts!r}")
        return Flow(self, amount, until, lasts_us)

    def _of(
        self,
        aggregate: Aggregate,
        name: str | Field | None,
        window: str,
        kind: Kind | None = None,
        values: Sequence[str] | None = None,
    ) -> ByKey:
        span = parse_window(window)
        if not isinstance(span, TimeWindow):
            raise DefinitionError(f"{aggregate} by key: expected a window of time such as '90d', got {window!r}")
        return self.over(aggregate, name, span, kind, values)

    def over(
        self,
        aggregate: Aggregate,
        name: str | Field | None,
        span: TimeWindow,
        kind: Kind | None = None,
        values: Sequence[str] | None = None,
    ) -> ByKey:
        """Return an aggregate by key over a window; its kind is the field's where none is given."""
        if name is None:
            assert kind is not None, "what looks at no field has a kind of its own"
            return ByKey(self, Aggregated(self.source, aggregate, None, "integer", span, kind, key=self.key.name))
        field = accepted(self.source, aggregate, name)
        vocabulary = vocabulary_of(f"{field.event_name}.{field.name}", values)
        coded = kind_of_field(field, vocabulary, only_currency(field.name, self.source.where))
        kind = field_kind(aggregate, coded)
        return ByKey(
            self,
            Aggregated(self.source, aggregate, field.name, coded.coding, span, kind, coded.values, key=self.key.name),
        )

    def __str__(self) -> str:
        via = "" if self.source.via is None else f" via {', '.join(self.source.via)}"
        return f"{self.source.whose}{via} by {self.key.name}"


@dataclass(frozen=True, eq=False)
class Flow:
    """Amounts by key; of a reservation, with the moment or the time after which it ends by itself."""

    of: PerKey
    amount: Field
    expires: Field | None
    lasts_us: int | None
