"""A lender's log at random: late, corrected, retracted, revived, moved, corrected before it arrives; and its lake."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obligor.events.batch import CORRECTION, ORIGINAL, RETRACTION, Batch, part_schema
from obligor.events.log import EventLog
from obligor.events.schema import Registry
from obligor.events.store import Mode
from obligor.features import (
    Category,
    Entity,
    Event,
    Feature,
    Integer,
    Money,
    Plan,
    Text,
    Timestamp,
    application,
    compile_plan,
    delay,
    outstanding,
    request,
)
from obligor.features.lake import Lake
from obligor.features.lake_tables import plan_entities
from obligor.features.requests import Requests
from obligor.stores.delta import DeltaLake
from obligor.stores.sqlite import SQLiteStore

DAY = 86_400_000_000
START = 1_700_000_000_000_000


class Purchase(Event, application=True):
    consumer = Entity()
    merchant = Entity(optional=True)
    amount = Money("NGN")


class Repayment(Event):
    consumer = Entity()
    loan = Entity()
    amount = Money("NGN")
    channel = Category("app", "bank", optional=True)
    due_at = Timestamp(optional=True)
    phone = Text(personal=True, optional=True)


class Sale(Event):
    merchant = Entity()
    consumer = Entity(optional=True)
    price = Money("NGN", "KES")
    items = Integer(optional=True)
    gender = Category("f", "m", protected=True, optional=True)


class Transfer(Event):
    sender = Entity("consumer")
    receiver = Entity("consumer")
    amount = Money("NGN")


REGISTRY = Registry([Purchase, Repayment, Sale, Transfer])
CONSUMERS = [f"c-{i}" for i in range(6)]
MERCHANTS = ["m-0", "m-1"]


def definitions() -> dict[str, Feature]:
    """Return features that look at both entities, at one by several keys, and at both in one program."""
    repaid, sold, bought = Repayment.by("consumer"), Sale.by("merchant"), Sale.by("consumer")
    naira = Sale.price.currency_is("NGN")
    return {
        "repaid": repaid.sum("amount", "2d", "9d", "lifetime"),
        "repaid_last": repaid.last("amount", "9d"),
        "loans": repaid.distinct("loan", "9d"),
        "by_app": repaid.where(Repayment.channel == "app").count("9d"),
        "late": repaid.max(delay(Repayment.due_at), "9d"),
        "owed": outstanding(
            opened=repaid.where(Repayment.channel == "bank").per("loan").amount("amount"),
            reduced=[repaid.where(Repayment.channel == "app").per("loan").amount("amount")],
        ),
        "sent": Transfer.by("sender").sum("amount", "9d"),
        "received": Transfer.by("receiver").mean("amount", "9d"),
        "to_himself": Transfer.by("sender").where(Transfer.amount >= 3).count("9d"),
        "items": bought.std("items", "9d"),
        "asked": Purchase.by("consumer").count("9d"),
        "sold": sold.where(naira).sum("price", "2d", "9d"),
        "share": bought.where(naira).sum("price", "9d") / sold.count("9d"),
        "amount": request("amount"),
        "known": Purchase.by(["consumer", "merchant"]).count("9d"),
        "larger": repaid.where(Repayment.amount > application.amount).sum("amount", "9d"),
        "this_month": repaid.sum("amount", "this month"),
        "usual": repaid.median("amount", "lifetime"),
        "fading": repaid.decayed_sum("amount", "1d"),
        "newest": sold.where(naira).max("price", "3 events"),
    }


def plan_of(features: Mapping[str, Feature]) -> Plan:
    """Compile features of the lender's application."""
    return compile_plan(dict(features), REGISTRY, Purchase)


PLAN = plan_of(definitions())
SMALL_PLAN = plan_of({"repaid": Repayment.by("consumer").sum("amount", "2d", "9d")})


@dataclass(frozen=True)
class Row:
    """One event as a batch holds it; `known` None: measured."""

    id: str
    type: str
    time: int | None
    known: int | None = None
    kind: int = ORIGINAL
    target: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    personal: dict[str, Any] | None = None


def batch_of(rows: Sequence[Row], registry: Registry) -> Batch:
    """Return the rows as a batch, in their order."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for index, row in enumerate(rows):
        said = [row.type, row.time, row.kind, row.target, sorted(row.fields.items()), row.personal]
        standard = {
            "index": index,
            "event_id": row.id,
            "event_time": row.time,
            "known_time": row.known,
            "kind": row.kind,
            "target": row.target,
            "content": hashlib.blake2b(json.dumps(said).encode(), digest_size=16).digest(),
            "personal": None if row.personal is None else json.dumps(row.personal).encode(),
        }
        parts.setdefault(row.type, []).append(standard | row.fields)
    types = {name: registry[name] for name in parts}
    tables = {
        (name, types[name].version): pa.Table.from_pylist(own, schema=part_schema(types[name]))
        for name, own in parts.items()
    }
    return Batch(tables, len(rows))


def append(log: EventLog, rows: Sequence[Row], clock: int) -> None:
    """Append rows in one transaction."""
    with log.begin(clock) as tx:
        tx.append(batch_of(rows, log.registry))
        tx.commit()


def new_log(folder: Path, registry: Registry = REGISTRY) -> EventLog:
    """Create a log that does not wait for the disk."""
    return EventLog.create(folder / "log", registry, store=unsynced)


def unsynced(path: str, mode: Mode) -> SQLiteStore:
    """Open a store that does not wait for the disk, for tests that crash nothing."""
    return SQLiteStore(path, mode, synchronous="OFF")


def lake_of(folder: Path, log: EventLog, plan: Plan = PLAN) -> Lake:
    """Return the lake beside a log, with a plan's tables brought to its head where they do not exist."""
    lake = Lake(DeltaLake(folder / "lake"), log)
    if not lake.covers(plan):
        lake.update(plan_entities(plan))
    return lake


