"""How long a decision takes, from the moment its applicant meant to send it to the durable answer.

Open loop: applications are sent at their times whatever the answers do, and latency counts from the intended time, so a
stall is not hidden by the client's waiting. Every application is a consumer's with 200 events of history at a merchant
of a million sales in 90 days, who goes on selling meanwhile: 60 features from LMDB state, 300 trees of depth 4, exact
reasons, a policy, an application and a decision on disk. Then a sample is replayed. The limit: p50 <= 5 ms,
p99 <= 25 ms at 50 a second.

    python -m bench.decide            60 s;  QUICK=1: 10 s, a merchant of 100,000

With `OBLIGOR_BENCH_LOG`, the URL of a new log in PostgreSQL, the log is there.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench import _desk
from bench._client import Connection, post

from obligor.decisions.answers import moment
from obligor.decisions.replay import replay
from obligor.events.log import EventLog
from obligor.models.bundle import Bundle

SEED = 20_261_122
RATE_PER_S = 50
CONNECTIONS = 16
TIMER_S = 0.003
CONSUMERS, HISTORY_EVENTS, MERCHANT_EVENTS = 300, 200, 1_000_000
SALES_PER_S = 10  # one at a time, by a client of its own
HISTORY_DAYS = 90
REPLAYED = 200
LIMIT_MS = {"decision_ms_p50": 5.0, "decision_ms_p99": 25.0}


def history(now_us: int, seed: int, sales: int) -> Iterator[dict[str, Any]]:
    """Yield every consumer's loans, repayments and applications, and one merchant's sales, in the order of time."""
    chance = random.Random(seed)
    start_us = now_us - HISTORY_DAYS * _desk.DAY_US
    span_us = now_us - start_us - 60_000_000
    events: list[dict[str, Any]] = []
    for i in range(CONSUMERS * HISTORY_EVENTS):
        consumer = f"consumer-{i % CONSUMERS}"
        at = {"event_time": moment(start_us + chance.randrange(span_us)), "consumer": consumer}
        amount, loan = chance.randrange(1_000, 90_000), f"loan-{consumer}-{chance.randrange(20)}"
        kind = chance.random()
        if kind < 0.8:
            record = {
                "type": "repayment",
                "loan": loan,
                "amount": amount,
                "days_late": max(0, chance.randrange(-20, 15)),
            }
        elif kind < 0.9:
            merchant = f"merchant-{chance.randrange(20)}"
            record = {
                "type": "loan_opened",
                "merchant": merchant,
                "loan": loan,
                "application_id": f"x-{i}",
                "amount": amount,
            }
        else:
            merchant = f"merchant-{chance.randrange(20)}"
            record = {"type": "loan_application", "merchant": merchant, "amount": amount, "channel": "app"}
        events.append({**record, **at, "event_id": f"h-{i}"})
    for i in range(sales):
        at = {
            "event_time": moment(start_us + chance.randrange(span_us)),
            "consumer": f"buyer-{chance.randrange(9_000)}",
        }
        sold = {"type": "sale", "merchant": "merchant-0", "amount": chance.randrange(1_000, 90_000), "channel": "web"}
        events.append({**sold, **at, "event_id": f"s-{i}"})
    events.sort(key=lambda event: str(event["event_time"]))
    return iter(events)


async def sell(port: int, seed: int) -> None:
    """Report sales of the merchant until cancelled."""
    chance, connection = random.Random(seed), await Connection.open(port)
    try:
        for i in itertools.count():
            sold = {
                "type": "sale",
                "merchant": "merchant-0",
                "amount": chance.randrange(1_000, 90_000),
                "channel": "app",
            }
            about = {
                "event_id": f"sold-{seed}-{i}",
                "event_time": moment(_desk.clock_us()),
                "consumer": f"buyer-{i % 9_000}",
            }
            status, body = await connection.send(post("/v1/events", json.dumps({**sold, **about}).encode()))
            assert status == 200, body
            await asyncio.sleep(1 / SALES_PER_S)
    finally:
        await connection.close()


async def send(port: int, seconds: int, seed: int) -> tuple[list[float], Counter[str]]:
    """Send RATE_PER_S applications a second and return the latencies in ms and what was answered."""
    chance = random.Random(seed)
    at = moment(_desk.clock_us())
    requests = []
    for i in range(seconds * RATE_PER_S):
        consumer, amount = f"consumer-{chance.randrange(CONSUMERS)}", chance.randrange(10_000, 90_000)
        record = {"event_id": f"live-{seed}-{i}", "event_time": at, "consumer": consumer, "merchant": "merchant-0"}
        requests.append(post("/v1/decisions", json.dumps({**record, "amount": amount, "channel": "web"}).encode()))
    idle: asyncio.Queue[Connection] = asyncio.Queue()
    connections = [await Connection.open(port) for _ in range(CONNECTIONS)]
    for connection in connections:
        idle.put_nowait(connection)
    latencies: list[float] = []
    answers: Counter[str] = Counter()

    async def one(request: bytes, intended: float) -> None:
        connection = await idle.get()
        status, body = await connection.send(request)
        latencies.append((time.perf_counter() - intended) * 1e3)
        idle.put_nowait(connection)
        assert status == 200, body
        decision = json.loads(body)
        answers[f"{decision['outcome']}, {len(decision['reasons'])} reasons"] += 1

    selling = asyncio.create_task(sell(port, seed))
    started = time.perf_counter() + 0.2
    tasks = []
    for i, request in enumerate(requests):
        intended = started + i / RATE_PER_S
        await asyncio.sleep(max(0.0, intended - time.perf_counter() - TIMER_S))
        while time.perf_counter() < intended:  # the event loop's timer is a millisecond coarse
            await asyncio.sleep(0)
        tasks.append(asyncio.create_task(one(request, intended)))
    await asyncio.gather(*tasks)
    assert not selling.done(), "sales ceased"
    selling.cancel()
    for connection in connections:
        await connection.close()
    return latencies, answers


def main(quick: bool) -> dict[str, Any]:
    """Run the benchmark, print what it measures, and return the figures."""
    seconds = 10 if quick else 60
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = _desk.bundle(folder / "bundles", SEED)
        place = _desk.log_place(folder)
        log = EventLog.create(place.path, _desk.REGISTRY, store=place.open, keys=place.keys)
        now_us = _desk.clock_us()
        sales = MERCHANT_EVENTS // 10 if quick else MERCHANT_EVENTS
        loaded = _desk.load(log, history(now_us, SEED, sales), now_us)
        log.close()
        print(f"{loaded} events; {len(bundle.plan.features)} features, {_desk.TREES} trees of depth {_desk.DEPTH}")
        with _desk.served(folder, bundle.path) as port:
            before = _desk.steps_ms(port)
            latencies, answers = asyncio.run(send(port, seconds, SEED))
            steps = {step: ms for step, ms in _desk.steps_ms(port).items() if step not in before}
        sync_p50, sync_p99 = _desk.fdatasync_ms(folder)
        with EventLog.open(place.path, _desk.REGISTRY, read_only=True, store=place.open) as log:
            sample = [row.decision_id for row in log.decisions()]
            assert len(sample) == len(latencies), "a decision a request"
            verdicts = Counter(
                v.verdict for v in replay(log, {bundle.hash: Bundle.load(bundle.path)}, sample[:REPLAYED])
            )
    p50, p99 = (float(value) for value in np.percentile(latencies, [50, 99]))
    print(
        f"{len(latencies)} decisions at {RATE_PER_S}/s: p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {max(latencies):.2f} ms"
    )
    print("answers:", dict(answers), "replayed:", dict(verdicts))
    print("steps, mean ms:", steps)
    print(f"fdatasync of this disk: p50 {sync_p50:.2f} ms, p99 {sync_p99:.2f} ms")
    figures = {
        "decision_ms_p50": round(p50, 3),
        "decision_ms_p99": round(p99, 3),
        "decision_ms_max": round(max(latencies), 3),
        "decisions": len(latencies),
        "merchant_events": sales,
        "replayed_identical": verdicts["identical"],
        "fdatasync_ms_p50": round(sync_p50, 3),
        "fdatasync_ms_p99": round(sync_p99, 3),
        **{f"{step}_ms_mean": ms for step, ms in steps.items()},
    }
    assert verdicts == {"identical": min(REPLAYED, len(latencies))}, verdicts
    return {"name": "decide", "seed": SEED, "figures": figures, "limits": LIMIT_MS}


if __name__ == "__main__":
    result = main(quick=bool(os.environ.get("QUICK")))
    print(json.dumps(result))
    sys.exit(any(result["figures"][name] > limit for name, limit in LIMIT_MS.items()))
