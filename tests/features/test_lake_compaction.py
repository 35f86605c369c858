"""Compaction: what is merged and when, that memory is bounded by a range, and that a kill leaves the lake as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.features.lake_world import PLAN, History, append, lake_of, new_log
from tests.features.test_lake import assert_same

from obligor.features import lake_compaction, lake_files
from obligor.features.lake import Lake
from obligor.features.lake_compaction import GROWTH, RUNS_MAX, due
from obligor.features.lake_store import CommitConflict, DataFile, Snapshot
from obligor.features.lake_tables import LakeTable
from obligor.stores.delta import DeltaLake

KILLS = 40 if os.environ.get("OBLIGOR_SOAK") else 6


def runs(*rows: int) -> list[DataFile]:
    """Return sequences of files that each cover all buckets; a pair of files makes one of more than a million rows."""
    return [DataFile(f"{i}", n, 0, 0, 4095) for i, n in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "merged"),
    [
        ([], []),
        ([1_000], []),
        ([1_000, 10], []),
        ([1_000, 10, 10], [10, 10]),
        ([1_000, 10 * GROWTH, 10], [10, 10 * GROWTH]),
        ([1_000, 10 * GROWTH + 1, 10], []),
        ([100, 40, 10, 10], [10, 10, 40, 100]),
        ([10**9, *[10 ** i for i in range(8)]], [1, 10]),
    ],
)  # fmt: skip
def test_sequences_of_about_one_size_are_merged(rows: list[int], merged: list[int]) -> None:
    found = due(runs(*rows), whole=False, revised=0)
    assert sorted(file.rows for file in found) == sorted(merged)


def test_everything_is_merged_when_asked_or_when_much_is_replaced() -> None:
    files = runs(1_000, 10)
    assert due(files, whole=True, revised=0) == files
    assert due(files, whole=False, revised=100) == files
    assert due(files[:1], whole=True, revised=0) == [], "one sequence in which nothing is replaced is as it should be"
    assert due(files[:1], whole=True, revised=1) == files[:1]


def test_a_row_is_rewritten_a_number_of_times_that_grows_slowly() -> None:
    sizes: list[int] = []
    written = 0
    for _ in range(2_000):
        sizes.append(1)
        merged = due(runs(*sizes), whole=False, revised=0)
        if merged:
            for file in merged:
                sizes.remove(file.rows)
            sizes.append(sum(file.rows for file in merged))
            written += sizes[-1]
        assert len(sizes) <= RUNS_MAX + 1
    assert written / 2_000 < 12


def test_memory_is_bounded_by_a_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_compaction, "RANGE_ROWS", 100)
    history = History(np.random.default_rng(1), consumers=[f"c-{i}" for i in range(200)])
    held: list[int] = []
    original = lake_compaction.merged_rows

    def watched(*arguments: object) -> pa.Table | None:
        rows = original(*arguments)  # type: ignore[arg-type]
        held.append(0 if rows is None else rows.num_rows)
        return rows

    monkeypatch.setattr(lake_compaction, "merged_rows", watched)
    with new_log(tmp_path) as log:
        lake = lake_of(tmp_path, log)
        for _ in range(10):
            append(log, history.chunk(100), history.tick())
            lake.update()
        lake.compact(whole=True)
        assert sum(held) > 900
        consumers = [rows for rows in held if rows < 400]
        assert len(consumers) > 5, "but for the two merchants, whose buckets are larger than a range"
        assert_same(log, lake, np.random.default_rng(0))


def together(*works: Callable[[], object]) -> list[BaseException]:
    """Run all at once; return what they raised."""
    raised: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except CommitConflict as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.parametrize("shared", [True, False], ids=["one object", "one each"])
def test_whoever_changes_a_lake_at_the_same_time_nothing_is_doubled_or_lost(shared: bool, tmp_path: Path) -> None:
    history = History(np.random.default_rng(4))
    conflicts = 0
    with new_log(tmp_path) as log:
        lake = lake_of(tmp_path, log)

        def another() -> Lake:
            return lake if shared else lake_of(tmp_path, log)

        for _ in range(8):
            append(log, history.chunk(60), history.tick())
            for _ in range(2):
                raised = together(
                    another().update, another().update, lambda: another().compact(whole=True),
                    lambda: another().compact(whole=True), lambda: another().timelines(PLAN, log.cut()),
                )  # fmt: skip
                conflicts += len(raised)
        lake.update()
        assert [one.behind for one in lake.status()] == [0, 0, 0]
        assert all(one.equal and one.rows for one in lake.check(whole=True))
        assert_same(log, lake, np.random.default_rng(0))
    assert conflicts > 0, "the test has them meet"


def test_a_kill_leaves_a_lake_that_is_read_and_finished(tmp_path: Path) -> None:
    history = History(np.random.default_rng(9))
    chance = np.random.default_rng(3)
    outcomes = set()
    with new_log(tmp_path) as log:
        append(log, history.chunk(60), history.tick())
        lake_of(tmp_path, log)  # all tables are there: whoever is killed before has left no lake to read
        for _ in range(KILLS):
            for _ in range(4):
                append(log, history.chunk(60), history.tick())
            command = [sys.executable, "-m", "tests.features.lake_killed", str(tmp_path)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "begun\n"
                time.sleep(float(chance.random()) * 0.8)
                process.send_signal(signal.SIGKILL)
                outcomes.add(process.stdout.readline())
            lake = Lake(DeltaLake(tmp_path / "lake"), log)
            assert {one.misfit for one in lake.status()} == {None}
            assert_same(log, lake, chance)
        assert "" in outcomes, "some were cut short"
        lake.update()
        lake.compact(whole=True)
        lake.vacuum(0)
        assert all(one.equal and one.rows for one in lake.check(whole=True))
        assert_same(log, lake, chance)
        kept = {file.name for table in lake.tables() for file in lake.view(PLAN).tables[table.entities].files}
        left = {path.name for path in (tmp_path / "lake").glob("*/*.parquet")}
        assert left == kept, "what was cut short is gone"


def test_what_replaces_rows_stays_until_they_are_written_anew(tmp_path: Path) -> None:
    history = History(np.random.default_rng(6), consumers=[f"c-{i}" for i in range(50)])
    with new_log(tmp_path) as log:
        append(log, history.chunk(3_000), history.tick())
        lake = lake_of(tmp_path, log)
        lake.compact(whole=True)
        for _ in range(3):
            append(log, history.chunk(15), history.tick())
            lake.update()
        before = {one.name: (one.runs, one.revisions) for one in lake.status()}
        assert lake.compact() > 0
        after = {one.name: (one.runs, one.revisions) for one in lake.status()}
        assert before["consumer"][0] == 4
        assert after["consumer"] == (2, before["consumer"][1])
        assert before["consumer"][1] > 0
        assert all(one.equal for one in lake.check(whole=True))
        assert_same(log, lake, np.random.default_rng(0))
        lake.compact(whole=True)
        assert {(one.runs, one.revisions) for one in lake.status()} == {(1, 0)}
        assert_same(log, lake, np.random.default_rng(0))


def test_a_compaction_between_two_looks_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are of before it, what replaces them is gone with it: both are looked up again."""
    history = History(np.random.default_rng(6))
    with new_log(tmp_path) as log:
        append(log, history.chunk(100), history.tick())
        lake = lake_of(tmp_path, log)
        append(log, history.chunk(30), history.tick())
        lake.update()
        assert all(one.revisions for one in lake.status())
        original = Lake._revisions
        compacted: list[bool] = []

        def late(self: Lake, table: LakeTable, snapshot: Snapshot) -> pa.Table:
            if not compacted:
                compacted.append(True)
                lake_of(tmp_path, log).compact(whole=True)
            return original(self, table, snapshot)

        monkeypatch.setattr(Lake, "_revisions", late)
        assert_same(log, lake, np.random.default_rng(0))


def test_files_are_not_too_small() -> None:
    assert lake_files.GROUP_ROWS * 8 <= lake_files.FILE_ROWS
