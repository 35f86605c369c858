"""What a machine of an engine runs: one task, with the lake and the run's files as it finds them.

It knows no project and no log. A task says by which code it is to be carried out; another one refuses it. Which object
storage it is comes with the task, without credentials: those are the machine's own.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from functools import partial
from typing import Any

import msgspec

from obligor.errors import IntegrityError, ObligorError
from obligor.features.bucket_run import Report
from obligor.features.bucket_task import Task, carry_out
from obligor.features.engine import Work
from obligor.sources import source_hash
from obligor.stores.delta import DeltaLake, S3Options, place_of

__all__ = ["peak_bytes", "work", "work_with"]


def work(storage: str, text: str) -> str:
    """Carry a task out and return its report, both as JSON; `storage` is the JSON of S3Options."""
    begin, task = time.perf_counter(), msgspec.json.decode(text, type=Task)
    options = msgspec.json.decode(storage, type=S3Options)
    worker = f"{socket.gethostname()}:{os.getpid()}"

    def open_lake(address: str) -> DeltaLake:
        return DeltaLake(address, options)

    try:
        if task.code != source_hash():
            raise IntegrityError(f"expected code {task.code[:12]} to carry the task out, this is {source_hash()[:12]}")
        rows = carry_out(task, place_of(task.files, options), open_lake)
    except ObligorError as error:
        report = Report(worker=worker, error=str(error), kind=type(error).__name__)
    else:
        report = Report(rows, time.perf_counter() - begin, peak_bytes(), worker)
    return msgspec.json.encode(report).decode()


def work_with(options: S3Options) -> Work:
    """Return `work` for this object storage."""
    return partial(work, msgspec.json.encode(options).decode())


def peak_bytes() -> int:
    """Return the most memory that this process has held so far."""
    if sys.platform == "win32":
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    usage: Any = resource.getrusage(resource.RUSAGE_SELF)
    return int(usage.ru_maxrss) * unit
