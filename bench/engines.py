"""A backfill of two entities on Ray and on Spark: the same bits, what it costs, and what Spark SQL takes for it.

    python -m bench.engines             (make bench NAME=engines [QUICK=1])

Five million purchases in a lake (2% late by up to 60 days, 1% corrected), half a million instants, 27 features: count,
sum, mean, min and max over 1, 7, 30 and 90 days of the consumer, count, sum and max over 1 and 7 days of the merchant,
and one of both. The lake lies in two compacted tables on the local disk, in the page cache; the instants are in memory
and the columns are at the end. Everything has two threads or two workers on this machine. Not timed is what happens
once: the start of Ray and of Spark, and a small run on each before, which loads the kernels.

`equal`: Ray, Spark and the engine in process give every bit that `backfill` gives, also with a worker killed when a
quarter is done; and Spark SQL, in the best of four formulations over the same files, gives the same numbers (means to
1e-12 of their value, everything else exactly). `ratios.spark_sql`: its time over that of the engine on Spark. The
overheads are an engine's time over that of `backfill` in process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bench._engine_data import SEED, make, opened, plan, read_questions
from bench._spark_peer import formulations
from deltalake import DeltaTable
from numpy.typing import NDArray

from obligor.engines.ray import RayEngine
from obligor.engines.shipping import shipped
from obligor.engines.spark import SparkEngine
from obligor.features.backfill import backfill
from obligor.features.bucket_run import BucketRun
from obligor.features.engine import Engine, LocalEngine
from obligor.sources import source_hash
from obligor.stores.delta import DeltaLake, S3Options, place_of
from obligor.worker import work_with

QUICK = bool(os.environ.get("QUICK"))
SHARE = 20 if QUICK else 1
EVENTS, QUESTIONS = 5_000_000 // SHARE, 500_000 // SHARE
WORKERS = 2
REPEATS = 1 if QUICK else 3
TOLERANCE = 1e-12  # of means, which Spark may round otherwise
SLOW_S = 20.0  # a query that takes longer is asked once
KILL_AT = 0.25  # of a run

Floats = NDArray[np.float64]


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that it takes, and what it returns."""
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


class Side:
    """One engine and what its runs gave."""

    def __init__(self, folder: Path, engine: Engine, expected: Floats) -> None:
        self.folder, self.engine, self.expected = folder, engine, expected
        self.log, self.lake = opened(folder)
        self.plan, self.questions = plan(), read_questions(folder)
        self.seconds: list[float] = []
        self.equal, self.peak_bytes, self.tasks, self.lost = True, 0, 0, 0

    def run(self, *, few: bool = False, kill: bool = False) -> None:
        """Run once: for a few questions to begin with, or with a worker that is killed on the way."""
        files = place_of(self.folder / "work")
        files.clear()
        questions = self.questions.take(np.arange(0, len(self.questions), 50)) if few else self.questions
        killed: list[int] = []

        def progress(done: int, total: int) -> None:
            if kill and not killed and done > total * KILL_AT:
                killed.append(int(run.reports[-1].worker.rpartition(":")[2]))
                os.kill(killed[0], signal.SIGKILL)

        run = BucketRun(self.engine, files, DeltaLake, str(self.folder / "lake"), source_hash(), progress)
        seconds, found = timed(lambda: run.backfill(self.log, self.plan, self.lake, questions))
        if not few:
            self.equal &= found.tobytes() == self.expected.tobytes()
            self.peak_bytes = max(self.peak_bytes, *(report.peak_bytes for report in run.reports))
            self.tasks = len(run.reports)
            self.lost += len(run.failures)
            print(f"{self.engine.name:10} {seconds:7.2f} s, {self.tasks} tasks, {len(run.failures)} tried again")
        if not few and not kill:
            self.seconds.append(seconds)
        assert not kill or killed, "a worker was killed"


