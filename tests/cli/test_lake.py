"""`obligor lake`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.test_service import APPLICATION

import obligor
from obligor.cli.lake import lake
from obligor.simulator.history import TRUTH


def test_every_command_of_the_lake_has_help_with_an_example(run: Run) -> None:
    assert [c.name for c in lake.registered_commands] == ["status", "update", "compact", "vacuum", "keep", "check"]
    for command in lake.registered_commands:
        shown = " ".join(run("lake", str(command.name), "--help").split())
        assert f"obligor lake {command.name}" in shown
        assert "--json" in shown


def test_a_lake_is_made_kept_checked_and_used(run: Run, copy: Path) -> None:
    at = ("--project", str(copy), "--json")
    assert run("lake", "status", *at) == {"tables": []}
    assert "obligor lake update" in run("lake", "status", "--project", str(copy))
    made = run("lake", "update", *at)
    with obligor.open(copy).log(read_only=True) as log:
        assert made["events"] == log.head.sequence
    assert {table["name"] for table in made["tables"]} == {"consumer", "consumer+merchant", "merchant"}
    assert {table["behind"] for table in made["tables"]} == {0}
    answer = run("decide", "-", *at, stdin=json.dumps(APPLICATION))
    assert {t["behind"] for t in run("lake", "status", *at)["tables"]} == {2}, "the application and its decision"
    assert run("replay", answer["decision_id"], *at)["verdicts"] == {"identical": 1}
    assert run("lake", "update", *at)["events"] == 2
    assert run("lake", "compact", "--whole", *at)["files"] == 6
    assert run("lake", "compact", *at)["files"] == 0
    assert run("lake", "vacuum", *at)["files"] == 0, "an hour is not a week"
    assert run("lake", "vacuum", "--hours", "0", *at)["files"] >= 6
    assert run("replay", answer["decision_id"], *at)["verdicts"] == {"identical": 1}
    assert run("replay", *at)["verdicts"] == {"identical": 1}
    checked = run("lake", "check", "--whole", *at)["tables"]
    assert all(table["equal"] and table["rows"] for table in checked)
    assert "rows compared" in run("lake", "check", "--project", str(copy))


def test_keeping_updates_compacts_and_vacuums(run: Run, copy: Path) -> None:
    at = ("--project", str(copy), "--json")
    made = run("lake", "keep", *at)
    assert made["events"] > 0
    assert {table["behind"] for table in made["tables"]} == {0}
    assert (made["merged"], made["deleted"]) == (0, 0)
    for number in range(4):
        run("decide", "-", *at, stdin=json.dumps({**APPLICATION, "event_id": f"kept-{number}"}))
        made = run("lake", "keep", "--hours", "0", *at)
        assert made["events"] == 2, "the application and its decision"
    assert made["merged"] > 0
    assert made["deleted"] > 0
    assert all(table["equal"] and table["rows"] for table in run("lake", "check", "--whole", *at)["tables"])
    assert "files merged" in run("lake", "keep", "--project", str(copy))


def test_training_reads_the_lake_and_learns_the_same(run: Run, copy: Path) -> None:
    at = ("--project", str(copy))
    before = obligor.open(copy).bundle().hash
    run("lake", "update", *at)
    run("train", *at, "--cutoff", "2026-04-05", "--ceiling", str(copy / "raw" / TRUTH))
    assert obligor.open(copy).bundle().hash == before


def test_a_lake_of_another_log_is_refused_and_made_anew(run: Run, copy: Path) -> None:
    at = ("--project", str(copy), "--json")
    run("lake", "update", *at)
    answer = run("decide", "-", *at, stdin=json.dumps(APPLICATION))
    (copy / "store" / "log").rename(copy / "store" / "lost")
    run("ingest", str(copy / "raw" / "repayment.parquet"), "--declared", "--project", str(copy))
    assert "another log" in json.dumps(run("lake", "status", *at, code=1))
    with obligor.open(copy).log(read_only=True) as log, pytest.raises(obligor.errors.IntegrityError, match="update"):
        obligor.open(copy).lake(log).view(obligor.open(copy).plan)
    assert run("lake", "update", *at)["events"] > 0
    assert {table["misfit"] for table in run("lake", "status", *at)["tables"]} == {None}
    assert answer
