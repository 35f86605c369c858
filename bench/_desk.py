"""A lender for the benchmarks of the service: 60 features, 300 trees of depth 4, a large merchant, long histories."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import numpy as np
import pyarrow as pa
import uvicorn
import xgboost

from obligor.decisions.http import create_app
from obligor.decisions.service import Service
from obligor.decisions.watch import BUDGET, Budget
from obligor.events.batch import Batch
from obligor.events.log import EventLog
from obligor.events.records import parse_records
from obligor.events.schema import Registry
from obligor.features import (
    Category,
    Entity,
    Event,
    Integer,
    Money,
    as_of,
    compile_plan,
    feature,
    outstanding,
    request,
    reserved,
)
from obligor.features import Sequence as Definition
from obligor.features.plan import Plan
from obligor.features.state import OnlineState
from obligor.models import training
from obligor.models.bundle import PARTS, SEQUENCE_PARTS, Bundle, write_bundle
from obligor.models.fusing import Fused, Unaided
from obligor.models.inputs import Inputs
from obligor.models.model import Model
from obligor.models.training_set import TrainingSet
from obligor.parts import encode_json
from obligor.sequences.score import SequenceScore
from obligor.stores.lmdb import LmdbStateStore
from obligor.stores.place import LogPlace

DAY_US = 86_400_000_000
TREES, DEPTH, FEATURES = 300, 4, 60
BATCH_EVENTS = 5_000


class LoanApplication(Event, application=True):
    consumer = Entity()
    merchant = Entity(hot=True)
    amount = Money("NGN")
    channel = Category("app", "web")


class LoanOpened(Event):
    consumer = Entity()
    merchant = Entity(hot=True)
    loan = Entity()
    application_id = Entity("application")
    amount = Money("NGN")


class Repayment(Event):
    consumer = Entity()
    loan = Entity()
    amount = Money("NGN")
    days_late = Integer(0, 1000)


class Sale(Event):
    merchant = Entity(hot=True)
    consumer = Entity()
    amount = Money("NGN")
    channel = Category("app", "web")


REGISTRY = Registry([LoanApplication, LoanOpened, Repayment, Sale])


def plan(sequences: Mapping[str, Definition] | None = None) -> Plan:
    """Return 60 features: a consumer's repayments, loans and applications, the merchant's sales, the request."""
    repaid, opened = Repayment.by("consumer"), LoanOpened.by("consumer")
    asked, sold = LoanApplication.by("consumer"), Sale.by("merchant")
    decided = LoanApplication.Decided.by("consumer").where(
        LoanApplication.Decided.field("outcome").isin(["approve", "counter_offer"])
    )
    exposure = outstanding(
        opened=opened.per("loan").amount("amount"), reduced=[repaid.per("loan").amount("amount")]
    ) + reserved(
        offered=decided.per("application_id").amount("offer_amount", expires="offer_expires_at"),
        ended=[opened.per("application_id")],
    )
    windows, merchant_windows = ("7d", "30d", "90d"), ("1d", "7d", "30d", "90d")
    features = {
        "repaid": repaid.sum("amount", *windows, reason="REPAYMENT"),
        "repayments": repaid.count(*windows, reason="REPAYMENT"),
        "repaid_mean": repaid.mean("amount", *windows, reason="REPAYMENT"),
        "repaid_max": repaid.max("amount", *windows, reason="REPAYMENT"),
        "repaid_std": repaid.std("amount", *windows, reason="REPAYMENT"),
        "late_mean": repaid.mean("days_late", "30d", "90d", reason="LATE"),
        "late_max": repaid.max("days_late", "30d", "90d", reason="LATE"),
        "late": repaid.where(Repayment.days_late > 0).count(*windows, reason="LATE"),
        "since_repayment": repaid.time_since_last(reason="REPAYMENT"),
        "since_first": repaid.time_since_first(reason="TENURE"),
        "opened": opened.count(*windows, reason="LOANS"),
        "borrowed": opened.sum("amount", *windows, reason="LOANS"),
        "borrowed_mean": opened.mean("amount", "90d", reason="LOANS"),
        "borrowed_from": opened.distinct("merchant", "90d", reason="LOANS"),
        "asked_before": asked.count("1d", "7d", "30d", reason="APPLICATIONS"),
        "asked_at": asked.distinct("merchant", "30d", reason="APPLICATIONS"),
        "sales": sold.count(*merchant_windows, reason="MERCHANT"),
        "sold": sold.sum("amount", *merchant_windows, reason="MERCHANT"),
        "sale_mean": sold.mean("amount", *merchant_windows, reason="MERCHANT"),
        "sale_max": sold.max("amount", "30d", "90d", reason="MERCHANT"),
        "sale_std": sold.std("amount", "30d", "90d", reason="MERCHANT"),
        "buyers": sold.distinct("consumer", "7d", reason="MERCHANT"),
        "app_sales": sold.where(Sale.channel == "app").count("30d", "90d", reason="MERCHANT"),
        "amount": feature(request("amount"), reason="AMOUNT"),
        "reach": feature(request("amount") / repaid.sum("amount", "30d"), reason="AMOUNT"),
        "hour": feature(as_of.hour(), reason="TIME"),
        "weekday": feature(as_of.day_of_week(), reason="TIME"),
        "exposure": feature(exposure, scored=False),
    }
    compiled = compile_plan(features, REGISTRY, application=LoanApplication, sequences=sequences or {})
    assert len(compiled.features) == FEATURES, len(compiled.features)
    return compiled


POLICY = """
[cutoffs]
approve_below = 0.2
[exposure]
feature = "exposure"
limit = 1_000_000_000_000
reason = "EXPOSURE"
[offer]
amount = "amount"
minimum = 1_000
step = 1_000
expires = "30m"
reason = "AMOUNT"
[[offer.bands]]
amount_max = 1_000_000_000
term_days = 30
[reasons]
maximum = 4
[reasons.texts]
REPAYMENT = "Little repaid recently"
LATE = "Late payments"
TENURE = "Short history"
LOANS = "Other loans"
APPLICATIONS = "Many applications recently"
MERCHANT = "The merchant's history"
AMOUNT = "The amount asked for"
TIME = "The time of the application"
HISTORY = "The course of the account"
EXPOSURE = "The amount outstanding is at its limit"
"""


def bundle(
    root: Path, seed: int, compiled: Plan | None = None, scored: tuple[SequenceScore, bytes] | None = None
) -> Bundle:
    """Write a bundle of the plan whose trees are exactly TREES of depth DEPTH, fitted on made features.

    `scored` is a sequence's score and its weights' file: it becomes the last feature, of made numbers too.
    """
    compiled, rows = compiled or plan(), 6_000
    chance = np.random.default_rng(seed)
    features = chance.exponential(20_000, (rows, FEATURES))
    features[chance.random(features.shape) < 0.1] = np.nan
    bad = (chance.normal(size=rows) + np.nan_to_num(features) @ chance.normal(size=FEATURES) / 1e5 > 0.8).astype(float)
    made_at = np.arange(rows) * DAY_US // 20
    data = TrainingSet(
        plan=compiled,
        features=features,
        root=np.arange(1, rows + 1),
        application_id=tuple(f"t-{i}" for i in range(rows)),
        as_of=made_at,
        matured_at=made_at + DAY_US,
        status=np.full(rows, "matured"),
        bad=bad,
        weights=np.ones(rows),
        fields=pa.table({via: [f"{via}-{i % 500}" for i in range(rows)] for via in ("consumer", "merchant")}),
        limits={},
    )
    fused, model = None, Model(cutoff="1970-09-01", search=1, rounds_max=20, bootstrap=2)
    if scored is not None:
        score, content = scored
        values = bad + chance.normal(size=rows)
        data = data.with_score(score.spec, values)
        fused = Fused(score, data, content, {}, Unaided(score.heads, values), (values,) * model.rolls)
    with patch.object(training, "_fused", return_value=fused):  # what is made here is not learnt
        small = training.train(
            data,
            model,
            policy=POLICY.encode(),
            outcome={"format": 1},
            root=root,
        )
    inputs = Inputs.of(data.specs)
    matrix = xgboost.DMatrix(inputs.expand(data.features), label=bad, feature_names=list(inputs.names))
    parameters = {"objective": "binary:logistic", "max_depth": DEPTH, "eta": 0.05, "base_score": 0.3, "nthread": 2}
    booster = xgboost.train({**parameters, "tree_method": "hist", "seed": seed}, matrix, TREES)
    more = () if scored is None else SEQUENCE_PARTS
    parts = {name: (small.path / name).read_bytes() for name in (*PARTS, *more)}
    parts["trees.json"] = encode_json(json.loads(bytes(booster.save_raw("json"))))
    return Bundle.load(write_bundle(root, parts))


def load(log: EventLog, records: Iterator[dict[str, Any]], clock_us: int) -> int:
    """Append records in commits of BATCH_EVENTS, as measured history; return how many."""
    count = 0
    batch: list[dict[str, Any]] = []
    for record in records:
        batch.append(record)
        if len(batch) == BATCH_EVENTS:
            count += append(log, batch, clock_us)
            batch = []
    return count + (append(log, batch, clock_us) if batch else 0)


def append(log: EventLog, records: Sequence[dict[str, Any]], clock_us: int) -> int:
    """Append records in one commit; all must be new and valid."""
    parsed, problems = parse_records(REGISTRY, records, commitment_key=log.commitment_key)
    assert not problems, problems
    return append_batch(log, parsed, clock_us)


def append_batch(log: EventLog, batch: Batch, clock_us: int) -> int:
    """Append a batch in one commit; all must be new."""
    with log.begin(clock_us) as tx:
        accepted = tx.append(batch).accepted
        assert accepted == batch.size, "a row was not accepted"
        tx.commit()
    return accepted


def clock_us() -> int:
    """Return microseconds since 1970."""
    return time.time_ns() // 1000


# What the proof of parity takes of a service: nothing, or its whole share all the time, as over a large log.
WATCHES = {"unwatched": None, "watched": Budget(round_s=0.0)}


def log_place(folder: Path) -> LogPlace:
    """Return where a benchmark's log goes: into its folder, or to the URL of a new log in `OBLIGOR_BENCH_LOG`."""
    return LogPlace.of(os.environ.get("OBLIGOR_BENCH_LOG", "log"), folder, folder / "log")


