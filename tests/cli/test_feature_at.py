"""`obligor features at`: files in, files out, the same numbers as in Python."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from tests.cli.conftest import Run

import obligor
from obligor.cli.feature_at import read_questions
from obligor.decisions.asked import asked_questions


def test_features_of_a_file_s_questions(run: Run, lender: Path, tmp_path: Path) -> None:
    project = obligor.open(lender)
    with project.log(read_only=True) as log:
        questions = asked_questions(log, project.application, 12)
    answers = project.features.at(questions, cut="cut", features=["income_30d", "first_time_here", "bureau_score"])
    parquet, csv = tmp_path / "questions.parquet", tmp_path / "questions.csv"
    pq.write_table(questions, parquet)
    texts = questions.set_column(1, "as_of", [[one.isoformat() for one in questions["as_of"].to_pylist()]])
    pl.DataFrame(pl.from_arrow(texts)).write_csv(csv)
    chosen = [option for name in ("income_30d", "first_time_here", "bureau_score") for option in ("--feature", name)]
    common = [*chosen, "--cut", "cut", "--project", str(lender)]
    told = run("features", "at", str(parquet), "--out", str(tmp_path / "a.parquet"), "--json", *common)
    assert (told["rows"], told["columns"][-1]) == (12, "feature.bureau_score")
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == answers.to_pylist()
    run("features", "at", str(csv), "--out", str(tmp_path / "a.csv"), "--missing", *common)
    found = pl.read_csv(tmp_path / "a.csv")
    assert found["feature.income_30d"].to_list() == answers["feature.income_30d"].to_pylist()
    assert found["feature.bureau_score"].to_list() == answers["feature.bureau_score"].to_pylist()
    absent = [{None: None, "not given": "not given"}[one] for one in found["missing.bureau_score"].to_list()]
    assert [one is None for one in absent] == [one is not None for one in answers["feature.bureau_score"].to_pylist()]
    now = ("features", "at", str(parquet), "--out", str(tmp_path / "now.parquet"), "--as-of", "now", *chosen)
    assert "12 rows with 3 more columns" in run(*now, "--project", str(lender))
    for arguments, code, words in (
        ((str(tmp_path / "none.csv"), "--out", "x.csv"), 4, "no file"),
        ((str(lender / "model.py"), "--out", "x.csv"), 3, "expected a .csv or .parquet file, got 'model.py'"),
        ((str(parquet), "--out", "x.txt"), 3, "expected a .csv or .parquet file, got 'x.txt'"),
        ((str(parquet), "--out", "x.csv", "--as-of", "2026-01-01"), 3, "expected a moment with a time zone"),
    ):
        assert words in run("features", "at", *arguments, "--project", str(lender), code=code)
    typo = run("features", "at", str(parquet), "--out", "x.csv", "--limits", "nul", "--project", str(lender), code=2)
    assert "Invalid value for '--limits'" in typo


def test_cells_of_a_csv_file_are_the_texts_that_they_are(tmp_path: Path) -> None:
    """A merchant may be called NA, and a consumer null."""
    file = tmp_path / "questions.csv"
    words = ["null", "NA", "NaN", "N/A", "nan", "#N/A", "007"]
    file.write_text("consumer,merchant\n" + "".join(f"{word},\n,{word}\n" for word in words))
    read = read_questions(file)
    assert read["consumer"].to_pylist() == [one for word in words for one in (word, None)]
    assert read["merchant"].to_pylist() == [one for word in words for one in (None, word)]


def test_a_cell_of_a_csv_file_may_have_many_lines(tmp_path: Path) -> None:
    file = tmp_path / "questions.csv"
    file.write_text("consumer,note\n" + "".join(f'c{i},"one\n{"-" * 90}{i},two"\n' for i in range(20_000)))
    read = read_questions(file)
    assert read["consumer"].to_pylist() == [f"c{i}" for i in range(20_000)]
