"""The engine on Spark: jobs of some tasks each, two at a time, so that no worker waits for the next; none shuffles.

A Spark task carries out several of ours, one after the other, because Spark takes a tenth of a second for each of its.

The code goes along as a broadcast. Spark's own retries come first (`spark.task.maxFailures`), those of whoever gives
the tasks after them: a job that Spark gives up has lost all its tasks, whose answers may lie there all the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from obligor.engines.shipping import Shipped, worker_function
from obligor.errors import BadInput, ObligorError
from obligor.features.engine import Outcome

try:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession
except ImportError as error:
    raise ObligorError("Spark is not installed: pip install 'obligor[spark]' and Java 17 or newer") from error

__all__ = ["SparkEngine", "session_of"]

_FAILURE_CHARACTERS = 500  # of a message
_TASKS_A_SLOT = 4  # of one job
_JOBS = 2
_OWN = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.log.level": "OFF"}
_ON_THIS_MACHINE = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}


def session_of(master: str) -> Any:
    """Return the active session, or a new one on this master; workers on this machine run this very Python."""
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    here = master.startswith("local")
    if here:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(master).appName("obligor")
    for name, value in {**_OWN, **(_ON_THIS_MACHINE if here else {})}.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


class SparkEngine:
    """Carries tasks out in a session: the given one, the active one, or a new one on `master`."""

    name = "spark"

    def __init__(self, shipped: Shipped, *, master: str = "local[2,4]", session: Any = None) -> None:
        self.session = session_of(master) if session is None else session
        if not hasattr(self.session, "sparkContext"):
            raise BadInput("expected a classic Spark session, got one of Spark Connect, which runs no plain functions")
        context = self.session.sparkContext
        self.slots = max(1, int(context.defaultParallelism))
        self._storage, self._code = shipped.storage, shipped.code
        self._archive = context.broadcast(shipped.archive)

    def carry_out(self, tasks: Sequence[str]) -> Iterator[Outcome]:
        """Yield the outcome of each task; one that Spark gave up has failed."""
        context, function = self.session.sparkContext, worker_function()
        code, archive, storage = self._code, self._archive, self._storage

        def run(task: str) -> str:
            import gc

            report = function(code, archive.value, storage, task)
            if not gc.get_freeze_count():  # Spark's workers look for garbage after each task; not among the libraries
                gc.collect()
                gc.freeze()
            return report

        def job(places: range) -> list[Outcome]:
            some = [tasks[place] for place in places]
            try:
                reports = context.parallelize(some, self.slots).map(run).collect()
            except (PySparkException, Py4JError) as error:
                return [Outcome(place, None, _told(error)) for place in places]
            return [Outcome(place, str(report), None) for place, report in zip(places, reports, strict=True)]

        size = _TASKS_A_SLOT * self.slots
        with ThreadPoolExecutor(_JOBS) as pool:
            starts = range(0, len(tasks), size)
            jobs = [pool.submit(job, range(start, min(start + size, len(tasks)))) for start in starts]
            try:
                for done in as_completed(jobs):
                    yield from done.result()
            finally:
                pool.shutdown(cancel_futures=True, wait=False)


def _told(error: Exception) -> str:
    """Return what a worker said, without the way that it took through Java."""
    return str(error).partition("\n\tat ")[0].strip()[-_FAILURE_CHARACTERS:]
