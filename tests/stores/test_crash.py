"""kill -9 in the middle of writing: nothing acknowledged is lost, nothing is doubled, no transaction is torn."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
from tests.stores.kinds import Kind
from tests.stores.workload import assert_whole, run

KILLS = 50
TRANSACTIONS_MAX = 10_000


def write_until_killed(kind: Kind, first: int, acknowledge: int) -> None:
    """Be the writer: open the log, commit one transaction after the other, acknowledge each with its number."""
    with kind.open_log() as log:
        for number in range(first, TRANSACTIONS_MAX):
            run(log, number)
            os.write(acknowledge, f"{number}\n".encode())


def killed_writer(kind: Kind, first: int, seconds: float) -> set[int]:
    """Fork a writer, kill it after its first acknowledgement and some more time; return what it acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            write_until_killed(kind, first, writing)
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
def test_fifty_kills_lose_and_double_nothing(kind: Kind) -> None:
    kind.create_log().close()
    chance = random.Random(7)
    acknowledged: set[int] = set()
    found: set[int] = set()
    for kill in range(1, KILLS + 1):
        acknowledged |= killed_writer(kind, len(found), chance.random() * 0.03)
        with kind.open_log(read_only=True) as log:
            found = {int(row.decision_id.removeprefix("d-")) for row in log.decisions()}
            assert acknowledged <= found
            assert len(found - acknowledged) <= kill, (
                "of each writer, only what was in flight may be there unacknowledged"
            )
            assert found == set(range(len(found)))
    with kind.open_log() as log:
        assert assert_whole(log, acknowledged) == found


def test_the_check_notices_a_lost_acknowledgement(kind: Kind) -> None:
    """Negative control: an acknowledgement of what was never committed is found."""
    with kind.create_log() as log:
        run(log, 0)
        with pytest.raises(AssertionError, match="acknowledged and lost"):
            assert_whole(log, {0, 1})
