"""Sources: Parquet, Arrow, CSV and JSON Lines files (globs too) and frames, read in chunks with their row numbers.

Every source is opened before anything is written, so that a truncated file or a missing column stops an ingestion at
its start. Text files number their lines, the others their rows, both from 1.
"""

from __future__ import annotations

import csv
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from obligor.errors import BadInput, NotFound, Problem
from obligor.events import chunk
from obligor.events.chunk import Chunk, file_digest, unique_names
from obligor.events.csv_source import CsvFile
from obligor.events.json_source import JsonLinesFile

__all__ = ["Source", "open_sources", "pandas_table"]

PROBLEMS_MAX: Final = 20  # cells that are named
_FORMATS: Final = ".parquet, .arrow, .feather, .csv, .jsonl or .ndjson"


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
        hint = f"; it is a folder: name its files, such as '{pattern}/*.parquet'" if Path(pattern).is_dir() else ""
        raise NotFound(f"no file fits {str(pattern)!r}{hint}")
    return files


def _open_file(path: Path) -> Source:
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return _Parquet(path)
        if suffix in (".arrow", ".feather"):
            return _ArrowFile(path)
        if suffix == ".csv":
            return CsvFile(path)
        if suffix in (".jsonl", ".ndjson"):
            return JsonLinesFile(path)
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
        try:
            return pandas_table(frame)
        except pa.ArrowException as error:
            raise BadInput(f"the pandas frame has a column of mixed types: {error}") from None
    raise BadInput(f"expected a path, a pattern, or an Arrow, polars or pandas frame, got {type(frame).__name__}")


def pandas_table(frame: Any) -> pa.Table:
    """Return a pandas frame as an Arrow table, without its index.

    Raises Arrow's error where a column has several kinds of values, and BadInput where some of its moments have a time
    zone and others have none: Arrow would take those for moments of UTC.
    """
    table = pa.Table.from_pandas(frame, preserve_index=False)
    bare = [
        Problem(f"$[{row}].{name}", f"expected a moment with a time zone as in other rows, got {moment!r:.80}")
        for place, (name, kind) in enumerate(zip(frame.columns, table.schema.types, strict=True))
        if pa.types.is_timestamp(kind) and kind.tz is not None and str(frame.dtypes.iloc[place]) == "object"
        for row, moment in enumerate(frame.iloc[:, place])
        if getattr(moment, "tzinfo", kind.tz) is None and moment == moment
    ]
    if bare:
        raise BadInput(bare[:PROBLEMS_MAX])
    return table


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
        unique_names(table.column_names, "frame")
        self.table, self.rows, self.schema = table, table.num_rows, table.schema

    def digest(self) -> bytes:
        raise BadInput("id = row needs a file: a frame has no fixed bytes; use id = columns(...) or field(...)")

    def chunks(self, columns: Sequence[str] | None) -> Iterator[Chunk]:
        table = self.table if columns is None else self.table.select(columns)
        return _numbered(table.slice(start, chunk.CHUNK_ROWS) for start in range(0, self.rows, chunk.CHUNK_ROWS))


class _Parquet:
    """A Parquet file; its footer is read when it is opened, which is what a truncated file lacks."""

    unit, warning = "row", ""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        with pq.ParquetFile(path) as file:
            self.schema, self.rows = file.schema_arrow, file.metadata.num_rows
        unique_names(self.schema.names, self.name)

    def digest(self) -> bytes:
        return file_digest(self.path)

    def chunks(self, columns: Sequence[str] | None) -> Iterator[Chunk]:
        with pq.ParquetFile(self.path) as file:
            yield from _numbered(file.iter_batches(chunk.CHUNK_ROWS, columns=columns, use_threads=True))


class _ArrowFile:
    """An Arrow IPC file (Feather 2)."""

    unit, warning = "row", ""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        with pa.memory_map(str(path)) as memory:
            reader = pa.ipc.open_file(memory)
            self.schema, self.rows = reader.schema, sum(len(batch) for batch in self._batches(reader))
        unique_names(self.schema.names, self.name)

    @staticmethod
    def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
        return (reader.get_batch(i) for i in range(reader.num_record_batches))

    def digest(self) -> bytes:
        return file_digest(self.path)

    def chunks(self, columns: Sequence[str] | None) -> Iterator[Chunk]:
        with pa.memory_map(str(self.path)) as memory:
            batches = self._batches(pa.ipc.open_file(memory))
            slices = (b.slice(i, chunk.CHUNK_ROWS) for b in batches for i in range(0, len(b), chunk.CHUNK_ROWS))
            yield from _numbered(b if columns is None else b.select(list(columns)) for b in slices)
