"""All shards of a log written as one: each row in its shard, each id once, and a load that is killed is run again."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from tests.events.batches import CLOCK, Row, batch_of, correction, repayment, retraction
from tests.events.edge import REGISTRY as EDGE
from tests.events.sharded import create_shards, open_shards
from tests.events.test_ingest import CLOCK as LOADED
from tests.events.test_ingest import MAPPING, _letters, _table
from tests.postgres_server import Server

from obligor.events import chunk
from obligor.events import ingest as module
from obligor.events import log as log_module
from obligor.events.batch import Batch
from obligor.events.ingest import ingest
from obligor.events.log import ClockSkew, EventLog
from obligor.events.positions import shard_of
from obligor.events.spread import Spread, SpreadTransaction
from obligor.events.store import IdTaken
from obligor.stores.postgres import PostgresStore

SHARDS = 3
_numbers = itertools.count()


def by_consumer(batch: Batch) -> npt.NDArray[np.int64]:
    """Route rows by the number in their consumer's name; those that name nobody to shard 0."""
    found = np.empty(batch.size, np.int64)
    for part in batch.parts.values():
        names = part["consumer"].to_pylist()
        found[part["index"].to_numpy()] = [int(name[2:]) % SHARDS if name else 0 for name in names]
    return found


@pytest.fixture
def logs(postgres: Server, tmp_path: Path) -> Iterator[list[EventLog]]:
    url = create_shards(postgres, f"spread_{next(_numbers)}", tmp_path, SHARDS)
    with open_shards(url, tmp_path, SHARDS) as opened:
        yield opened


@pytest.fixture
def spread(logs: list[EventLog]) -> Spread:
    return Spread(logs, by_consumer)


def _append(spread: Spread, *rows: Row, clock: int = CLOCK) -> list[str]:
    with spread.begin(clock) as tx:
        found = tx.append(batch_of(rows))
        tx.commit()
    return found.status


def _shard(logs: Sequence[EventLog], event_id: str) -> int:
    position = logs[0].find(event_id)
    assert position is not None
    return shard_of(position)


def test_each_row_is_in_its_shard_and_answered_in_the_batch_s_order(spread: Spread, logs: list[EventLog]) -> None:
    rows = [repayment(f"e-{i}", i + 1, f"c-{i % 5}", time=1_000 + i) for i in range(40)]
    with spread.begin(CLOCK) as tx:
        found = tx.append(batch_of(rows))
        assert [shard_of(one) for one in found.position.tolist()] == [i % 5 % SHARDS for i in range(40)]
        tx.commit()
    assert found.status == ["accepted"] * 40
    facts = logs[0].facts("repayment", cut=logs[0].ends()).rows.to_pylist()
    assert {one["root"]: one["amount"] for one in facts} == dict(
        zip(found.position.tolist(), range(1, 41), strict=True)
    )
    assert _append(spread, *reversed(rows)) == ["duplicate"] * 40
    assert sum(logs[0].ends().values()) == 40


def test_what_was_not_committed_is_in_no_shard(spread: Spread, logs: list[EventLog]) -> None:
    with spread.begin(CLOCK) as tx:
        tx.append(batch_of([repayment("a", consumer="c-0"), repayment("b", consumer="c-1")]))
    assert logs[0].ends() == {0: 0, 1: 0, 2: 0}
    assert _append(spread, repayment("a", consumer="c-0")) == ["accepted"]


