"""Outcomes are published beside the service: every hour or so what has been settled since is found and sent.

Finding it is left to a process of its own, because it looks at all applications twice.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
from prometheus_client import Counter, Gauge

from obligor.cli.attended import Rounds, carry_out
from obligor.cli.options import clock_us
from obligor.credit.settled import Moment
from obligor.decisions.answers import moment
from obligor.decisions.service import Service
from obligor.decisions.settlements import Settlements
from obligor.errors import ObligorError
from obligor.project import Project
from obligor.stores.kafka.client import LOGGER
from obligor.stores.kafka.sender import Sender
from obligor.stores.kafka.settings import KafkaSettings, OutcomeSettings

__all__ = ["OutcomesBeside"]

RETRY_S = 5.0
READY_S = 0.1


class OutcomesBeside(Rounds):
    """Publishes outcomes for one service; a round that is due comes as soon as it is ready."""

    def __init__(self, project: Project, kafka: KafkaSettings, outcomes: OutcomeSettings, service: Service) -> None:
        """Raise where the settings or the definition of the outcome are wrong."""
        super().__init__("obligor-outcomes")
        kafka.check()
        self._root, self._service, self._every_s = project.root, service, outcomes.every_s
        self._settlements = Settlements(
            service,
            Sender(kafka).send,
            self._find,
            application=service.application,
            definition=project.outcome.hash,
            topic=outcomes.topic,
            key=outcomes.key,
        )
        registry = service.metrics.registry
        self._published = Counter(
            "obligor_outcomes_published_total", "Outcomes that the broker acknowledged", registry=registry
        )
        self._failed = Counter(
            "obligor_outcomes_failed_total", "Rounds of outcomes that will be made again", registry=registry
        )
        self._last = Gauge(
            "obligor_outcomes_last_run_timestamp_seconds", "Up to when outcomes are published", registry=registry
        )

    def _run(self) -> None:
        while not self._service.ready:
            if self._stopping.wait(READY_S):
                return
        before = self._settlements.before
        wait_s = 0.0 if before is None else self._every_s - (clock_us() - before.seen_at) / 1e6
        while not self._stopping.wait(max(0.0, min(wait_s, self._every_s))):
            started_s = time.monotonic()
            try:
                seen_at = clock_us()
                count = self._settlements.round(seen_at)
            except ObligorError as error:
                self._failed.inc()
                LOGGER.error("outcomes were not all published and will be again: %s", error)
                wait_s = RETRY_S
                continue
            if count is None:
                return
            self._published.inc(count)
            self._last.set(seen_at / 1e6)
            wait_s = self._every_s - (time.monotonic() - started_s)

    def _find(self, before: Moment | None, now: Moment) -> pa.Table | None:
        with TemporaryDirectory() as folder:
            found = Path(folder) / "outcomes.parquet"
            arguments = [
                "outcomes",
                "--attended",
                "--settled",
                "--project",
                str(self._root),
                "--json",
                "--out",
                str(found),
            ]
            arguments += ["--seen-at", moment(now.seen_at), "--cut", json.dumps(now.cut)]
            if before is not None:
                arguments += ["--since", moment(before.seen_at), "--since-cut", json.dumps(before.cut)]
            return None if carry_out(arguments, self._stopping.is_set) is None else pq.read_table(found)
