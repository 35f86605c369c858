"""An encoder's states beside the rows of online state: what an event, a late one, a score and a long history cost."""

from __future__ import annotations

import gc
import hashlib
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench import _desk
from bench.decide import history
from numpy.typing import NDArray
from tests.sequences.examples import tensors

from obligor.decisions.answers import moment
from obligor.decisions.service import Service
from obligor.events.changes import Changes
from obligor.events.log import EventLog
from obligor.events.records import parse_records
from obligor.features import Sequence
from obligor.features.state import Head, OnlineState
from obligor.sequences.asked import Everyone
from obligor.sequences.fitting import fit_tokenizer
from obligor.sequences.online import OnlineScore
from obligor.sequences.score import SequenceScore
from obligor.sequences.weights import Config, dump, parse
from obligor.stores.lmdb import LmdbStateStore
from obligor.stores.sqlite import SQLiteStore

HISTORY, HEADS = "history", 5
EVENTS, SCORES, LATE, DECISIONS = 1_000, 2_000, 10, 1_000
WARM_UP = 50
LONG_EVENTS = 100_000
SALES = 5_000

Microseconds = NDArray[np.float64]


def sequence() -> dict[str, Sequence]:
    """Return the sequence of the bench's lender: all that a consumer does."""
    events = [_desk.LoanApplication, _desk.LoanOpened, _desk.Repayment, _desk.Sale]
    return {HISTORY: Sequence.by("consumer", events)}


def new_log(folder: Path) -> EventLog:
    """Create a log that does not wait for the disk, which is not what is measured."""
    return EventLog.create(
        folder / "log", _desk.REGISTRY, store=lambda path, mode: SQLiteStore(path, mode, synchronous="OFF")
    )


