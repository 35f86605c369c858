"""The process that test_lake_compaction kills: brings a lake to its log's end and compacts it, in small steps."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.features.lake_world import REGISTRY, lake_of

from obligor.events.log import EventLog
from obligor.features import lake, lake_compaction, lake_files
from obligor.stores.sqlite import SQLiteStore

__all__ = ["main", "small_steps"]


def small_steps() -> None:
    """Make every file, group and range tiny, so that there are many commits and much to be cut short."""
    lake_compaction.RANGE_ROWS = 40
    lake_files.GROUP_ROWS, lake_files.FILE_ROWS = 20, 60
    lake.STRETCH_EVENTS = 50


def main() -> None:
    """Work, and say when it begins and ends."""
    folder = Path(sys.argv[1])
    small_steps()
    with EventLog.open(folder / "log", REGISTRY, read_only=True, store=SQLiteStore) as log:
        print("begun", flush=True)
        kept = lake_of(folder, log)
        kept.update()
        kept.compact(whole=True)
        print("done", flush=True)


if __name__ == "__main__":
    main()
