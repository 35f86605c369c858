"""Purchases of consumers at merchants in a log and its lake, late and corrected ones among them; and questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from obligor.events.ingest import ingest
from obligor.events.log import EventLog
from obligor.events.mapping import Mapping, field
from obligor.events.schema import Registry
from obligor.features import Entity, Event, Money, Plan, compile_plan
from obligor.features.lake import Lake
from obligor.features.lake_tables import plan_entities
from obligor.features.requests import Requests
from obligor.stores.delta import DeltaLake
from obligor.stores.sqlite import SQLiteStore

__all__ = ["CONSUMER_DAYS", "DAY", "MERCHANT_DAYS", "SEED", "make", "opened", "plan", "read_questions"]

SEED = 11
DAY = 86_400_000_000
START, SPAN_DAYS = 1_650_000_000_000_000, 365
CONSUMER_DAYS, MERCHANT_DAYS = (1, 7, 30, 90), (1, 7)
EVENTS_PER_CONSUMER, EVENTS_PER_MERCHANT = 83, 1_000
LATE, CORRECTED = 0.02, 0.01


class Purchase(Event):
    """What the features look at."""

    consumer = Entity()
    merchant = Entity()
    amount = Money("NGN")


class Loan(Event, application=True):
    """What asks."""

    consumer = Entity()
    merchant = Entity()


REGISTRY = Registry([Purchase, Loan])


def plan() -> Plan:
    """Return the plan: 27 features of consumers, of merchants and of both."""
    bought, sold = Purchase.by("consumer"), Purchase.by("merchant")
    days, few = tuple(f"{d}d" for d in CONSUMER_DAYS), tuple(f"{d}d" for d in MERCHANT_DAYS)
    features = {"count": bought.count(*days)}
    for name in ("sum", "mean", "min", "max"):
        features[name] = getattr(bought, name)("amount", *days)
    features |= {"sold_count": sold.count(*few), "sold_sum": sold.sum("amount", *few)}
    features |= {"sold_max": sold.max("amount", *few)}
    features["relative"] = bought.sum("amount", "30d") / sold.mean("amount", "7d")
    return compile_plan(features, REGISTRY, Loan)


def opened(folder: Path) -> tuple[EventLog, Lake]:
    """Return the log, to be read, and its lake."""
    log = EventLog.open(folder / "log", REGISTRY, read_only=True, store=SQLiteStore)
    return log, Lake(DeltaLake(folder / "lake"), log)


def make(folder: Path, events: int, questions: int) -> None:
    """Ingest so many events, make the lake of them, and write questions about any consumer at any merchant."""
    chance = np.random.default_rng(SEED)
    consumers, merchants = events // EVENTS_PER_CONSUMER, events // EVENTS_PER_MERCHANT
    event_time = np.sort(START + chance.integers(0, SPAN_DAYS * DAY, events))
    late = chance.random(events) < LATE
    known = event_time + np.where(late, chance.integers(3600 * 10**6, 60 * DAY, events), 5 * 10**6)
    corrected = np.flatnonzero(chance.random(events) < CORRECTED)
    rows = np.concatenate([np.arange(events), corrected])
    known = np.concatenate([known, known[corrected] + chance.integers(1, 30 * DAY, len(corrected))])
    ids = pa.array([f"e-{i}" for i in range(len(rows))])
    target = pa.array(np.where(np.arange(len(rows)) < events, -1, rows), mask=np.arange(len(rows)) < events)
    names = {"consumer": chance.integers(0, consumers, events), "merchant": chance.integers(0, merchants, events)}
    table = pa.table(
        {
            "event_id": ids,
            "corrects": ids.take(target),
            "event_time": pa.array(event_time[rows], pa.timestamp("us", tz="UTC")),
            "known": pa.array(known, pa.timestamp("us", tz="UTC")),
            **{name: _keys(name, numbers[rows]) for name, numbers in names.items()},
            "amount": chance.integers(1, 5_000_000, len(rows)),
        }
    )
    pq.write_table(table.take(pa.array(np.argsort(known, kind="stable"))), folder / "events.parquet")
    with EventLog.create(folder / "log", REGISTRY, store=SQLiteStore) as log:
        mapping = Mapping(event=Purchase, id=field("event_id"), lag={"known": "0s"}, corrects="corrects")
        ingest(
            log, folder / "events.parquet", mapping, clock_us=START + 2 * SPAN_DAYS * DAY,
            dead_letters=folder / "dead.jsonl", declared=True,
        )  # fmt: skip
        lake = Lake(DeltaLake(folder / "lake"), log)
        lake.update(plan_entities(plan()))
        lake.compact(whole=True)
    as_of = START + chance.integers(90 * DAY, SPAN_DAYS * DAY, questions)
    asked = {"request": np.arange(questions), "as_of": as_of}
    asked["consumer"] = _keys("consumer", chance.integers(0, consumers, questions))
    asked["merchant"] = _keys("merchant", chance.integers(0, merchants, questions))
    pq.write_table(pa.table(asked), folder / "questions.parquet")


def _keys(name: str, numbers: NDArray[np.int64]) -> pa.StringArray:
    return pa.array([f"{name}-{i:07d}" for i in range(int(numbers.max()) + 1)]).take(pa.array(numbers))


def read_questions(folder: Path) -> Requests:
    """Read the questions."""
    asked = pq.read_table(folder / "questions.parquet")
    return Requests(
        as_of=asked["as_of"].to_numpy(),
        cuts=np.array([[2**48 - 1]]),
        self_root=np.full(asked.num_rows, -1),
        entities={name: asked[name].combine_chunks() for name in ("consumer", "merchant")},
        fields=pa.table({}),
    )
