"""A shop's lender on the real log, state and writer, for replay: the online path against the offline one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from obligor.decisions.answers import moment
from obligor.decisions.items import ApplicationItem, Decided, EventsItem, Item
from obligor.decisions.metrics import Metrics
from obligor.decisions.policy import load_policy
from obligor.decisions.record import decode
from obligor.decisions.writer import Writer
from obligor.errors import ObligorError
from obligor.events.log import EventLog
from obligor.events.records import parse_records
from obligor.events.schema import Registry
from obligor.features import (
    Category,
    Entity,
    Event,
    Integer,
    Money,
    Plan,
    Text,
    Timestamp,
    as_of,
    compile_plan,
    definitions,
    feature,
    outstanding,
    request,
    reserved,
)
from obligor.features.state import OnlineState
from obligor.sequences.score import SequenceScore
from obligor.stores.lmdb import LmdbStateStore
from obligor.stores.sqlite import SQLiteStore

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 1_750_000_000_000_000


class Purchase(Event, application=True):
    """A consumer wants to pay later."""

    consumer = Entity()
    merchant = Entity(optional=True)
    amount = Money("NGN")
    channel = Category("app", "web", optional=True)
    note = Text(personal=True, optional=True)


class LoanOpened(Event):
    """An offer was taken up."""

    consumer = Entity()
    loan = Entity()
    application_id = Entity("application")
    principal = Money("NGN")
    due_at = Timestamp()


class Repayment(Event, lag="1h"):
    """Money came back."""

    consumer = Entity()
    loan = Entity()
    amount = Money("NGN")
    days_late = Integer(0, 400, optional=True)


class Sale(Event):
    """A merchant sold something."""

    merchant = Entity()
    consumer = Entity(optional=True)
    amount = Money("NGN")
    returned = Category("yes", "no", optional=True)


REGISTRY = Registry([Purchase, LoanOpened, Repayment, Sale])


def features() -> dict[str, Any]:
    repaid = Repayment.by("consumer").sum("amount", "7d", "30d", reason="REPAYMENT", monotone="decreasing")
    late = Repayment.by("consumer").where(Repayment.days_late > 0).count("30d", "lifetime", reason="LATE")
    payments = Repayment.by("consumer").count("30d", reason="REPAYMENT")
    mean_paid = Repayment.by("consumer").mean("amount", "30d", reason="REPAYMENT")
    spread = Repayment.by("consumer").std("amount", "30d", reason="REPAYMENT")
    last_paid = Repayment.by("consumer").last("amount", "lifetime", reason="REPAYMENT")
    since_paid = Repayment.by("consumer").time_since_last("lifetime", reason="REPAYMENT")
    sold = Sale.by("merchant").sum("amount", "1d", "30d", reason="MERCHANT")
    best_sale = Sale.by("merchant").max("amount", "7d", reason="MERCHANT")
    buyers = Sale.by("merchant").distinct("consumer", "30d", reason="MERCHANT")
    returns = Sale.by("merchant").where(Sale.returned == "yes").count("30d", reason="MERCHANT")
    amount = feature(request("amount"), reason="AMOUNT")
    hour = feature(as_of.hour(), reason="TIME")
    decided = Purchase.Decided
    exposure = feature(
        outstanding(
            opened=LoanOpened.by("consumer").per("loan").amount("principal"),
            reduced=[Repayment.by("consumer").per("loan").amount("amount")],
        )
        + reserved(
            offered=decided.by("consumer")
            .where(decided.outcome.isin(["approve", "counter_offer"]))
            .per("application_id")
            .amount("offer_amount", expires="offer_expires_at"),
            ended=[LoanOpened.by("consumer").per("application_id")],
        ),
        scored=False,
    )
    asked = feature(request("amount") / (repaid["30d"] + 1), reason="AMOUNT")
    return definitions(dict(locals()))


PLAN: Plan = compile_plan(features(), REGISTRY, Purchase, "Africa/Lagos")
POLICY = b"""
[[eligibility]]
name = "very_late"
when = "late_30d > 6"
reason = "LATE"

