"""kill -9 in the middle of writing: nothing acknowledged is lost, nothing is doubled, no transaction is torn."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from tests.events.batches import REGISTRY, new_log
from tests.stores.workload import assert_whole, run

from obligor.events.log import EventLog
from obligor.stores.sqlite import SQLiteStore

KILLS = 50
TRANSACTIONS_MAX = 10_000


def write_until_killed(folder: Path, first: int, acknowledge: int) -> None:
    """Be the writer: open the log, commit one transaction after the other, acknowledge each with its number."""
    with EventLog.open(folder, REGISTRY, store=SQLiteStore) as log:
        for number in range(first, TRANSACTIONS_MAX):
            run(log, number)
            os.write(acknowledge, f"{number}\n".encode())


def killed_writer(folder: Path, first: int, seconds: float) -> set[int]:
    """Fork a writer, kill it after its first acknowledgement and some more time; return what it acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            write_until_killed(folder, first, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as acknowledgements:
        numbers = {int(acknowledgements.readline())}
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        numbers |= {int(line) for line in acknowledgements}
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    return numbers


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fifty_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    new_log(tmp_path).close()
    chance = random.Random(7)
    acknowledged: set[int] = set()
    found: set[int] = set()
    for kill in range(1, KILLS + 1):
        acknowledged |= killed_writer(tmp_path / "log", len(found), chance.random() * 0.03)
        with EventLog.open(tmp_path / "log", REGISTRY, read_only=True, store=SQLiteStore) as log:
            found = {int(row.decision_id.removeprefix("d-")) for row in log.decisions()}
            assert acknowledged <= found
            assert len(found - acknowledged) <= kill, (
                "of each writer, only what was in flight may be there unacknowledged"
            )
            assert found == set(range(len(found)))
    with EventLog.open(tmp_path / "log", REGISTRY, store=SQLiteStore) as log:
        assert assert_whole(log, acknowledged) == found


def test_the_check_notices_a_lost_acknowledgement(tmp_path: Path) -> None:
    """Negative control: an acknowledgement of what was never committed is found."""
    with new_log(tmp_path) as log:
        run(log, 0)
        with pytest.raises(AssertionError, match="acknowledged and lost"):
            assert_whole(log, {0, 1})
