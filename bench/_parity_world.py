"""A lender's year for the proof of parity: every kind of feature, and a stream that is late, corrected and moved.

The simulator's records come by arrival, with late ones, corrections that may overtake their originals, copies that are
withdrawn, and purchases first booked at the wrong merchant. Here some facts more are first booked on another consumer
or at another time, corrected in chains, withdrawn and brought back, and sent twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from obligor.decisions.answers import moment
from obligor.events.schema import Registry
from obligor.features import (
    Category,
    Entity,
    Event,
    Feature,
    Integer,
    Money,
    Plan,
    application,
    as_of,
    compile_plan,
    feature,
    outstanding,
    request,
    reserved,
)
from obligor.simulator.history import history
from obligor.simulator.simulation import simulate
from obligor.simulator.world import DAY_US, World

__all__ = ["REGISTRY", "Arrival", "LoanApplication", "plan", "year"]

Record = dict[str, Any]


class LoanApplication(Event, application=True):
    consumer = Entity()
    merchant = Entity(hot=True)
    amount = Money("EUR")
    instalments = Integer(1, 24)
    channel = Category("web", "app", "till")
    bureau_score = Integer(0, 1_000, optional=True)


class LoanOpened(Event):
    consumer = Entity()
    merchant = Entity(hot=True)
    loan = Entity()
    application_id = Entity("application")
    amount = Money("EUR")


class Repayment(Event):
    consumer = Entity()
    merchant = Entity(hot=True)
    loan = Entity()
    amount = Money("EUR")
    number = Integer(0, 24)
    method = Category("card", "bank_transfer")


class Purchase(Event):
    consumer = Entity()
    merchant = Entity(hot=True)
    amount = Money("EUR")
    method = Category("card", "wallet")


class BankTransaction(Event):
    consumer = Entity()
    kind_of = Category("wage", "lender_in", "lender_out", "gambling", "cash", "transfer_in")
    amount = Money("EUR")


TYPES: tuple[type[Event], ...] = (LoanApplication, LoanOpened, Repayment, Purchase, BankTransaction)
REGISTRY = Registry(TYPES)


def _consumer() -> dict[str, Feature]:
    bank, bought = BankTransaction.by("consumer"), Purchase.by("consumer")
    cash, wage = BankTransaction.kind_of == "cash", BankTransaction.kind_of == "wage"
    found = {
        "spent": bought.sum(
            "amount", "1d", "7d", "30d", "90d", "30d before 30d", "last month", "12 events", "lifetime"
        ),
        "purchases": bought.count("1d", "30d", "lifetime"),
        "spent_mean": bought.mean("amount", "30d"),
        "spent_std": bought.std("amount", "30d", "lifetime"),
        "spent_sample_std": bought.sample_std("amount", "90d"),
        "dearest": bought.max("amount", "7d", "90d"),
        "cheapest": bought.min("amount", "90d"),
        "first_spent": bought.first("amount", "90d"),
        "last_spent": bought.last_k("amount", 2),
        "trend": bought.slope("amount", "90d"),
        "median_spent": bought.median("amount", "30d"),
        "dear": bought.quantile("amount", 0.9, "365d"),
        "shops": bought.distinct("merchant", "90d"),
        "usual_shop": bought.top_share("merchant", "90d", k=2),
        "usual_method": bought.most_frequent("method", "30d"),
        "methods": bought.entropy("method", "90d"),
        "fading": bought.decayed_sum("amount", "7d"),
        "faded": bought.decayed_count("12h", "30d", step="1h"),
        "since_first": bought.time_since_first(),
        "since_last": bought.time_since_last("90d", "lifetime"),
        "gap": bought.mean_gap("90d"),
        "gap_std": bought.std_gap("90d"),
        "longest_gap": bought.longest_gap("lifetime"),
        "card_streak": bought.streak(Purchase.method == "card"),
        "longest_card_streak": bought.longest_streak(Purchase.method == "card", "365d"),
        "by_kind": bank.pivot("kind_of").sum("amount", "30d"),
        "since_payday": bought.since(bank.where(wage)).sum("amount"),
        "cash": bank.where(cash).count("7d", "90d"),
        "larger": bought.where(Purchase.amount > application.amount).count("365d"),
        "elsewhere": bought.where(Purchase.merchant != application.merchant).sum("amount", "90d"),
    }
    return {name: one for name, one in found.items() if isinstance(one, Feature)}


def _loans() -> dict[str, Feature]:
    opened, repaid, asked = LoanOpened.by("consumer"), Repayment.by("consumer"), LoanApplication.by("consumer")
    decided = LoanApplication.Decided
    owed = outstanding(
        opened=opened.per("loan").amount("amount"), reduced=[repaid.per("loan").amount("amount")]
    ) + reserved(
        offered=decided.by("consumer")
        .where(decided.outcome.isin(["approve", "counter_offer"]))
        .per("application_id")
        .amount("offer_amount", expires="offer_expires_at"),
        ended=[opened.per("application_id")],
    )
    return {
        "owed": feature(owed),
        "paid_most": repaid.per("loan").sum("amount").max(),
        "asked": asked.count("1d", "30d"),
        "borrowed": opened.sum("amount", "90d", "lifetime"),
        "reach": feature(request("amount") / opened.mean("amount", "365d")),
        "hour": feature(as_of.hour()),
        "score": feature(request("bureau_score")),
    }


def _merchant() -> dict[str, Feature]:
    sold, both = Purchase.by("merchant"), Purchase.by(["consumer", "merchant"])
    return {
        "sold": sold.sum("amount", "1d", "30d", "90d", "lifetime", "this month", "500 events"),
        "sales": sold.count("7d", "lifetime"),
        "sale_std": sold.std("amount", "30d"),
        "sale_max": sold.max("amount", "1d", "90d"),
        "sale_min": sold.min("amount", "30d before 30d"),
        "sale_trend": sold.slope("amount", "90d"),
        "sale_gap": sold.std_gap("90d"),
        "buyers": sold.distinct("consumer", "30d", "lifetime"),
        "dear_sale": sold.quantile("amount", 0.9, "90d"),
        "sale_methods": sold.entropy("method", "90d"),
        "sale_fading": sold.decayed_sum("amount", "14d"),
        "wallet_streak": sold.longest_streak(Purchase.method == "wallet", "90d"),
        "since_sale": sold.time_since_last(),
        "merchant_loans": LoanOpened.by("merchant").count("90d"),
        "known_there": both.count("90d", "lifetime"),
        "spent_there": both.sum("amount", "7d", "lifetime"),
        "repaid_there": Repayment.by("merchant").mean("amount", "90d"),
    }


def plan() -> Plan:
    """Return a plan of every aggregate, over consumers, hot merchants, and both together."""
    features = {**_consumer(), **_loans(), **_merchant()}
    return compile_plan(features, REGISTRY, LoanApplication, zone="Africa/Lagos")


class Arrival(NamedTuple):
    """A record and when the lender receives it."""

    at_us: int
    record: Record


def year(seed: int, consumers: int, merchants: int) -> list[Arrival]:
    """Return a year's records by arrival."""
    world = World(
        seed=seed, consumers=consumers, merchants=merchants, days=365, corrected_share=0.03, retracted_share=0.01
    )
    chance = random.Random(seed)
    found: list[Arrival] = []
    for event, table in history(simulate(world)).items():
        if event in REGISTRY:
            for row in table.to_pylist():
                found += _disturbed(_arrival(event, row), chance, consumers)
    return sorted(found, key=lambda one: one.at_us)