[cutoffs]
approve_below = 0.55
decline_from = 0.7

[exposure]
feature = "exposure"
limit = 600_000
reason = "EXPOSURE"

[offer]
amount = "amount"
minimum = 5_000
step = 1_000
expires = "30m"
reason = "AMOUNT"
[[offer.bands]]
pd_below = 0.3
amount_max = 150_000
term_days = 30
fee_basis_points = 450
[[offer.bands]]
amount_max = 60_000
term_days = 14
fee_basis_points = 900

[reasons.texts]
REPAYMENT = "Little was repaid recently"
LATE = "Payments were late"
MERCHANT = "The merchant's recent sales"
AMOUNT = "The amount asked for"
TIME = "The time of day"
EXPOSURE = "The amount outstanding is at its limit"

[ladder]
rungs = ["full", "scorecard", "refer"]
"""


class Points(NamedTuple):
    """A score."""

    margin: float
    log_odds: float
    pd: float


@dataclass
class ShopBundle:
    """A bundle without a model: weights by hand, arithmetic that replays anywhere."""

    plan: Plan = PLAN
    policy: bytes = POLICY
    hash: str = "5" * 64
    scale: float = 1e-5
    weights: Sequence[float] = field(
        default_factory=lambda: [(-1) ** i * (1 + i % 5) for i in range(len(PLAN.features))]
    )
    sequence: SequenceScore | None = None

    @property
    def described(self) -> Mapping[str, Any]:
        return self.plan.data

    def contributions(self, features: Any) -> list[float]:
        parts = []
        for weight, spec, value in zip(self.weights, self.plan.features, features, strict=True):
            known = 0.0 if value != value or not spec.scored else float(value)
            parts.append(weight * known * self.scale / (1.0 + abs(known) * self.scale))
        return parts

    def score(self, features: Any) -> Points:
        margin = 0.0
        for part in self.contributions(features):
            margin += part
        return Points(margin, margin / 4.0, 0.5 + 0.5 * margin / (4.0 + abs(margin)))

    def scorecard_score(self, features: Any) -> Points:
        return self.score([0.0 if value != value else value for value in features])

    def scorecard_contributions(self, features: Any) -> list[float]:
        return self.contributions(features)


class Desk:
    """The writer over a log and its state, with a clock that the test moves."""

    def __init__(self, folder: Path, bundle: ShopBundle | None = None) -> None:
        self.folder, self.bundle, self.now = folder, bundle or ShopBundle(), START
        self.log = EventLog.create(folder / "log", REGISTRY, random=random.Random(8).randbytes, store=SQLiteStore)
        self.state = OnlineState(self.bundle.plan, LmdbStateStore(folder / "state", size_bytes_max=1 << 26))
        self.writer = Writer(
            self.log,
            self.state,
            plan=self.bundle.plan,
            scorer=self.bundle,
            policy=load_policy(self.bundle.policy, self.bundle.plan.data, Purchase.describe()),
            bundle=self.bundle.hash,
            clock=lambda: self.now,
            metrics=Metrics(),
        )
        self.writer.catch_up()
        self.decided: list[dict[str, Any]] = []

    def item(self, record: Mapping[str, Any]) -> Item:
        """Return the item that the front end would make of a record."""
        batch, problems = parse_records(REGISTRY, record, commitment_key=self.log.commitment_key)
        assert not problems, problems
        return (
            ApplicationItem(batch) if record["type"] == "purchase" and "corrects" not in record else EventsItem(batch)
        )

    def take(self, records: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Process records as one batch, to the end; decisions are kept in `decided`."""
        results = self.writer.process([self.item(record) for record in records])
        self.writer.settle()
        for result in results:
            assert not isinstance(result, ObligorError), result
            if isinstance(result, Decided) and not result.repeated:
                self.decided.append(decode(result.record))
        return list(results)

    def close(self) -> None:
        """Close state and log."""
        self.state.close()
        self.log.close()


