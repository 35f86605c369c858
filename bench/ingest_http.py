"""How many validated events a second the service takes over HTTP, each durable and applied to online state.

Batches of 500 on 4 connections, from a client process of its own with the bytes prepared before, into a log that holds
5 million events of the same kind: random 128-bit ids, 200,000 consumers, 2,000 merchants, 2% late, 1% corrected. The
limit is 20,000 a second, client included, on two cores. `bench.ingest` prints it beside the bulk rate.

    python -m bench.ingest_http       QUICK=1: into 300,000 events
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pyarrow as pa
from bench import _desk
from bench._client import Connection, post

from obligor.decisions.answers import moment
from obligor.events.assembly import Rows, part_table
from obligor.events.batch import Batch, TypeVersion
from obligor.events.log import EventLog
from obligor.stores.sqlite import SQLiteStore

__all__ = ["http_half"]

SEED = 20_261_123
BATCH, CONNECTIONS = 500, 4
CONSUMERS, MERCHANTS = 200_000, 2_000
BULK_EVENTS = 50_000
LATE, CORRECTED = 0.02, 0.01
LIMIT_PER_S = 20_000
TYPES = ("repayment", "sale", "loan_opened", "loan_application")
SHARES = (0.45, 0.40, 0.10, 0.05)


class Columns:
    """Made events as arrays: what a batch or a body is built from."""

    def __init__(self, chance: np.random.Generator, size: int, from_us: int, to_us: int) -> None:
        self.type = chance.choice(len(TYPES), size, p=SHARES)
        raw = chance.bytes(16 * size)
        self.event_id = [raw[i : i + 16].hex() for i in range(0, len(raw), 16)]
        time_us = np.sort(chance.integers(from_us, to_us, size))
        late = chance.random(size) < LATE
        self.event_time = np.where(late, time_us - chance.integers(0, 30 * _desk.DAY_US, size), time_us)
        self.consumer = chance.integers(0, CONSUMERS, size)
        self.merchant = chance.integers(0, MERCHANTS, size)
        self.amount = chance.integers(100, 1_000_000, size)
        self.small = chance.integers(0, 30, size)


def bulk(chance: np.random.Generator, size: int, from_us: int, to_us: int, key: bytes) -> Batch:
    """Return a batch of made events."""
    made = Columns(chance, size, from_us, to_us)
    ids = pa.array(made.event_id)
    parts: dict[TypeVersion, pa.Table] = {}
    for number, name in enumerate(TYPES):
        places = np.flatnonzero(made.type == number)
        if not len(places):
            continue
        texts = {"consumer": made.consumer, "merchant": made.merchant, "loan": made.small, "application_id": made.small}
        columns: dict[str, Any] = {
            field: pa.array([f"{field}-{value}" for value in texts[field][places].tolist()])
            for field in _desk.REGISTRY[name].entities()
        }
        columns |= {"amount": pa.array(made.amount[places]), "days_late": pa.array(made.small[places])}
        columns["channel"] = pa.array(np.where(made.small[places] % 2, "app", "web"))
        rows = Rows(
            event_id=ids.take(pa.array(places)),
            event_time=pa.array(made.event_time[places]),
            kind=np.zeros(len(places), np.int8),
            target=None,
            columns={field: columns[field] for field in _desk.REGISTRY[name].fields},
            personal=None,
        )
        parts[name, 1] = part_table(_desk.REGISTRY[name], rows, places, key)
    return Batch(parts, size)


def bodies(chance: np.random.Generator, count: int, at_us: int) -> Iterator[bytes]:
    """Yield request bodies of BATCH events; CORRECTED of them correct an event of the same body."""
    for number in range(count):
        made = Columns(chance, BATCH, at_us + number * 1_000, at_us + number * 1_000 + 1_000)
        records: list[dict[str, Any]] = []
        for i in range(BATCH):
            event = _desk.REGISTRY[TYPES[made.type[i]]]
            values = {
                "consumer": f"consumer-{made.consumer[i]}",
                "merchant": f"merchant-{made.merchant[i]}",
                "loan": f"loan-{made.small[i]}",
                "application_id": f"application_id-{made.small[i]}",
                "amount": int(made.amount[i]),
                "days_late": int(made.small[i]),
                "channel": "app" if made.small[i] % 2 else "web",
            }
            record = {
                "type": event.event_name,
                "event_id": made.event_id[i],
                "event_time": moment(int(made.event_time[i])),
            }
            records.append({**record, **{field: values[field] for field in event.fields}})
        for i in np.flatnonzero(chance.random(BATCH) < CORRECTED).tolist():
            if i and records[i - 1]["type"] != "loan_application" and "corrects" not in records[i - 1]:
                old = records[i - 1]
                records[i] = {**old, "event_id": records[i]["event_id"], "amount": 7, "corrects": old["event_id"]}
        yield msgspec.json.encode(records)


async def _send(port: int, requests: list[bytes]) -> float:
    """Send all requests over the connections, one at a time on each; return the seconds it took."""
    left = iter(requests)
    connections = [await Connection.open(port) for _ in range(CONNECTIONS)]

    async def work(connection: Connection) -> None:
        for request in left:
            status, body = await connection.send(request)
            assert status == 200, body[:500]

    started = time.perf_counter()
    await asyncio.gather(*map(work, connections))
    seconds = time.perf_counter() - started
    for connection in connections:
        await connection.close()
    return seconds


def http_half(quick: bool) -> dict[str, Any]:
    """Measure, print and return the figures; `http_events_per_s` is the one with a limit."""
    held, count = (300_000, 120) if quick else (5_000_000, 1_200)
    chance = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = _desk.bundle(folder / "bundles", SEED)
        now_us = _desk.clock_us()
        start_us = now_us - 120 * _desk.DAY_US
        with EventLog.create(folder / "log", _desk.REGISTRY, store=SQLiteStore) as log:
            for first in range(0, held, BULK_EVENTS):
                span = [start_us + (now_us - start_us) * part // held for part in (first, first + BULK_EVENTS)]
                _desk.append_batch(log, bulk(chance, BULK_EVENTS, span[0], span[1], log.commitment_key), now_us)
        requests = [post("/v1/events", body) for body in bodies(chance, count, now_us)]
        built = time.perf_counter()
        with _desk.served(folder, bundle.path) as port:
            rebuild_s = time.perf_counter() - built
            seconds = asyncio.run(_send(port, requests))
            lag = _gauge(port, "obligor_state_lag_events")
            steps = _desk.steps_ms(port)
            failures = [line for line in _metrics(port) if line.startswith("obligor_failures_total{")]
        with EventLog.open(folder / "log", _desk.REGISTRY, read_only=True, store=SQLiteStore) as log:
            total = log.head.sequence
    assert total == held + count * BATCH, f"the log holds {total} events"
    assert lag == 0, f"the state is {lag} events behind"
    assert not failures, failures
    rate = count * BATCH / seconds
    print(f"HTTP: {count * BATCH} events in {seconds:.1f} s: {rate:,.0f}/s into a log of {held:,}; state lag {lag:.0f}")
    print(f"state of {held:,} events built in {rebuild_s:.1f} s; steps, mean ms a commit: {steps}")
    return {
        "http_events_per_s": round(rate),
        "http_log_events": held,
        "state_rebuild_events_per_s": round(held / rebuild_s),
        **{f"http_{step}_ms_mean": ms for step, ms in steps.items()},
    }


def _metrics(port: int) -> list[str]:
    return httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()


def _gauge(port: int, name: str) -> float:
    (line,) = [line for line in _metrics(port) if line.startswith(f"{name} ")]
    return float(line.split(" ")[1])


if __name__ == "__main__":
    figures = http_half(quick=bool(os.environ.get("QUICK")))
    print(json.dumps({"name": "ingest_http", "seed": SEED, "figures": figures}))
    sys.exit(figures["http_events_per_s"] < LIMIT_PER_S)
