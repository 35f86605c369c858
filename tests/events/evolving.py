"""One event type in three versions that take every step an upcast may have, and an application in two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.events.batches import unsynced

from obligor.events.batch import Batch
from obligor.events.fields import Boolean, Category, Decimal, Entity, Integer, Money, Text, Timestamp
from obligor.events.log import EventLog
from obligor.events.records import parse_records
from obligor.events.schema import Event, Registry
from obligor.events.upcast import default, denominated, filled, mapped, renamed, scaled

CLOCK = 1_800_000_000_000_000


class SaleV1(Event, name="sale"):
    """As it was first."""

    shop = Entity("merchant")
    buyer = Entity("consumer", optional=True)
    amt = Money("NGN")
    tip = Integer(minimum=0, optional=True)
    fee = Decimal(2)
    duty = Decimal(1, optional=True)
    method = Category("cc", "debit", "cash", "iou")
    note = Text(20, optional=True)
    at = Timestamp(optional=True)
    gift = Boolean(optional=True)
    phone = Text(optional=True, personal=True)


class SaleV2(
    Event,
    name="sale",
    version=2,
    previous=SaleV1,
    upcast=[
        renamed("amt", "amount"),
        denominated("tip", "gratuity", "NGN"),
        scaled("fee", "exact_fee"),
        mapped("method", "paid_by", {"cc": "card", "debit": "card"}),
        filled("note", "remark", "none"),
        default("channel", "till"),
    ],
):
    """With every step; `gift` is given up, `online` is new and optional."""

    shop = Entity("merchant")
    buyer = Entity("consumer", optional=True)
    amount = Money("NGN")
    gratuity = Money("NGN", "KES", optional=True)
    exact_fee = Decimal(4)
    duty = Decimal(1, optional=True)
    paid_by = Category("card", "cash", "iou", "wallet")
    remark = Text(40)
    channel = Category("till", "web")
    at = Timestamp(optional=True)
    online = Boolean(optional=True)
    mobile = Text(optional=True, personal=True)


class Sale(
    Event,
    version=3,
    previous=SaleV2,
    upcast=[
        renamed("amount", "price"),
        renamed("shop", "merchant"),
        denominated("duty", "duties", "KES"),
        mapped("paid_by", "rail", {"iou": "other"}, otherwise="other"),
        default("tax", {"amount": 7, "currency": "KES"}),
        renamed("at", "shipped"),
        scaled("exact_fee", "commission"),
    ],
):
    """With steps upon steps."""

    merchant = Entity("merchant")
    buyer = Entity("consumer", optional=True)
    price = Money("NGN", "KES", negative=True)
    gratuity = Money("NGN", "KES", "GHS", optional=True)
    commission = Decimal(6)
    duties = Money("KES", negative=True, optional=True)
    rail = Category("card", "cash", "other")
    remark = Text(40)
    channel = Category("till", "web", "phone")
    shipped = Timestamp(optional=True)
    online = Boolean(optional=True)
    tax = Money("NGN", "KES")


class LoanV1(Event, name="loan", application=True):
    """An application for the money."""

    consumer = Entity()
    place = Entity("merchant", optional=True)
    amt = Money("NGN")


class Loan(
    Event,
    version=2,
    application=True,
    previous=LoanV1,
    upcast=[
        renamed("consumer", "customer"),
        filled("place", "merchant", "nobody"),
        renamed("amt", "amount"),
        default("branch", "head"),
    ],
):
    """With other names, and keys that were not there before."""

    customer = Entity("consumer")
    merchant = Entity()
    amount = Money("NGN")
    branch = Entity()


FIRST = Registry([SaleV1, LoanV1])
SECOND = Registry([SaleV2, LoanV1])
NEWEST = Registry([Sale, Loan])


def sale_v1(event_id: str, **changes: Any) -> dict[str, Any]:
    """Return a record of version 1; a change to None removes the key."""
    return _record("sale", event_id, 1, {"shop": "m-1", "amt": 100, "fee": "1.25", "method": "cc"}, changes)


def sale_v2(event_id: str, **changes: Any) -> dict[str, Any]:
    """Return a record of version 2."""
    fields = {"shop": "m-1", "amount": 100, "exact_fee": "1.2500", "paid_by": "card", "remark": "x", "channel": "web"}
    return _record("sale", event_id, 2, fields, changes)


def sale_v3(event_id: str, **changes: Any) -> dict[str, Any]:
    """Return a record of version 3."""
    money = {"price": {"amount": 100, "currency": "NGN"}, "tax": {"amount": 5, "currency": "NGN"}}
    fields = {"merchant": "m-1", **money, "commission": "1.25", "rail": "card", "remark": "x", "channel": "web"}
    return _record("sale", event_id, 3, fields, changes)


def _record(
    name: str, event_id: str, version: int, fields: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
    envelope = {"type": name, "version": version, "event_id": event_id, "event_time": "2026-01-02T03:04:05Z"}
    return {key: value for key, value in {**envelope, **fields, **changes}.items() if value is not None}


def open_log(folder: Path, registry: Registry) -> EventLog:
    """Open the log in `folder` with these types; made, with fixed keys, where there is none."""
    path = folder / "log"
    if path.exists():
        return EventLog.open(path, registry, store=unsynced)
    return EventLog.create(path, registry, store=unsynced, random=lambda n: bytes(range(n)))


def parse(registry: Registry, *records: Mapping[str, Any]) -> Batch:
    """Return the batch of records that are all right."""
    batch, problems = parse_records(registry, list(records), commitment_key=b"k" * 32)
    assert problems == {}
    return batch


def append(log: EventLog, *records: Mapping[str, Any], clock: int = CLOCK) -> list[str]:
    """Append records in a transaction of their own; return what became of each, as one word."""
    with log.begin(clock) as tx:
        status = tx.append(parse(log.registry, *records)).status
        tx.commit()
    return [one.partition(":")[0] for one in status]
