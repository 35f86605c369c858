"""A lake table of a lender's repayments of any size, made bucket range by bucket range, and questions about it.

The rows are what an update and a compaction of such a log leave: sorted, in files of whole buckets, late events and
corrections included. They are written by the lake's own writer, straight to its files, because a log of a hundred
million events is not what is measured. A tenth of the consumers has no events.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from numpy.typing import NDArray

from obligor.events.ingest import ingest
from obligor.events.log import EventLog
from obligor.events.mapping import Mapping, field
from obligor.events.schema import Registry
from obligor.features import Entity, Event, Money, Plan, compile_plan
from obligor.features.buckets import buckets_of
from obligor.features.lake import Lake
from obligor.features.lake_files import SortedWriter, types_note
from obligor.features.lake_rows import Pairs, replaced_columns
from obligor.features.lake_tables import LakeTable, lake_table
from obligor.stores.delta import DeltaLake
from obligor.stores.sqlite import SQLiteStore

__all__ = ["DAY", "SEED", "WINDOWS", "lake_files", "make_from_log", "open_lake", "plan", "write_lake", "write_requests"]

SEED = 5
DAY = 86_400_000_000
START, SPAN_DAYS = 1_650_000_000_000_000, 365
WINDOWS = (1, 7, 30, 90)
AGGREGATES = ("count", "sum", "mean", "min", "max")
LATE, CORRECTED = 0.02, 0.01
EVENTS_PER_CONSUMER = 83
RANGE_ROWS = 1 << 20

Ints = NDArray[np.int64]


class Repayment(Event):
    """What the features look at."""

    consumer = Entity()
    amount = Money("NGN")


class Loan(Event, application=True):
    """What asks."""

    consumer = Entity()


REGISTRY = Registry([Repayment, Loan])


def plan() -> Plan:
    """Return the plan of the twenty features."""
    windows = tuple(f"{days}d" for days in WINDOWS)
    repaid = Repayment.by("consumer")
    features = {"count": repaid.count(*windows)}
    for name in AGGREGATES[1:]:
        features[name] = getattr(repaid, name)("amount", *windows)
    return compile_plan(features, REGISTRY, Loan)


def open_lake(folder: Path) -> Lake:
    """Open the lake in a folder; its log is empty, so that everything is in the files."""
    log = EventLog.open(folder / "log", REGISTRY, read_only=True, store=SQLiteStore)
    return Lake(DeltaLake(folder / "lake"), log)


def lake_files(folder: Path) -> list[str]:
    """Return the files of the table, as whoever reads Delta tables finds them."""
    return sorted(DeltaTable(str(folder / "lake" / "consumer")).file_uris())


def _names(consumers: int) -> pa.StringArray:
    return pa.array([f"consumer-{i:08d}" for i in range(consumers)], pa.string())


def write_lake(folder: Path, events: int, hot_events: int = 0) -> int:
    """Write a table of about so many events with their corrections; return its rows.

    The first consumer has `hot_events` more than chance would give it.
    """
    chance = np.random.default_rng(SEED)
    consumers = events // EVENTS_PER_CONSUMER
    EventLog.create(folder / "log", REGISTRY, store=SQLiteStore).close()
    lake = open_lake(folder)
    lake.update([("consumer",)])  # makes the table
    table = lake_table(REGISTRY, ("consumer",))
    store = DeltaLake(folder / "lake").table(table.name)
    habit = chance.gamma(1.5, 1.0, consumers)  # some pay often, most rarely
    habit[chance.random(consumers) < 0.1] = 0
    counts = chance.poisson(habit * (events / habit.sum()))
    counts[0] += hot_events
    names = _names(consumers)
    buckets = buckets_of(table.entities, names)
    by_bucket = np.argsort(buckets, kind="stable")
    writer, rows = SortedWriter(store, table.schema, types_note(table)), 0
    for own in _ranges(by_bucket, buckets[by_bucket], counts):
        made = _rows(table, chance, names.take(pa.array(own)), counts[own], rows)
        writer.write(made)
        rows += made.num_rows
    base = store.snapshot()
    assert base is not None, "the table was made"
    store.commit(base, table.schema, writer.close(), [], {})
    return rows


def _ranges(by_bucket: Ints, buckets: NDArray[np.int16], counts: Ints) -> Iterator[Ints]:
    """Yield the consumers of whole buckets that have about `RANGE_ROWS` rows together."""
    edges = np.flatnonzero(np.diff(buckets)) + 1
    before = np.concatenate([[0], np.cumsum(counts[by_bucket])])
    start = 0
    for edge in [*edges.tolist(), len(by_bucket)]:
        if before[edge] - before[start] >= RANGE_ROWS or edge == len(by_bucket):
            yield by_bucket[start:edge]
            start = edge


def _rows(table: LakeTable, chance: np.random.Generator, names: pa.StringArray, counts: Ints, after: int) -> pa.Table:
    """Return the rows of some consumers, in the lake's order."""
    events = int(counts.sum())
    event_time = START + chance.integers(0, SPAN_DAYS * DAY, events)
    consumer = np.repeat(np.arange(len(names)), counts)
    event_time = event_time[np.lexsort((event_time, consumer))]
    late = chance.random(events) < LATE
    known = event_time + np.where(late, chance.integers(3600 * 10**6, 60 * DAY, events), 5 * 10**6)
    corrected = chance.random(events) < CORRECTED
    place = np.repeat(np.arange(events), 1 + corrected)  # a correction lies behind its original
    correction = np.concatenate([[False], place[1:] == place[:-1]])
    known = known[place]
    known[correction] += chance.integers(1, 30 * DAY, int(correction.sum()))
    position = np.empty(len(place), np.int64)
    position[np.argsort(known, kind="stable")] = after + 1 + np.arange(len(place))
    originals = np.flatnonzero(correction) - 1
    root = np.where(correction, np.roll(position, 1), position)
    pairs: dict[int, Pairs] = {int(i): [(int(position[i + 1]), int(known[i + 1]))] for i in originals}
    columns = {
        "bucket": buckets_of(table.entities, names)[consumer[place]],
        "entity": names.take(pa.array(consumer[place])),
        "event": pa.repeat("repayment", len(place)),
        "event_time": event_time[place],
        "known": known,
        "position": position,
        "root": root,
        **dict(
            zip(
                ("replaced_position", "replaced_known", "replaced_more"),
                replaced_columns(len(place), pairs),
                strict=True,
            )
        ),
        "repayment.consumer": names.take(pa.array(consumer[place])),
        "repayment.amount": chance.integers(1, 5_000_000, len(place)),
    }
    nulls = {f.name: pa.nulls(len(place), f.type) for f in table.schema if f.name not in columns}
    return pa.table(columns | nulls).select(table.schema.names).cast(table.schema)


