"""A stream of card transactions, taken in as the service does: the online state at its end is what the log says.

1.75 million transactions of 4,990 customers at 10,000 terminals, with 5% sent twice, 2% late and 1% corrected, some of
those moved to another customer or terminal. Bodies of 500 records go through parsing, intake and writer, and the state
is applied behind each batch. The short form takes the first 100,000; `OBLIGOR_SOAK=1` all.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
from bench.planting import FAULTS, planted
from numpy.typing import NDArray
from tests.decisions.shop import ShopBundle

from obligor.decisions.answers import moment
from obligor.decisions.intake import Intake
from obligor.decisions.items import EventsItem, Item, Result
from obligor.decisions.metrics import Metrics
from obligor.decisions.policy import load_policy
from obligor.decisions.writer import Writer
from obligor.events.log import EventLog
from obligor.events.records import decode_json, parse_records
from obligor.events.schema import Registry
from obligor.events.staging import Appended
from obligor.features import Entity, Event, Feature, Money, Plan, compile_plan, feature
from obligor.features.parity import Question, answer, answers, compare
from obligor.features.state import OnlineState
from obligor.stores.lmdb import LmdbStateStore
from obligor.stores.sqlite import SQLiteStore

DATA = Path(os.environ.get("OBLIGOR_DATA", "../shared/data")) / "fraud_handbook_simulated" / "transactions.parquet"
COUNT = None if os.environ.get("OBLIGOR_SOAK") else 100_000
DUPLICATED, LATE, CORRECTED = 0.05, 0.02, 0.01
BODY_RECORDS = 500
OUTSTANDING_MAX = 8  # bodies sent and not yet answered
DAY = 86_400_000_000
SECONDS_MAX = 120.0

pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not here; set OBLIGOR_DATA to the folder of data")


class Transaction(Event):
    customer = Entity()
    terminal = Entity()
    district = Entity(hot=True)  # a thousand terminals
    amount = Money("EUR")


class Payment(Event, application=True):
    customer = Entity()
    terminal = Entity()
    district = Entity(hot=True)
    amount = Money("EUR")


REGISTRY = Registry([Transaction, Payment])


def _plan() -> Plan:
    features: dict[str, Feature] = {}
    for entity, other in (("customer", "terminal"), ("terminal", "customer")):
        mine = Transaction.by(entity)
        found = {
            "count": mine.count("1d", "7d", "30d", "lifetime"),
            "sum": mine.sum("amount", "1d", "7d", "30d", "lifetime", "10 events", "this week"),
            "mean": mine.mean("amount", "7d"),
            "std": mine.std("amount", "7d", "lifetime"),
            "least": mine.min("amount", "30d"),
            "most": mine.max("amount", "1d", "30d"),
            "distinct": mine.distinct(other, "7d", "lifetime"),
            "median": mine.median("amount", "7d"),
            "high": mine.quantile("amount", 0.95, "30d"),
            "fading": mine.decayed_sum("amount", "3d"),
            "faded": mine.decayed_count("6h", "7d", step="1h"),
            "slope": mine.slope("amount", "30d"),
            "since": mine.time_since_last(),
            "gap": mine.mean_gap("30d"),
            "gap_std": mine.std_gap("7d"),
            "usual": mine.top_share(other, "30d"),
            "varied": mine.entropy(other, "7d"),
            "first": mine.first("amount", "30d"),
        }
        features |= {f"{entity}_{name}": one for name, one in found.items()}
    there = Transaction.by("district")
    features |= {
        "district_count": there.count("1d", "lifetime"),
        "district_sum": there.sum("amount", "7d", "lifetime"),
        "district_std": there.std("amount", "30d"),
        "district_most": there.max("amount", "7d"),
        "district_customers": there.distinct("customer", "7d"),
        "district_high": there.quantile("amount", 0.95, "1d"),
        "district_fading": there.decayed_sum("amount", "3d"),
        "together": Transaction.by(["customer", "terminal"]).count("30d"),
    }
    return compile_plan({name: feature(one, scored=False) for name, one in features.items()}, REGISTRY, Payment)


PLAN = _plan()
POLICY = b"[cutoffs]\napprove_below = 0.5\n[reasons.texts]\n"


@dataclass
class Stream:
    """The transactions as they truly were in the end, and as they are sent."""

    customer: NDArray[np.int64]
    terminal: NDArray[np.int64]
    amount: NDArray[np.int64]  # minor units
    time_us: NDArray[np.int64]
    duplicates: int = 0
    corrections: int = 0

    @classmethod
    def read(cls, count: int | None) -> Stream:
        """Read the first `count` transactions."""
        table = pq.read_table(DATA).slice(0, count)
        amount = np.rint(table["TX_AMOUNT"].to_numpy() * 100).astype(np.int64)
        time_us = table["TX_DATETIME"].to_numpy().astype("datetime64[us]").astype(np.int64)
        return cls(table["CUSTOMER_ID"].to_numpy().copy(), table["TERMINAL_ID"].to_numpy().copy(), amount, time_us)

    def _record(self, i: int) -> dict[str, Any]:
        customer, terminal = f"c-{self.customer[i]}", f"t-{self.terminal[i]}"
        record = {"type": "transaction", "customer": customer, "terminal": terminal, "amount": int(self.amount[i])}
        return record | {"district": f"d-{self.terminal[i] // 1000}", "event_time": moment(int(self.time_us[i]))}

    def sent(self, chance: random.Random) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (arrival, record) in the order of arrival; the arrays follow what the corrections say."""
        arrivals: list[tuple[int, int, dict[str, Any]]] = []
        for i in range(len(self.amount)):
            at = int(self.time_us[i]) + 1_000_000
            if chance.random() < LATE:
                at += chance.randrange(DAY // 24, 5 * DAY)
            record = self._record(i) | {"event_id": f"e-{i}"}
            arrivals.append((at, 2 * i, record))
            if chance.random() < DUPLICATED:
                self.duplicates += 1
                arrivals.append((at + chance.randrange(DAY), 2 * i + 1, record))
            if chance.random() < CORRECTED:
                self._correct(i, chance)
                corrected = self._record(i) | {"event_id": f"k-{i}", "corrects": f"e-{i}"}
                arrivals.append((at + chance.randrange(1, 10 * DAY), 2 * i + 1, corrected))
        arrivals.sort(key=lambda arrival: arrival[:2])
        yield from ((at, record) for at, _, record in arrivals)

    def _correct(self, i: int, chance: random.Random) -> None:
        self.corrections += 1
        wrong = chance.randrange(3)
        if wrong == 0:
            self.customer[i] = self.customer[chance.randrange(1000)]
        elif wrong == 1:
            self.terminal[i] = self.terminal[chance.randrange(1000)]
        self.amount[i] += chance.randrange(1, 5_000)


class Service:
    """Log, state, writer and intake, as the HTTP service has them behind it."""

    def __init__(self, folder: Path) -> None:
        bundle = ShopBundle(PLAN, POLICY, weights=[0.0] * len(PLAN.features))
        self.now = 0
        self.log = EventLog.create(folder / "log", REGISTRY, store=SQLiteStore)
        self.state = OnlineState(PLAN, LmdbStateStore(folder / "state"))
        self.metrics = Metrics()
        self.writer = Writer(
            self.log,
            self.state,
            plan=PLAN,
            scorer=bundle,
            policy=load_policy(POLICY, PLAN.data, Payment.describe()),
            bundle=bundle.hash,
            clock=lambda: self.now,
            metrics=self.metrics,
        )
        ready = threading.Event()
        self.intake: Intake[Item, Result] = Intake(self.writer.process, prepare=ready.set, settle=self.writer.settle)
        self.intake.start()
        assert ready.wait(SECONDS_MAX)
        while not self.intake.ready:
            threading.Event().wait(0.001)

    def send(self, stream: Iterator[tuple[int, dict[str, Any]]]) -> Counter[str]:
        """Send everything in bodies; return what became of the records."""
        statuses: Counter[str] = Counter()
        answered: deque[Future[Result]] = deque()
        while body := list(islice(stream, BODY_RECORDS)):
            records = decode_json(json.dumps([record for _, record in body]).encode())
            batch, problems = parse_records(REGISTRY, records, commitment_key=self.log.commitment_key)
            assert not problems, problems
            self.now = body[-1][0]
            answered.append(self.intake.submit(EventsItem(batch)))
            while len(answered) > OUTSTANDING_MAX:
                statuses.update(cast("Appended", answered.popleft().result(SECONDS_MAX)).status)
        for future in answered:
            statuses.update(cast("Appended", future.result(SECONDS_MAX)).status)
        self.intake.stop()
        return statuses


def _questions(stream: Stream) -> list[Question]:
    """Return questions that name every customer, terminal and district, and each one's companion at least once."""
    customers, terminals = np.unique(stream.customer).tolist(), np.unique(stream.terminal).tolist()
    found = []
    for i in range(max(len(customers), len(terminals))):
        customer, terminal = customers[i % len(customers)], terminals[i % len(terminals)]
        named = {"customer": f"c-{customer}", "terminal": f"t-{terminal}", "district": f"d-{terminal // 1000}"}
        found.append(Question(named, {}))
    return found


def test_the_state_at_the_end_of_a_stream_is_what_the_log_says(tmp_path: Path) -> None:
    stream, service = Stream.read(COUNT), Service(tmp_path)
    statuses = service.send(stream.sent(random.Random(20_180_401)))
    accepted = len(stream.amount) + stream.corrections
    assert statuses == {"accepted": accepted, "duplicate": stream.duplicates}
    assert service.writer.applied == service.log.cut() == {0: accepted}
    assert stream.duplicates > 0.04 * len(stream.amount)
    assert service.log.pending() == []

    now, cut = service.log.last_known_time + 1, service.log.cut()
    asked = _questions(stream)
    with service.state.begin() as staged:
        samples = [answer(PLAN, staged, one, cut, now) for one in asked]
        samples += [answer(PLAN, staged, one, cut, now + 2 * DAY + 7) for one in asked[::4]]
    assert all(sample.values is not None for sample in samples)
    found = compare(PLAN, service.log, answers(PLAN, samples, Payment), threads=2)
    assert (found.checked, found.differences) == (len(samples), 0), found.found[:3]

    values = np.array([cast("Any", sample.values) for sample in samples[: len(asked)]])
    _assert_is_what_was_sent(stream, asked, values)

    terminals = sorted({str(one.entities["terminal"]) for one in asked})
    with planted(service.state, PLAN, FAULTS[0], "terminal", "transaction", terminals, 1) as wrong:
        with service.state.begin() as staged:
            samples = [answer(PLAN, staged, one, cut, now) for one in asked]
        found = compare(PLAN, service.log, answers(PLAN, samples, Payment), threads=2)
    assert {one.entities["terminal"] for one in found.found} == set(wrong), "one cent in 10,000 terminals is noticed"
    service.state.close()
    service.log.close()


def _assert_is_what_was_sent(stream: Stream, asked: list[Question], values: NDArray[np.float64]) -> None:
    """Count and add up what was sent, corrections included, without the log."""
    for entity, of, prefix in (("customer", stream.customer, "c-"), ("terminal", stream.terminal, "t-")):
        number = np.array([int(str(one.entities[entity]).removeprefix(prefix)) for one in asked])
        counts, sums = np.bincount(of), np.bincount(of, stream.amount)
        np.testing.assert_array_equal(values[:, PLAN.names.index(f"{entity}_count_lifetime")], counts[number])
        np.testing.assert_array_equal(values[:, PLAN.names.index(f"{entity}_sum_lifetime")], sums[number])
    district = np.array([int(str(one.entities["district"]).removeprefix("d-")) for one in asked])
    sums = np.bincount(stream.terminal // 1000, stream.amount)
    np.testing.assert_array_equal(values[:, PLAN.names.index("district_sum_lifetime")], sums[district])
