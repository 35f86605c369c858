"""Sources: Parquet, Arrow, CSV and JSON Lines files (globs too) and frames, read in chunks with their row numbers.

Every source is opened before anything is written, so that a truncated file or a missing column stops an ingestion at
its start. Text files number their lines, the others their rows, both from 1. CSV and JSON cells are kept as the text
that they are (JSON numbers with a point too), so that no reader rounds them before they are cast.
"""

from __future__ import annotations

import csv
import glob
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from obligor.errors import BadInput, NotFound
from obligor.events.records import decode_json

__all__ = ["CHUNK_ROWS", "Broken", "Chunk", "Source", "open_sources"]

CHUNK_ROWS: Final = 65_536
_CELL_BYTES_MAX: Final = 1 << 20
_FORMATS: Final = ".parquet, .arrow, .feather, .csv, .jsonl or .ndjson"


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that could not be read: its number, what is there, and why."""

    number: int
    raw: str
    message: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows: columns by name, each row's number in its file, and the rows between that are broken."""

    table: pa.Table
    numbers: npt.NDArray[np.int64]
    broken: Sequence[Broken] = ()
    records: Sequence[Any] = ()  # JSON Lines: the objects
    lines: Sequence[bytes] = ()  # JSON Lines: what they were read from

    def raws(self, rows: Sequence[int]) -> list[Any]:
        """Return rows as JSON data, as they are in the source."""
        if self.lines:
            return [msgspec.json.decode(self.lines[i]) for i in rows]
        table = self.table.take(pa.array(rows, pa.int64()))
        return [{name: _jsonable(value) for name, value in row.items()} for row in table.to_pylist()]


def _jsonable(value: Any) -> Any:
    return value if isinstance(value, str | int | bool | None) else str(value)


class Source(Protocol):
    """One file or frame.

    `unit` is what its numbers count, "line" or "row"; `rows` how many it has, where known before reading; `schema` is
    None where columns are known only when read (JSON Lines); `warning` what its reader should know, or "".
    """

    warning: str

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def rows(self) -> int | None: ...
    @property
    def schema(self) -> pa.Schema | None: ...

    def digest(self) -> bytes:
        """Return a hash of the content, for ids made of rows; BadInput for a frame, which has no fixed bytes."""
        ...

    def chunks(self, columns: Sequence[str] | None) -> Iterator[Chunk]:
        """Yield all rows in order, with at least `columns` (None: all)."""
        ...


def open_sources(source: object) -> list[Source]:
    """Return the sources of a path, a glob pattern, a list of those, or an Arrow, polars or pandas frame.

    Raises NotFound where a path or pattern fits no file, and BadInput where a file cannot be read.
    """
    if isinstance(source, str | Path):
        return [_open_file(path) for path in _paths(source)]
    if isinstance(source, list | tuple):
        return [one for each in source for one in open_sources(each)]
    return [_Frame(_table(source))]


def _paths(pattern: str | Path) -> list[Path]:
    found = [str(pattern)] if Path(pattern).is_file() else sorted(glob.glob(str(pattern), recursive=True))
    files = [Path(path) for path in found if Path(path).is_file()]
    if not files:
        raise NotFound(f"no file fits {str(pattern)!r}")
    return files


def _open_file(path: Path) -> Source:
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return _Parquet(path)
        if suffix in (".arrow", ".feather"):
            return _ArrowFile(path)
        if suffix == ".csv":
            return _Csv(path)
        if suffix in (".jsonl", ".ndjson"):
            return _JsonLines(path)
    except (pa.ArrowException, OSError, csv.Error, UnicodeDecodeError) as error:
        raise BadInput(f"{path.name} cannot be read (truncated, or not what its name says): {error}") from None
    raise BadInput(f"{path.name}: expected a file named {_FORMATS}, got {suffix or 'no suffix'!r}")


def _table(frame: Any) -> pa.Table:
    if isinstance(frame, pa.Table):
        return frame
    if isinstance(frame, pa.RecordBatch):
        return pa.Table.from_batches([frame])
    library = type(frame).__module__.partition(".")[0]
    if library == "polars":
        frame = frame.collect() if hasattr(frame, "collect") else frame
        return frame.to_arrow()
    if library == "pandas":
        return pa.Table.from_pandas(frame, preserve_index=False)
    raise BadInput(f"expected a path, a pattern, or an Arrow, polars or pandas frame, got {type(frame).__name__}")


