"""Parquet files as the lake writes and reads them.

What nearly every read needs lies plain (numbers) or dictionary-encoded (keys, texts), and a group's column in one page,
because then reading is a copy (`pages`): a plain int64 takes 0.2 ns (0.7 where pyarrow decodes it), byte-stream-split
with LZ4 1.5 to 2.2 ns at half the size, anything with Zstandard 2 to 9 ns. Positions, which few reads need, take that
half. A group is as many whole buckets as make about `GROUP_ROWS` rows.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from obligor.features.lake_files import GROUP_ROWS
from obligor.features.lake_store import DataFile, Group
from obligor.stores.delta.pages import Coded, Nulls, Plain, Sparse, located, read_coded, read_plain, read_sparse
from obligor.stores.delta.places import Place

__all__ = ["ParquetReader", "ParquetWriter"]

_NOTE = "obligor."
_RARE = ("position", "root", "replaced_position", "replaced_known")  # few reads need them, or few rows have them
_ENCODED = ("entity", "event")  # read as dictionaries
_DICTIONARY_BYTES_MAX = 64 << 20  # a dictionary is never given up within a group
_PAGE_BYTES = 16 << 20
_Where: TypeAlias = Nulls | Plain | Sparse | Coded | None  # where a group's column lies; None: it is to be decoded
_LAST = threading.local()  # the file that a thread read last


class ParquetWriter:
    """A `FileWriter`."""

    def __init__(self, place: Place, name: str, schema: pa.Schema, notes: Mapping[str, str]) -> None:
        self._place, self._name, self._schema = place, name, schema
        self._path = place.draft(name)
        self._rows, self._first, self._last = 0, 0, 0
        numbers = [field.name for field in schema if pa.types.is_int64(field.type)]
        plain = [name for name in numbers if name not in _RARE]
        self._file = pq.ParquetWriter(
            self._path,
            schema,
            compression={name: "NONE" if name in (*plain, "bucket") else "LZ4" for name in _leaves(schema)},
            use_dictionary=["bucket", *(f.name for f in schema if pa.types.is_string(f.type))],
            column_encoding={name: "PLAIN" if name in plain else "BYTE_STREAM_SPLIT" for name in numbers},
            dictionary_pagesize_limit=_DICTIONARY_BYTES_MAX,
            data_page_size=_PAGE_BYTES,
            max_rows_per_page=GROUP_ROWS,  # a group's column is one page, which `pages` reads as it lies
            write_statistics=True,
            store_schema=False,
        )
        self._file.add_key_value_metadata({_NOTE + name: value for name, value in notes.items()})

    def write(self, rows: pa.Table) -> None:
        """Add a group of rows."""
        buckets = rows.column("bucket")
        if not self._rows:
            self._first = buckets[0].as_py()
        self._last = buckets[-1].as_py()
        self._rows += rows.num_rows
        self._file.write_table(rows.select(self._schema.names), row_group_size=rows.num_rows)

    def close(self) -> DataFile:
        """Finish the file, durably."""
        self._file.close()
        size = self._path.stat().st_size
        self._place.settle(self._name, self._path)
        return DataFile(self._name, self._rows, size, self._first, self._last)

    def abandon(self) -> None:
        """Delete what has been written."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class ParquetReader:
    """A `FileReader`."""

    def __init__(self, place: Place, name: str) -> None:
        self._place, self._name = place, name
        with place.open(name) as file:
            self._footer: Any = pq.read_metadata(file)
        schema = self._footer.schema.to_arrow_schema()
        self.names = frozenset(schema.names)
        known = self._footer.metadata or {}
        self.notes = {
            key.decode().removeprefix(_NOTE): value.decode()
            for key, value in known.items()
            if key.decode().startswith(_NOTE)
        }
        self._encoded = [name for name in _ENCODED if name in self.names]
        self._types = {field.name: field.type for field in schema}
        self._leaf = {self._footer.schema.column(i).path.partition(".list.")[0]: i for i in range(len(_leaves(schema)))}
        self.groups = [self._group(i) for i in range(self._footer.num_row_groups)]
        self._only: dict[tuple[int, str], str | None] = {}
        self._where: dict[tuple[int, str], _Where] = {}

    def _group(self, number: int) -> Group:
        buckets = self._statistics(number, "bucket")
        return Group(self._footer.row_group(number).num_rows, buckets.min, buckets.max)

    def _statistics(self, group: int, column: str) -> Any:
        return self._footer.row_group(group).column(self._leaf[column]).statistics

    def only(self, groups: Sequence[int], column: str) -> str | None:
        """Return the one text that a column has in these groups."""
        found = {self._only_of(group, column) for group in groups}
        return found.pop() if len(found) == 1 else None

    def _only_of(self, group: int, column: str) -> str | None:
        key = (group, column)
        if key not in self._only:
            statistics = self._statistics(group, column)
            one = statistics is not None and statistics.has_min_max and statistics.min == statistics.max
            self._only[key] = statistics.min if one else None
        return self._only[key]

    def _open(self) -> Any:
        """Return the file as this thread has it open; each thread keeps the one that it read last."""
        if getattr(_LAST, "reader", None) is not self:
            _LAST.file, _LAST.parquet, _LAST.reader = self._place.open(self._name), None, self
        return _LAST.file

    def _decoded(self, groups: Sequence[int], columns: Sequence[str]) -> dict[str, pa.ChunkedArray]:
        """Return columns of some groups as pyarrow reads them."""
        file = self._open()
        if _LAST.parquet is None:
            _LAST.parquet = pq.ParquetFile(
                file, metadata=self._footer, read_dictionary=self._encoded, pre_buffer=self._place.read_ahead
            )
        table = _LAST.parquet.read_row_groups(list(groups), columns=list(columns), use_threads=False)
        found = {name: table.column(name) for name in columns}
        return found | {"entity": _in_runs(found["entity"])} if "entity" in found else found

    def read(self, groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Return columns of some groups; one that is null throughout is not read."""
        found = {name: self._straight(groups, name) for name in columns}
        others = [name for name, column in found.items() if column is None]
        return pa.table(found | self._decoded(groups, others) if others else found)

    def _straight(self, groups: Sequence[int], column: str) -> pa.Array | pa.ChunkedArray | None:
        """Return a column of some groups as it lies in the file; None where it has to be decoded."""
        where: list[Any] = [self._located(group, column) for group in groups]
        kind = type(where[0])
        if any(type(one) is not kind for one in where):
            return None
        if kind is Nulls:
            return _nulls(sum(one.rows for one in where), self._types[column])
        if kind is Plain:
            return read_plain(self._open(), where)
        if kind is Sparse:
            return read_sparse(self._open(), where)
        coded = [read_coded(self._open(), one) for one in where] if kind is Coded else [None]
        return None if None in coded else pa.chunked_array(coded)

    def _located(self, group: int, column: str) -> _Where:
        key = (group, column)
        if key not in self._where:
            self._where[key] = self._looked_for(group, column)
        return self._where[key]

    def _looked_for(self, group: int, column: str) -> _Where:
        chunk, rows = self._footer.row_group(group).column(self._leaf[column]), self.groups[group].rows
        statistics = chunk.statistics
        known = statistics is not None and statistics.has_null_count
        if known and statistics.null_count == rows and not statistics.num_values:
            return Nulls(rows)
        own = column == "entity" or self._types[column] == pa.int64()
        # Elsewhere than on this disk what is read together is fetched together.
        return located(self._open(), chunk, rows) if own and not self._place.read_ahead else None


def _in_runs(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of dictionary-encoded texts by its runs."""
    found = []
    for chunk in column.chunks:
        codes = pc.run_end_encode(chunk.indices)
        found.append(pa.RunEndEncodedArray.from_arrays(codes.run_ends, chunk.dictionary.take(codes.values)))
    return pa.chunked_array(found, pa.run_end_encoded(pa.int32(), pa.string()))


_NULLS: dict[pa.DataType, pa.Array] = {}  # the longest so far of each type: most files have but a few types


def _nulls(rows: int, kind: pa.DataType) -> pa.Array:
    """Return so many nulls; those of a type share their memory."""
    shared = _NULLS.get(kind)
    if shared is None or len(shared) < rows:
        shared = _NULLS[kind] = pa.nulls(rows, kind)  # another thread may put a shorter one there
    return shared[:rows]


def _leaves(schema: pa.Schema) -> list[str]:
    """Return the names of the columns as Parquet counts them, those of lists by their leaves."""
    names = []
    for field in schema:
        if pa.types.is_list(field.type):
            names += [f"{field.name}.list.element.{part.name}" for part in field.type.value_type]
        else:
            names.append(field.name)
    return names
