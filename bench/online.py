"""Fifty features of one application from the online state, in process: how long, and what the store alone would take.

    python -m bench.online              (make bench NAME=online [QUICK=1])

The plan: 20 sums and counts, 8 minima, maxima and deviations, 6 distinct counts, 5 quantiles, 4 top shares and
entropies, 3 decays, 4 of order (last values, streaks, ratios). Half of them are of a merchant with a million sales in a
year (declared hot: distinct counts and quantiles are sketches), half of a consumer with 1,000 purchases, each time
another one. The state lies in LMDB, as in the service; before every ten questions ten sales of the merchant and ten
purchases of the consumers arrive, 2% of them three weeks late. What is timed is `evaluate_one`, as the service calls
it; the first question after arrivals, which meets cold caches and what has to be brought up to date, counts like the
others and is stated apart too (`figures.after_arrivals_us_p50`).

The machine's own tail stands beside it, from the same moments: `figures.computing_us_*` is a loop of nothing but
computation, after every question, about as long as one; `figures.strewn_us_*` reads 4,096 lines of the cache strewn
over memory that nothing has touched since the last arrivals, about as many as a question meets of code and data. The
limits are for the questions, all of them, whatever the machine does.

Beside it: reading the bytes of the two entities' newest rows from LMDB and nothing else (`ratios.state_read`, how many
times that the features take), and the same fifty features by a scan of all rows of the merchant
(`ratios.merchant_scanned`). A sample of the answers is compared with the offline computation, bit by bit.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.events.schema import Registry
from obligor.features import Category, Entity, Event, Feature, Money, Plan, compile_plan
from obligor.features.evaluate import evaluate
from obligor.features.history import History
from obligor.features.measures import class_of
from obligor.features.online import evaluate_one
from obligor.features.pieces import Pieces
from obligor.features.requests import Requests
from obligor.features.state import Head, OnlineState, StagedState
from obligor.features.timelines import build_timelines
from obligor.stores.lmdb import LmdbStateStore

MERCHANT_EVENTS, CONSUMER_EVENTS, CONSUMERS = 1_000_000, 1_000, 64
QUESTIONS, WARM_UP, TOGETHER = 4_000, 200, 10
QUICK_SHARE = 10
SAMPLE = 40
COMPUTED = 1_800  # rounds of a loop of computation: about as long as a question
LINES, WORDS, STREWN = 4_096, 8, 512  # lines of the cache that are read, words of one, words of memory for each
SEED = 20_261_125
DAY = 86_400_000_000
START = 1_750_000_000_000_000
SORTS = ("grocery", "fuel", "travel", "fashion", "games", "health", "home", "other")
LIMITS = {"in_process_us_p50": 80.0, "in_process_us_p99": 200.0}


class Sale(Event):
    """A merchant sold something."""

    merchant = Entity(hot=True)
    buyer = Entity()
    amount = Money("EUR")
    sort = Category(*SORTS)


class Purchase(Event):
    """A consumer bought something."""

    consumer = Entity()
    shop = Entity()
    amount = Money("EUR")
    sort = Category(*SORTS)


class Application(Event, application=True):
    """Who asks, and where."""

    consumer = Entity()
    merchant = Entity()


REGISTRY = Registry([Sale, Purchase, Application])


def definitions() -> dict[str, Feature]:
    """Return the fifty features, 25 of either entity, by the same recipe."""
    found: dict[str, Feature] = {}
    sales, purchases = Sale.by("merchant"), Purchase.by("consumer")
    for who, rows, other, large in (
        ("merchant", sales, "buyer", sales.where(Sale.amount >= 20_000)),
        ("consumer", purchases, "shop", purchases.where(Purchase.amount >= 20_000)),
    ):
        found |= {
            f"{who}_count": rows.count("1d", "7d", "30d", "90d"),
            f"{who}_sum": rows.sum("amount", "1d", "7d", "30d", "90d"),
            f"{who}_large": large.count("30d", "90d"),
            f"{who}_least": rows.min("amount", "30d"),
            f"{who}_most": rows.max("amount", "30d"),
            f"{who}_spread": rows.std("amount", "30d", "90d"),
            f"{who}_others": rows.distinct(other, "7d", "30d", "90d"),
            f"{who}_median": rows.median("amount", "30d"),
            f"{who}_ninth": rows.quantile("amount", 0.9, "30d"),
            f"{who}_entropy": rows.entropy("sort", "30d"),
            f"{who}_share": rows.top_share("sort", "90d"),
            f"{who}_fading": rows.decayed_sum("amount", "7d", "90d"),
            f"{who}_last": rows.last("amount", "30d"),
            f"{who}_growth": rows.sum("amount", "7d") / rows.sum("amount", "7d before 7d"),
        }
    found["merchant_largest"] = sales.quantile("amount", 0.99, "30d")
    found["consumer_fading_count"] = purchases.decayed_count("14d", "90d")
    return found


def plan() -> Plan:
    """Return the plan; its features are counted by class."""
    return compile_plan(definitions(), REGISTRY, Application)


class Change(NamedTuple):
    """Rows that came."""

    removed: dict[str, pa.Table]
    inserted: dict[str, pa.Table]


def rows(name: str, entity: str, times: NDArray[np.int64], first_root: int, seed: int) -> pa.Table:
    """Return facts of one entity: log-normal amounts, uneven sorts, others from a long list."""
    chance, n = np.random.default_rng(seed), len(times)
    sorts = chance.choice(len(SORTS), n, p=np.array([30, 20, 15, 12, 9, 7, 5, 2]) / 100)
    own, other = {"sale": ("merchant", "buyer"), "purchase": ("consumer", "shop")}[name]
    return pa.table(
        {
            "root": pa.array(np.arange(first_root, first_root + n)),
            "event_time": pa.array(times),
            own: pa.array([entity] * n),
            other: pa.array(chance.zipf(1.3, n) % 400_000).cast(pa.string()),
            "amount": pa.array(np.exp(chance.normal(8, 1.2, n)).astype(np.int64) + 1),
            "sort": pa.array(list(SORTS)).take(pa.array(sorts)),
        }
    )


def fill(state: OnlineState, share: int) -> tuple[dict[str, list[pa.Table]], int]:
    """Apply a year of all entities to the state; return the rows, and the next root."""
    chance = np.random.default_rng(SEED)
    tables: dict[str, list[pa.Table]] = {"sale": [], "purchase": []}
    root = 1
    entities = [("sale", "m-1", MERCHANT_EVENTS // share)]
    entities += [("purchase", f"c-{i}", CONSUMER_EVENTS) for i in range(CONSUMERS)]
    for name, entity, n in entities:
        table = rows(name, entity, np.sort(START + chance.integers(0, 365 * DAY, n)), root, SEED + root)
        root += n
        for start in range(0, n, 4_096):
            part = table.slice(start, 4_096)
            with state.begin() as staged:
                staged.apply(Change({}, {name: part}))
                staged.commit(Head("bench", {0: root}, {}))
            tables[name].append(part)
    return tables, root


class Answers(NamedTuple):
    """What was asked, what came, and how long it took."""

    as_of: list[int]
    seen: list[int]  # the last root that was there
    consumer: list[str]
    features: list[NDArray[np.float64]]
    microseconds: NDArray[np.float64]


class Machine:
    """What shows how the machine is: work that is always the same."""

    def __init__(self) -> None:
        chance = np.random.default_rng(SEED)
        self._memory = np.zeros(LINES * STREWN, np.int64)
        self._strewn = chance.permutation(LINES * STREWN // WORDS)[:LINES] * WORDS
        self._microseconds: dict[str, list[float]] = {"computing": [], "strewn": []}

    def compute(self) -> None:
        """Time a loop that touches no memory to speak of."""
        start, total = time.perf_counter_ns(), 0
        for number in range(COMPUTED):
            total += number * number
        self._microseconds["computing"].append((time.perf_counter_ns() - start) / 1e3)

    def read(self) -> None:
        """Time a reading of lines that are in no near cache."""
        start = time.perf_counter_ns()
        self._memory.take(self._strewn)
        self._microseconds["strewn"].append((time.perf_counter_ns() - start) / 1e3)

    def figures(self) -> dict[str, float]:
        """Return how long either took, half of the times and at the tail."""
        return {
            f"{name}_us_p{q}": round(float(np.percentile(taken, q)), 2)
            for name, taken in self._microseconds.items()
            for q in (50, 99)
        }


def ask(
    compiled: Plan, state: OnlineState, tables: dict[str, list[pa.Table]], root: int, questions: int, machine: Machine
) -> Answers:
    """Let events arrive and ask, in turn, and see how the machine is."""
    clock = START + 365 * DAY
    taken, asked, seen, who, found = [], [], [], [], []
    groups = [
        arrivals(clock + number * TOGETHER * 30_000_000, root + number * TOGETHER * 2, number)
        for number in range(1, (questions + WARM_UP) // TOGETHER + 1)
    ]
    gc.collect()
    gc.freeze()
    for group in groups:
        with state.begin() as staged:
            for name, came in group.tables:
                staged.apply(Change({}, {name: came}))
                tables[name].append(came)
            staged.commit(Head("bench", {0: group.last_root}, {}))
        for number, consumer in enumerate(group.consumers):
            entities = {"consumer": consumer, "merchant": "m-1"}
            with state.begin() as staged:
                start = time.perf_counter_ns()
                features = evaluate_one(compiled, staged, group.clock + number, -1, entities, {})
                taken.append((time.perf_counter_ns() - start) / 1e3)
            machine.compute()
            asked.append(group.clock + number)
            seen.append(group.last_root)
            who.append(consumer)
            found.append(features)
        machine.read()
    return Answers(asked[WARM_UP:], seen[WARM_UP:], who[WARM_UP:], found[WARM_UP:], np.array(taken[WARM_UP:]))


class Group(NamedTuple):
    """Events that arrive together, and the consumers who then ask."""

    clock: int
    tables: list[tuple[str, pa.Table]]
    last_root: int
    consumers: list[str]


def arrivals(clock: int, last_root: int, seed: int) -> Group:
    """Return a sale and a purchase of each of ten consumers, the last of them with `last_root - 1`."""
    chance, found, root = random.Random(SEED + seed), [], last_root - 2 * TOGETHER
    consumers = [f"c-{chance.randrange(CONSUMERS)}" for _ in range(TOGETHER)]
    for consumer in consumers:
        for name, entity in (("sale", "m-1"), ("purchase", consumer)):
            late = 20 * DAY if chance.random() < 0.02 else chance.randrange(200_000_000)
            found.append((name, rows(name, entity, np.array([clock - 1 - late]), root, root)))
            root += 1
    return Group(clock, found, root - 1, consumers)


class Scanned:
    """A reader that gives all rows without tiles."""

    def __init__(self, staged: StagedState) -> None:
        self._staged = staged

    def read(self, timeline: str, key: str, since_us: int | None) -> History:
        """Return the entity's rows as pieces."""
        history = self._staged.read(timeline, key, since_us)
        newest: Pieces = history.pieces
        return History(newest if history.indexed is None else history.indexed.before(newest), None)


