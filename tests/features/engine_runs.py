"""Backfills on an engine over a small lake, to be compared with those in process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from obligor.features.bucket_run import BucketRun
from obligor.features.engine import Engine, LocalEngine
from obligor.sources import source_hash
from obligor.stores.delta import DeltaLake, S3Options, place_of
from obligor.worker import work_with


def run_on(engine: Engine, folder: Path, **more: Any) -> BucketRun:
    """Return a run on an engine, of the lake in a folder, whose files lie beside it."""
    return BucketRun(engine, place_of(folder / "work"), DeltaLake, str(folder / "lake"), source_hash(), **more)


def local_engine(threads: int = 2) -> LocalEngine:
    return LocalEngine(work_with(S3Options()), threads)
