"""CSV: reading a block at once gives what reading row by row gives, with the same line numbers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from obligor.events import csv_source
from obligor.events.chunk import Broken
from obligor.events.csv_source import CsvFile

Row = tuple[int, tuple[str | None, ...]]


def _read(path: Path) -> tuple[list[Row], list[Broken]]:
    rows: list[Row] = []
    broken: list[Broken] = []
    for chunk in CsvFile(path).chunks(None):
        cells = zip(*(column.to_pylist() for column in chunk.table.columns), strict=True)
        rows += list(zip(chunk.numbers.tolist(), cells, strict=True))
        broken += chunk.broken
    return rows, broken


def _random_file(seed: int, path: Path) -> None:
    rng = random.Random(seed)
    end = rng.choice(["\n", "\r\n"])
    pieces = ["x", "", "1200", "äöü", " y ", "a;b", "\t", "'"]
    odd = ['"q"', '"two""quotes"', f'"two{end}lines"', '"', "z,z", "\r", "\ufeff", "\x00"] if seed % 2 else []
    lines = []
    for _ in range(rng.randint(1, 60)):
        cells = [rng.choice(pieces) for _ in range(3)]
        if odd and rng.random() < 0.1:
            cells[rng.randrange(3)] = rng.choice(odd)
        if rng.random() < 0.05:
            cells = cells[: rng.randint(0, 2)]
        lines.append(",".join(cells))
    text = f"a,b,c{end}" + end.join(lines) + rng.choice(["", end])
    data = text.encode()
    if seed % 5 == 0:
        data = data.replace("ä".encode(), b"\xe4", 1)
    path.write_bytes(data)


def test_blocks_are_read_as_rows_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.csv"
    met = {"fast": 0, "broken": 0}
    real = CsvFile._at_once

    def counted(self: CsvFile, block: bytes) -> object:
        table = real(self, block)
        met["fast"] += table is not None
        return table

    for seed in range(200):
        _random_file(seed, path)
        with monkeypatch.context() as patch:
            patch.setattr(csv_source, "_plain", lambda block: False)
            exact = _read(path)
        for size in (1 << 22, 64, 1):
            monkeypatch.setattr(csv_source, "_BLOCK_BYTES", size)
            monkeypatch.setattr(CsvFile, "_at_once", counted)
            assert _read(path) == exact, seed
        met["broken"] += bool(exact[1])
    assert met["fast"] > 500
    assert met["broken"] > 40


def test_a_planted_fault_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n1,"x"\n2,z\n')
    exact = _read(path)
    assert exact == ([(2, ("1", "x")), (3, ("2", "z"))], [])
    monkeypatch.setattr(csv_source, "_plain", lambda block: True)
    assert _read(path) != exact


def test_a_quoted_header_and_a_mark_before_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\xef\xbb\xbf"a\nx",b\n1,2\n')
    assert CsvFile(path).names == ["a\nx", "b"]
    assert _read(path) == ([(3, ("1", "2"))], [])
    path.write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    assert CsvFile(path).names == ["a", "b"]
    assert _read(path) == ([(2, ("1", "2"))], [])


def test_a_file_of_its_header_alone_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for text in ("a,b", "a,b\n", "a,b\n\n\n"):
        path.write_text(text)
        assert _read(path) == ([], [])


def test_cells_beyond_the_bound_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n1,"' + "x" * (csv_source._CELL_BYTES_MAX + 1) + '"\n2,y\n')
    rows, broken = _read(path)
    assert rows == [(3, ("2", "y"))]
    assert [(one.number, "field larger than field limit" in one.message) for one in broken] == [(2, True)]
