"""`obligor ingest`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from tests.cli.conftest import Run


def test_ingesting_again_adds_nothing(run: Run, copy: Path) -> None:
    source = str(copy / "raw" / "repayment.parquet")
    report = run("ingest", source, "--declared", "--project", str(copy), "--json")
    assert report["accepted"] == 0
    assert report["duplicates"] == report["rows"] > 0
    assert report["warnings"] == []


def test_what_is_known_already_is_not_taken_for_history_that_came_late(run: Run, copy: Path, tmp_path: Path) -> None:
    old = {"type": "purchase", "event_id": "x-1", "event_time": "2026-01-01T00:00:00Z", "consumer": "c-1",
           "merchant": "m-1", "amount": 100, "method": "card"}  # fmt: skip
    new = {**old, "event_id": "x-2", "event_time": datetime.now(UTC).isoformat()}
    (copy / "mapping.toml").unlink()
    source = tmp_path / "records.jsonl"
    source.write_text(json.dumps(old) + "\n")
    assert run("ingest", str(source), "--project", str(copy), "--json")["warnings"]
    source.write_text(json.dumps(old) + "\n" + json.dumps(new) + "\n")
    again = run("ingest", str(source), "--project", str(copy), "--json")
    assert (again["accepted"], again["duplicates"], again["warnings"]) == (1, 1, [])


def test_rows_that_fail_are_named_and_the_rest_goes_in(run: Run, copy: Path, tmp_path: Path) -> None:
    events = [
        {"type": "purchase", "event_id": "x-1", "event_time": "2026-01-01T00:00:00Z", "consumer": "c-1",
         "merchant": "m-1", "amount": 100, "method": "card"},
        {"type": "purchase", "event_id": "x-2", "event_time": "2026-01-01T00:00:00Z", "consumer": "c-1",
         "merchant": "m-1", "amount": -100, "method": "card"},
    ]  # fmt: skip
    source = tmp_path / "records.jsonl"
    source.write_text("\n".join(map(json.dumps, events)) + "\n")
    (copy / "mapping.toml").unlink()
    report = run("ingest", str(source), "--project", str(copy), "--json", code=1)
    assert (report["rows"], report["accepted"], report["rejected"]) == (2, 1, 1)
    letter = json.loads(Path(report["dead_letters"]).read_text())
    assert letter["line"] == 2
    assert "-100" in json.dumps(letter["problems"])
    [warning] = report["warnings"]
    assert "2026-01-01" in warning
    assert "--declared" in warning
