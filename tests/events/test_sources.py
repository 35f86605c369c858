"""Sources: every format gives the same rows with their numbers, and what cannot be read says so at once."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from obligor.errors import BadInput, NotFound
from obligor.events import chunk as module
from obligor.events.chunk import Chunk
from obligor.events.sources import open_sources

ROWS = [{"id": "a", "n": 1}, {"id": "b", "n": None}, {"id": "c", "n": 3}]
TABLE = pa.Table.from_pylist(ROWS)


def _files(folder: Path) -> dict[str, Path]:
    paths = {suffix: folder / f"rows{suffix}" for suffix in (".parquet", ".arrow", ".csv", ".jsonl")}
    pq.write_table(TABLE, paths[".parquet"], row_group_size=2)
    with pa.ipc.new_file(paths[".arrow"], TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=2)
    paths[".csv"].write_text("id,n\na,1\nb,\nc,3\n")
    paths[".jsonl"].write_text('{"id": "a", "n": 1}\n{"id": "b"}\n\n{"id": "c", "n": 3}\n')
    return paths


def _chunks(source: object, columns: list[str] | None = None) -> list[Chunk]:
    [one] = open_sources(source)
    return list(one.chunks(columns))


def _texts(chunks: list[Chunk]) -> list[dict[str, str | None]]:
    rows = [row for chunk in chunks for row in chunk.table.to_pylist()]
    return [{name: None if value is None else str(value) for name, value in row.items()} for row in rows]


EXPECTED: list[dict[str, str | None]] = [{"id": "a", "n": "1"}, {"id": "b", "n": None}, {"id": "c", "n": "3"}]


@pytest.mark.parametrize(
    ("suffix", "numbers"), [(".parquet", [1, 2, 3]), (".arrow", [1, 2, 3]), (".csv", [2, 3, 4]), (".jsonl", [1, 2, 4])]
)
def test_every_format_gives_its_rows_with_their_numbers(tmp_path: Path, suffix: str, numbers: list[int]) -> None:
    chunks = _chunks(_files(tmp_path)[suffix], ["id", "n"])
    assert _texts(chunks) == EXPECTED
    assert [n for chunk in chunks for n in chunk.numbers.tolist()] == numbers
    assert all(not chunk.broken for chunk in chunks)


@pytest.mark.parametrize(
    "frame",
    [
        TABLE,
        TABLE.combine_chunks().to_batches()[0],
        pl.DataFrame(ROWS),
        pl.LazyFrame(ROWS),
        pd.DataFrame({"id": ["a", "b", "c"], "n": pd.array([1, None, 3], "Int64")}),
    ],
    ids=["table", "batch", "polars", "lazy", "pandas"],
)
def test_frames_are_sources(frame: Any) -> None:
    assert _texts(_chunks(frame, ["id", "n"])) == EXPECTED
    assert _texts(_chunks(frame, ["n"])) == [{"n": row["n"]} for row in EXPECTED]


def test_a_pandas_moment_without_zone_among_others_is_no_moment_of_utc() -> None:
    moments = [pd.Timestamp("2026-03-01T12:00:00Z"), pd.Timestamp("2026-03-01T12:00:00")]
    with pytest.raises(BadInput, match=r"^\$\[1\]\.at: expected a moment with a time zone"):
        open_sources(pd.DataFrame({"at": moments}, dtype=object))


def test_pandas_nan_is_null_and_polars_nan_is_not() -> None:
    assert _chunks(pd.DataFrame({"x": [1.0, float("nan")]}))[0].table["x"].null_count == 1
    assert _chunks(pl.DataFrame({"x": [1.0, float("nan")]}))[0].table["x"].null_count == 0


def test_a_pandas_column_of_mixed_types_is_refused() -> None:
    with pytest.raises(BadInput, match="a column of mixed types"):
        open_sources(pd.DataFrame({"x": ["a", 5, None]}))


def test_patterns_and_lists_are_taken_in_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv"):
        (tmp_path / name).write_text("id\nx\n")
    assert [one.name for one in open_sources(str(tmp_path / "*.csv"))] == ["a.csv", "b.csv"]
    listed = open_sources([tmp_path / "b.csv", TABLE, tmp_path / "a.csv"])
    assert [one.name for one in listed] == ["b.csv", "frame", "a.csv"]


@pytest.mark.parametrize("pattern", ["none.csv", "*.parquet", ""])
def test_a_pattern_without_files_is_an_error(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(NotFound, match="no file fits"):
        open_sources(str(tmp_path / pattern))


def test_a_folder_is_an_error_that_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"it is a folder: name its files, such as '.*/\*\.parquet'"):
        open_sources(tmp_path)


def test_large_files_come_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ROWS", 2)
    for path in _files(tmp_path).values():
        chunks = _chunks(path, ["id", "n"])
        assert len(chunks) == 2
        assert _texts(chunks) == EXPECTED
    assert len(_chunks(TABLE)) == 2


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_truncated_file_is_refused_when_it_is_opened(tmp_path: Path, suffix: str) -> None:
    path = _files(tmp_path)[suffix]
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(BadInput, match=r"cannot be read \(truncated"):
            open_sources(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.xlsx", b"", "expected a file named .parquet, .arrow"),
        ("rows", b"", "got 'no suffix'"),
        ("rows.csv", b"", "expected column names in the first line"),
        ("rows.csv", b"\n", "expected column names in the first line"),
        ("rows.csv", b"a,b,a\n", "two columns are named 'a'"),
        ("rows.parquet", b"PAR1 but not really", "cannot be read"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        open_sources(path)


def test_an_unknown_kind_of_frame_is_refused() -> None:
    with pytest.raises(BadInput, match="expected a path, a pattern, or an Arrow, polars or pandas frame, got int"):
        open_sources(5)


def test_csv_keeps_lines_apart_from_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b"\xef\xbb\xbfid,note\r\n"  # 1, with a byte order mark
        b'a,"two\r\nlines, ""quoted"""\r\n'  # 2 and 3
        b"b\r\n"  # 4: too short
        b"\r\n"  # 5: empty
        b"c,x,y\r\n"  # 6: too long
        b"d,\xff\r\n"  # 7: not UTF-8
        b'e,"x"y\r\n'  # 8: not CSV
        b"f,\r\n"  # 9
        b'g,"never closed\r\n'  # 10
    )
    [chunk] = _chunks(path)
    assert chunk.table.to_pylist() == [{"id": "a", "note": 'two\r\nlines, "quoted"'}, {"id": "f", "note": None}]
    assert chunk.numbers.tolist() == [2, 9]
    assert [(broken.number, broken.message[:24]) for broken in chunk.broken] == [
        (4, "expected 2 cells, got 1"),
        (6, "expected 2 cells, got 3"),
        (7, "expected UTF-8, got othe"),
        (8, "expected a row of CSV, g"),
        (10, "expected a row of CSV, g"),
    ]