def _file_digest(path: Path) -> bytes:
    hasher = blake2b(digest_size=16)
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            hasher.update(data)
    return hasher.digest()


def _ends_open(path: Path) -> str:
    """Return a warning where a text file does not end with a line break: its last line may have been cut."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 1, 0))
        whole = size == 0 or file.read(1) in b"\r\n"
    return "" if whole else f"{path.name} does not end with a line break: its last line may have been cut"


def _unique_names(names: Sequence[str], what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"{what}: two columns are named {', '.join(map(repr, twice))}")


def _numbered(tables: Iterator[pa.Table | pa.RecordBatch]) -> Iterator[Chunk]:
    first = 1
    for part in tables:
        table = pa.Table.from_batches([part]) if isinstance(part, pa.RecordBatch) else part
        yield Chunk(table, np.arange(first, first + table.num_rows))
        first += table.num_rows


class _Frame:
    """An Arrow table in memory."""

    name, unit, warning = "frame", "row", ""

    def __init__(self, table: pa.Table) -> None:
        _unique_names(table.column_names, "frame")
        self.table, self.rows, self.schema = table, table.num_rows, table.schema

    def digest(self) -> bytes:
        raise BadInput("id = row needs a file: a frame has no fixed bytes; use id = columns(...) or field(...)")

    def chunks(self, columns: Sequence[str] | None) -> Iterator[Chunk]:
        table = self.table if columns is None else self.table.select(columns)
        return _numbered(table.slice(start, CHUNK_ROWS) for start in range(0, self.rows, CHUNK_ROWS))


class _Parquet:
    """A Parquet file; its footer is read when it is opened, which is what a truncated file lacks."""

    unit, warning = "row", ""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        with pq.ParquetFile(path) as file:
            self.schema, self.rows = file.schema_arrow, file.metadata.num_rows
        _unique_names(self.schema.names, self.name)

    def digest(self) -> bytes:
        return _file_digest(self.path)

    def chunks(self, columns: Sequence[str] | None) -> Iterator[Chunk]:
        with pq.ParquetFile(self.path) as file:
            yield from _numbered(file.iter_batches(CHUNK_ROWS, columns=columns, use_threads=True))


class _ArrowFile:
    """An Arrow IPC file (Feather 2)."""

    unit, warning = "row", ""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        with pa.memory_map(str(path)) as memory:
            reader = pa.ipc.open_file(memory)
            self.schema, self.rows = reader.schema, sum(len(batch) for batch in self._batches(reader))
        _unique_names(self.schema.names, self.name)

    @staticmethod
    def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
        return (reader.get_batch(i) for i in range(reader.num_record_batches))

    def digest(self) -> bytes:
        return _file_digest(self.path)

    def chunks(self, columns: Sequence[str] | None) -> Iterator[Chunk]:
        with pa.memory_map(str(self.path)) as memory:
            batches = self._batches(pa.ipc.open_file(memory))
            slices = (b.slice(i, CHUNK_ROWS) for b in batches for i in range(0, len(b), CHUNK_ROWS))
            yield from _numbered(b if columns is None else b.select(list(columns)) for b in slices)


class _Csv:
    """A CSV file (RFC 4180, UTF-8, first line: names). Cells are text; an empty cell is null.

    Read by Python's own reader, which knows the line of each row, also where a quoted cell holds line breaks.
    """

    unit, rows = "line", None

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        with self._open() as file:
            self.names = next(csv.reader(file, strict=True), [])
        if not any(self.names):
            raise BadInput(f"{path.name}: expected column names in the first line, got an empty file")
        _unique_names(self.names, path.name)
        self.schema = pa.schema([(name, pa.string()) for name in self.names])
        self.warning = _ends_open(path)

    def _open(self) -> Any:
        csv.field_size_limit(_CELL_BYTES_MAX)
        return self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")

    def digest(self) -> bytes:
        return _file_digest(self.path)

    def chunks(self, columns: Sequence[str] | None) -> Iterator[Chunk]:
        with self._open() as file:
            reader = csv.reader(file, strict=True)
            next(reader)
            while True:
                rows, numbers, broken, ended = self._read(reader)
                if rows or broken:
                    yield self._chunk(rows, numbers, broken)
                if ended:
                    return

    def _read(self, reader: Any) -> tuple[list[list[str]], list[int], list[Broken], bool]:
        """Return up to CHUNK_ROWS rows with the lines on which they start, and whether the file has ended."""
        rows: list[list[str]] = []
        numbers: list[int] = []
        broken: list[Broken] = []
        width = len(self.names)
        while len(rows) + len(broken) < CHUNK_ROWS:
            line = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                last = f" (to line {reader.line_num})" if reader.line_num > line else ""
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
        arrays = [
            pa.array([c or None for c in column], pa.string()) for column in _encodable(cells, rows, numbers, broken)
        ]
        return Chunk(
            pa.Table.from_arrays(arrays, names=self.names), np.array(numbers, np.int64), sorted(broken, key=_number)
        )


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


def _number(broken: Broken) -> int:
    return broken.number


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _JsonLines:
    """A file with one JSON object a line. Numbers with a point or an exponent stay text, so that none is rounded.

    Without `columns` it yields the objects as they are (`Chunk.records`), for lines that are records of the platform.
    """

    unit, rows, schema = "line", None, None

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.warning = _ends_open(path)

    def digest(self) -> bytes:
        return _file_digest(self.path)

    def chunks(self, columns: Sequence[str] | None) -> Iterator[Chunk]:
        decoder: Any = msgspec.json.Decoder() if columns is None else msgspec.json.Decoder(float_hook=str)
        with self.path.open("rb") as file:
            lines = enumerate(file, 1)
            while part := list(itertools.islice(lines, CHUNK_ROWS)):
                yield _json_chunk([(n, line) for n, line in part if not line.isspace()], columns, decoder)


def _json_chunk(lines: list[tuple[int, bytes]], columns: Sequence[str] | None, decoder: Any) -> Chunk:
    right: list[tuple[int, bytes]] = []
    records: list[dict[str, Any]] = []
    broken: list[Broken] = []
    for number, line in lines:
        try:
            record = decode_json(line, decoder)
            why = "" if isinstance(record, dict) else f"expected an object, got {record!r:.80}"
            why = why or _nested(record, columns or ())
        except BadInput as error:
            record, why = None, str(error)
        if why:
            broken.append(Broken(number, line.decode("utf-8", "replace").rstrip("\r\n"), why))
        else:
            right.append((number, line))
            records.append(record)
    for i in sorted(_mixed(records, columns or ()).items(), reverse=True):
        broken.append(Broken(right[i[0]][0], right[i[0]][1].decode().rstrip("\r\n"), i[1]))
        del right[i[0]], records[i[0]]
    numbers = np.array([number for number, _ in right], np.int64)
    table = pa.table({name: _json_column([r.get(name) for r in records]) for name in columns or ()})
    return Chunk(table, numbers, sorted(broken, key=_number), records, [line for _, line in right])


def _mixed(records: list[dict[str, Any]], columns: Sequence[str]) -> dict[int, str]:
    """Return the rows with a boolean in a column of other values, or the reverse, whichever are fewer."""
    rows: dict[int, str] = {}
    for name in columns:
        booleans = [type(r.get(name)) is bool for r in records]
        if not any(booleans):
            continue
        others = [r.get(name) is not None and not b for r, b in zip(records, booleans, strict=True)]
        if any(others):
            fewer, expected = (others, "true or false") if sum(others) < sum(booleans) else (booleans, "no boolean")
            rows |= {i: f"$.{name}: expected {expected}, got {records[i][name]!r}" for i, f in enumerate(fewer) if f}
    return rows


def _nested(record: Any, columns: Sequence[str]) -> str:
    for name in columns:
        if isinstance(record.get(name), dict | list):
            return f"$.{name}: expected text, a number, true, false or null, got {record[name]!r:.80}"
    return ""


def _json_column(values: list[Any]) -> pa.Array:
    """Return a typed array where all values are of one type, else text."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(v is None or -(2**63) < v < 2**63 for v in values):
        return pa.array(values, pa.int64())
    return pa.array([v if v is None else str(v) for v in values], pa.string())