def beside(compiled: Plan, state: OnlineState, clock: int) -> tuple[float, float]:
    """Return the medians, in us, of reading both entities' newest rows, and of a scan of all rows."""
    reads, scans = [], []
    entities = {"consumer": "c-1", "merchant": "m-1"}
    with state.begin() as staged:
        for number in range(320):
            start = time.perf_counter_ns()
            for timeline, key in entities.items():
                staged.read(timeline, key, clock - 90 * DAY)
            reads.append(time.perf_counter_ns() - start)
            if number < 8:
                reader = Scanned(staged)
                start = time.perf_counter_ns()
                evaluate_one(compiled, reader, clock, -1, entities, {})
                scans.append(time.perf_counter_ns() - start)
    return float(np.median(reads[20:])) / 1e3, float(np.median(scans[2:])) / 1e3


class _None(NamedTuple):
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    sup_position: NDArray[np.int64]
    sup_known: NDArray[np.int64]


class _Facts(NamedTuple):
    rows: pa.Table
    version: NDArray[np.int32]
    versions: _None


def _facts(parts: Sequence[pa.Table]) -> _Facts:
    table = pa.concat_tables(parts).combine_chunks()
    known = table.append_column("position", table["root"]).append_column("known", table["event_time"])
    none = np.empty(0, np.int64)
    return _Facts(known, np.full(table.num_rows, -1, np.int32), _None(none, none, none, none))


