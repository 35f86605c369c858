"""Backfill against DuckDB: features of a million instants over ten million events, late and corrected ones included.

    python -m bench.backfill            (make bench NAME=backfill [QUICK=1])

Both sides compute count, sum, mean, min and max over 1, 7, 30 and 90 days as of each instant, by one rule: known at or
before it, not yet replaced by a correction, happened before it. Applicants without events count too. Both have the same
rows, sorted by (consumer, event_time), in their own form in memory: Obligor its timelines, DuckDB a native table; both
use two threads, each in a process of its own, and both times run to the finished columns. DuckDB is asked in several
formulations, each three times, and Obligor as often as all of them together; the best times are compared
(`ratios.duckdb`), and once more with the loading of the same Parquet file counted on both sides
(`ratios.duckdb_from_parquet`). The results are compared value by value. Sorting unsorted rows, compiling the kernels
with an empty cache and peak memory are stated beside.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from obligor.events.schema import Registry
from obligor.features import Entity, Event, Money, Plan, compile_plan
from obligor.features.evaluate import evaluate
from obligor.features.requests import Requests
from obligor.features.timelines import Timelines, build_timelines

EVENTS, REQUESTS, CONSUMERS = 10_000_000, 1_000_000, 120_000
QUICK_SHARE = 20
THREADS = 2
SEED = 5
DAY = 86_400_000_000
START, SPAN_DAYS = 1_650_000_000_000_000, 365
WINDOWS = (1, 7, 30, 90)
AGGREGATES = ("count", "sum", "mean", "min", "max")
LATE, CORRECTED = 0.02, 0.01
REPEATS = 3
TOLERANCE = 1e-12  # of means; everything else must be equal


class Repayment(Event):
    """What the features look at."""

    consumer = Entity()
    amount = Money("NGN")


class Loan(Event, application=True):
    """What asks."""

    consumer = Entity()


def plan() -> Plan:
    """Return the plan of the twenty features."""
    windows = tuple(f"{days}d" for days in WINDOWS)
    repaid = Repayment.by("consumer")
    features = {"count": repaid.count(*windows, description="benchmark")}
    for name in AGGREGATES[1:]:
        features[name] = getattr(repaid, name)("amount", *windows, description="benchmark")
    return compile_plan(features, Registry([Repayment, Loan]), Loan)


def write_data(folder: Path, share: int) -> tuple[int, int]:
    """Write events and requests as sorted Parquet; a tenth of the consumers has no events. Return their numbers."""
    chance = np.random.default_rng(SEED)
    events, requests, consumers = EVENTS // share, REQUESTS // share, CONSUMERS // share
    active = consumers * 9 // 10
    habit = chance.gamma(1.5, 1.0, active)  # some pay often, most rarely
    consumer = chance.choice(active, events, p=habit / habit.sum())
    event_time = START + chance.integers(0, SPAN_DAYS * DAY, events)
    late = chance.random(events) < LATE
    known = event_time + np.where(late, chance.integers(3600 * 10**6, 60 * DAY, events), 5 * 10**6)
    amount = chance.integers(1, 5_000_000, events)
    corrected = np.flatnonzero(chance.random(events) < CORRECTED)
    replaced = np.full(events, -1, np.int64)
    replaced[corrected] = known[corrected] + chance.integers(1, 30 * DAY, len(corrected))
    rows = {
        "consumer": np.concatenate([consumer, consumer[corrected]]),
        "event_time": np.concatenate([event_time, event_time[corrected]]),
        "known": np.concatenate([known, replaced[corrected]]),
        "replaced": np.concatenate([replaced, np.full(len(corrected), -1)]),
        "amount": np.concatenate([amount, chance.integers(1, 5_000_000, len(corrected))]),
    }
    order_known = np.argsort(rows["known"], kind="stable")
    position = np.empty(len(order_known), np.int64)
    position[order_known] = np.arange(1, len(order_known) + 1)
    rows["position"], rows["root"] = position, np.concatenate([position[:events], position[corrected]])
    order = np.lexsort((rows["root"], rows["event_time"], rows["consumer"]))
    asked = np.sort(chance.integers(0, consumers, requests))
    as_of = START + chance.integers(90 * DAY, SPAN_DAYS * DAY, requests)
    as_of = as_of[np.lexsort((as_of, asked))]
    names = pa.array([f"consumer-{i:07d}" for i in range(consumers)])
    table = pa.table({name: column[order] for name, column in rows.items()})
    replaced_or_null = pa.array(table["replaced"].to_numpy(), mask=table["replaced"].to_numpy() < 0)
    table = table.set_column(3, "replaced", replaced_or_null).set_column(
        0, "consumer", names.take(table["consumer"].combine_chunks())
    )
    pq.write_table(table, folder / "events.parquet")
    asked_table = {"request": np.arange(requests), "consumer": names.take(pa.array(asked)), "as_of": as_of}
    pq.write_table(pa.table(asked_table), folder / "requests.parquet")
    return table.num_rows, requests


@dataclass(frozen=True)
class _Versions:
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    sup_position: NDArray[np.int64]
    sup_known: NDArray[np.int64]


@dataclass(frozen=True)
class _Facts:
    rows: pa.Table
    version: NDArray[np.int32]
    versions: _Versions


def read_facts(folder: Path) -> _Facts:
    """Read the events in the form that the log gives facts in."""
    table = pq.read_table(folder / "events.parquet")
    replaced = table["replaced"].combine_chunks()
    places = np.flatnonzero(replaced.is_valid().to_numpy(zero_copy_only=False))
    version = np.full(table.num_rows, -1, np.int32)
    version[places] = np.arange(len(places))
    one = np.arange(len(places))
    above = _Versions(one, one + 1, np.zeros(len(places), np.int64), replaced.drop_null().to_numpy())
    return _Facts(table.drop_columns(["replaced"]), version, above)


def read_requests(folder: Path) -> Requests:
    """Read the instants."""
    asked = pq.read_table(folder / "requests.parquet")
    as_of = asked["as_of"].to_numpy()
    return Requests(
        as_of=as_of,
        cuts=np.array([[2**48 - 1]]),
        self_root=np.full(len(as_of), -1),
        entities={"consumer": asked["consumer"].combine_chunks()},
        fields=pa.table({}),
    )


def _peak_gb() -> float:
    """The process's own peak of resident memory (getrusage would count its parent's before exec)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def _sort_seconds(facts: _Facts) -> float:
    """How long timelines of the same rows in the order of their arrival take, less what those of sorted rows take."""
    order = np.argsort(facts.rows["position"].to_numpy())
    shuffled = _Facts(facts.rows.take(pa.array(order)).combine_chunks(), facts.version[order], facts.versions)
    seconds = []
    for one in (shuffled, facts):
        start = time.perf_counter()
        build_timelines(plan(), {"repayment": one})
        seconds.append(time.perf_counter() - start)
    return seconds[0] - seconds[1]


