"""Frames of every kind: read as one Arrow table, and given back as they came with columns beside."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from obligor.errors import BadInput
from obligor.features.frames import read_frame

QUESTIONS = pa.table({"key": ["a", "b", "a"], "n": [1, None, 3]})
MORE = pa.table(
    {
        "count": [1, None, 2],
        "late": [None, True, False],
        "share": [0.5, None, 1e300],
        "channel": pa.array(["app", None, "app"]).dictionary_encode(),
    }
)
FRAMES: dict[str, Callable[[pa.Table], Any]] = {
    "arrow": lambda table: table,
    "pandas": lambda table: table.to_pandas(),
    "polars": pl.from_arrow,
    "duckdb": lambda table: duckdb.connect().from_arrow(table),
}


def plain(table: pa.Table) -> list[dict[str, Any]]:
    """Return rows with a missing number as None, whatever the library calls it."""
    return [{k: None if v != v else v for k, v in row.items()} for row in table.to_pylist()]


@pytest.mark.parametrize("kind", FRAMES)
def test_columns_are_added_beside_those_that_came(kind: str) -> None:
    frame = FRAMES[kind](QUESTIONS)
    table, give_back = read_frame(frame)
    assert plain(table) == QUESTIONS.to_pylist()
    found = give_back(MORE)
    assert type(found) is type(frame)
    again, _ = read_frame(found)
    wanted = [a | b for a, b in zip(QUESTIONS.to_pylist(), MORE.to_pylist(), strict=True)]
    assert plain(again) == wanted


@pytest.mark.parametrize("kind", FRAMES)
def test_no_rows_and_no_columns_are_fine(kind: str) -> None:
    _, give_back = read_frame(FRAMES[kind](QUESTIONS.slice(0, 0)))
    again, _ = read_frame(give_back(MORE.slice(0, 0)))
    assert (again.num_rows, again.column_names) == (0, [*QUESTIONS.column_names, *MORE.column_names])
    _, give_back = read_frame(FRAMES[kind](QUESTIONS))
    assert read_frame(give_back(pa.table({})))[0].column_names == ["key", "n"]


def test_pandas_keeps_its_index_and_a_type_does_not_depend_on_what_is_missing() -> None:
    frame = pd.DataFrame({"key": ["a", "b", "c"]}, index=["x", "y", "x"])
    for rows in (3, 0):
        _, give_back = read_frame(frame.head(rows))
        found = give_back(MORE.slice(0, rows))
        assert list(found.index) == list(frame.index)[:rows]
        assert [str(one) for one in found.dtypes[1:]] == ["Int64", "boolean", "float64", "category"]


def test_a_duckdb_relation_stays_on_its_connection_and_outlives_the_call() -> None:
    connection = duckdb.connect()
    connection.execute("create table customers as select 'a' as key, 'Anna' as name")
    found = read_frame(connection.sql("select key from customers"))[1](pa.table({"count": [7]}))
    assert found.join(connection.table("customers"), "key").project("name, count").fetchall() == [("Anna", 7)]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            [{"key": "a"}],
            "$.questions: expected a pandas or polars DataFrame, a pyarrow Table or a DuckDB relation, got li",
        ),
        (pl.LazyFrame({"key": ["a"]}), "got LazyFrame; collect() it first"),
        (pl.Series(["a"]), "got Series"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "$.questions.a: expected one column of this name, got several"),
        (pd.DataFrame({"key": [1, "a"]}), "$.questions: expected columns of one kind each"),
    ],
)
def test_what_is_no_table_is_refused(frame: Any, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_frame(frame)
    assert message in str(caught.value)


def test_a_moment_without_zone_among_others_is_no_moment_of_utc() -> None:
    zoned, bare = pd.Timestamp("2026-03-01T12:00:00+01:00"), pd.Timestamp("2026-03-01T12:00:00")
    fine = pd.DataFrame({"at": [zoned, zoned.tz_convert("Asia/Tokyo"), None]}, dtype=object)
    noon = zoned.to_pydatetime()
    assert read_frame(fine)[0].column("at").to_pylist() == [noon, noon, None]
    with pytest.raises(BadInput, match=r"^\$\[1\]\.at: expected a moment with a time zone as in other rows, got Times"):
        read_frame(pd.DataFrame({"at": [zoned, bare]}, dtype=object))


def test_nothing_is_imported_that_was_not_given() -> None:
    script = (
        "import sys, polars; from obligor.features.frames import read_frame; import obligor.features.retrieval;"
        "read_frame(polars.DataFrame({'a': [1]})); print([m for m in ('pandas', 'duckdb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
