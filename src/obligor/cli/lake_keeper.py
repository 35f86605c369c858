"""The keeper: a service brings the lake to the end of its log every few minutes, and merges and deletes files there."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge

from obligor.cli.attended import Rounds, carry_out
from obligor.errors import ObligorError

__all__ = ["LakeKeeper"]

_log = logging.getLogger("obligor.lake")
RESULTS = ("kept", "failed")


class LakeKeeper(Rounds):
    """Has `obligor lake keep` run again and again, in a process of its own; the first time after the interval."""

    def __init__(self, root: Path, bundle: str, every_s: float, registry: CollectorRegistry) -> None:
        """`root` is the project's folder; the tables are those that the bundle of a name needs, and all there are."""
        super().__init__("obligor-lake")
        self._arguments = ["lake", "keep", "--attended", "--json", "--project", str(root), "--bundle", bundle]
        self._every_s = every_s
        self._runs = Counter(
            "obligor_lake_runs_total", "Times the lake was kept, by what became of it", ["result"], registry=registry
        )
        for result in RESULTS:
            self._runs.labels(result)
        self._behind = Gauge(
            "obligor_lake_behind_events", "Events that a table lacked after the last run", registry=registry
        )
        self._last = Gauge("obligor_lake_last_run_timestamp_seconds", "When the lake was last kept", registry=registry)

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                printed = carry_out(self._arguments, self._stopping.is_set)
            except ObligorError as error:  # somebody else updates it, a full disk, a table that needs a person
                self._runs.labels("failed").inc()
                _log.error("the lake was not kept and will be tried again: %s", error)
                continue
            if printed is None:
                return
            self._runs.labels("kept").inc()
            self._behind.set(max((table["behind"] for table in json.loads(printed)["tables"]), default=0))
            self._last.set(time.time())
