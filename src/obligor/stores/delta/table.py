"""Delta Lake tables (https://github.com/delta-io/delta/blob/master/PROTOCOL.md), committed by delta-rs.

The files are written here and handed to Delta as `add` actions, so that their order, groups and encodings are ours;
marks are Delta's application transactions, which every checkpoint keeps and a commit checks for conflicts.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, Field
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

from obligor.errors import IntegrityError
from obligor.features.lake_store import CommitConflict, DataFile, Snapshot
from obligor.stores.delta.files import ParquetReader, ParquetWriter
from obligor.stores.delta.places import Place, S3Options, place_of

__all__ = ["DeltaLake", "DeltaTableStore"]

MARKS = ("log", "sequence", "chain", "folded")
SHARD_MARKS = ("sequence", "chain", "folded")  # of which each shard of the log beyond the first has its own, `chain.1`
_PREFIX = "obligor."
# A checkpoint makes the table quick to open; more often than this it would cost more than it saves.
_CONFIGURATION = {"delta.checkpointInterval": "50"}


class DeltaLake:
    """A folder of Delta tables, on disk or at an address such as s3://bucket/folder."""

    def __init__(self, folder: Path | str, options: S3Options | None = None) -> None:
        self._place = place_of(folder, options)
        self._tables: dict[str, DeltaTableStore] = {}

    def table(self, name: str) -> DeltaTableStore:
        """Return a table by name, whether it exists or not."""
        found = self._tables.get(name)
        return self._tables.setdefault(name, DeltaTableStore(self._place.child(name))) if found is None else found

    def names(self) -> list[str]:
        """Return the names of the tables that exist."""
        return [name for name in self._place.folders() if _is_table(self._place.child(name))]


