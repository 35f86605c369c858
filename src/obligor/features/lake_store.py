"""What a lake needs of a store: tables of sorted files, changed by commits that are atomic.

A file never changes; a commit adds some and removes others, and sets marks: numbers that say what the files hold. A
commit fails where another one set the same marks in between, so that two updates or two compactions never both happen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import pyarrow as pa

from obligor.errors import Conflict

__all__ = [
    "CommitConflict",
    "DataFile",
    "FileReader",
    "FileReaders",
    "FileWriter",
    "Group",
    "LakeStore",
    "Snapshot",
    "TableStore",
]


class CommitConflict(Conflict):
    """Another process changed the table in the meantime; nothing was committed."""


class DataFile(NamedTuple):
    """One file of a table: its rows lie in the buckets `first` to `last`."""

    name: str
    rows: int
    size_bytes: int
    first: int
    last: int


class Group(NamedTuple):
    """Rows of a file that are read together, in the buckets `first` to `last`."""

    rows: int
    first: int
    last: int


@dataclass(frozen=True)
class Snapshot:
    """A table at one of its versions."""

    version: int
    files: tuple[DataFile, ...]
    marks: Mapping[str, int]
    schema: pa.Schema


class FileReader(Protocol):
    """Reads a file's groups; may be used by several threads at once."""

    @property
    def groups(self) -> Sequence[Group]:
        """The groups in their order."""

    @property
    def names(self) -> frozenset[str]:
        """The columns that the file has."""

    @property
    def notes(self) -> Mapping[str, str]:
        """What was noted when it was written."""

    def read(self, groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Return these columns, which the file has, of some groups.

        `entity` is run-end-encoded, `event` dictionary-encoded.
        """

    def only(self, groups: Sequence[int], column: str) -> str | None:
        """Return the one text that a column has in these groups; None where there are several or that is unknown."""


class FileWriter(Protocol):
    """Writes one file."""

    def write(self, rows: pa.Table) -> None:
        """Add a group of rows, which come after those before."""

    def close(self) -> DataFile:
        """Finish the file, durably; only a commit makes it a part of the table."""

    def abandon(self) -> None:
        """Delete what has been written."""


class FileReaders(Protocol):
    """Opens files."""

    def reader(self, file: DataFile) -> FileReader:
        """Open a file; NotFound where it has been deleted."""


class TableStore(FileReaders, Protocol):
    """One table."""

    def snapshot(self) -> Snapshot | None:
        """Return the table as it is now, None if there is none."""

    def create(self, schema: pa.Schema, marks: Mapping[str, int]) -> None:
        """Make the table, empty; one that exists loses its files and columns."""

    def writer(self, schema: pa.Schema, notes: Mapping[str, str]) -> FileWriter:
        """Begin a file."""

    def commit(
        self,
        base: Snapshot,
        schema: pa.Schema,
        added: Sequence[DataFile],
        removed: Sequence[DataFile],
        marks: Mapping[str, int],
    ) -> None:
        """Change the table; CommitConflict where one of the marks has been set since `base`.

        Columns of `schema` that the table lacks become its columns.
        """

    def vacuum(self, older_than_hours: float) -> int:
        """Delete the files that are no part of the table and have not been for so long; return how many."""


class LakeStore(Protocol):
    """A folder of tables."""

    def table(self, name: str) -> TableStore:
        """Return a table by name, whether it exists or not."""

    def names(self) -> list[str]:
        """Return the names of the tables that exist."""
