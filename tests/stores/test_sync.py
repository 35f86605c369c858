"""What is acknowledged is on the disk: shown on a disk that forgets whatever was not synced."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.events.batches import REGISTRY, new_log
from tests.stores.volatile import VolatileDisk
from tests.stores.workload import assert_whole, run

from obligor.events.log import EventLog
from obligor.events.store import Mode
from obligor.stores.sqlite import SQLiteStore, checkpoints

TRANSACTIONS = 30


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[VolatileDisk]:
    monkeypatch.setattr(checkpoints, "SOFT_PAGES", 30)
    monkeypatch.setattr(checkpoints, "HARD_PAGES", 200)
    disk = VolatileDisk("volatile")
    yield disk
    disk.unregister()


def open_on_disk(folder: Path, synchronous: str) -> EventLog:
    def opener(path: str, mode: Mode) -> SQLiteStore:
        return SQLiteStore(path, mode, vfs="volatile", synchronous=synchronous)

    return EventLog.open(folder / "log", REGISTRY, store=opener)


def create_on_disk(folder: Path) -> None:
    new_log(folder, store=lambda path, mode: SQLiteStore(path, mode, vfs="volatile")).close()


def recovered(disk: VolatileDisk, folder: Path, name: str, chance: random.Random | None) -> EventLog:
    """Return the log as found after a loss of power right now."""
    disk.crash_into(folder / name, chance)
    shutil.copy(folder / "log" / "key", folder / name)
    return EventLog.open(folder / name, REGISTRY, store=SQLiteStore)


def crash_after_every_acknowledgement(disk: VolatileDisk, folder: Path, synchronous: str) -> None:
    create_on_disk(folder)
    with open_on_disk(folder, synchronous) as log:
        for number in range(TRANSACTIONS):
            run(log, number)
            with recovered(disk, folder, f"after-{number}", None) as found:
                assert assert_whole(found, set(range(number + 1))) == set(range(number + 1))
            with recovered(disk, folder, f"torn-{number}", random.Random(number)) as found:
                assert assert_whole(found, set(range(number + 1))) == set(range(number + 1))


def test_what_is_acknowledged_survives_a_loss_of_power(disk: VolatileDisk, tmp_path: Path) -> None:
    crash_after_every_acknowledgement(disk, tmp_path, "FULL")


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
def test_without_a_sync_for_each_commit_it_does_not(disk: VolatileDisk, tmp_path: Path, synchronous: str) -> None:
    """Negative control: the same check fails."""
    with pytest.raises(AssertionError, match="acknowledged and lost"):
        crash_after_every_acknowledgement(disk, tmp_path, synchronous)


def test_each_acknowledgement_follows_a_sync(disk: VolatileDisk, tmp_path: Path) -> None:
    create_on_disk(tmp_path)
    with open_on_disk(tmp_path, "FULL") as log:
        for number in range(5):
            before = disk.syncs
            run(log, number)
            assert disk.syncs > before


def test_a_loss_of_power_within_a_commit_leaves_all_of_it_or_nothing(
    disk: VolatileDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SOFT_PAGES", checkpoints.HARD_PAGES)  # checkpoints on this thread, to crash in
    create_on_disk(tmp_path)
    crashes = 0
    acknowledged: set[int] = set()

    def crash() -> None:
        nonlocal crashes
        crashes += 1
        with recovered(disk, tmp_path, f"within-{crashes}", random.Random(crashes)) as found:
            assert assert_whole(found, acknowledged) <= acknowledged | {len(acknowledged)}

    with open_on_disk(tmp_path, "FULL") as log:
        disk.before_sync = crash
        for number in range(TRANSACTIONS):
            run(log, number)
            acknowledged.add(number)
        disk.before_sync = lambda: None
    assert crashes >= TRANSACTIONS
