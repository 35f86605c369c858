"""Building an online state from nothing, in LMDB and in Redis: how long, and what of it is reading the events.

    python -m bench.rebuild        (make bench NAME=rebuild [QUICK=1])

A log of a million sales by 12,000 consumers at 800 merchants, of which the busiest has a tenth, 2% of them up to
twenty days late; a plan that looks at both. The state is brought to the log's end by `OnlineState.catch_up`, as a
service does when its store is empty, and `obligor state build` before a bundle is served: from the log alone, and from
the lake, where that holds the log (`ratios.lmdb_from_lake` and `redis_from_lake`: how many times as fast). Beside it:
reading the changes from the log and nothing else (`figures.log_read_s`), and reading the timelines from the lake
(`figures.lake_read_s`); `ratios.log_read_redis` is how many times the first the building in Redis takes from the log.
While that fills Redis, from the log and then from the lake, another process asks it for nothing, every 2 ms:
`figures.neighbour_ms_p99` and `_max` say how long it waits. A sample of the answers of all is compared with the offline
computation, bit by bit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tests.stores.redis_server import RedisServer

from obligor.events.ingest import ingest
from obligor.events.log import EventLog
from obligor.events.mapping import Mapping
from obligor.events.mapping import field as column
from obligor.events.schema import Registry
from obligor.features import Entity, Event, Money, Plan, compile_plan
from obligor.features.evaluate import evaluate
from obligor.features.lake import Lake
from obligor.features.online import evaluate_one
from obligor.features.requests import Requests
from obligor.features.state import OnlineState
from obligor.features.state_store import StateStore
from obligor.features.timelines import build_timelines
from obligor.stores.delta import DeltaLake
from obligor.stores.lmdb import LmdbStateStore
from obligor.stores.redis import RedisStateStore
from obligor.stores.sqlite import SQLiteStore

EVENTS, CONSUMERS, MERCHANTS = 1_000_000, 12_000, 800
QUICK_SHARE, SAMPLE, TIMES = 10, 100, 3
SEED = 20_261_126
DAY = 86_400_000_000
START = 1_750_000_000_000_000
END = START + 365 * DAY


class Sale(Event):
    """A merchant sold something to a consumer."""

    merchant = Entity()
    consumer = Entity()
    amount = Money("NGN")


class Loan(Event, application=True):
    """What asks."""

    consumer = Entity()
    merchant = Entity()


REGISTRY = Registry([Sale, Loan])


def plan() -> Plan:
    """Return the plan, of sixteen features."""
    features = {}
    for name, sales in (("bought", Sale.by("consumer")), ("sold", Sale.by("merchant"))):
        features[f"{name}_count"] = sales.count("1d", "7d", "30d")
        features[f"{name}_sum"] = sales.sum("amount", "7d", "30d", "90d")
        features[f"{name}_most"] = sales.max("amount", "30d", "90d")
    return compile_plan(features, REGISTRY, Loan)


def make_log(folder: Path, events: int) -> None:
    """Write the log and its lake."""
    chance = np.random.default_rng(SEED)
    known = np.sort(START + chance.integers(0, 365 * DAY, events))
    late = np.where(chance.random(events) < 0.02, chance.integers(0, 20 * DAY, events), 0)
    merchant = (chance.pareto(1.1, events) * 5).astype(np.int64) % MERCHANTS
    rows = {
        "event_id": [f"s-{number}" for number in range(events)],
        "event_time": pa.array(known - late, pa.timestamp("us", "UTC")),
        "merchant": [f"m-{number}" for number in merchant],
        "consumer": [f"c-{number:05}" for number in chance.integers(0, CONSUMERS, events)],
        "amount": chance.integers(100, 100_000, events),
    }
    pq.write_table(pa.table(rows), folder / "sales.parquet")
    with EventLog.create(folder / "log", REGISTRY, store=SQLiteStore) as log:
        ingest(
            log, folder / "sales.parquet", Mapping(event=Sale, id=column("event_id")), clock_us=END,
            dead_letters=folder / "dead.jsonl",
        )  # fmt: skip
        Lake(DeltaLake(folder / "lake"), log).update([("consumer",), ("merchant",)])


NEIGHBOUR = """
import json, select, sys, time, redis
client, waited_ms = redis.Redis.from_url(sys.argv[1]), []
while not select.select([sys.stdin], [], [], 0.002)[0]:
    started_s = time.perf_counter()
    client.ping()
    waited_ms.append((time.perf_counter() - started_s) * 1e3)