def service(folder: Path, bundle_path: Path, parity: Budget | None = BUDGET) -> Service:
    """Open log and state in `folder` under the bundle."""
    loaded = Bundle.load(bundle_path)
    state = OnlineState(loaded.plan, LmdbStateStore(folder / "state"), fold=loaded.fold)
    place = log_place(folder)
    log = EventLog.open(place.path, REGISTRY, store=place.open, keys=place.keys)
    return Service(log, state, loaded, clock=clock_us, parity=parity)


def serve(folder: Path, bundle_path: Path, port: int, watch: str = "") -> None:
    """Serve until the process is ended."""
    served = service(folder, bundle_path, WATCHES[watch] if watch else BUDGET)
    uvicorn.run(create_app(served, None), port=port, log_level="warning", access_log=False)


def fdatasync_ms(folder: Path, times: int = 200) -> tuple[float, float]:
    """Return p50 and p99 of writing 4 KB and syncing it, in milliseconds: what the disk itself takes."""
    path = folder / "sync.probe"
    taken = []
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    for number in range(times):
        started = time.perf_counter()
        os.pwrite(handle, bytes(4096), number * 4096)
        os.fdatasync(handle)
        taken.append((time.perf_counter() - started) * 1e3)
    os.close(handle)
    path.unlink()
    low, high = np.percentile(taken, [50, 99])
    return float(low), float(high)


@contextmanager
def served(folder: Path, bundle_path: Path, watch: str = "") -> Iterator[int]:
    """Serve from a process of its own and yield its port once it is ready; `watch` is one of WATCHES."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "bench._desk", str(folder), str(bundle_path), str(port), watch])
    try:
        while not _ready(port):
            assert process.poll() is None, "the server ended"
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def _ready(port: int) -> bool:
    try:
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200, "the service failed"
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def steps_ms(port: int) -> dict[str, float]:
    """Return the mean time of each of the writer's steps, in milliseconds, from the service's metrics."""
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for line in httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines():
        for kind, found in (("sum", sums), ("count", counts)):
            prefix = f'obligor_step_seconds_{kind}{{step="'
            if line.startswith(prefix):
                step, value = line.removeprefix(prefix).split('"} ')
                found[step] = float(value)
    return {step: round(sums[step] / counts[step] * 1e3, 3) for step in sums if counts[step]}


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