def stream(seed: int, count: int, *, consumers: int = 12, merchants: int = 3) -> Iterator[dict[str, Any]]:
    """Yield records without event_time fixed to a clock: `at` is the offset in microseconds from `START`.

    A third are applications; some events are late by up to 20 days, some correct or retract an earlier one.
    """
    chance = random.Random(seed)
    facts: list[dict[str, Any]] = []
    for i in range(count):
        at = i * (2 * HOUR) + chance.randrange(HOUR)
        kind = chance.random()
        if facts and kind < 0.06:
            yield _amended(chance, facts, i, at)
            continue
        late = chance.randrange(20 * DAY) if chance.random() < 0.15 else chance.randrange(HOUR)
        record = _fact(chance, i, consumers, merchants) if kind < 0.7 else _purchase(chance, i, consumers, merchants)
        record |= {"event_id": f"e-{seed}-{i}", "event_time": moment(START + at - late), "at": at}
        if record["type"] != "purchase":
            facts.append(record)
        yield record


def _purchase(chance: random.Random, i: int, consumers: int, merchants: int) -> dict[str, Any]:
    merchant = {"merchant": f"m-{chance.randrange(merchants)}"} if chance.random() < 0.9 else {}
    note = {"note": "for my mother"} if chance.random() < 0.3 else {}
    amount = chance.randrange(1_000, 200_000)
    return {"type": "purchase", "consumer": f"c-{chance.randrange(consumers)}", "amount": amount, **merchant, **note}


def _fact(chance: random.Random, i: int, consumers: int, merchants: int) -> dict[str, Any]:
    consumer, which = f"c-{chance.randrange(consumers)}", chance.random()
    if which < 0.2:
        opened = {
            "application_id": f"x-{i}",
            "principal": chance.randrange(1, 90_000),
            "due_at": moment(START + 90 * DAY),
        }
        return {"type": "loan_opened", "consumer": consumer, "loan": f"l-{consumer}-{chance.randrange(4)}", **opened}
    if which < 0.6:
        late = {"days_late": chance.randrange(5)} if chance.random() < 0.7 else {}
        loan = f"l-{consumer}-{chance.randrange(4)}"
        return {"type": "repayment", "consumer": consumer, "loan": loan, "amount": chance.randrange(1, 80_000), **late}
    sale = {"merchant": f"m-{chance.randrange(merchants)}", "amount": chance.randrange(1, 10_000_000)}
    return {"type": "sale", **sale, "consumer": consumer, "returned": chance.choice(["yes", "no"])}


def _amended(chance: random.Random, facts: list[dict[str, Any]], i: int, at: int) -> dict[str, Any]:
    target = chance.choice(facts)
    if chance.random() < 0.25:
        return {"type": target["type"], "event_id": f"r-{i}", "retracts": target["event_id"], "at": at}
    changed = {**target, "event_id": f"k-{i}", "corrects": target["event_id"], "at": at}
    name = "principal" if "principal" in target else "amount"
    changed[name] = chance.randrange(1, 300_000)
    if chance.random() < 0.3:  # the fact was another consumer's
        changed["consumer"] = f"c-{chance.randrange(12)}"
    facts.append(changed)
    return changed


def run(desk: Desk, records: Sequence[dict[str, Any]], *, batch: int = 7) -> None:
    """Take records in batches, the clock at the last one's offset."""
    for start in range(0, len(records), batch):
        part = records[start : start + batch]
        desk.now = START + max(record["at"] for record in part)
        desk.take([{k: v for k, v in record.items() if k != "at"} for record in part])


def filled(folder: Path, seed: int, count: int) -> Desk:
    """Return a desk that has taken so many records of `stream`."""
    desk = Desk(folder)
    run(desk, list(stream(seed, count)))
    return desk
