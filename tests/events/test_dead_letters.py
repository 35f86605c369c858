"""The dead-letter file: whole or not there, one line a letter, for its owner alone."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from obligor.errors import Problem
from obligor.events.dead_letters import DeadLetters


def _add(letters: DeadLetters, number: int = 3) -> None:
    letters.add("loans.csv", "line", number, {"amount": "-5"}, [Problem("$.amount", "expected more")])


def test_a_letter_holds_the_place_the_row_and_the_reasons(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "dead.jsonl"
    with DeadLetters(path) as letters:
        _add(letters)
        _add(letters, 7)
        assert letters.finish() == path
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first == {
        "source": "loans.csv",
        "line": 3,
        "problems": [{"path": "$.amount", "message": "expected more"}],
        "record": {"amount": "-5"},
    }
    assert second["line"] == 7
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_run_without_letters_leaves_no_file(tmp_path: Path) -> None:
    with DeadLetters(tmp_path / "dead.jsonl") as letters:
        assert letters.finish() is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_letters_empties_an_older_file(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    path.write_text("old")
    with DeadLetters(path) as letters:
        assert letters.finish() is None
    assert path.read_text() == ""


def test_a_run_that_fails_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    path.write_text("old")
    with DeadLetters(path) as letters:
        _add(letters)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("dead.jsonl", "old")]


def test_a_killed_runs_remains_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "dead.jsonl.partial").write_text("remains")
    with DeadLetters(tmp_path / "dead.jsonl") as letters:
        _add(letters)
        letters.finish()
    assert len((tmp_path / "dead.jsonl").read_text().splitlines()) == 1
    assert not (tmp_path / "dead.jsonl.partial").exists()


def test_any_text_can_be_written(tmp_path: Path) -> None:
    with DeadLetters(tmp_path / "dead.jsonl") as letters:
        letters.add("x", "row", 1, {"a": "\ud800", "b": float("nan")}, [])
        letters.finish()
    assert "\\ud800" in (tmp_path / "dead.jsonl").read_text()
