"""How fast events go in: in bulk from Parquet, and over HTTP.

    python -m bench.ingest [--quick]        (make bench NAME=ingest [QUICK=1])

Bulk: 10M repayments with random 128-bit ids in a Parquet file, through the same `ingest` that `obligor ingest` calls:
every cell checked, content hashed, ids de-duplicated against all before, blocks chained, commits synced. Making the
file is not counted. The rate of the last million is stated beside: an index that slows down as it grows shows there.
The bar is 100,000 events a second. HTTP: see `bench.ingest_http`. With `OBLIGOR_BENCH_LOG`, the URL of a new log in
PostgreSQL, the bulk half goes there, and the other is left out.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench import _desk

from obligor.events.fields import Category, Entity, Money
from obligor.events.ingest import ingest
from obligor.events.log import EventLog
from obligor.events.mapping import Mapping, field
from obligor.events.schema import Event, Registry
from obligor.stores.sqlite.store import DATABASE

EVENTS = 10_000_000
EVENTS_QUICK = 1_000_000
CONSUMERS = 500_000
CLOCK_US = 1_800_000_000_000_000
SEED = 11


class Repayment(Event):
    """What bulk history mostly is."""

    consumer = Entity()
    loan = Entity()
    amount = Money("NGN")
    channel = Category("app", "bank", "card")


def write_events(path: Path, events: int, seed: int) -> None:
    """Write repayments with random 128-bit ids as Parquet."""
    chance = np.random.default_rng(seed)
    writer = None
    for start in range(0, events, 500_000):
        count = min(500_000, events - start)
        raw = chance.bytes(16 * count).hex()
        table = pa.table(
            {
                "event_id": [raw[i : i + 32] for i in range(0, len(raw), 32)],
                "event_time": pa.array(
                    np.sort(CLOCK_US - chance.integers(0, 10**14, count)), pa.timestamp("us", tz="UTC")
                ),
                "consumer": [f"c-{i}" for i in chance.integers(0, CONSUMERS, count).tolist()],
                "loan": [f"l-{i}" for i in chance.integers(0, 3 * CONSUMERS, count).tolist()],
                "amount": chance.integers(1, 5_000_000, count),
                "channel": pa.array(["app", "bank", "card"]).take(pa.array(chance.integers(0, 3, count))),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None, "there are events to write"
    writer.close()


def bulk_half(quick: bool) -> dict[str, float]:
    """Ingest a Parquet file into a new log; return the rates."""
    events = EVENTS_QUICK if quick else EVENTS
    mapping = Mapping(event=Repayment, id=field("event_id"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_events(folder / "events.parquet", events, SEED)
        marks: list[tuple[int, float]] = []

        def progress(done: int, total: int | None) -> None:
            marks.append((done, time.perf_counter()))
            print(f"\r{done:>12,} of {total:,}", end="", file=sys.stderr)

        place = _desk.log_place(folder)
        with EventLog.create(place.path, Registry([Repayment]), store=place.open, keys=place.keys) as log:
            begin, busy = time.perf_counter(), time.process_time()
            report = ingest(
                log,
                folder / "events.parquet",
                mapping,
                clock_us=CLOCK_US,
                dead_letters=folder / "dead.jsonl",
                progress=progress,
            )
            end, busy = time.perf_counter(), time.process_time() - busy
            assert report.accepted == events, f"expected {events} events, {report.accepted} went in"
            assert log.head.sequence == events
        print(file=sys.stderr)
        mark, moment = next((m for m in marks if m[0] >= events - 1_000_000), (0, begin))
        return {
            "bulk_events": events,
            "bulk_events_per_s": round(events / (end - begin)),
            "bulk_last_million_per_s": round((events - mark) / (end - moment))
            if mark
            else round(events / (end - begin)),
            "bulk_cpu_us_per_event": round(busy / events * 1e6, 2),
            **({} if place.in_database else {"bulk_log_bytes_per_event": bytes_per_event(folder, events)}),
        }


def bytes_per_event(folder: Path, events: int) -> float:
    """Return what the log's file takes."""
    return round((folder / "log" / DATABASE).stat().st_size / events, 1)


def main() -> None:
    """Print the figures, the last line as JSON."""
    quick = "--quick" in sys.argv or os.environ.get("QUICK", "") not in ("", "0")
    figures = bulk_half(quick)
    if "OBLIGOR_BENCH_LOG" not in os.environ and importlib.util.find_spec("bench.ingest_http") is not None:
        figures |= importlib.import_module("bench.ingest_http").http_half(quick)
    for name, value in figures.items():
        print(f"{name:>28} {value:>14,}")
    print(json.dumps({"name": "ingest", "quick": quick, "figures": figures}))


if __name__ == "__main__":
    main()
