"""A lender with a bank feed, instalments and merchants, and its features: from records in a log to numbers."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from obligor.events.log import EventLog
from obligor.events.records import parse_records
from obligor.events.schema import Registry
from obligor.features import Category, Entity, Event, Feature, Money, Plan, Timestamp, compile_plan
from obligor.features.evaluate import evaluate
from obligor.features.requests import Requests, field_names, key_names
from obligor.features.timelines import build_timelines, cut_array
from obligor.stores.sqlite import SQLiteStore

DAY = 86_400_000_000
NOW = 1_770_000_000_000_000  # 2026-02-02 02:40 UTC


class LoanApplication(Event, application=True):
    """Somebody asks for a loan at a merchant."""

    consumer = Entity()
    merchant = Entity(optional=True)
    amount = Money("EUR")
    category = Category("food", "travel", "other", optional=True)


class Transaction(Event):
    """A movement on the consumer's bank account."""

    consumer = Entity()
    kind_of = Category("income", "bill", "spending", "lender_in", "lender_out", "returned")
    amount = Money("EUR")
    party = Entity("counterparty", optional=True)


class Balance(Event):
    """A reading of the account's balance."""

    consumer = Entity()
    balance = Money("EUR", negative=True)


class LimitSet(Event):
    """The lender sets a credit limit."""

    consumer = Entity()
    amount = Money("EUR")


class LoanOpened(Event):
    """An offer was taken up."""

    consumer = Entity()
    merchant = Entity()
    loan = Entity()
    application_id = Entity("application")
    amount = Money("EUR")


class InstalmentDue(Event):
    """An instalment falls due."""

    consumer = Entity()
    merchant = Entity()
    loan = Entity()
    amount = Money("EUR")


class Repayment(Event):
    """Money came back."""

    consumer = Entity()
    loan = Entity()
    amount = Money("EUR")
    due_at = Timestamp(optional=True)


class PaymentFailed(Event):
    """A collection did not go through."""

    consumer = Entity()
    merchant = Entity()


class LoanClosed(Event):
    """A loan ended without payment: the order was returned, or what was owed is written off."""

    consumer = Entity()
    merchant = Entity()
    loan = Entity()
    why = Category("returned", "written_off", "disputed")


REGISTRY = Registry(
    [
        LoanApplication, Transaction, Balance, LimitSet, LoanOpened, InstalmentDue, Repayment, PaymentFailed,
        LoanClosed,
    ]
)  # fmt: skip
ASKED = {"consumer": "c-1", "merchant": "m-1", "amount": 6_000, "category": "food"}


def happened(event: type[Event], days_ago: float, **fields: Any) -> dict[str, Any]:
    """Return a record of something that happened some days before NOW, to consumer c-1 unless said otherwise."""
    whose = {name: value for name, value in (("consumer", "c-1"), ("merchant", "m-1")) if name in event.fields}
    return {"type": event.event_name, "event_time": moment(days_ago), **whose, **fields}


def moment(days_ago: float) -> int:
    """Return a moment some days before NOW."""
    return NOW - round(days_ago * DAY)


def _written(record: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return a record as a producer sends it: an id, and moments as texts."""
    moments = {
        name: str(np.datetime64(record[name], "us")) + "Z" for name in ("event_time", "due_at") if name in record
    }
    return {"event_id": f"e-{number}", **record, **moments}


def plan_of(features: Mapping[str, Feature], registry: Registry = REGISTRY) -> Plan:
    """Return the plan of features of this lender."""
    return compile_plan(features, registry, registry["loan_application"], zone="Europe/Berlin")


def evaluated(
    features: Mapping[str, Feature],
    records: Sequence[Mapping[str, Any]],
    asked: Sequence[Mapping[str, Any]] = (ASKED,),
    as_of: int = NOW,
) -> list[dict[str, float | None]]:
    """Return the features of each application by name, null as None: records -> log -> timelines -> evaluate."""
    plan = plan_of(features)
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog.create(Path(folder) / "log", REGISTRY, store=SQLiteStore)
        written = [_written(record, i) for i, record in enumerate(records)]
        batch, problems = parse_records(log.registry, written, commitment_key=log.commitment_key)
        assert not problems, problems
        with log.begin(clock_us=as_of - len(records)) as transaction:
            assert set(transaction.append(batch).status) <= {"accepted"}
            transaction.commit()
        timelines, cut = build_timelines(plan, log, log.cut()), cut_array(log.cut())
        log.close()
    kinds = {name: pa.int64() if name == "amount" else pa.string() for name in field_names(plan)}
    requests = Requests(
        as_of=np.full(len(asked), as_of, np.int64),
        cuts=cut[None, :],
        self_root=np.full(len(asked), -1, np.int64),
        entities={name: pa.array([one.get(name) for one in asked], pa.string()) for name in key_names(plan)},
        fields=pa.table({name: pa.array([one.get(name) for one in asked], kind) for name, kind in kinds.items()}),
    )
    rows = evaluate(plan, timelines, requests, threads=1).tolist()
    return [
        {name: None if math.isnan(value) else value for name, value in zip(plan.names, row, strict=True)}
        for row in rows
    ]