class History:
    """Draws rows of a log, chunk by chunk."""

    def __init__(
        self, chance: np.random.Generator, consumers: Sequence[str] = CONSUMERS, declared: bool = True
    ) -> None:
        self._chance, self._consumers, self._declared = chance, consumers, declared
        self._number = 0
        self._ids: dict[str, list[str]] = {name: [] for name in ("purchase", "repayment", "sale", "transfer")}
        self.clock = START

    def chunk(self, rows: int) -> list[Row]:
        """Return the next rows; call `tick` before they are appended."""
        return [self._row() for _ in range(rows)]

    def tick(self) -> int:
        """Return the writer's clock for the next transaction."""
        self.clock += int(self._chance.integers(1, DAY // 3))
        return self.clock

    def _row(self) -> Row:
        chance = self._chance
        kind = ["purchase", "repayment", "repayment", "repayment", "sale", "sale", "transfer"][int(chance.integers(7))]
        self._number += 1
        id, ids = f"e-{self._number}", self._ids[kind]
        ids.append(id)
        time = self.clock - int(chance.integers(-2, 12)) * DAY // 2
        # Some is history: known when it says, earlier than what was known before.
        known = self.clock - int(chance.integers(0, 8)) * DAY if self._declared and chance.random() < 0.4 else None
        match int(chance.integers(10)):
            case 0 | 1 if len(ids) > 1:
                return Row(id, kind, time, known, CORRECTION, self._target(ids, kind), self._fields(kind))
            case 2 if len(ids) > 1:
                return Row(id, kind, None, known, RETRACTION, self._target(ids, kind))
        personal = {"phone": "+234"} if kind == "repayment" and chance.random() < 0.3 else None
        return Row(id, kind, time, known, fields=self._fields(kind), personal=personal)

    def _target(self, ids: list[str], kind: str) -> str:
        """Some event of the type: an old one, a recent one, or one that has not arrived yet."""
        chance = self._chance
        if chance.random() < 0.15:
            return f"e-{self._number + int(chance.integers(1, 40))}"
        return ids[int(chance.integers(max(0, len(ids) - 30), len(ids) - 1))]

    def _fields(self, kind: str) -> dict[str, Any]:
        chance = self._chance

        def one(values: Sequence[Any]) -> Any:
            return values[int(chance.integers(len(values)))]

        amount = int(chance.integers(0, 9))
        match kind:
            case "purchase":
                return {"consumer": one(self._consumers), "merchant": one([*MERCHANTS, None]), "amount": amount}
            case "repayment":
                return {"consumer": one(self._consumers), "loan": one("abc"), "amount": amount,
                        "channel": one(["app", "bank", None]), "due_at": one([None, self.clock - 3 * DAY])}  # fmt: skip
            case "sale":
                return {"merchant": one(MERCHANTS), "consumer": one([*self._consumers, None]), "price": amount,
                        "price.currency": one(["NGN", "KES"]), "items": one([None, 1, 2]), "gender": "f"}  # fmt: skip
        return {"sender": one(self._consumers), "receiver": one(self._consumers), "amount": amount}


def requests_at(
    log: EventLog,
    chance: np.random.Generator,
    number: int,
    *,
    cut: int | None = None,
    consumers: Sequence[str] = CONSUMERS,
) -> Requests:
    """Draw questions: around the log's known times, each at a cut of its own, or all at `cut`."""
    head = log.head.sequence
    known = log.facts("repayment", columns=[]).rows["known"].to_numpy()
    as_of = known[chance.integers(0, len(known), number)] + chance.integers(-1, 2, number)
    cuts = np.array([[cut]]) if cut is not None else chance.integers(0, head + 1, (number, 1))
    applications = log.facts("purchase", columns=["consumer"]).rows
    own = chance.integers(0, applications.num_rows, number)
    roots = np.where(chance.random(number) < 0.5, applications["root"].to_numpy()[own], -1)
    names = {"consumer": [*consumers, "nobody", None], "merchant": [*MERCHANTS, "none", None]}
    entities = {
        name: pa.array([keys[int(k)] for k in chance.integers(0, len(keys), number)], pa.string())
        for name, keys in names.items()
    }
    # Most applications ask about their own consumer.
    asks = pa.array((roots >= 0) & (chance.random(number) < 0.8))
    entities["consumer"] = pc.if_else(
        asks, applications["consumer"].combine_chunks().take(pa.array(own)), entities["consumer"]
    )
    return Requests(
        as_of=as_of,
        cuts=cuts,
        self_root=roots,
        entities=entities,
        fields=pa.table({"amount": pa.array(chance.integers(0, 100, number))}),
    )
