"""A lender's desk: events, features, a trained bundle, a log, a state and a writer, for the tests of the service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from obligor.decisions.items import ApplicationItem, Decided, EventsItem, Item
from obligor.decisions.metrics import Metrics
from obligor.decisions.policy import load_policy
from obligor.decisions.writer import Writer
from obligor.events.batch import Batch
from obligor.events.log import EventLog
from obligor.events.records import parse_records
from obligor.events.schema import Registry
from obligor.features import (
    Category,
    Entity,
    Event,
    Money,
    Sequence,
    Text,
    compile_plan,
    feature,
    outstanding,
    request,
    reserved,
)
from obligor.features.evaluate import evaluate
from obligor.features.folds import Fold
from obligor.features.plan import Plan
from obligor.features.requests import Requests
from obligor.features.state import OnlineState
from obligor.features.timelines import build_timelines
from obligor.models.bundle import Bundle, write_bundle
from obligor.models.model import Model
from obligor.models.training import train
from obligor.models.training_set import TrainingSet
from obligor.parts import encode_json
from obligor.stores.lmdb import LmdbStateStore
from obligor.stores.sqlite import SQLiteStore

START_US = 1_767_225_600_000_000  # 2026-01-01
DAY_US = 86_400_000_000


class LoanApplication(Event, application=True):
    consumer = Entity()
    merchant = Entity(optional=True)
    amount = Money("NGN")
    channel = Category("app", "web")
    name = Text(optional=True, personal=True)


class LoanOpened(Event):
    consumer = Entity()
    loan = Entity()
    application_id = Entity("application")
    amount = Money("NGN")


class Repayment(Event):
    consumer = Entity()
    loan = Entity()
    amount = Money("NGN")
    channel = Category("app", "web", optional=True)


class Sale(Event):
    merchant = Entity()
    consumer = Entity()
    amount = Money("NGN")


REGISTRY = Registry([LoanApplication, LoanOpened, Repayment, Sale])


def desk_plan(sequences: Mapping[str, Sequence] | None = None, **more: Any) -> Plan:
    """Return the plan: windows, a merchant's history, the request, and what the consumer owes or may owe.

    `more` features follow.
    """
    opened = LoanOpened.by("consumer").per("loan").amount("amount")
    offers = LoanApplication.Decided.by("consumer").where(
        LoanApplication.Decided.field("outcome").isin(["approve", "counter_offer"])
    )
    exposure = outstanding(opened=opened, reduced=[Repayment.by("consumer").per("loan").amount("amount")]) + reserved(
        offered=offers.per("application_id").amount("offer_amount", expires="offer_expires_at"),
        ended=[LoanOpened.by("consumer").per("application_id")],
    )
    features = {
        "repaid": Repayment.by("consumer").sum("amount", "7d", "30d", reason="REPAYMENT", monotone="decreasing"),
        "spread": Repayment.by("consumer").std("amount", "30d", reason="REPAYMENT"),
        "asked_before": LoanApplication.by("consumer").count("30d", reason="APPLICATIONS"),
        "since_repayment": Repayment.by("consumer").time_since_last("lifetime", reason="REPAYMENT"),
        "sold": Sale.by("merchant").sum("amount", "30d", reason="MERCHANT"),
        "buyers": Sale.by("merchant").distinct("consumer", "30d", reason="MERCHANT"),
        "asked": feature(request("amount"), reason="AMOUNT", monotone="increasing"),
        "exposure": feature(exposure, scored=False),
        **more,
    }
    return compile_plan(features, REGISTRY, application=LoanApplication, sequences=sequences or {})


POLICY = """
[[eligibility]]
name = "many_applications"
when = "asked_before > 1000"
reason = "APPLICATIONS"

[cutoffs]
approve_below = 0.99

[exposure]
feature = "exposure"
limit = 100_000
reason = "EXPOSURE"

[offer]
amount = "amount"
minimum = 60_000
step = 1_000
expires = "30m"
reason = "AMOUNT"
[[offer.bands]]
amount_max = 100_000
term_days = 30
fee_basis_points = 500

[reasons]
maximum = 4
[reasons.texts]
REPAYMENT = "Little repaid recently"
APPLICATIONS = "Many applications recently"
MERCHANT = "The merchant's history"
AMOUNT = "The amount asked for"
EXPOSURE = "The amount outstanding is at its limit"
"""


def desk_bundle(root: Path) -> Bundle:
    """Train a small bundle on made features of the desk's plan; the policy approves nearly every score."""
    data = training_rows(desk_plan())
    model = Model(cutoff="2027-01-01", search=1, rounds_max=20, bootstrap=2, threads=1)
    return train(data, model, policy=POLICY.encode(), outcome={"format": 1}, root=root)


def training_rows(plan: Plan) -> TrainingSet:
    """Return made features of a plan with outcomes."""
    rows = 1500
    chance = np.random.default_rng(5)
    features = chance.exponential(50_000, (rows, len(plan.features)))
    features[chance.random(features.shape) < 0.1] = np.nan
    risk = np.nan_to_num(features[:, plan.names.index("asked")]) - np.nan_to_num(features[:, 0])
    as_of = START_US + np.arange(rows) * DAY_US // 3
    return TrainingSet(
        plan=plan,
        features=features,
        root=np.arange(1, rows + 1),
        application_id=tuple(f"t-{i}" for i in range(rows)),
        as_of=as_of,
        matured_at=as_of + 30 * DAY_US,
        status=np.full(rows, "matured"),
        bad=(risk / 50_000 + chance.normal(size=rows) > 1).astype(np.float64),
        weights=np.ones(rows),
        fields=pa.table({via: [f"{via}-{i % 500}" for i in range(rows)] for via in ("consumer", "merchant")}),
        limits={},
    )