def write_requests(path: Path, events: int, requests: int, hot_requests: int = 0) -> None:
    """Write instants about any of the consumers, and more about the first, sorted by consumer and instant."""
    chance = np.random.default_rng(SEED + 1)
    consumers = events // EVENTS_PER_CONSUMER
    asked = np.concatenate([np.zeros(hot_requests, np.int64), chance.integers(0, consumers, requests)])
    as_of = START + chance.integers(90 * DAY, SPAN_DAYS * DAY, len(asked))
    order = np.lexsort((as_of, asked))
    names = _names(consumers).take(pa.array(asked[order]))
    pq.write_table(pa.table({"request": np.arange(len(asked)), "consumer": names, "as_of": as_of[order]}), path)


def make_from_log(folder: Path, events: int) -> dict[str, float]:
    """Make a lake from a log of so many events in order of arrival, in two updates that a compaction then merges.

    Returns how many events a second each step takes.
    """
    chance = np.random.default_rng(SEED + 2)
    event_time = np.sort(START + chance.integers(0, SPAN_DAYS * DAY, events))
    names = _names(events // EVENTS_PER_CONSUMER)
    rows = pa.table(
        {
            "event_id": pa.array([f"e-{i}" for i in range(events)]),
            "event_time": pa.array(event_time, pa.timestamp("us", tz="UTC")),
            "consumer": names.take(pa.array(chance.integers(0, len(names), events))),
            "amount": pa.array(chance.integers(1, 5_000_000, events)),
        }
    )
    update = 0.0
    with EventLog.create(folder / "log", REGISTRY, store=SQLiteStore) as log:
        lake = Lake(DeltaLake(folder / "lake"), log)
        for half in (rows.slice(0, events // 2), rows.slice(events // 2)):
            pq.write_table(half, folder / "events.parquet")
            ingest(
                log, folder / "events.parquet", Mapping(event=Repayment, id=field("event_id")),
                clock_us=START + 2 * SPAN_DAYS * DAY, dead_letters=folder / "dead.jsonl",
            )  # fmt: skip
            start = time.perf_counter()
            lake.update([("consumer",)])
            update += time.perf_counter() - start
        start = time.perf_counter()
        merged = lake.compact(whole=True)
        compact = time.perf_counter() - start
    assert merged > 1, "there is something to merge"
    return {"update_events_per_s": events / update, "compact_events_per_s": events / compact}
