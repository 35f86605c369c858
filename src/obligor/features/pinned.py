"""A view of the lake as a document: the same rows for every task of a run, on machines that have no log.

A document names a snapshot's files, so that updates and compactions in the meantime change nothing. What the files
lack, because the log has gone on, and what replaces their rows is written beside it, in the run's own files; a task
reads of both what lies in its buckets. Event types are in it as descriptions: no code of the project goes along.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from obligor.errors import IntegrityError
from obligor.events.described import described_types, registry_of
from obligor.events.schema import Registry
from obligor.features.files import Files, digest, write_named
from obligor.features.lake import View
from obligor.features.lake_files import Range, SortedWriter, types_note
from obligor.features.lake_rows import Additions
from obligor.features.lake_store import DataFile, FileReader, FileReaders, LakeStore
from obligor.features.lake_tables import REVISIONS, lake_table, no_revisions
from obligor.features.lake_view import Revisions, TableView

__all__ = ["RECENT", "OpenLake", "pin", "pinned_table", "read_named"]

OpenLake = Callable[[str], LakeStore]  # the tables at an address
RECENT = "recent"  # the folder, among a run's files, of tables of what the lake lacks
_DOCUMENTS_KEPT = 16


def pin(view: View, registry: Registry, lake: str, files: Files, open_lake: OpenLake) -> str:
    """Write a view of the lake at the address `lake` into a run's files; return the name of its document."""
    own = open_lake(f"{files.address}/{RECENT}")
    tables = {table.table.name: _pinned(table, own, files) for table in view.tables.values()}
    document = {
        "lake": lake,
        "types": described_types(registry),
        "end": {str(shard): last for shard, last in view.end.items()},
        "tables": tables,
    }
    return write_named(files, "views", json.dumps(document, sort_keys=True).encode(), ".json")


def _pinned(view: TableView, own: LakeStore, files: Files) -> dict[str, Any]:
    recent: list[DataFile] = []
    if view.recent.rows.num_rows:
        writer = SortedWriter(own.table(view.table.name), view.table.schema, types_note(view.table))
        writer.write(view.recent.rows)
        recent = writer.close()
    revisions = io.BytesIO()
    pq.write_table(view.revisions.rows, revisions, row_group_size=65_536)
    return {
        "entities": list(view.table.entities),
        "end": {str(shard): last for shard, last in view.end.items()},
        "files": [list(file) for file in view.files],
        "recent": [list(file) for file in recent],
        "revisions": write_named(files, "revisions", revisions.getvalue(), ".parquet"),
    }


@dataclass(frozen=True)
class _Readers:
    """The readers of a table's files and of those beside it."""

    lake: FileReaders
    own: FileReaders
    recent: frozenset[str]

    def reader(self, file: DataFile) -> FileReader:
        """Open a file."""
        return (self.own if file.name in self.recent else self.lake).reader(file)


@lru_cache(maxsize=_DOCUMENTS_KEPT)
def _document(name: str, content: bytes) -> tuple[Mapping[str, Any], Registry]:
    document = json.loads(content)
    return document, registry_of(document["types"])


def read_named(files: Files, name: str) -> Any:
    """Return the content of a file that is named by it; IntegrityError where it is another."""
    content = files.read(name)
    if digest(content) != name.rpartition("/")[2].partition(".")[0]:
        raise IntegrityError(f"{files.address}/{name}: the file does not hold what it was written with")
    return content


def pinned_table(
    name: str, table: str, buckets: Range, files: Files, open_lake: OpenLake
) -> tuple[TableView, Mapping[int, int]]:
    """Return a table of the view that a document names, for the ranges within `buckets`, and the view's last cut.

    No reader is kept beyond the table: a process that goes through many tasks holds the footers of one.
    """
    document, registry = _document(name, bytes(read_named(files, name)))
    held = document["tables"][table]
    recent = [DataFile(*file) for file in held["recent"]]
    made = lake_table(registry, held["entities"])
    readers = _Readers(
        open_lake(document["lake"]).table(table),
        open_lake(f"{files.address}/{RECENT}").table(table),
        frozenset(file.name for file in recent),
    )
    within = [("bucket", ">=", buckets[0]), ("bucket", "<=", buckets[1])]
    revisions = pq.read_table(pa.BufferReader(read_named(files, held["revisions"])), filters=within)
    every = (*(DataFile(*file) for file in held["files"]), *recent)
    nothing = Additions(made.empty, no_revisions())
    replaced = Revisions([revisions.cast(REVISIONS)])
    view = TableView(made, readers, every, replaced, nothing, _cut(held["end"]))
    return view, _cut(document["end"])


def _cut(end: Mapping[str, int]) -> dict[int, int]:
    return {int(shard): last for shard, last in end.items()}
