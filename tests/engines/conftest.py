"""One Ray and one Spark, local and with two workers each, for all tests of a process; and a lake to be asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.features.lake_world import History, append, lake_of, new_log
from tests.features.test_backfill import MANY

from obligor.engines.ray.engine import RayEngine
from obligor.engines.shipping import shipped
from obligor.engines.spark.engine import SparkEngine
from obligor.events.log import EventLog
from obligor.features.lake import Lake
from obligor.stores.delta import S3Options


@pytest.fixture(scope="session")
def ray_engine() -> Iterator[RayEngine]:
    import ray

    yield RayEngine(shipped(S3Options()), slots=2)
    ray.shutdown()


@pytest.fixture(scope="session")
def spark_engine() -> Iterator[SparkEngine]:
    engine = SparkEngine(shipped(S3Options()), master="local[2,4]")
    yield engine
    engine.session.stop()


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    history = History(np.random.default_rng(2), consumers=MANY)
    log = new_log(tmp_path)
    for _ in range(10):
        append(log, history.chunk(200), history.tick())
    return log


@pytest.fixture
def lake(log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake that several tasks go through."""
    for name, rows in (("GROUP_ROWS", 100), ("FILE_ROWS", 600)):
        monkeypatch.setattr(f"obligor.features.lake_files.{name}", rows)
    for name, rows in (("UNIT_ROWS", 100), ("TASK_ROWS", 400), ("TASK_QUESTIONS", 200)):
        monkeypatch.setattr(f"obligor.features.bucket_run.{name}", rows)
    lake = lake_of(tmp_path, log)
    lake.compact(whole=True)
    return lake
