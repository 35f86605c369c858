"""The fifty features of the online benchmark with the state in Redis, beside a raw GET and beside Feast on it, too.

    python -m bench.online_redis        (make bench NAME=online-redis [QUICK=1])

The plan, the rows and the arrivals are those of `bench.online`: a merchant with a million sales in a year, consumers
with 1,000 purchases, ten sales and ten purchases before every ten questions. What is timed is what a decision does: a
transaction, one round trip for all that its windows need, the fifty features computed from it; the merchant is kept in
memory and is measured while the consumer's rows are on their way, which saves most where client and server have a core
each. In between, a question for a question, redis-py gets a value of as many bytes (`figures.raw_get_us_p50`; the limit
is 300 us more).

Feast 0.67 answers from the same Redis, over the same kind of connection, fifty values that somebody has computed
beforehand: in its own process (`ratios.feast_in_process`) and by its HTTP server (`ratios.feast_http`). It lives in an
environment of its own, made by pip where it is missing; where that cannot be it says so and leaves out the two ratios.
A sample of the answers is compared with the offline computation, bit by bit.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pyarrow as pa
import redis
from bench._feast_peer import ASKED, ENTITIES, FEATURES, WARM_UP
from bench._peers import FEAST, peer_python
from bench.online import DAY, QUICK_SHARE, SEED, START, TOGETHER, Answers, Change, arrivals, equal, fill, plan
from tests.stores.redis_server import RedisServer

from obligor.features.online import evaluate_one, fetch
from obligor.features.plan import Plan
from obligor.features.state import Head, OnlineState
from obligor.stores.redis import RedisStateStore

QUESTIONS, FEAST_QUESTIONS = 2_000, 1_500
BEYOND_GET_US, IN_PROCESS_MIN, HTTP_MIN = 300.0, 2.0, 8.0
PEER = Path(__file__).with_name("_feast_peer.py")


class Asked(NamedTuple):
    """Our answers, how long they took, and how long a raw GET of as many bytes took each time."""

    answers: Answers
    raw_us: np.ndarray[Any, np.dtype[np.float64]]
    size_bytes: list[int]


class World:
    """The state in Redis, filled, and the clock of its arrivals."""

    def __init__(self, server: RedisServer, share: int) -> None:
        self.plan: Plan = plan()
        self.address = f"redis://127.0.0.1:{server.port}/0?socket_timeout=5"
        self.state = OnlineState(self.plan, RedisStateStore(self.address, "bench"))
        self.tables, self.root = fill(self.state, share)
        self.client = redis.Redis.from_url(self.address)
        self.groups = 0

    def ask(self, questions: int) -> Asked:
        """Let events arrive and ask, in turn."""
        clock, root = START + 365 * DAY, self.root
        numbers = range(self.groups + 1, self.groups + 1 + questions // TOGETHER)
        self.groups = numbers[-1]
        groups = [arrivals(clock + n * TOGETHER * 30_000_000, root + n * TOGETHER * 2, n) for n in numbers]
        asked: tuple[list[Any], ...] = ([], [], [], [], [], [], [])
        gc.collect()
        gc.freeze()
        for group in groups:
            self._arrive(group.tables, group.last_root)
            for number, consumer in enumerate(group.consumers):
                as_of = group.clock + number
                taken_us, features, size_bytes = self._one(as_of, consumer)
                raw_us = self._raw(size_bytes)
                row = (as_of, group.last_root, consumer, features, taken_us, raw_us, size_bytes)
                for column, value in zip(asked, row, strict=True):
                    column.append(value)
        as_ofs, seen, who, found, taken, raw, sizes = asked
        return Asked(Answers(as_ofs, seen, who, found, np.array(taken)), np.array(raw), sizes)

    def _arrive(self, came: list[tuple[str, pa.Table]], last_root: int) -> None:
        with self.state.begin() as staged:
            for name, table in came:
                staged.apply(Change({}, {name: table}))
                self.tables[name].append(table)
            staged.commit(Head("bench", {0: last_root}, {}))

    def _one(self, as_of: int, consumer: str) -> tuple[float, Any, int]:
        entities = {"consumer": consumer, "merchant": "m-1"}
        started = time.perf_counter_ns()
        with self.state.begin() as staged:
            fetch(self.plan, staged, as_of, entities)
            features = evaluate_one(self.plan, staged, as_of, -1, entities, {})
            taken_us = (time.perf_counter_ns() - started) / 1e3
            size_bytes: int = staged._store.size_bytes  # type: ignore[attr-defined]
        return taken_us, features, size_bytes

    def _raw(self, size_bytes: int) -> float:
        key = f"raw-{size_bytes}"
        if not self.client.exists(key):
            self.client.set(key, os.urandom(size_bytes))
            self.client.get(key)
        started = time.perf_counter_ns()
        value = self.client.get(key)
        taken_us = (time.perf_counter_ns() - started) / 1e3
        assert isinstance(value, bytes)
        assert len(value) == size_bytes
        return taken_us


# ---- Feast -----------------------------------------------------------------------------------------------------------


class Feast:
    """Feast's process, and its HTTP server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError("Feast ended")

    def say(self, line: str) -> dict[str, Any]:
        """Return the answer to a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._read()

    def over_http(self, times: int) -> list[float]:
        """Return how long each request took over one connection, in microseconds."""
        address = f"http://127.0.0.1:{self.say('serve')['port']}"
        chance, taken = np.random.default_rng(6), []
        with httpx.Client(base_url=address, timeout=30) as client:
            for _ in range(600):
                try:
                    client.get("/health")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            for number in range(WARM_UP + times):
                question = {"features": ASKED, "entities": {"consumer": [f"c-{chance.integers(ENTITIES)}"]}}
                started = time.perf_counter_ns()
                answer = client.post("/get-online-features", json=question)
                found = answer.json()
                if number >= WARM_UP:
                    taken.append((time.perf_counter_ns() - started) / 1e3)
                assert answer.status_code == 200, answer.text
                assert len(found["results"]) == FEATURES + 1
        return taken


@contextmanager
def feast(python: Path, folder: Path, port: int) -> Iterator[Feast]:
    """Run Feast on a Redis."""
    environment = {**os.environ, "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}
    environment.pop("PYTHONPATH", None)
    process = subprocess.Popen(
        [str(python), str(PEER), str(folder), "127.0.0.1", str(port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        yield Feast(process)
    finally:
        process.communicate(timeout=60)


def main(quick: bool) -> int:
    """Fill, ask both in turn, compare, print."""
    share, times = (QUICK_SHARE, 5) if quick else (1, 1)
    python = peer_python(FEAST)
    in_process: list[float] = []
    http: list[float] = []
    with RedisServer() as server, tempfile.TemporaryDirectory() as folder:
        world = World(server, share)
        world.ask(200)
        first = world.ask(QUESTIONS // 2 // times)
        if python is not None:
            with feast(python, Path(folder), server.port) as peer:
                in_process = peer.say(f"ask {FEAST_QUESTIONS // times}")["taken_us"]
                http = peer.over_http(FEAST_QUESTIONS // times)
        second = world.ask(QUESTIONS // 2 // times)
        world.state.close()
        world.client.close()
    answers = _joined(first.answers, second.answers)
    same = equal(world.plan, world.tables, answers)
    return report(answers.microseconds, np.concatenate([first.raw_us, second.raw_us]),
                  first.size_bytes + second.size_bytes, in_process, http, same)  # fmt: skip


def _joined(one: Answers, other: Answers) -> Answers:
    return Answers(
        one.as_of + other.as_of,
        one.seen + other.seen,
        one.consumer + other.consumer,
        one.features + other.features,
        np.concatenate([one.microseconds, other.microseconds]),
    )


def report(ours: Any, raw: Any, sizes: list[int], in_process: list[float], http: list[float], same: bool) -> int:
    """Print what was measured; 0 where it is within the limits."""
    p50, p99 = (float(one) for one in np.percentile(ours, [50, 99]))
    raw_p50, raw_p99 = (float(one) for one in np.percentile(raw, [50, 99]))
    figures = {
        "features_us_p50": round(p50, 1),
        "features_us_p99": round(p99, 1),
        "raw_get_us_p50": round(raw_p50, 1),
        "raw_get_us_p99": round(raw_p99, 1),
        "beyond_raw_get_us_p50": round(p50 - raw_p50, 1),
        "read_bytes_p50": int(np.median(sizes)),
        "questions": len(ours),
        "seed": SEED,
    }
    ratios = {}
    for name, taken in (("feast_in_process", in_process), ("feast_http", http)):
        if taken:
            figures |= {f"{name}_us_p50": round(float(np.median(taken)), 1)}
            figures |= {f"{name}_us_p99": round(float(np.percentile(taken, 99)), 1)}
            ratios[name] = round(float(np.median(taken)) / p50, 2)
    print(f"{len(ours)} questions: p50 {p50:.0f} us, p99 {p99:.0f} us; {figures['read_bytes_p50']:,} bytes read each")
    print(f"raw GET of as many bytes: p50 {raw_p50:.0f} us, p99 {raw_p99:.0f} us")
    print(json.dumps({"name": "online-redis", "equal": same, "ratios": ratios, "figures": figures}))
    within = p50 - raw_p50 <= BEYOND_GET_US
    within &= ratios.get("feast_in_process", IN_PROCESS_MIN) >= IN_PROCESS_MIN
    within &= ratios.get("feast_http", HTTP_MIN) >= HTTP_MIN
    return 0 if same and within else 1


if __name__ == "__main__":
    sys.exit(main(bool(os.environ.get("QUICK"))))
