"""A process that brings a lake in object storage to the end of a log, to be killed on the way, or to race another.

python -m tests.stores.lake_writer FOLDER ADDRESS ENDPOINT STEP_EVENTS
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.features.lake_world import PLAN, REGISTRY, unsynced

from obligor.events.log import EventLog
from obligor.features import lake as lake_module
from obligor.features.lake import Lake
from obligor.features.lake_store import CommitConflict
from obligor.features.lake_tables import plan_entities
from obligor.stores.delta import DeltaLake, S3Options


def main(folder: str, address: str, endpoint: str, step: str) -> None:
    """Update in many small commits, again after each conflict, and say how many there were."""
    lake_module.STRETCH_EVENTS = int(step)
    conflicts = 0
    with EventLog.open(Path(folder) / "log", REGISTRY, read_only=True, store=unsynced) as log:
        print("begun", flush=True)
        while True:
            lake = Lake(DeltaLake(address, S3Options(endpoint=endpoint)), log)
            try:
                lake.update(plan_entities(PLAN))
                break
            except CommitConflict:
                conflicts += 1
    print(f"done {conflicts}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