print(json.dumps(waited_ms))
"""


@contextmanager
def neighbour(address: str, waited_ms: list[float]) -> Iterator[None]:
    """Have another client of the same Redis ask for nothing, and note how many milliseconds that takes."""
    command = [sys.executable, "-c", NEIGHBOUR, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        time.sleep(0.3)  # it has begun
        yield
        waited_ms += json.loads(process.communicate()[0])


def timed(run: Callable[[], object]) -> float:
    """Return how many seconds it takes."""
    started_s = time.perf_counter()
    run()
    return time.perf_counter() - started_s


def build(log: EventLog, store: StateStore, what: Plan, lake: Lake | None) -> tuple[float, bool]:
    """Build a state; return how many seconds it took, and whether it answers as the log does."""
    state = OnlineState(what, store, lake=None if lake is None else lambda log: lake)
    seconds = timed(lambda: state.catch_up(log))
    same = equal(log, state, what)
    state.close()
    return seconds, same


def equal(log: EventLog, state: OnlineState, what: Plan) -> bool:
    """Whether a sample of the state's answers has the bits of the offline computation's."""
    chance = np.random.default_rng(SEED + 1)
    entities = {
        "consumer": pa.array([f"c-{number:05}" for number in chance.integers(0, CONSUMERS, SAMPLE)]),
        "merchant": pa.array([f"m-{number % MERCHANTS}" for number in range(SAMPLE)]),
    }
    as_of = log.head.known_time + 1
    with state.begin() as staged:
        online = [
            evaluate_one(what, staged, as_of, -1, {name: keys[row].as_py() for name, keys in entities.items()}, {})
            for row in range(SAMPLE)
        ]
    fill = np.full(SAMPLE, as_of), np.array([[log.head.sequence]]), np.full(SAMPLE, -1)
    offline = evaluate(what, build_timelines(what, log), Requests(*fill, entities, pa.table({})))
    return bool(np.array_equal(np.asarray(online), offline, equal_nan=True))


def main(quick: bool) -> int:
    """Make, build in turn, compare, print."""
    events, what = EVENTS // (QUICK_SHARE if quick else 1), plan()
    taken: dict[str, list[float]] = defaultdict(list)
    waited_ms: list[float] = []
    same = True
    with tempfile.TemporaryDirectory() as folder:
        make_log(Path(folder), events)
        log = EventLog.open(Path(folder) / "log", REGISTRY, read_only=True, store=SQLiteStore)
        lake = Lake(DeltaLake(Path(folder) / "lake"), log)
        for number in range(TIMES):
            taken["log"].append(timed(lambda: list(log.changes())))
            taken["lake"].append(timed(lambda: lake.timelines(what)))
            for name, origin in (("", None), ("_from_lake", lake)):
                seconds, agrees = build(log, LmdbStateStore(Path(folder) / f"state-{number}{name}"), what, origin)
                taken[f"lmdb{name}"].append(seconds)
                same &= agrees
                with RedisServer() as server, neighbour(server.address, waited_ms):
                    store = RedisStateStore(f"{server.address}?socket_timeout=30", "bench")
                    seconds, agrees = build(log, store, what, origin)
                    taken[f"redis{name}"].append(seconds)
                    same &= agrees
        log.close()
    return report(events, {name: float(np.median(seconds)) for name, seconds in taken.items()}, waited_ms, same)


def report(events: int, seconds: dict[str, float], waited_ms: list[float], same: bool) -> int:
    """Print what was measured; 0 where the answers are the log's."""
    built = ("lmdb", "redis", "lmdb_from_lake", "redis_from_lake")
    figures = {f"{name}_s": round(seconds[name], 2) for name in built}
    figures |= {f"{name}_read_s": round(seconds[name], 2) for name in ("log", "lake")}
    figures |= {f"{name}_events_per_s": round(events / seconds[name]) for name in built}
    figures["neighbour_ms_p99"] = round(float(np.percentile(waited_ms, 99)), 2)
    figures["neighbour_ms_max"] = round(max(waited_ms), 2)
    ratios = {"log_read_redis": round(seconds["redis"] / seconds["log"], 2)}
    ratios |= {f"{one}_from_lake": round(seconds[one] / seconds[f"{one}_from_lake"], 2) for one in ("lmdb", "redis")}
    for origin, name in (("log", ""), ("lake", "_from_lake")):
        lmdb_s, redis_s, read_s = seconds[f"lmdb{name}"], seconds[f"redis{name}"], seconds[origin]
        print(f"{events:,} events from the {origin}: {lmdb_s:.2f} s in LMDB, {redis_s:.2f} s in Redis", end="")
        print(f"; reading them alone {read_s:.2f} s")
    figures |= {"events": events, "seed": SEED}
    print(json.dumps({"name": "rebuild", "equal": same, "ratios": ratios, "figures": figures}))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(bool(os.environ.get("QUICK"))))
