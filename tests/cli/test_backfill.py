"""`obligor backfill`: the file that `features at` writes, from tasks that may be stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from tests.cli.conftest import Run

import obligor
from obligor.cli.backfill import backfill
from obligor.decisions.asked import asked_questions
from obligor.features.engine import LocalEngine, Outcome

NAMES = ("income_30d", "first_time_here", "bureau_score", "purchases_30d")


@pytest.fixture
def questions(run: Run, copy: Path, tmp_path: Path) -> Path:
    run("lake", "update", "--project", str(copy))
    project = obligor.open(copy)
    with project.log(read_only=True) as log:
        table = asked_questions(log, project.application, 40)
    pq.write_table(table, tmp_path / "questions.parquet")
    return tmp_path / "questions.parquet"


def test_it_writes_what_features_at_writes(run: Run, copy: Path, questions: Path, tmp_path: Path) -> None:
    common = (str(questions), *(o for name in NAMES for o in ("--feature", name)), "--cut", "cut", "--missing")
    in_project = ("--project", str(copy))
    run("features", "at", *common, "--out", str(tmp_path / "at.parquet"), *in_project)
    told = run("backfill", *common, "--out", str(tmp_path / "b.parquet"), "--json", *in_project)
    assert (told["engine"], told["rows"], told["retried"], told["done_before"]) == ("local", 40, 0, 0)
    assert told["tasks"] > 0
    assert told["worker_peak_mb"] > 50
    assert pq.read_table(tmp_path / "b.parquet").equals(pq.read_table(tmp_path / "at.parquet"))
    assert not list((copy / "store").glob("lake.runs/*")), "nothing is left"
    assert "40 rows with 8 columns more" in run("backfill", *common, "--out", str(tmp_path / "c.csv"), *in_project)
    assert backfill.__doc__ is not None
    for more, code, words in (
        (("--engine", "dask"), 3, "expected local (without a cluster), ray or spark, got 'dask'"),
        (("--cluster", "somewhere"), 3, "expected local (without a cluster), ray or spark, got 'local'"),
        (("--work", "ftp://x/y"), 3, "expected a path or an address s3://bucket/folder, got 'ftp://x/y"),
    ):
        assert words in run("backfill", *common, "--out", "x.csv", *more, *in_project, code=code)


def test_a_lake_that_is_not_there_is_asked_for(run: Run, copy: Path, tmp_path: Path) -> None:
    project = obligor.open(copy)
    with project.log(read_only=True) as log:
        pq.write_table(asked_questions(log, project.application, 3), tmp_path / "q.parquet")
    told = run("backfill", str(tmp_path / "q.parquet"), "--out", "x.csv", "--project", str(copy), code=4)
    assert "obligor lake update" in told


def test_a_run_that_was_stopped_goes_on_at_its_cut(
    run: Run, copy: Path, questions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = obligor.open(copy)
    for name in ("UNIT_ROWS", "TASK_ROWS"):
        monkeypatch.setattr(f"obligor.features.bucket_run.{name}", 500)
    table = pl.read_parquet(questions)
    expected = project.features.at(table, features=list(NAMES))
    original = LocalEngine.carry_out

    def stopped(self: LocalEngine, tasks: Sequence[str]) -> Iterator[Outcome]:
        yield from list(original(self, tasks[:3]))
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalEngine, "carry_out", stopped)
    with pytest.raises(KeyboardInterrupt):
        project.backfill(table, features=list(NAMES))
    monkeypatch.setattr(LocalEngine, "carry_out", original)
    doubled = pl.read_parquet(copy / "raw" / "purchase.parquet").filter(pl.col("corrects").is_null())
    doubled = doubled.filter(pl.col("retracts").is_null()).with_columns(("again-" + pl.col("id")).alias("id"))
    doubled.write_parquet(tmp_path / "purchase.parquet")
    run("ingest", str(tmp_path / "purchase.parquet"), "--declared", "--project", str(copy))
    seen: list[tuple[int, int]] = []
    found = project.backfill(table, features=list(NAMES), progress=lambda done, total: seen.append((done, total)))
    assert found.equals(expected), "what has been ingested since is not seen"
    assert not project.features.at(table, features=list(NAMES)).equals(expected), "and would be"
    assert seen[0][0] > 0, "three tasks were done"
    assert seen[-1][0] == seen[-1][1]
    assert not list((copy / "store").glob("lake.runs/*"))