def test_broken_json_lines_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [
        '{"id": "a", "n": 1.50}',
        "{",
        '{"id": "b", "id": "c"}',
        "[1]",
        '{"id": {"x": 1}}',
        '{"id": true}',
        '{"id": NaN}',
    ]
    path.write_text("\n".join(lines))
    [chunk] = _chunks(path, ["id", "n"])
    assert chunk.table.to_pylist() == [{"id": "a", "n": "1.50"}]
    assert chunk.numbers.tolist() == [1]
    assert [broken.number for broken in chunk.broken] == [2, 3, 4, 5, 6, 7]
    reasons = [broken.message for broken in chunk.broken]
    for reason, expected in zip(
        reasons,
        [
            "not valid JSON",
            "appears twice",
            "expected an object",
            "$.id: expected text",
            "$.id: expected no boolean",
            "NaN",
        ],
        strict=True,
    ):
        assert expected in reason
    assert chunk.broken[0].raw == "{"
    assert chunk.raws([0]) == [{"id": "a", "n": 1.5}]


def test_json_numbers_are_not_rounded(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 0.10000000000000000555}\n{"n": 123456789012345678901234567890}\n{"n": 7}\n')
    [chunk] = _chunks(path, ["n"])
    assert chunk.table["n"].to_pylist() == ["0.10000000000000000555", "123456789012345678901234567890", "7"]
    assert _chunks(path)[0].records[0] == {"n": 0.1}


def test_booleans_among_other_values_are_the_fewer_ones_wrong(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"x": true}\n{"x": false}\n{"x": "true"}\n{"x": null}\n')
    [chunk] = _chunks(path, ["x"])
    assert chunk.table["x"].to_pylist() == [True, False, None]
    assert [(broken.number, broken.message) for broken in chunk.broken] == [
        (3, "$.x: expected true or false, got 'true'")
    ]


@pytest.mark.parametrize(("content", "warned"), [("id\na\n", False), ("id\na", True)])
def test_a_text_file_that_ends_open_is_pointed_out(tmp_path: Path, content: str, warned: bool) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(content)
    [one] = open_sources(path)
    assert ("may have been cut" in one.warning) == warned


def test_a_digest_is_the_files_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text("id\na\n")
    two.write_text("id\na\n")
    digests = [source.digest() for source in open_sources([one, two])]
    assert (digests[0], len(digests[0])) == (digests[1], 16)
    two.write_text("id\nb\n")
    assert open_sources(two)[0].digest() != digests[0]
    with pytest.raises(BadInput, match="a frame has no fixed bytes"):
        open_sources(TABLE)[0].digest()


def test_no_row_of_a_csv_is_lost_between_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(5)
    path = tmp_path / "rows.csv"
    lines = [rng.choice([f"{i},x", f'{i},"a\nb"', "", f"{i}"]) for i in range(500)]
    path.write_text("id,note\n" + "".join(line + "\n" for line in lines))
    whole = _chunks(path)
    monkeypatch.setattr(module, "CHUNK_ROWS", 7)
    parts = _chunks(path)
    assert _texts(whole) == _texts(parts)
    assert [n for c in whole for n in c.numbers.tolist()] == [n for c in parts for n in c.numbers.tolist()]
    assert [b for c in whole for b in c.broken] == [b for c in parts for b in c.broken]
    text = path.read_text().split("\n")
    for chunk in parts:
        for number, row in zip(chunk.numbers.tolist(), chunk.table.to_pylist(), strict=True):
            assert text[number - 1].startswith(f"{row['id']},")
