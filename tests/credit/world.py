"""A small lender's event types, and a log in memory for the tests of outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from obligor.events.fields import Category, Entity, Money, Timestamp
from obligor.events.schema import Event, Registry

DAY = 86_400_000_000


class LoanApplication(Event, application=True):
    """Somebody asks for a loan."""

    consumer = Entity()
    loan = Entity(optional=True)
    amount = Money("NGN")
    channel = Category("app", "web", optional=True)


class LoanOpened(Event):
    """An application became a loan."""

    application_id = Entity("application")
    loan = Entity()


class Instalment(Event):
    """An instalment of a loan's schedule."""

    loan = Entity()
    amount = Money("NGN")
    due_at = Timestamp(optional=True)


class Repayment(Event):
    """Money came back."""

    loan = Entity()
    amount = Money("NGN")
    status = Category("succeeded", "failed", optional=True)


class Flag(Event):
    """Somebody says how a loan went."""

    loan = Entity()
    flag = Category("Good", "Bad", optional=True)


class Fraud(Event):
    """A loan was fraud."""

    loan = Entity()


REGISTRY = Registry([LoanApplication, LoanOpened, Instalment, Repayment, Flag, Fraud])


@dataclass
class Fact:
    """One original fact as the fake log holds it."""

    type: str
    event_id: str
    event_time: int
    known: int
    position: int
    fields: Mapping[str, Any]
    retracted_known: int | None = None


@dataclass
class FakeFacts:
    """The facts of one type, originals and retractions only."""

    found: Sequence[Fact]
    columns: Mapping[str, pa.DataType]

    @property
    def rows(self) -> pa.Table:
        return self._table(self.found)

    def view(self, cut: Mapping[int, int] | None, as_of: int) -> pa.Table:
        return self._table(
            [
                fact
                for fact in self.found
                if fact.known <= as_of
                and fact.event_time < as_of
                and not (fact.retracted_known is not None and fact.retracted_known <= as_of)
            ]
        )

    def _table(self, facts: Sequence[Fact]) -> pa.Table:
        data: dict[str, Any] = {
            "position": pa.array([fact.position for fact in facts], pa.int64()),
            "root": pa.array([fact.position for fact in facts], pa.int64()),
            "known": pa.array([fact.known for fact in facts], pa.int64()),
            "event_time": pa.array([fact.event_time for fact in facts], pa.int64()),
            "event_id": pa.array([fact.event_id for fact in facts], pa.string()),
        }
        for name, kind in self.columns.items():
            data[name] = pa.array([fact.fields.get(name) for fact in facts], kind)
        return pa.table(data)


@dataclass
class FakeLog:
    """A log in memory: append facts, ask for those of one type up to a cut."""

    found: list[Fact] = field(default_factory=list)

    def add(
        self, event: type[Event], event_time: int, *, known: int | None = None, id: str = "", **fields: Any
    ) -> Fact:
        position = len(self.found) + 1
        known = event_time if known is None else known
        fact = Fact(event.event_name, id or f"e-{position}", event_time, known, position, fields)
        self.found.append(fact)
        return fact

    def cut(self) -> dict[int, int]:
        return {0: len(self.found)}

    def facts(self, type_name: str, cut: Mapping[int, int] | None = None, columns: Any = None) -> FakeFacts:
        upto = len(self.found) if cut is None else cut[0]
        kinds = {"money": pa.int64(), "timestamp": pa.int64(), "integer": pa.int64(), "boolean": pa.bool_()}
        declared = {name: kinds.get(one.kind, pa.string()) for name, one in REGISTRY[type_name].fields.items()}
        return FakeFacts([f for f in self.found if f.type == type_name and f.position <= upto], declared)