def test_an_id_is_one_row_s_whatever_the_shards_of_its_rows(
    spread: Spread, logs: list[EventLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one batch, in two of one transaction, and in two transactions."""
    here, there = repayment("a", consumer="c-0"), repayment("a", consumer="c-1")
    assert _append(spread, here, there, here) == ["accepted", "conflict", "duplicate"]
    assert _append(spread, there, here) == ["conflict", "duplicate"]
    one, other = repayment("b", consumer="c-2"), repayment("b", consumer="c-1")
    with spread.begin(CLOCK) as tx:
        assert tx.append(batch_of([one])).status == ["accepted"]
        assert tx.append(batch_of([other, one])).status == ["conflict", "duplicate"]
        tx.commit()
    assert (_shard(logs, "a"), _shard(logs, "b")) == (0, 2)
    assert sum(logs[0].ends().values()) == 2

    monkeypatch.setattr(SpreadTransaction, "_together", lambda self, batch, shards: shards)
    with pytest.raises(IdTaken):  # the control: each shard takes its own, and one cannot commit
        _append(spread, repayment("c", consumer="c-0"), repayment("c", consumer="c-1"))


def test_a_correction_of_another_shard_takes_effect_with_the_load(spread: Spread, logs: list[EventLog]) -> None:
    loaded = [
        retraction("gone", "b"),
        correction("right", "a", 7, "c-0"),
        repayment("a", 5, "c-1"),
        repayment("b", 6, "c-2"),
        correction("righter", "right", 8, "c-1"),
    ]
    assert _append(spread, *loaded) == ["accepted"] * 5
    cut = logs[0].ends()
    assert logs[0].facts("repayment", cut).view(cut, 2 * CLOCK)["amount"].to_pylist() == [8]
    assert all(log.pending_count == 0 for log in logs)
    assert logs[0].verify(deep=True) == []


def test_a_load_gives_more_microseconds_than_have_passed(
    spread: Spread, logs: list[EventLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "SKEW_SECONDS_MAX", 0)
    for number in range(3):
        rows = [repayment(f"{number}-{i}", consumer=f"c-{i % 2}") for i in range(20)]
        assert _append(spread, *rows) == ["accepted"] * 20
    assert max(head.known_time for head in logs[0].heads().values()) > CLOCK
    with pytest.raises(ClockSkew, match="set the clocks right"):  # another load does not know who was ahead
        Spread(logs, by_consumer).begin(CLOCK)


WORKER = """
import sys
from pathlib import Path
from obligor.events import chunk, ingest as module
from obligor.events.spread import Spread
from tests.events.edge import REGISTRY
from tests.events.sharded import open_shards
from tests.events.test_ingest import CLOCK, MAPPING
from tests.events.test_spread import SHARDS, by_consumer
module.EVENTS_PER_COMMIT, chunk.CHUNK_ROWS = 1, 1_024
url, folder = sys.argv[1], Path(sys.argv[2])
with open_shards(url, folder, SHARDS, REGISTRY) as logs:
    module.ingest(
        Spread(logs, by_consumer), folder / "rows.parquet", MAPPING, clock_us=CLOCK,
        dead_letters=folder / "dead.jsonl", progress=lambda rows, total: print(rows, flush=True),
    )
"""


def test_a_killed_load_of_several_shards_loses_and_doubles_nothing(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = create_shards(postgres, f"spread_{next(_numbers)}", tmp_path, SHARDS, EDGE)
    count, dead = 12 * 1_024, tmp_path / "dead.jsonl"
    amounts = [-1.0 if i % 500 == 0 else 1.0 for i in range(count)]
    pq.write_table(_table(count, amount=amounts), tmp_path / "rows.parquet")
    for kill in range(4):
        command = [sys.executable, "-c", WORKER, url, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(1 + kill):
            assert process.stdout.readline()
        time.sleep(0.007 * kill)  # somewhere between or within the commits of the shards
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not dead.exists()
    with open_shards(url, tmp_path, SHARDS, EDGE) as logs:
        committed = sum(logs[0].ends().values())
        assert 1_024 <= committed < count
        monkeypatch.setattr(chunk, "CHUNK_ROWS", 1_024)
        report = ingest(
            Spread(logs, by_consumer), tmp_path / "rows.parquet", MAPPING, clock_us=LOADED, dead_letters=dead
        )
        right = count - len(range(0, count, 500))
        assert (report.duplicates, report.accepted, report.rejected) == (committed, right - committed, count - right)
        assert len(_letters(dead)) == count - right
        facts = logs[0].facts("repayment", cut=logs[0].ends(), columns=["event_id", "consumer"]).rows.to_pylist()
        assert len({one["event_id"] for one in facts}) == len(facts) == right
        assert all(shard_of(one["root"]) == int(one["consumer"][2:]) % SHARDS for one in facts)
        assert logs[0].verify(deep=True) == []


def test_commits_of_a_load_follow_each_other_in_all_shards(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = create_shards(postgres, f"spread_{next(_numbers)}", tmp_path, SHARDS, EDGE)
    monkeypatch.setattr(module, "EVENTS_PER_COMMIT", 1_500)
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 1_000)
    with open_shards(url, tmp_path, SHARDS, EDGE) as logs:
        report = ingest(
            Spread(logs, by_consumer), _table(3_400), MAPPING, clock_us=LOADED, dead_letters=tmp_path / "dead.jsonl"
        )
        assert report.accepted == 3_400
        assert [log.head.sequence for log in logs] == [1_134, 1_133, 1_133]
        with EventLog.open(url, EDGE, read_only=True, store=PostgresStore, keys=tmp_path) as seen:
            assert [block.after for _, block in seen.reader.blocks(*_all_of(seen, 1))][-1].keys() == {0, 2}


def _all_of(log: EventLog, shard: int) -> tuple[int, int]:
    base = shard << 48
    return base, base + log.ends()[shard]
