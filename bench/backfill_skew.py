"""One entity with 30% of the events and of the questions: what it costs a backfill from the lake.

    python -m bench.backfill_skew       (make bench NAME=backfill-skew [QUICK=1])

The question is that of `bench.backfill` (count, sum, mean, min and max over 1, 7, 30 and 90 days; 2% of the events
up to 60 days late, 1% corrected), over ten million events with a million instants, once spread over many consumers and
once with three tenths of both at one of them. `ratios.unskewed_time` is how many times as long the second takes
(limit: 3). Then the one alone, with its three million events and 300,000 instants, and with twice as many of both:
`ratios.doubling` (limit: 2.3). Both are medians of repeated runs in processes of their own, which are taken in turns.

DuckDB, whose join looks at every event of the entity for each instant, is asked a hundredth of it (100,000 events): its
columns are compared value by value and its time is stated.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from bench._lake_data import SEED
from bench.backfill import EVENTS, QUICK, THREADS, agree, run_side

HOT_SHARE = 0.3
SHARE = 20 if QUICK else 1
SMALL = 100  # the part of it that DuckDB is asked
TURNS = 1 if QUICK else 3
LIMITS = {"unskewed_time": 3.0, "doubling": 2.3}


def measure(root: Path, cases: dict[str, tuple[int, int]]) -> dict[str, dict[str, Any]]:
    """Return the figures of each case, (events of many consumers, of the one besides), its runs taken in turns."""
    rows: dict[str, int] = {}
    for name, (events, hot_events) in cases.items():
        (root / name).mkdir()
        rows[name] = run_side("write", root / name, events, hot_events)["rows"]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    for _ in range(TURNS):
        for name in cases:
            runs[name].append(run_side("obligor", root / name))
    figures = {}
    for name, own in runs.items():
        seconds, peak = median(run["seconds"] for run in own), max(run["peak_gb"] for run in own)
        figures[name] = {"seconds": seconds, "peak_gb": peak}
        print(f"{name:10} {seconds:7.3f} s, {rows[name]:>11,} rows, peak {peak:.2f} GB")
        shutil.rmtree(root / name)
    return figures


def small(root: Path, events: int, hot_events: int) -> tuple[bool, dict[str, float]]:
    """Return whether Obligor and DuckDB agree on a small case, and what it takes both."""
    folder = root / "small"
    folder.mkdir()
    run_side("write", folder, events, hot_events)
    ours, theirs = run_side("obligor", folder), run_side("duckdb", folder)
    equal = agree(folder, "duckdb")
    print(f"small     {ours['seconds']:7.3f} s, DuckDB {theirs['seconds']:.3f} s; the same columns: {equal}")
    return equal, {"small_obligor_seconds": ours["seconds"], "small_duckdb_seconds": theirs["seconds"]}


def main() -> int:
    """Run all cases, print what they took and the line of figures."""
    total = EVENTS // SHARE
    hot = int(total * HOT_SHARE)
    few = total // 1000  # consumers beside the one alone
    cases = {
        "unskewed": (total, 0),
        "skewed": (total - hot, hot),
        "alone": (few, hot),
        "doubled": (few, 2 * hot),
    }
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        found = measure(root, cases)
        equal, figures = small(root, (EVENTS - int(EVENTS * HOT_SHARE)) // SMALL, int(EVENTS * HOT_SHARE) // SMALL)
    seconds = {case: one["seconds"] for case, one in found.items()}
    ratios = {
        "unskewed_time": seconds["skewed"] / seconds["unskewed"],
        "doubling": seconds["doubled"] / seconds["alone"],
    }
    figures |= {
        "unskewed_seconds": seconds["unskewed"], "skewed_seconds": seconds["skewed"],
        "alone_seconds": seconds["alone"], "alone_doubled_seconds": seconds["doubled"],
        "skewed_peak_gb": found["skewed"]["peak_gb"], "threads": THREADS, "seed": SEED,
    }  # fmt: skip
    print(json.dumps({"name": "backfill_skew", "equal": equal, "ratios": ratios, "figures": figures, "limits": LIMITS}))
    return 0 if equal and all(ratios[name] <= limit for name, limit in LIMITS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
