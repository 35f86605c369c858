"""A small lender's events, and batches of them made by hand, without the edge that validates records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from obligor.events.batch import CORRECTION, ORIGINAL, RETRACTION, Batch, TypeVersion, part_schema
from obligor.events.fields import Category, Entity, Integer, Money, Text
from obligor.events.log import EventLog
from obligor.events.schema import Event, Registry
from obligor.events.store import Mode, StoreOpener
from obligor.stores.sqlite import SQLiteStore

CLOCK = 1_800_000_000_000_000


class Repayment(Event, lag="1h"):
    consumer = Entity()
    amount = Money("NGN")
    channel = Category("app", "bank", optional=True)
    phone = Text(optional=True, personal=True)


class LoanApplication(Event, application=True):
    consumer = Entity()
    amount = Money("NGN", "KES")
    age = Integer(optional=True, protected=True)


REGISTRY = Registry([Repayment, LoanApplication])


@dataclass(frozen=True)
class Row:
    """One event as a batch holds it; `known` None: measured."""

    id: str
    type: str = "repayment"
    time: int | None = 1_000
    known: int | None = None
    kind: int = ORIGINAL
    target: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    personal: dict[str, Any] | None = None

    @property
    def content(self) -> bytes:
        known = [self.type, self.time, self.kind, self.target, sorted(self.fields.items()), self.personal]
        return hashlib.blake2b(json.dumps(known).encode(), digest_size=16).digest()


def repayment(id: str, amount: int = 100, consumer: str = "c-1", **more: Any) -> Row:
    return Row(id, fields={"consumer": consumer, "amount": amount}, **more)


def correction(id: str, target: str, amount: int = 100, consumer: str = "c-1", **more: Any) -> Row:
    return Row(id, kind=CORRECTION, target=target, fields={"consumer": consumer, "amount": amount}, **more)


def retraction(id: str, target: str, **more: Any) -> Row:
    return Row(id, time=None, kind=RETRACTION, target=target, **more)


def application(id: str, amount: int = 5_000, consumer: str = "c-1", **more: Any) -> Row:
    fields = {"consumer": consumer, "amount": amount, "amount.currency": "NGN"}
    return Row(id, type="loan_application", fields=fields, **more)


def batch_of(rows: Sequence[Row]) -> Batch:
    """Return the rows as a batch, in their order."""
    parts: dict[TypeVersion, list[dict[str, Any]]] = {}
    for index, row in enumerate(rows):
        standard = {
            "index": index,
            "event_id": row.id,
            "event_time": row.time,
            "known_time": row.known,
            "kind": row.kind,
            "target": row.target,
            "content": row.content,
            "personal": None if row.personal is None else json.dumps(row.personal).encode(),
        }
        parts.setdefault((row.type, 1), []).append(standard | row.fields)
    tables = {form: pa.Table.from_pylist(own, schema=part_schema(REGISTRY[form[0]])) for form, own in parts.items()}
    return Batch(tables, len(rows))


def append(log: EventLog, *rows: Row, clock: int = CLOCK) -> list[str]:
    """Append rows in a transaction of their own; return what became of each, as one word."""
    with log.begin(clock) as tx:
        status = tx.append(batch_of(rows)).status
        tx.commit()
    return [one.partition(":")[0] for one in status]


def new_log(folder: Path, store: StoreOpener = SQLiteStore) -> EventLog:
    """Create a log with fixed keys."""
    return EventLog.create(folder / "log", REGISTRY, store=store, random=lambda n: bytes(range(n)))


def unsynced(path: str, mode: Mode) -> SQLiteStore:
    """Open a store that does not wait for the disk, for tests that crash nothing."""
    return SQLiteStore(path, mode, synchronous="OFF")
