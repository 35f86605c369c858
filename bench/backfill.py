"""Backfill from the lake on disk, against DuckDB and polars on the same files; and how it grows with the events.

    python -m bench.backfill            (make bench NAME=backfill [QUICK=1])

All three compute count, sum, mean, min and max over 1, 7, 30 and 90 days as of a million instants over ten million
events, late and corrected ones included, by one rule: known at or before it, not yet replaced by a correction, happened
before it. Applicants without events count too. They start from the same Parquet files of a compacted lake table (in the
page cache), with the instants in memory, and end with the finished columns in memory, in the order of the instants;
each has two threads and a process of its own, whose start and compiling are not timed. DuckDB and polars are asked in
several formulations; the best time of each side counts (`ratios`), and the results are compared value by value.
The same question is then asked of data that Obligor and DuckDB have loaded before the clock starts, in the same order:
Obligor's timelines, DuckDB's table (`ratios.duckdb_loaded`).

Then Obligor alone, with one instant for ten events: one, ten and a hundred million events, the cost of an event at each
(`flatness` is the dearest over the cheapest) and the peak of memory; and what it takes to make a lake from a log.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench._lake_data import SEED, lake_files, make_from_log, open_lake, plan, write_lake, write_requests
from bench._lake_peers import duckdb_formulations, duckdb_loaded, polars_formulations
from numpy.typing import NDArray

from obligor.features.backfill import backfill
from obligor.features.evaluate import evaluate
from obligor.features.requests import Requests

EVENTS, EVENTS_PER_REQUEST = 10_000_000, 10
SCALES = (1_000_000, 10_000_000, 100_000_000)
LOG_EVENTS = 1_000_000
QUICK = bool(os.environ.get("QUICK"))
SHARE = 20 if QUICK else 1  # all sizes are divided by it
THREADS = 2
REPEATS = 1 if QUICK else 3  # of each formulation
SECONDS_MIN = 1.0 if QUICK else 6.0  # that Obligor's runs take together: short ones are repeated more often
TOLERANCE = 1e-12  # of means; everything else must be equal
MEANS = slice(8, 12)


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


def _best_of(run: Callable[[], NDArray[np.float64]], folder: Path) -> float:
    """Return the least of the seconds that some runs take; the first one's columns are kept in `folder`."""
    seconds: list[float] = []
    while len(seconds) < REPEATS or sum(seconds) < SECONDS_MIN:
        start = time.perf_counter()
        out = run()
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            np.save(folder / "obligor.npy", out)
        del out  # two of them at a time would count as memory that one needs
    return min(seconds)


