"""JSON Lines: decoding a chunk at once gives what decoding its lines one by one gives, or is not done."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from obligor.events import json_source
from obligor.events.json_source import JsonLinesFile

PIECES = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    '"a"',
    '"b"',
    "1",
    "{}",
    '{"a":1}',
    '{"b":[1',
    '{"y":2}',
    "]}",
    "},{",
    '"}',
    '{"',
]


def _read(path: Path, columns: list[str] | None = None) -> tuple[list[Any], list[Any]]:
    chunks = list(JsonLinesFile(path).chunks(columns))
    rows = [pair for c in chunks for pair in zip(c.numbers.tolist(), c.records, strict=True)]
    return rows, [broken for c in chunks for broken in c.broken]


def _one_by_one(path: Path, monkeypatch: pytest.MonkeyPatch, columns: list[str] | None = None) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(json_source, "_at_once", lambda lines, decoder: None)
        return _read(path, columns)


def test_lines_that_only_fit_together_are_not_taken_for_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    for lines in (
        ['{"a":1} {"b":[1,', "2]}"],
        ['{"a":1},{"b":[{"x":1}', '{"y":2}]}'],
        ['{"a":1} {"b":{"x":1}', '{"y":2}}'],
        ['{"a":', "1}"],
        ['{"a":1}{"b":2}', ""],
    ):
        path.write_text("\n".join(lines) + "\n")
        assert _read(path) == _one_by_one(path, monkeypatch)
        assert _read(path)[0] == []


@pytest.mark.parametrize("columns", [None, ["a"]])
def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path, columns: list[str] | None) -> None:
    path, mark = tmp_path / "rows.jsonl", b"\xef\xbb\xbf"
    path.write_bytes(mark + b'{"a": 1}\n{"a": 2}\n')
    assert _read(path, columns) == ([(1, {"a": 1}), (2, {"a": 2})], [])
    path.write_bytes(mark)
    assert _read(path, columns) == ([], [])
    path.write_bytes(b'{"a": 1}\n' + mark + b'{"a": 2}\n')
    rows, broken = _read(path, columns)
    assert (rows, [one.number for one in broken]) == ([(1, {"a": 1})], [2])  # amid a file it is no mark


def test_chunks_are_decoded_as_lines_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(9)
    path = tmp_path / "rows.jsonl"
    fast = 0
    real = json_source._at_once

    def counted(lines: list[bytes], decoder: Any) -> Any:
        nonlocal fast
        found = real(lines, decoder)
        fast += found is not None
        return found

    for _ in range(700):
        lines = [
            rng.choice(['{"a": 1}', ' {"a":1.50}\r', '{"b": "x"}', "", "{}"])
            if rng.random() < 0.7
            else "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 4)))
            for _ in range(rng.randint(1, 4))
        ]
        path.write_text("\n".join(lines), newline="")
        for columns in (None, ["a", "b"]):
            exact = _one_by_one(path, monkeypatch, columns)
            monkeypatch.setattr(json_source, "_at_once", counted)
            assert _read(path, columns) == exact, lines
    assert 200 < fast < 1_400


def test_every_pair_of_odd_lines_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    halves = [
        "".join(parts) for parts in itertools.product(['{"a":1}', ""], ['{"b":[1', '{"b":{"c":1}', '[{"x":1}', "{"])
    ]
    for first, second in itertools.product(halves, ["}", "2]}", '{"y":2}]}', '{"y":2}', ',"y":2}', '"y":2}']):
        path.write_text(f"{first}\n{second}\n")
        assert _read(path) == _one_by_one(path, monkeypatch)


def test_a_key_named_twice_is_found_in_a_chunk(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 1, "a": 2}\n{"a": 3}\n')
    rows, broken = _read(path)
    assert [number for number, _ in rows] == [1, 3]
    assert [(one.number, "appears twice" in one.message) for one in broken] == [(2, True)]