class DeltaTableStore:
    """A `TableStore`."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._name = place.address.rpartition("/")[2]
        self._delta: DeltaTable | None = None
        self._last: Snapshot | None = None
        self._readers: dict[str, ParquetReader] = {}
        self._guard = threading.RLock()  # delta-rs refuses two uses of one object at a time

    def snapshot(self) -> Snapshot | None:
        """Return the table as it is now, None if there is none."""
        with self._guard:
            try:
                return self._snapshot()
            except DeltaError as error:
                raise IntegrityError(f"{self._name}: what Delta notes of this table cannot be read: {error}") from error

    def _snapshot(self) -> Snapshot | None:
        if self._delta is None:
            if not _is_table(self._place):
                return None
            self._delta = DeltaTable(self._place.address, storage_options=_options(self._place))
        elif not self._is_newest(self._delta.version()):
            self._delta.update_incremental()
        if self._last is not None and self._last.version == self._delta.version():
            return self._last
        files = tuple(sorted(_data_files(self._delta), key=lambda file: (file.first, file.name)))
        kept = {file.name for file in files}
        self._readers = {name: reader for name, reader in self._readers.items() if name in kept}
        schema = pa.schema(self._delta.schema().to_arrow())
        self._last = Snapshot(self._delta.version(), files, self._marks(self._delta), schema)
        return self._last

    def _is_newest(self, version: int) -> bool:
        """Whether a look at the names of commits is enough to say that none has followed; delta-rs takes far longer.

        Old commits go, the oldest first: where this one has gone the next one may have gone, too.
        """
        following, own = (self._place.has(f"_delta_log/{number:020}.json") for number in (version + 1, version))
        return following is False and own is True

    def create(self, schema: pa.Schema, marks: Mapping[str, int]) -> None:
        """Make the table, empty, in one commit; one that exists loses its files and columns."""
        self._place.make()
        try:
            DeltaTable.create(
                self._place.address,
                schema,
                mode="overwrite",
                configuration=_CONFIGURATION,
                storage_options=_options(self._place),
                commit_properties=_properties(marks),
            )
        except CommitFailedError as error:
            raise self._conflict(error) from None

    def writer(self, schema: pa.Schema, notes: Mapping[str, str]) -> ParquetWriter:
        """Begin a file, under a name that no other has."""
        return ParquetWriter(self._place, f"{secrets.token_hex(16)}.parquet", schema, notes)

    def reader(self, file: DataFile) -> ParquetReader:
        """Open a file, once."""
        reader = self._readers.get(file.name)
        if reader is None:
            reader = self._readers[file.name] = ParquetReader(self._place, file.name)
        return reader

    def commit(
        self,
        base: Snapshot,
        schema: pa.Schema,
        added: Sequence[DataFile],
        removed: Sequence[DataFile],
        marks: Mapping[str, int],
    ) -> None:
        """Change the table in one commit; new columns are made by one before."""
        with self._guard:
            assert self._delta is not None, "a commit is based on a snapshot"
            if self._marks(self._delta, marks) != {name: base.marks[name] for name in marks if name in base.marks}:
                raise CommitConflict(f"{self._name}: another thread changed this table; nothing was committed")
            if removed and self._delta.version() != base.version:
                active = {file.name for file in _data_files(self._delta)}
                if not active.issuperset(file.name for file in removed):
                    raise CommitConflict(f"{self._name}: files to replace are gone; nothing was committed")
            try:
                self._commit(self._delta, schema, added, removed, marks)
            except CommitFailedError as error:
                raise self._conflict(error) from None

    def _conflict(self, error: CommitFailedError) -> CommitConflict:
        return CommitConflict(f"{self._name}: another process changed this table; nothing was committed: {error}")

    def _commit(
        self,
        delta: DeltaTable,
        schema: pa.Schema,
        added: Sequence[DataFile],
        removed: Sequence[DataFile],
        marks: Mapping[str, int],
    ) -> None:
        known = {field.name for field in delta.schema().fields}
        fresh = [Field.from_arrow(column.with_nullable(True)) for column in schema if column.name not in known]
        if fresh:
            delta.alter.add_columns(fresh)
        now_ms = time.time_ns() // 1_000_000  # of Delta's own records; nothing is computed from it
        actions: list[AddAction | RemoveAction] = [_add(file, now_ms) for file in added]
        actions += [RemoveAction(file.name, True, now_ms, file.size_bytes, {}) for file in removed]
        delta.create_write_transaction(actions, "append", delta.schema(), commit_properties=_properties(marks))

    @staticmethod
    def _marks(delta: DeltaTable, names: Iterable[str] | None = None) -> dict[str, int]:
        found = {name: delta.transaction_version(_PREFIX + name) for name in (MARKS if names is None else names)}
        shard = 1
        while names is None and delta.transaction_version(f"{_PREFIX}{SHARD_MARKS[0]}.{shard}") is not None:
            found |= {(name := f"{one}.{shard}"): delta.transaction_version(_PREFIX + name) for one in SHARD_MARKS}
            shard += 1
        return {name: value for name, value in found.items() if value is not None}

    def vacuum(self, older_than_hours: float) -> int:
        """Delete the files that are no part of the table and have not been for so long."""
        with self._guard:
            if self.snapshot() is None or self._delta is None:
                return 0
            deleted = self._delta.vacuum(
                retention_hours=int(older_than_hours), enforce_retention_duration=False, dry_run=False, full=True
            )
            return len(deleted)


def _options(place: Place) -> dict[str, str] | None:
    return None if place.options is None else dict(place.options)


def _is_table(place: Place) -> bool:
    return DeltaTable.is_deltatable(place.address, _options(place))


def _properties(marks: Mapping[str, int]) -> CommitProperties:
    assert {name.partition(".")[0] for name in marks} <= set(MARKS), "all marks are known"
    return CommitProperties(app_transactions=[Transaction(_PREFIX + name, value) for name, value in marks.items()])


def _add(file: DataFile, now_ms: int) -> AddAction:
    stats = {
        "numRecords": file.rows,
        "minValues": {"bucket": file.first},
        "maxValues": {"bucket": file.last},
        "nullCount": {"bucket": 0},
    }
    return AddAction(file.name, file.size_bytes, {}, now_ms, True, json.dumps(stats))


def _data_files(delta: DeltaTable) -> list[DataFile]:
    table: Any = pa.table(delta.get_add_actions(flatten=True))
    if not table.num_rows:
        return []
    columns = [table.column(name).to_pylist() for name in
               ("path", "num_records", "size_bytes", "min.bucket", "max.bucket")]  # fmt: skip
    return [DataFile(*row) for row in zip(*columns, strict=True)]