class Lender:
    """A log with long histories, a plan with a sequence, and a GRU with random weights that scores it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.plan, self.now = folder, _desk.plan(sequence()), _desk.clock_us()
        self.log = new_log(folder)
        self.events = _desk.load(self.log, history(self.now, seed, SALES), self.now)
        at = Everyone(self.log.last_known_time + 1, self.log.cut())
        self.tokenizer = fit_tokenizer(self.plan, HISTORY, self.log, at)
        config = Config(kind="gru", width=64, hidden=128, sizes=self.tokenizer.sizes, fading_days=(30, 90))
        names = tuple(f"fold_{i}" for i in range(HEADS))
        self.weights = dump(config, tensors(config, seed, dict.fromkeys(names, 1)))
        weights = parse(self.weights, hashlib.sha256(self.weights).hexdigest())
        self.score = SequenceScore("history_score", HISTORY, self.tokenizer, weights, names, "HISTORY")
        self.scoring = OnlineScore(self.score, self.plan)

    def state(self, name: str, *, folding: bool) -> OnlineState:
        """Open an empty state."""
        store = LmdbStateStore(self.folder / name)
        return OnlineState(self.plan, store, fold=self.scoring.fold if folding else None)

    def repayments(self, count: int, consumers: int, *, late_days: int = 0) -> list[Changes]:
        """Return changes of one event each: repayments now, or so many days ago."""
        chance = random.Random(count)
        after = self.log.cut()
        for _ in range(count):
            self.now += 1_000_000
            consumer = f"consumer-{chance.randrange(consumers)}"
            record = {
                "type": "repayment",
                "event_id": f"one-{self.now}",
                "event_time": moment(self.now - late_days * _desk.DAY_US),
                "consumer": consumer,
                "loan": f"loan-{consumer}-1",
                "amount": chance.randrange(1_000, 90_000),
                "days_late": 0,
            }
            _desk.append(self.log, [record], self.now)
        return list(self.log.changes(after, step_events=1))


def applied_us(state: OnlineState, log: EventLog, changes: list[Changes]) -> Microseconds:
    """Return how long each change took to be in the state, committed."""
    taken = []
    for one in changes:
        began = time.perf_counter_ns()
        with state.begin() as staged:
            staged.apply(one)
            staged.commit(Head.at(log, one.cut, one.chains))
        taken.append((time.perf_counter_ns() - began) / 1e3)
    return np.array(taken[min(WARM_UP, len(taken) // 2) :])


def quantiles(name: str, unit: str, times: Microseconds) -> dict[str, float]:
    """Return p50 and p99 as figures."""
    p50, p99 = np.percentile(times, [50, 99])
    return {f"{name}_{unit}_p50": round(float(p50), 2), f"{name}_{unit}_p99": round(float(p99), 2)}


def state_figures(seed: int, share: int) -> dict[str, Any]:
    """Return the figures of states with and without what is folded, in turns over the same events."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        lender = Lender(Path(folder), seed)
        states = {name: lender.state(name, folding=name == "folding") for name in ("plain", "folding")}
        for name, state in states.items():
            began = time.perf_counter()
            state.catch_up(lender.log)
            figures[f"build_{name}_events_per_s"] = round(lender.events / (time.perf_counter() - began))
        changes = lender.repayments(EVENTS // share, 300)
        gc.collect()
        gc.freeze()
        taken: dict[str, list[Microseconds]] = {name: [] for name in states}
        for first in range(0, len(changes), 100):
            for name, state in states.items():
                taken[name].append(applied_us(state, lender.log, changes[first : first + 100]))
        for name, times in taken.items():
            figures |= quantiles(f"state_event_{name}", "us", np.concatenate(times))
        figures |= _scored(lender, states["folding"], SCORES // share)
        figures |= _long(lender, states["folding"], LONG_EVENTS // share)
        for state in states.values():
            state.close()
        lender.log.close()
    return figures


def decision_figures(seed: int, share: int) -> dict[str, Any]:
    """Return how long whole decisions take, durable commit included, with a GRU's score among the features and without.

    One at a time, of consumers with 200 events of history, on 60 features and 300 trees with reasons.
    """
    figures: dict[str, Any] = {}
    for name in ("plain", "gru"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            lender = Lender(path, seed)
            lender.log.close()
            scored = (lender.score, lender.weights) if name == "gru" else None
            bundle = _desk.bundle(path / "bundles", seed, lender.plan, scored)
            taken = _decided_ms(_desk.service(path, bundle.path, None), DECISIONS // share)
            figures |= quantiles(f"decision_{name}", "ms", taken)
    return figures


def _decided_ms(service: Service, count: int) -> NDArray[np.float64]:
    chance, taken = random.Random(2), []
    service.start()
    while not service.ready:
        time.sleep(0.01)
    for i in range(count):
        record = {
            "type": "loan_application", "event_id": f"asked-{i}", "event_time": moment(_desk.clock_us()),
            "consumer": f"consumer-{chance.randrange(300)}", "merchant": "merchant-0",
            "amount": chance.randrange(10_000, 90_000), "channel": "web",
        }  # fmt: skip
        batch, problems = parse_records(_desk.REGISTRY, [record], commitment_key=service.commitment_key)
        assert not problems, problems
        began = time.perf_counter()
        service.submit_application(batch).result()
        taken.append((time.perf_counter() - began) * 1e3)
    service.stop()
    return np.array(taken[WARM_UP // 2 :])


def _scored(lender: Lender, state: OnlineState, count: int) -> dict[str, Any]:
    chance, fields = random.Random(1), {"merchant": "merchant-0", "amount": 20_000, "channel": "app"}
    scores, views = [], []
    with state.begin() as staged:
        for i in range(count):
            entities = {"consumer": f"consumer-{chance.randrange(300)}"}
            began = time.perf_counter_ns()
            lender.scoring.score_one(staged.folds(), lender.now + i, -1, entities, fields)
            between = time.perf_counter_ns()
            scores.append((between - began) / 1e3)
            if i % 10 == 0:
                lender.scoring.view_one(staged.folds(), lender.now + i, -1, entities, fields)
                views.append((time.perf_counter_ns() - between) / 1e6)
    return quantiles("score", "us", np.array(scores[WARM_UP:])) | quantiles("view", "ms", np.array(views[5:]))


def _long(lender: Lender, state: OnlineState, events: int) -> dict[str, Any]:
    """Return what an entity with so many events costs: to be built, an event, a late one, a view; and the memory."""
    records = _repayments(lender, events)
    _desk.load(lender.log, records, lender.now)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    state.catch_up(lender.log)
    figures: dict[str, Any] = {"long_events": events, "long_build_s": round(time.perf_counter() - began, 2)}
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    figures["long_build_memory_mib"] = round(grown / 1024, 1)
    figures |= quantiles("long_event", "us", applied_us(state, lender.log, lender.repayments(100, 1)))
    for days in (1, 45):
        late = applied_us(state, lender.log, lender.repayments(LATE, 1, late_days=days))
        figures[f"long_late_{days}d_ms_p50"] = round(float(np.median(late)) / 1e3, 1)
    taken = []
    with state.begin() as staged:
        for i in range(20):
            began = time.perf_counter()
            lender.scoring.view_one(staged.folds(), lender.now + i, -1, {"consumer": "consumer-0"}, {})
            taken.append((time.perf_counter() - began) * 1e3)
    return figures | {"long_view_ms_p50": round(float(np.median(taken)), 2)}


def _repayments(lender: Lender, events: int) -> Iterator[dict[str, Any]]:
    start, step = lender.now - 90 * _desk.DAY_US, 90 * _desk.DAY_US // events
    for i in range(events):
        yield {
            "type": "repayment", "event_id": f"long-{i}", "event_time": moment(start + i * step),
            "consumer": "consumer-0", "loan": f"loan-{i % 50}", "amount": 1_000 + i % 977, "days_late": i % 7,
        }  # fmt: skip
