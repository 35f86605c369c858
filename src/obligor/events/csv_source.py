"""CSV files (RFC 4180, UTF-8, names in the first line), with the line on which each row starts.

Blocks of the file without a quote are read by Arrow: there a line is a row. From the first block with a quote on,
where a cell may hold line breaks, and for blocks that Arrow refuses, Python's own reader takes over, which knows the
line of each row; a test holds the two together. Cells stay text, so that nothing is rounded; an empty cell is null.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv

from obligor.errors import BadInput
from obligor.events import chunk
from obligor.events.chunk import Broken, Chunk, ends_open, file_digest, unique_names

__all__ = ["CsvFile"]

_CELL_BYTES_MAX: Final = 1 << 20
_BLOCK_BYTES: Final = 1 << 22
_MARK: Final = "\ufeff".encode()


class CsvFile:
    """One CSV file as a source; its first line is read when it is opened."""

    unit, rows = "line", None

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        with _text(path.open("rb")) as file:
            reader = csv.reader(file, strict=True)
            self.names, self._header_lines = next(reader, []), reader.line_num
        if not any(self.names):
            raise BadInput(f"{path.name}: expected column names in the first line, got an empty file")
        unique_names(self.names, path.name)
        self.schema = pa.schema([(name, pa.string()) for name in self.names])
        self.warning = ends_open(path)

    def digest(self) -> bytes:
        """Return a hash of the file."""
        return file_digest(self.path)

    def chunks(self, columns: Sequence[str] | None) -> Iterator[Chunk]:
        """Yield all rows in order, with all columns."""
        with self.path.open("rb") as file:
            header = file.readline()
            if self._header_lines > 1 or not _plain(header):
                file.seek(0)
                yield from self._one_by_one(_text(file), 0, headed=True)
                return
            line = 2
            while block := file.read(_BLOCK_BYTES):
                block += file.readline()
                if not _plain(block):
                    file.seek(-len(block), io.SEEK_CUR)
                    yield from self._one_by_one(_text(file, "utf-8"), line - 1)
                    return
                count = block.count(b"\n") + (not block.endswith(b"\n"))
                yield from self._block(block, count, line)
                line += count

    def _block(self, block: bytes, lines: int, first: int) -> Iterator[Chunk]:
        """Yield the rows of a block in which every line is a row, or of which Python says what is wrong."""
        table = self._at_once(block)
        if table is None or table.num_rows != lines:
            yield from self._one_by_one(_text(io.BytesIO(block), "utf-8"), first - 1)
            return
        numbers = np.arange(first, first + lines)
        for start in range(0, lines, chunk.CHUNK_ROWS):
            stop = start + chunk.CHUNK_ROWS
            yield Chunk(table.slice(start, chunk.CHUNK_ROWS), numbers[start:stop])

    def _at_once(self, block: bytes) -> pa.Table | None:
        empty_line = b"\n\n" in block or b"\n\r\n" in block or block[:1] in b"\r\n"
        if empty_line or block.startswith(_MARK):  # Arrow would drop a byte order mark also amid a file
            return None
        names = self.names
        try:
            return pa.csv.read_csv(
                io.BytesIO(block),
                read_options=pa.csv.ReadOptions(column_names=names, block_size=len(block) + 1),
                parse_options=pa.csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
                ),
            )
        except pa.ArrowInvalid:
            return None

    def _one_by_one(self, text: io.TextIOWrapper, before: int, *, headed: bool = False) -> Iterator[Chunk]:
        """Yield the rows of a text, after its header if it has one; `before` lines of the file lie before it."""
        with text:
            reader = csv.reader(text, strict=True)
            if headed:
                next(reader)
            ended = False
            while not ended:
                rows, numbers, broken, ended = self._read(reader, before)
                if rows or broken:
                    yield self._chunk(rows, numbers, broken)

    def _read(self, reader: Any, before: int) -> tuple[list[list[str]], list[int], list[Broken], bool]:
        """Return up to CHUNK_ROWS rows with the lines on which they start, and whether the reader has ended."""
        rows: list[list[str]] = []
        numbers: list[int] = []
        broken: list[Broken] = []
        width = len(self.names)
        while len(rows) + len(broken) < chunk.CHUNK_ROWS:
            line = before + reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                end = before + reader.line_num
                last = f" (to line {end})" if end > line else ""
                broken.append(Broken(line, "", f"expected a row of CSV{last}, got {error}"))
                continue
            if row is None:
                return rows, numbers, broken, True
            if len(row) == width:
                rows.append(row)
                numbers.append(line)
            elif row:  # an empty line is no row
                broken.append(Broken(line, ",".join(row), f"expected {width} cells, got {len(row)}"))
        return rows, numbers, broken, False

    def _chunk(self, rows: list[list[str]], numbers: list[int], broken: list[Broken]) -> Chunk:
        cells = list(zip(*rows, strict=True)) if rows else [()] * len(self.names)
        cells = _encodable(cells, rows, numbers, broken)
        arrays = [pa.array([cell or None for cell in column], pa.string()) for column in cells]
        table = pa.Table.from_arrays(arrays, names=self.names)
        return Chunk(table, np.array(numbers, np.int64), sorted(broken, key=lambda one: one.number))


def _text(file: Any, encoding: str = "utf-8-sig") -> io.TextIOWrapper:
    csv.field_size_limit(_CELL_BYTES_MAX)
    return io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")


def _plain(block: bytes) -> bool:
    """Whether every line of the block is a row: no quotes, and no line break but at the end of a line."""
    return b'"' not in block and block.count(b"\r") == block.count(b"\r\n")


def _encodable(cells: list[Any], rows: list[list[str]], numbers: list[int], broken: list[Broken]) -> list[Any]:
    """Return the columns; rows with bytes that are not UTF-8 are moved to `broken`."""
    if all(_is_unicode("".join(column)) for column in cells):
        return cells
    for i in reversed(range(len(rows))):
        if not _is_unicode("".join(rows[i])):
            raw = ",".join(rows[i]).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            broken.append(Broken(numbers[i], raw, "expected UTF-8, got other bytes"))
            del rows[i], numbers[i]
    return list(zip(*rows, strict=True)) if rows else [()] * len(cells)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
