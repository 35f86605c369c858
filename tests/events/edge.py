"""The event types that the tests of the edge share, and how they read records."""

from __future__ import annotations

from typing import Any

from obligor.errors import Problem
from obligor.events.batch import Batch
from obligor.events.fields import Boolean, Category, Decimal, Entity, Integer, Money, Text, Timestamp
from obligor.events.records import parse_records
from obligor.events.schema import Event, Registry

KEY = b"k" * 32


class Repayment(Event, lag="1h"):
    """A type of the usual kinds."""

    consumer = Entity()
    loan = Entity()
    amount = Money("NGN")
    channel = Category("app", "web", optional=True)


class Everything(Event):
    """One field of each kind, required and optional, and the kinds' variants."""

    consumer = Entity()
    merchant = Entity(optional=True)
    price = Money("NGN", "JPY", "KES")
    fee = Money("NGN", optional=True, negative=True)
    rebate = Money("NGN", "KES", optional=True)
    rate = Decimal(4)
    score = Decimal(2, optional=True)
    items = Integer(0, 100)
    count = Integer(optional=True)
    first = Boolean()
    flag = Boolean(optional=True)
    basket = Category()
    tier = Category("gold", "silver", optional=True)
    due = Timestamp()
    paid = Timestamp(optional=True)
    note = Text(20)
    remark = Text(optional=True)


class Person(Event):
    """A type with personal and protected fields."""

    consumer = Entity()
    name = Text(personal=True)
    income = Money("NGN", personal=True, optional=True)
    gender = Category("f", "m", protected=True, optional=True)


class LoanApplication(Event, application=True):
    """The request event."""

    consumer = Entity()
    amount = Money("NGN")


REGISTRY = Registry([Repayment, Everything, Person, LoanApplication])


def repayment(**changes: Any) -> dict[str, Any]:
    """Return a record of a repayment, changed; a change to None removes the key."""
    record = {
        "type": "repayment",
        "event_id": "r-1",
        "event_time": "2026-01-02T03:04:05Z",
        "consumer": "c-1",
        "loan": "l-1",
        "amount": 1200,
    }
    return {key: value for key, value in {**record, **changes}.items() if value is not None}


def everything(**changes: Any) -> dict[str, Any]:
    """Return a record with a value in every required field."""
    record = {
        "type": "everything",
        "event_id": "e-1",
        "event_time": "2026-01-02T03:04:05.123456+01:00",
        "consumer": "c-1",
        "price": {"amount": 500, "currency": "JPY"},
        "rate": "0.1250",
        "items": 3,
        "first": True,
        "basket": "food",
        "due": "2026-02-01T00:00:00Z",
        "note": "",
    }
    return {key: value for key, value in {**record, **changes}.items() if value is not None}


def parse(records: Any, **options: Any) -> tuple[Batch, dict[int, list[Problem]]]:
    """Parse with the tests' registry and key."""
    return parse_records(REGISTRY, records, commitment_key=options.pop("key", KEY), **options)


def accepted(*records: Any) -> Batch:
    """Return the batch of records that are all right."""
    batch, problems = parse(list(records))
    assert problems == {}
    return batch


def messages(problems: dict[int, list[Problem]]) -> list[str]:
    """Return all problems as text."""
    return [str(problem) for own in problems.values() for problem in own]
