"""Chunks give rows back as JSON data; helpers of files."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from obligor.errors import BadInput
from obligor.events.chunk import Chunk, ends_open, file_digest, unique_names


def test_rows_are_given_back_as_json_data() -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None], "c": [dt.date(2026, 1, 2)] * 2, "d": [1.5, float("nan")]})
    chunk = Chunk(table, np.array([1, 2]))
    assert chunk.raws([1, 0]) == [
        {"a": 2, "b": None, "c": "2026-01-02", "d": "nan"},
        {"a": 1, "b": "x", "c": "2026-01-02", "d": "1.5"},
    ]
    assert chunk.raws([]) == []


def test_lines_are_given_back_as_they_were() -> None:
    chunk = Chunk(pa.table({"a": ["1.50"]}), np.array([4]), lines=[b'{"a": 1.50, "other": true}'])
    assert chunk.raws([0]) == [{"a": 1.5, "other": True}]


@pytest.mark.parametrize(("content", "is_open"), [(b"", False), (b"a\n", False), (b"a\r", False), (b"a", True)])
def test_an_open_end_is_seen(tmp_path: Path, content: bytes, is_open: bool) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    assert bool(ends_open(path)) == is_open
    assert len(file_digest(path)) == 16


def test_column_names_are_unique() -> None:
    unique_names(["a", "b"], "file")
    with pytest.raises(BadInput, match="file: two columns are named 'a', 'c'"):
        unique_names(["a", "b", "a", "c", "c"], "file")