def equal(compiled: Plan, tables: dict[str, list[pa.Table]], answers: Answers) -> bool:
    """Whether a sample of the answers is what the offline computation gives, to the bit."""
    timelines = build_timelines(compiled, {name: _facts(parts) for name, parts in tables.items()})
    places = np.linspace(0, len(answers.as_of) - 1, SAMPLE).astype(int)
    who = [answers.consumer[place] for place in places]
    requests = Requests(
        as_of=np.array([answers.as_of[place] for place in places]),
        cuts=np.array([[answers.seen[place]] for place in places]),
        self_root=np.full(SAMPLE, -1),
        entities={
            "consumer": pa.array(who),
            "merchant": pa.array(["m-1"] * SAMPLE),
        },
        fields=pa.table({}),
    )
    offline = evaluate(compiled, timelines, requests)
    online = np.array([answers.features[place] for place in places])
    return bool(np.array_equal(offline, online, equal_nan=True))


def main(quick: bool) -> int:
    """Fill, ask, compare, print."""
    compiled = plan()
    share = QUICK_SHARE if quick else 1
    classes = [class_of(measure, compiled.timelines[measure.timeline]) for measure in compiled.measures]
    with tempfile.TemporaryDirectory() as folder:
        state = OnlineState(compiled, LmdbStateStore(Path(folder) / "state"))
        tables, root = fill(state, share)
        machine = Machine()
        answers = ask(compiled, state, tables, root, QUESTIONS // (4 if quick else 1), machine)
        read_us, scan_us = beside(compiled, state, answers.as_of[-1])
        state.close()
    same = equal(compiled, tables, answers)
    p50, p99 = (float(one) for one in np.percentile(answers.microseconds, [50, 99]))
    after = float(np.median(answers.microseconds[::TOGETHER]))
    print(f"{len(compiled.names)} features; measures by class: { {c: classes.count(c) for c in sorted(set(classes))} }")
    print(f"merchant {MERCHANT_EVENTS // share:,} sales, {CONSUMERS} consumers with {CONSUMER_EVENTS:,} purchases each")
    print(f"{len(answers.as_of)} questions: p50 {p50:.1f} us, p99 {p99:.1f} us; after arrivals p50 {after:.1f} us")
    print("the machine beside: " + ", ".join(f"{name} {value}" for name, value in machine.figures().items()))
    print(f"reading the state alone {read_us:.1f} us, scanning the merchant {scan_us:.0f} us")
    figures = {
        "in_process_us_p50": round(p50, 2),
        "in_process_us_p99": round(p99, 2),
        "in_process_us_max": round(float(answers.microseconds.max()), 2),
        "after_arrivals_us_p50": round(after, 2),
        "state_read_us_p50": round(read_us, 2),
        "merchant_scanned_us_p50": round(scan_us, 2),
        "features": len(compiled.names),
        "merchant_events": MERCHANT_EVENTS // share,
        "seed": SEED,
        **machine.figures(),
    }
    ratios = {"state_read": round(read_us / p50, 4), "merchant_scanned": round(scan_us / p50, 2)}
    print(json.dumps({"name": "online", "equal": same, "ratios": ratios, "figures": figures}))
    return 0 if same and all(figures[name] <= limit for name, limit in LIMITS.items()) else 1


if __name__ == "__main__":
    sys.exit(main(bool(os.environ.get("QUICK"))))