def obligor_side(folder: Path) -> dict[str, Any]:
    """Compute Obligor's columns into `folder`; return its figures."""
    compiled, start = plan(), time.perf_counter()
    facts, requests = read_facts(folder), read_requests(folder)
    timelines: Timelines = build_timelines(compiled, {"repayment": facts})
    figures = {"load_s": time.perf_counter() - start}
    first = Requests(
        requests.as_of[:10], requests.cuts, requests.self_root[:10],
        {"consumer": requests.entities["consumer"][:10]}, requests.fields,
    )  # fmt: skip
    start = time.perf_counter()
    evaluate(compiled, timelines, first, THREADS)
    figures["compile_s"] = time.perf_counter() - start
    seconds = []
    for _ in range(REPEATS * len(formulations())):
        start = time.perf_counter()
        out = evaluate(compiled, timelines, requests, THREADS)
        seconds.append(time.perf_counter() - start)
    np.save(folder / "obligor.npy", out)
    figures["peak_gb"] = _peak_gb()
    return {**figures, "seconds": min(seconds), "sort_s": _sort_seconds(facts)}


_RULE = f"""e.consumer = r.consumer AND e.event_time < r.as_of AND e.event_time >= r.as_of - {max(WINDOWS) * DAY}
    AND e.known <= r.as_of AND (e.replaced IS NULL OR e.replaced > r.as_of)"""
_JOIN = f"requests r JOIN events e ON {_RULE}"


def _sums(inside: str, parts: tuple[str, ...], style: str) -> str:
    """The count, sum, least and most of each window; the longest needs no condition, the rule has it already."""
    columns = []
    for place, days in enumerate(WINDOWS):
        condition = inside.format(us=days * DAY, place=place)
        for name, part in zip("nslh", parts, strict=True):
            function, _, argument = part.rstrip(")").partition("(")
            if days == max(WINDOWS):
                value = part
            elif style == "filter":
                value = f"{part} FILTER (WHERE {condition})"
            elif argument == "*":
                value = f"count(CASE WHEN {condition} THEN 1 END)"
            else:
                value = f"{function}(CASE WHEN {condition} THEN {argument} END)"
            columns.append(f"{value} AS {name}{days}")
    return ", ".join(columns)


def _all_requests(found: str) -> str:
    """The twenty columns of every request, those without events too."""
    kinds = ("coalesce(n{0}, 0)", "coalesce(s{0}, 0)", "s{0} / n{0}", "l{0}", "h{0}")
    columns = [f"({kind.format(days)})::DOUBLE" for kind in kinds for days in WINDOWS]
    named = ", ".join(f"{column} AS c{i}" for i, column in enumerate(columns))
    return f"WITH found AS ({found}) SELECT r.request, {named} FROM requests r LEFT JOIN found USING (request)"


