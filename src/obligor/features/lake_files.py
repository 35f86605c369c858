"""Which rows of a table lie together: groups of whole buckets, files of groups, ranges of buckets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.errors import IntegrityError
from obligor.features.buckets import BUCKETS
from obligor.features.lake_store import DataFile, FileWriter, Group, TableStore
from obligor.features.lake_tables import LakeTable

__all__ = [
    "FILE_ROWS",
    "GROUP_ROWS",
    "Range",
    "SortedWriter",
    "chains",
    "ranges",
    "spread",
    "types_note",
    "versions_noted",
]

GROUP_ROWS = 131_072  # read at once: larger ones fall out of a cache before they are used, smaller ones cost calls
FILE_ROWS = 1 << 20

Range = tuple[int, int]  # the first and the last bucket


def types_note(table: LakeTable) -> dict[str, str]:
    """Return what is noted with a file: by which versions of the event types its fields are to be read."""
    return {"types": json.dumps({event.event_name: event.version for event in table.events}, sort_keys=True)}


def versions_noted(notes: Mapping[str, str]) -> dict[str, int]:
    """Return the versions of the event types that a file was written with; IntegrityError where another wrote it."""
    if "types" not in notes:
        raise IntegrityError("a file of the lake was written by another program: delete the lake; obligor lake update")
    versions: dict[str, int] = json.loads(notes["types"])
    return versions


class SortedWriter:
    """Writes sorted rows to files of at most about `FILE_ROWS` rows; no two of them share a bucket."""

    def __init__(self, store: TableStore, schema: pa.Schema, notes: Mapping[str, str]) -> None:
        self._store, self._schema, self._notes = store, schema, notes
        self._file: FileWriter | None = None
        self._rows = 0
        self._done: list[DataFile] = []

    def write(self, rows: pa.Table) -> None:
        """Add whole buckets of rows, which come after those before."""
        for start, end in pairwise(_group_edges(rows.column("bucket").to_numpy())):
            same_bucket = start > 0 and rows.column("bucket")[start] == rows.column("bucket")[start - 1]
            if self._file is not None and self._rows >= FILE_ROWS and not same_bucket:
                self._finish()
            if self._file is None:
                self._file = self._store.writer(self._schema, self._notes)
            self._file.write(rows.slice(start, end - start))
            self._rows += end - start

    def _finish(self) -> None:
        if self._file is not None:
            self._done.append(self._file.close())
            self._file, self._rows = None, 0

    def close(self) -> list[DataFile]:
        """Return the files, none where no row was written."""
        self._finish()
        return self._done

    def abandon(self) -> None:
        """Delete the file that is being written; those before are left to a vacuum."""
        if self._file is not None:
            self._file.abandon()


def _group_edges(buckets: NDArray[np.int16]) -> list[int]:
    """Return where groups start and end: at a bucket's edge, but for a bucket that is larger than a group."""
    if not len(buckets):
        return []
    ends = [*(np.flatnonzero(np.diff(buckets)) + 1).tolist(), len(buckets)]
    edges = [0]
    for previous, end in pairwise([0, *ends]):
        if end - edges[-1] > GROUP_ROWS and previous > edges[-1]:
            edges.append(previous)
        while end - edges[-1] > GROUP_ROWS:
            edges.append(edges[-1] + GROUP_ROWS)
    return [*edges, len(buckets)]


def chains(files: Iterable[DataFile]) -> list[list[DataFile]]:
    """Return the files in as few sequences as can be within which no two share a bucket, the largest first."""
    found: list[list[DataFile]] = []
    for file in sorted(files, key=lambda f: (f.first, -f.rows)):
        fitting = [chain for chain in found if chain[-1].last < file.first]
        if fitting:
            max(fitting, key=lambda chain: sum(f.rows for f in chain)).append(file)
        else:
            found.append([file])
    return sorted(found, key=lambda chain: -sum(file.rows for file in chain))


def ranges(files: Sequence[Sequence[Group]], rows: int) -> list[Range]:
    """Return ranges of buckets that cover all and have about so many rows each, cut where a group or a file begins.

    >>> ranges([[Group(10, 0, 9), Group(10, 10, 19), Group(10, 19, 19)], [Group(10, 20, 4095)]], 100)
    [(0, 19), (20, 4095)]
    """
    starts, held, last = [0], 0, -1
    for groups in files:
        for number, group in enumerate(groups):
            if held and group.first > last and (number == 0 or held + group.rows > rows):
                starts.append(group.first)
                held = 0
            held, last = held + group.rows, max(last, group.last)
    return [(first, following - 1) for first, following in pairwise([*starts, BUCKETS])]


def spread(groups: Iterable[Group], rows: int) -> Iterator[Range]:
    """Yield ranges that cover all buckets with about so many rows each, as if a group's rows were spread evenly."""
    weight = np.zeros(BUCKETS)
    for group in groups:
        weight[group.first : group.last + 1] += group.rows / (group.last + 1 - group.first)
    first, held = 0, 0.0
    for bucket in range(BUCKETS):
        if held and held + weight[bucket] > rows:
            yield first, bucket - 1
            first, held = bucket, 0.0
        held += weight[bucket]
    yield first, BUCKETS - 1