def obligor_side(folder: Path) -> dict[str, Any]:
    """Compute Obligor's columns into `folder`; return its figures."""
    compiled, requests, lake = plan(), read_requests(folder), open_lake(folder)
    first = Requests(
        requests.as_of[:10], requests.cuts, requests.self_root[:10],
        {"consumer": requests.entities["consumer"][:10]}, requests.fields,
    )  # fmt: skip
    start = time.perf_counter()
    backfill(compiled, lake, first, THREADS)
    compile_s = time.perf_counter() - start
    seconds = _best_of(lambda: backfill(compiled, lake, requests, THREADS), folder)
    peak = _peak_gb()
    one = [_one(lake, requests, i) for i in range(0, len(requests), max(1, len(requests) // 200))]
    return {"seconds": seconds, "compile_s": compile_s, "peak_gb": peak, "one_ms_p50": float(np.median(one))}


def obligor_loaded_side(folder: Path) -> dict[str, Any]:
    """Compute Obligor's columns from timelines in memory; return the seconds it took, and those of loading."""
    compiled, requests, lake = plan(), read_requests(folder), open_lake(folder)
    start = time.perf_counter()
    timelines = lake.timelines(compiled)
    load_s = time.perf_counter() - start
    evaluate(compiled, timelines, requests, THREADS)  # compiles the kernels
    seconds = _best_of(lambda: evaluate(compiled, timelines, requests, THREADS), folder)
    return {"seconds": seconds, "load_s": load_s}


def duckdb_loaded_side(folder: Path) -> dict[str, Any]:
    """Compute DuckDB's columns from a table in memory; return the seconds of its best formulation."""
    return _best(folder, "duckdb", duckdb_loaded(lake_files(folder), folder / "requests.parquet", THREADS))


def _one(lake: Any, requests: Requests, i: int) -> float:
    """How many milliseconds one applicant's features take."""
    asked = Requests(
        requests.as_of[i : i + 1], requests.cuts, requests.self_root[i : i + 1],
        {"consumer": requests.entities["consumer"][i : i + 1]}, requests.fields,
    )  # fmt: skip
    start = time.perf_counter()
    backfill(plan(), lake, asked, 1)
    return 1e3 * (time.perf_counter() - start)


def _best(folder: Path, name: str, formulations: dict[str, Callable[[], pa.Table]]) -> dict[str, Any]:
    """Run every formulation; save the columns, in the order of the instants, and return the times."""
    every: dict[str, float] = {}
    for title, run in formulations.items():
        for _ in range(REPEATS):
            start = time.perf_counter()
            table = run()
            every[title] = min(every.get(title, float("inf")), time.perf_counter() - start)
    order = np.argsort(table["request"].to_numpy())
    columns = [table.column(name) for name in table.column_names if name != "request"]
    np.save(
        folder / f"{name}.npy", np.column_stack([column.cast(pa.float64()).to_numpy()[order] for column in columns])
    )
    return {"seconds": min(every.values()), "every": every, "peak_gb": _peak_gb()}


def duckdb_side(folder: Path) -> dict[str, Any]:
    """Compute DuckDB's columns into `folder`; return its figures."""
    return _best(folder, "duckdb", duckdb_formulations(lake_files(folder), folder / "requests.parquet", THREADS))


def polars_side(folder: Path) -> dict[str, Any]:
    """Compute polars' columns into `folder`; return its figures."""
    return _best(folder, "polars", polars_formulations(lake_files(folder), folder / "requests.parquet"))


def run_side(side: str, folder: Path, *arguments: int) -> dict[str, Any]:
    """Run one side in a process of its own, with an empty cache of kernels for the first of Obligor's."""
    environment = {
        **os.environ, "NUMBA_CACHE_DIR": str(folder.parent / "kernels"), "NUMBA_NUM_THREADS": str(THREADS),
        "POLARS_MAX_THREADS": str(THREADS),
    }  # fmt: skip
    command = [sys.executable, "-m", "bench.backfill", side, str(folder), *map(str, arguments)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _write(folder: Path, events: int, hot_events: int = 0) -> dict[str, Any]:
    rows = write_lake(folder, events, hot_events)
    requests, hot_requests = events // EVENTS_PER_REQUEST, hot_events // EVENTS_PER_REQUEST
    write_requests(folder / "requests.parquet", events, requests, hot_requests)
    size = sum(Path(file).stat().st_size for file in lake_files(folder))
    return {"rows": rows, "bytes_per_row": size / rows}


def agree(folder: Path, peer: str) -> bool:
    """Whether the columns that Obligor and a peer have computed in a folder are the same."""
    ours, theirs = np.load(folder / "obligor.npy"), np.load(folder / f"{peer}.npy")
    near = np.isclose(ours[:, MEANS], theirs[:, MEANS], rtol=TOLERANCE, atol=0, equal_nan=True)
    exact = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    exact[:, MEANS] = near
    return bool(exact.all())


def _compare(folder: Path, events: int) -> tuple[bool, dict[str, float], dict[str, Any]]:
    """Run all sides over one lake; return whether they agree, how many times faster Obligor is, and the figures."""
    made = run_side("write", folder, events)
    ours = run_side("obligor", folder)
    figures: dict[str, Any] = {f"obligor_{name}": value for name, value in ours.items()}
    figures |= {
        "rows": made["rows"],
        "instants": events // EVENTS_PER_REQUEST,
        "lake_bytes_per_row": made["bytes_per_row"],
    }
    print(f"{made['rows']:,} rows of events and corrections, {figures['instants']:,} instants")
    print(f"Obligor  {ours['seconds']:7.3f} s")
    equal, ratios = True, {}
    for peer in ("duckdb", "polars"):
        theirs = run_side(peer, folder)
        for title, seconds in theirs["every"].items():
            print(f"{peer:8} {seconds:7.3f} s  {title}")
        equal &= agree(folder, peer)
        ratios[peer] = theirs["seconds"] / ours["seconds"]
        figures |= {f"{peer}_seconds": theirs["seconds"], f"{peer}_peak_gb": theirs["peak_gb"]}
    ours, theirs = run_side("obligor_loaded", folder), run_side("duckdb_loaded", folder)
    print(f"loaded before: Obligor {ours['seconds']:.3f} s, DuckDB's best {theirs['seconds']:.3f} s")
    equal &= agree(folder, "duckdb")
    ratios["duckdb_loaded"] = theirs["seconds"] / ours["seconds"]
    figures |= {"obligor_loaded_seconds": ours["seconds"], "duckdb_loaded_seconds": theirs["seconds"]}
    return equal, ratios, figures


def _scale(root: Path, known: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Return the cost of an event at each size, and the peak of memory at the largest."""
    costs: dict[int, float] = {}
    peak = 0.0
    for scale in SCALES:
        events = scale // SHARE
        if events not in known:
            folder = root / str(events)
            folder.mkdir()
            run_side("write", folder, events)
            known[events] = run_side("obligor", folder)
            shutil.rmtree(folder)
        costs[scale], peak = known[events]["seconds"] / events * 1e9, known[events]["peak_gb"]
        print(f"Obligor  {known[events]['seconds']:7.3f} s  {events:>11,} events, {costs[scale]:.1f} ns an event")
    figures = {f"ns_per_event_{scale // 1_000_000}m": cost for scale, cost in costs.items()}
    return {**figures, "flatness": max(costs.values()) / min(costs.values()), "peak_gb_largest": peak}


def main() -> int:
    """Run all parts, print what they took and the line of figures."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        events = EVENTS // SHARE
        folder = root / "compared"
        folder.mkdir()
        equal, ratios, figures = _compare(folder, events)
        known = {events: {"seconds": figures["obligor_seconds"], "peak_gb": figures["obligor_peak_gb"]}}
        shutil.rmtree(folder)
        figures |= _scale(root, known)
        (root / "log").mkdir()
        figures |= run_side("from_log", root / "log", LOG_EVENTS // SHARE)
    figures |= {"threads": THREADS, "seed": SEED}
    print(json.dumps({"name": "backfill", "equal": equal, "ratios": ratios, "figures": figures}))
    return 0 if equal else 1


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sides: dict[str, Callable[..., Any]] = {
            "write": _write, "obligor": obligor_side, "duckdb": duckdb_side, "polars": polars_side,
            "obligor_loaded": obligor_loaded_side, "duckdb_loaded": duckdb_loaded_side, "from_log": make_from_log,
        }  # fmt: skip
        print(json.dumps(sides[sys.argv[1]](Path(sys.argv[2]), *map(int, sys.argv[3:]))))
    else:
        sys.exit(main())