def formulations() -> dict[str, str]:
    """Return the ways to ask DuckDB that were thought of; none is known to be better."""
    inside, plain = "event_time >= as_of - {us}", ("count(*)", "sum(amount)", "min(amount)", "max(amount)")
    rung = " ".join(f"WHEN event_time >= as_of - {days * DAY} THEN {i}" for i, days in enumerate(WINDOWS))
    partial = ("sum(n)", "sum(s)", "min(l)", "max(h)")
    bucket = max(WINDOWS) * DAY
    in_buckets = f"""(SELECT *, unnest([as_of // {bucket}, as_of // {bucket} - 1]) AS bucket FROM requests) r
        JOIN (SELECT *, event_time // {bucket} AS bucket FROM events) e ON {_RULE} AND r.bucket = e.bucket"""
    return {
        "join, group with CASE": f"SELECT request, {_sums(inside, plain, 'case')} FROM {_JOIN} GROUP BY request",
        "join, group with FILTER": f"SELECT request, {_sums(inside, plain, 'filter')} FROM {_JOIN} GROUP BY request",
        "join, group by window, group": f"""
            SELECT request, {_sums("rung <= {place}", partial, "filter")} FROM (
                SELECT request, CASE {rung} END AS rung, count(*) n, sum(amount) s, min(amount) l, max(amount) h
                FROM {_JOIN} GROUP BY ALL) GROUP BY request""",
        "join on buckets, group with CASE": f"""
            SELECT request, {_sums(inside, plain, "case")} FROM {in_buckets} GROUP BY request""",
    }


def duckdb_side(folder: Path) -> dict[str, Any]:
    """Compute DuckDB's columns into `folder`; return its figures."""
    connection = duckdb.connect(config={"threads": THREADS, "preserve_insertion_order": False})
    start = time.perf_counter()
    for name in ("events", "requests"):
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM read_parquet('{folder / name}.parquet')")
    load = time.perf_counter() - start
    every: dict[str, float] = {}
    for name, found in formulations().items():
        for _ in range(REPEATS):
            start = time.perf_counter()
            table = connection.sql(_all_requests(found)).to_arrow_table()
            every[name] = min(every.get(name, float("inf")), time.perf_counter() - start)
    order = np.argsort(table["request"].to_numpy())
    np.save(folder / "duckdb.npy", np.column_stack([table[f"c{i}"].to_numpy()[order] for i in range(20)]))
    return {"seconds": min(every.values()), "every": every, "load_s": load, "peak_gb": _peak_gb()}


def _in_process(side: str, folder: Path) -> dict[str, Any]:
    """Run one side in a process of its own, Obligor's with an empty cache of kernels."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "kernels"), "NUMBA_NUM_THREADS": str(THREADS)}
    command = [sys.executable, "-m", "bench.backfill", side, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _equal(folder: Path) -> bool:
    ours, theirs = np.load(folder / "obligor.npy"), np.load(folder / "duckdb.npy")
    means = slice(2 * len(WINDOWS), 3 * len(WINDOWS))
    near = np.isclose(ours[:, means], theirs[:, means], rtol=TOLERANCE, atol=0, equal_nan=True)
    exact = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    exact[:, means] = near
    return bool(exact.all())


def main() -> int:
    """Run both sides, print what they took and the line of figures."""
    quick = bool(os.environ.get("QUICK"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, requests = write_data(folder, QUICK_SHARE if quick else 1)
        print(f"{rows:,} rows of events and corrections, {requests:,} instants, {len(plan().names)} features")
        theirs, ours = _in_process("duckdb", folder), _in_process("obligor", folder)
        equal = _equal(folder)
    for formulation, seconds in theirs["every"].items():
        print(f"DuckDB   {seconds:7.3f} s  {formulation}")
    print(f"Obligor  {ours['seconds']:7.3f} s")
    ratios = {
        "duckdb": theirs["seconds"] / ours["seconds"],
        "duckdb_from_parquet": (theirs["load_s"] + theirs["seconds"]) / (ours["load_s"] + ours["seconds"]),
    }
    figures = {f"obligor_{name}": ours[name] for name in ("seconds", "load_s", "sort_s", "compile_s", "peak_gb")}
    figures |= {f"duckdb_{name}": theirs[name] for name in ("seconds", "load_s", "peak_gb")}
    figures |= {"rows": rows, "instants": requests, "threads": THREADS, "seed": SEED}
    print(json.dumps({"name": "backfill", "equal": equal, "ratios": ratios, "figures": figures}))
    return 0 if equal else 1


if __name__ == "__main__":
    if len(sys.argv) == 3:
        chosen = {"obligor": obligor_side, "duckdb": duckdb_side}[sys.argv[1]]
        print(json.dumps(chosen(Path(sys.argv[2]))))
    else:
        sys.exit(main())