def _arrival(event: str, row: Record) -> Arrival:
    at_us = _us(row["received_at"])
    if row["retracts"]:
        return Arrival(at_us, {"type": event, "event_id": row["id"], "retracts": row["retracts"]})
    record = {"type": event, "event_id": row["id"], "event_time": moment(_us(row["occurred_at"]))}
    if row["corrects"]:
        record["corrects"] = row["corrects"]
    fields = REGISTRY[event].fields
    return Arrival(at_us, record | {name: row[name] for name in fields if row[name] is not None})


def _us(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def _disturbed(arrival: Arrival, chance: random.Random, consumers: int) -> Iterator[Arrival]:
    """Yield what arrives of a record, and later about it."""
    at, record = arrival
    kind = chance.random()
    if kind < 0.02:
        yield Arrival(at + chance.randrange(5 * DAY_US), record)  # the same again, or it comes late
        yield Arrival(at, record) if kind < 0.01 else Arrival(at + 5 * DAY_US, record)
        return
    link = "corrects" if "corrects" in record else "retracts" if "retracts" in record else ""
    if link or record["type"] == "loan_application" or kind > 0.06:
        yield arrival
        return
    first, moved = _moved(record, chance, consumers)
    yield Arrival(at, first)
    later = at + chance.randrange(1_000_000, 60 * DAY_US)
    yield Arrival(later, moved)
    if kind < 0.03:  # withdrawn, and brought back by a correction of the correction
        name = record["event_id"]
        yield Arrival(later + DAY_US, {"type": record["type"], "event_id": f"{name}-gone", "retracts": name})
        if kind < 0.025:
            again = {**record, "event_id": f"{name}-back", "corrects": moved["event_id"]}
            yield Arrival(later + 2 * DAY_US + chance.randrange(DAY_US), again)


def _moved(record: Record, chance: random.Random, consumers: int) -> tuple[Record, Record]:
    """Return a record as it is first booked, and its correction."""
    correction = {**record, "event_id": f"{record['event_id']}-moved", "corrects": record["event_id"]}
    wrong = chance.choice(["consumer", "time", "amount"])
    if wrong == "consumer":
        return {**record, "consumer": f"c-{chance.randrange(consumers):06d}"}, correction
    if wrong == "amount":
        return {**record, "amount": record["amount"] + chance.randrange(1, 10_000)}, correction
    at = _us(datetime.fromisoformat(record["event_time"].replace("Z", "+00:00")))
    return {**record, "event_time": moment(at - chance.randrange(1, 40 * DAY_US))}, correction
