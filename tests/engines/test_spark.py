"""Events out of Spark: the same log as from one sorted file, whatever partitions they lay in."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.features.lake_world import SMALL_PLAN, START, Repayment, lake_of, new_log
from typer.testing import CliRunner

import obligor
from obligor.cli.app import app
from obligor.engines.spark.engine import SparkEngine
from obligor.engines.spark.intake import parts_of, write_parts
from obligor.errors import BadInput, NotFound
from obligor.events.ingest import ingest
from obligor.events.log import EventLog
from obligor.events.mapping import Mapping, field
from obligor.features.backfill import backfill
from obligor.features.requests import Requests

CLOCK = START + 10**15
MAPPING = Mapping(event=Repayment, id=field("id"), event_time="at", columns={"amount": "paid"})


def table() -> pa.Table:
    chance, n = np.random.default_rng(1), 3_000
    at = START + chance.integers(0, 40, n) * 86_400_000_000  # many at one moment: the id decides
    return pa.table(
        {
            "id": [f"e-{i}" for i in range(n)],
            "at": pa.array(at, pa.timestamp("us", tz="UTC")),
            "consumer": [f"c-{i}" for i in chance.integers(0, 6, n)],
            "loan": ["a"] * n,
            "paid": chance.integers(0, 9_000, n),
            "note": ["x"] * n,
        }
    )


def ingested(folder: Path, source: object) -> EventLog:
    folder.mkdir()
    log = new_log(folder)
    report = ingest(log, source, MAPPING, clock_us=CLOCK, dead_letters=folder / "dead.jsonl", declared=True)
    assert (report.letters, report.per_type["repayment"].accepted) == (0, 3_000)
    return log


@pytest.fixture
def frame(spark_engine: SparkEngine, tmp_path: Path) -> Any:
    """The rows in disorder, in several partitions."""
    pq.write_table(table().take(pa.array(np.random.default_rng(2).permutation(3_000))), tmp_path / "rows.parquet")
    return spark_engine.session.read.parquet(str(tmp_path / "rows.parquet")).repartition(5)


def test_the_log_and_the_lake_are_those_of_one_sorted_file(frame: Any, tmp_path: Path) -> None:
    expected = ingested(tmp_path / "one", table().sort_by([("at", "ascending"), ("id", "ascending")]))
    frame.createOrReplaceTempView("repayments")
    sources = {"frame": frame, "view": "repayments", "path": str(tmp_path / "rows.parquet")}
    for name, source in sources.items():
        files = write_parts(source, tmp_path / f"parts-{name}", ["at", "id"], part_rows=700)
        assert len(files) == 5
        assert max(pq.read_metadata(file).num_rows for file in files) < 1_400
        log = ingested(tmp_path / name, [str(file) for file in parts_of(tmp_path / f"parts-{name}")])
        assert log.facts("repayment").rows.equals(expected.facts("repayment").rows)
        requests = requests_at_any(expected)
        found = backfill(SMALL_PLAN, lake_of(tmp_path / name, log, SMALL_PLAN), requests)
        wanted = backfill(SMALL_PLAN, lake_of(tmp_path / "one", expected, SMALL_PLAN), requests)
        assert found.tobytes() == wanted.tobytes()
    other = ingested(tmp_path / "unsorted", str(tmp_path / "rows.parquet"))
    assert not other.facts("repayment").rows.equals(expected.facts("repayment").rows)


def requests_at_any(log: EventLog) -> Requests:
    known = log.facts("repayment", columns=[]).rows["known"].to_numpy()
    names = pa.array([f"c-{i % 7}" for i in range(200)])
    cuts = np.array([[log.head.sequence]])
    return Requests(known[:200] + 5, cuts, np.full(200, -1), {"consumer": names}, pa.table({}))


def test_only_some_columns_are_written_and_moments_keep_their_zone(frame: Any, tmp_path: Path) -> None:
    before = frame.sparkSession.conf.get("spark.sql.parquet.outputTimestampType")
    [file] = write_parts(frame, tmp_path / "parts", ["at", "id"], columns=["consumer"])
    found = pq.read_table(file)
    assert found.column_names == ["at", "id", "consumer"]
    assert found.schema.field("at").type == pa.timestamp("us", tz="UTC")
    assert found["at"][0].as_py() == datetime.fromtimestamp(START / 1e6, UTC)
    assert frame.sparkSession.conf.get("spark.sql.parquet.outputTimestampType") == before


def test_what_is_wrong_is_told_before_anything_is_written(frame: Any, tmp_path: Path) -> None:
    for source, order, error, words in (
        (frame, ["att", "id"], BadInput, r"\$.att: did you mean 'at'\?"),
        (frame, [], BadInput, "expected columns to sort by"),
        (str(tmp_path / "none"), ["at"], NotFound, "no file or folder"),
        ("no_table", ["at"], NotFound, "no folder and no table 'no_table'"),
    ):
        with pytest.raises(error, match=words):
            write_parts(source, tmp_path / "parts", order)
        assert not (tmp_path / "parts").exists()
    write_parts(frame, tmp_path / "parts", ["at", "id"])
    with pytest.raises(BadInput, match="is there already"):
        write_parts(frame, tmp_path / "parts", ["at", "id"])
    (tmp_path / "parts" / "_SUCCESS").unlink()
    with pytest.raises(NotFound, match="is not whole"):
        parts_of(tmp_path / "parts")


def test_the_command_sorts_with_spark_and_ingests(spark_engine: SparkEngine, frame: Any, tmp_path: Path) -> None:
    project, parts = tmp_path / "lender", tmp_path / "sorted"

    def run(*arguments: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == code, (done.output, done.exception)
        return json.loads(done.stdout) if "--json" in arguments else done.output

    run("init", str(project))
    (project / "events.py").write_text(EVENTS)
    (project / "mapping.toml").write_text(MAPPING_TOML)
    source = str(tmp_path / "rows.parquet")
    common = ("--spark", str(parts), "--order", "at", "--order", "id", "--declared", "--project", str(project))
    told = run("ingest", source, *common, "--json")
    assert told["per_type"]["repayment"]["accepted"] == 3_000
    again = run("ingest", source, *common, "--json")
    assert again["per_type"]["repayment"] == told["per_type"]["repayment"] | {"accepted": 0, "duplicates": 3_000}
    with obligor.open(project).log(read_only=True) as log:
        event_time = log.facts("repayment").rows["event_time"].to_numpy()
    assert (np.diff(event_time) >= 0).all(), "positions are in the order of time"
    assert "expected one table" in run("ingest", source, source, *common, code=3)


EVENTS = """
from obligor.features import Entity, Event, Money

class Repayment(Event):
    consumer = Entity()
    loan = Entity()
    amount = Money("NGN")
"""
MAPPING_TOML = """
[[mapping]]
event = "repayment"
id = { field = "id" }
event_time = "at"
columns = { amount = "paid" }
"""
