"""The engine on Spark: a job of one task for each task, so that each ends for itself; none shuffles anything.

The code goes along as a broadcast. Spark's own retries come first (`spark.task.maxFailures`), those of whoever gives
the tasks after them.
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
_QUEUED = 2  # tasks for each slot, so that none waits for the driver
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

    def __init__(self, shipped: Shipped, *, master: str = "local[2]", session: Any = None) -> None:
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
            return function(code, archive.value, storage, task)

        def job(task: str) -> str:
            [report] = context.parallelize([task], 1).map(run).collect()
            return str(report)

        with ThreadPoolExecutor(_QUEUED * self.slots) as pool:
            places = {pool.submit(job, task): place for place, task in enumerate(tasks)}
            try:
                for done in as_completed(places):
                    try:
                        yield Outcome(places[done], done.result(), None)
                    except (PySparkException, Py4JError) as error:
                        yield Outcome(places[done], None, _told(error))
            finally:
                pool.shutdown(cancel_futures=True, wait=False)


def _told(error: Exception) -> str:
    """Return what a worker said, without the way that it took through Java."""
    return str(error).partition("\n\tat ")[0].strip()[-_FAILURE_CHARACTERS:]
