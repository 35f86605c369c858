"""`obligor features stats`: measured once, kept, and shown wherever features are."""

from __future__ import annotations

import doctest
import json
import sys
from pathlib import Path

import pytest
from tests.cli.conftest import Run

import obligor
from obligor.cli.feature_stats import stats
from obligor.cli.known import stats_path
from obligor.decisions.asked import asked_questions


def test_statistics_are_measured_once_and_kept(run: Run, copy: Path) -> None:
    before = run("features", "list", "--project", str(copy))
    assert "not measured yet for this plan; run obligor features stats" in " ".join(before.split())
    shown = run("features", "stats", "--project", str(copy))
    kept = stats_path(obligor.open(copy), obligor.open(copy).plan)
    first = kept.read_bytes()
    measured = run("features", "stats", "--project", str(copy), "--json")
    assert kept.read_bytes() == first, "nothing is measured again"
    plan, bundle = obligor.open(copy).plan, obligor.open(copy).bundle()
    assert list(measured["features"]) == plan.names
    assert f"of the training set of bundle {bundle.hash[:12]}" in measured["questions"]
    with obligor.open(copy).log(read_only=True) as log:
        table = asked_questions(log, obligor.open(copy).application)
    rows = int(measured["questions"].split(" ")[0].replace(",", ""))
    assert rows == table.num_rows
    scores = table["bureau_score"]
    assert measured["features"]["bureau_score"]["training"]["missing"] == scores.null_count > 0
    assert measured["decisions"] == 0
    assert all(one["cost"]["decision_us"] > 0 for one in measured["features"].values())
    assert measured["costs"]["whole"]["row_us"] > measured["features"]["amount"]["cost"]["row_us"]
    assert set(measured["unused"]) <= set(plan.names)
    assert "unused (no model, rule or limit looks at it): " in shown
    row = next(line for line in shown.splitlines() if line.startswith("bureau_score"))
    assert max(map(len, shown.splitlines())) <= 80
    assert measured["expensive"][0] in " ".join(shown.split()).split("the most expensive first): ")[1]
    assert f"{scores.null_count / rows:.1%}" in row
    after = run("features", "list", "--project", str(copy))
    assert f"{scores.null_count / rows:.1%}" in next(line for line in after.splitlines() if line.startswith("bureau"))
    one = run("features", "stats", "bureau_score", "--project", str(copy))
    assert f"missing       {scores.null_count:,} of {rows:,}" in one
    assert list(run("features", "stats", "owed", "--project", str(copy), "--json")["features"]) == ["owed"]
    kept.write_text(json.dumps({**json.loads(first), "questions": "0 applications of nowhere"}))
    assert "of nowhere" in run("features", "stats", "--project", str(copy))
    assert "of nowhere" not in run("features", "stats", "--again", "--project", str(copy))


def test_numbers_are_short() -> None:
    module = sys.modules[stats.__module__]
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0


def test_a_table_keeps_its_words_whole_at_any_width(run: Run, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("features", "stats", "--project", str(copy), "--json")["features"]
    for width, columns in (
        (80, ["feature", "missing", "5%", "median", "95%", "µs", "note"]),
        (140, ["feature", "unit", "missing", "5%", "median", "95%", "distribution", "µs", "µs/row", "note"]),
    ):
        monkeypatch.setattr("obligor.cli.output._console.width", width)
        lines = run("features", "stats", "--project", str(copy)).splitlines()
        assert lines[0].split() == columns
        assert [name for name in names if name not in {line.split(" ")[0] for line in lines}] == []
        left_out = [line for line in lines if line.startswith("(a wider terminal shows: ")]
        assert left_out == (["(a wider terminal shows: unit, distribution, µs/row)"] if width == 80 else [])


def test_where_nobody_has_applied_nothing_is_measured_and_nothing_kept(run: Run, tmp_path: Path) -> None:
    run("init", str(tmp_path / "new"))
    obligor.open(tmp_path / "new").log().close()
    shown = run("features", "stats", "--project", str(tmp_path / "new"))
    assert "over 0 applications of the log" in shown
    assert "there is nothing to measure them on" in shown
    assert "over 0 applications" in run("features", "stats", "owed", "--project", str(tmp_path / "new"))
    assert "not measured yet" in run("features", "list", "--project", str(tmp_path / "new"))


def test_of_more_applications_than_are_asked_it_is_said(run: Run, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{stats.__module__}.QUESTIONS_MAX", 50)
    words = run("features", "stats", "--project", str(copy), "--json")["questions"]
    assert words.startswith("50 of the ")
    assert words.endswith(" (at equal distances)")