def rewritten(bundle: Bundle, root: Path, *, plan: bytes | None = None, policy: bytes | None = None) -> Bundle:
    """Return a bundle with another plan, whose further features its models do not look at, or another policy."""
    parts = dict(bundle._parts)
    if plan is not None:
        reference = bundle.reference.to_data()
        further = len(json.loads(plan)["features"]) - len(reference["features"])
        reference["features"] += [None] * further
        parts |= {"plan.json": plan, "reference.json": encode_json(reference)}
    if policy is not None:
        parts["policy.toml"] = policy
    return Bundle.load(write_bundle(root, parts))


class Clock:
    """A clock that tests wind; each reading is a microsecond later, at least."""

    def __init__(self, at_us: int = START_US) -> None:
        self.at_us = at_us

    def __call__(self) -> int:
        self.at_us += 1
        return self.at_us


def open_log(path: Path) -> EventLog:
    """Open the log in `path`, made where there is none."""
    return (
        EventLog.open(path, REGISTRY, store=SQLiteStore)
        if path.exists()
        else EventLog.create(path, REGISTRY, store=SQLiteStore)
    )


def open_state(path: Path, plan: Plan, fold: Fold | None = None) -> OnlineState:
    """Open the online state in `path`."""
    return OnlineState(plan, LmdbStateStore(path), fold=fold)


def application(number: int | str, consumer: str = "c-1", amount: int = 60_000, **fields: Any) -> dict[str, Any]:
    """Return an application's record."""
    return {
        "type": "loan_application",
        "event_id": f"a-{number}",
        "event_time": "2026-01-01T00:00:00Z",
        "consumer": consumer,
        "amount": amount,
        "channel": "app",
        **fields,
    }


def repayment(number: int | str, consumer: str = "c-1", amount: int = 1_000, **fields: Any) -> dict[str, Any]:
    """Return a repayment's record."""
    return {
        "type": "repayment",
        "event_id": f"r-{number}",
        "event_time": "2025-12-31T00:00:00Z",
        "consumer": consumer,
        "loan": f"l-{consumer}",
        "amount": amount,
        **fields,
    }


def sale(number: int | str, merchant: str = "m-1", amount: int = 500, **fields: Any) -> dict[str, Any]:
    """Return a sale's record."""
    return {
        "type": "sale",
        "event_id": f"s-{number}",
        "event_time": "2025-12-30T00:00:00Z",
        "merchant": merchant,
        "consumer": f"c-{number}",
        "amount": amount,
        **fields,
    }


def batch_of(log: EventLog, *records: dict[str, Any]) -> Batch:
    """Return the batch of valid records."""
    batch, problems = parse_records(log.registry, list(records), commitment_key=log.commitment_key)
    assert not problems, problems
    return batch


class Desk:
    """A log, a state and a writer in one folder, which can be closed and opened again."""

    def __init__(self, path: Path, bundle: Bundle) -> None:
        self.path, self.bundle, self.clock = path, bundle, Clock()
        self.open()

    def open(self) -> None:
        """Open log and state, bring the state up to date."""
        self.log = open_log(self.path / "log")
        self.state = self.open_state()
        self.metrics = Metrics()
        self.writer = Writer(
            self.log,
            self.state,
            plan=self.bundle.plan,
            scorer=self.bundle,
            policy=load_policy(self.bundle.policy, self.bundle.described, LoanApplication.describe()),
            sequence=self.bundle.sequence,
            bundle=self.bundle.hash,
            clock=self.clock,
            metrics=self.metrics,
        )
        self.writer.catch_up()

    def open_state(self) -> OnlineState:
        """Open the state."""
        return open_state(self.path / "state", self.bundle.plan, self.bundle.fold)

    def close(self) -> None:
        """Close both."""
        self.writer.settle()
        self.writer.stop()
        self.state.close()
        self.log.close()

    def events(self, *records: dict[str, Any]) -> EventsItem:
        """Return an item that appends these."""
        return EventsItem(batch_of(self.log, *records))

    def application(self, *args: Any, **fields: Any) -> ApplicationItem:
        """Return an item that decides on this; the arguments are those of `application`."""
        return ApplicationItem(batch_of(self.log, application(*args, **fields)))

    def one(self, item: Item) -> Any:
        """Return the result of one item on its own."""
        (result,) = self.writer.process([item])
        self.writer.settle()
        return result

    def decide(self, *args: Any, **fields: Any) -> dict[str, Any]:
        """Return the record of the decision on an application."""
        result = self.one(self.application(*args, **fields))
        assert isinstance(result, Decided), result
        record: dict[str, Any] = json.loads(result.record)
        return record

    def feature(self, record: dict[str, Any], name: str) -> float | None:
        """Return a recorded feature."""
        value: float | None = record["features"][self.bundle.plan.names.index(name)]
        return value

    def assert_offline_agrees(self, record: dict[str, Any]) -> None:
        """Compute a recorded decision's features through the offline path and compare."""
        cut = {int(shard): sequence for shard, sequence in record["cut"].items()}
        position = record["application"]["position"]
        row = self.log.application(position)
        requests = Requests(
            as_of=np.array([record["as_of"]]),
            cuts=np.array([[cut[0]]]),
            self_root=np.array([position]),
            entities={name: row.column(name).combine_chunks() for name in ("consumer", "merchant")},
            fields=row,
        )
        offline = evaluate(self.bundle.plan, build_timelines(self.bundle.plan, self.log, cut), requests)[0]
        online = [float("nan") if value is None else value for value in record["features"]]
        np.testing.assert_array_equal(online, offline)