def spark_session() -> Any:
    """Return Spark on this machine with two cores, and as much memory as Spark SQL asks for."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    options = {
        "spark.driver.memory": "6g", "spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "OFF", "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "16",
    }  # fmt: skip
    builder = SparkSession.builder.master(f"local[{WORKERS}]").appName("obligor-bench")
    for name, value in options.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def spark_sql(session: Any, folder: Path) -> tuple[dict[str, float], dict[str, Floats]]:
    """Return what each formulation takes, and its columns in the order of the questions."""
    tables = {one: DeltaTable(str(folder / "lake" / one)).file_uris() for one in ("consumer", "merchant")}
    seconds: dict[str, float] = {}
    found: dict[str, Floats] = {}
    for name, query in formulations(session, tables, str(folder / "questions.parquet")).items():
        for _ in range(REPEATS):
            if seconds.get(name, 0) > SLOW_S:
                break
            took, columns = timed(partial(_asked, session, query))
            seconds[name] = min(took, seconds.get(name, took))
            found[name] = columns
        print(f"Spark SQL  {seconds[name]:7.2f} s  {name}")
    return seconds, found


def _asked(session: Any, query: str) -> Floats:
    table = session.sql(query).toArrow()
    order = np.argsort(table["request"].to_numpy())
    columns: Floats = np.stack([table[name].to_numpy() for name in table.column_names[1:]], axis=1)
    return columns[order]


def same(theirs: Floats, ours: Floats) -> bool:
    """Whether Spark SQL found the same: means and what is made of them nearly, all else exactly."""
    means = [*range(8, 12), ours.shape[1] - 1]
    exact = [i for i in range(ours.shape[1]) if i not in means]
    return bool(
        np.array_equal(theirs[:, exact], ours[:, exact], equal_nan=True)
        and np.allclose(theirs[:, means], ours[:, means], rtol=TOLERANCE, atol=0, equal_nan=True)
    )


def main() -> int:
    """Run all sides, print what they took and the line of figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, EVENTS, QUESTIONS)
        log, lake = opened(folder)
        questions = read_questions(folder)
        backfill(plan(), lake, questions.take(np.arange(0, len(questions), 50)), WORKERS)
        runs = [timed(lambda: backfill(plan(), lake, questions, WORKERS)) for _ in range(REPEATS)]
        in_process, expected = median(seconds for seconds, _ in runs), runs[0][1]
        print(
            f"in process {in_process:7.2f} s; {EVENTS:,} events, {QUESTIONS:,} instants, {expected.shape[1]} features"
        )
        session = spark_session()
        code = shipped(S3Options())
        engines: list[Engine] = [LocalEngine(work_with(S3Options()), WORKERS), RayEngine(code, slots=WORKERS),
                   SparkEngine(code, session=session)]  # fmt: skip
        sides = [Side(folder, engine, expected) for engine in engines]
        for side in sides:
            side.run(few=True)
            for _ in range(REPEATS):
                side.run()
        for side in sides[1:]:
            side.run(kill=True)
        theirs, found = spark_sql(session, folder)
        log.close()
        session.stop()
    agree = [same(columns, expected) for columns in found.values()]
    equal = all(side.equal for side in sides) and all(agree)
    figures: dict[str, Any] = {"in_process_seconds": in_process, "spark_sql_seconds": min(theirs.values())}
    for side in sides:
        own = median(side.seconds)
        figures |= {f"{side.engine.name}_seconds": own, f"{side.engine.name}_over_in_process": own / in_process}
        figures |= {f"{side.engine.name}_peak_gb": side.peak_bytes / 1e9, f"{side.engine.name}_retried": side.lost}
    figures |= {"tasks": sides[0].tasks, "workers": WORKERS, "seed": SEED}
    ratios = {"spark_sql": min(theirs.values()) / figures["spark_seconds"]}
    print(json.dumps({"name": "engines", "equal": equal, "ratios": ratios, "figures": figures}))
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
