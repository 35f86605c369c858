"""A lake as a question sees it: the files of one snapshot, what has replaced their rows since, the log's last blocks.

Everything is resolved from rows, never from a table's versions: so old versions may be vacuumed at any time, and the
same cut gives the same timelines before and after a compaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obligor.features.lake_files import Range, chains, ranges, types_note, versions_noted
from obligor.features.lake_rows import Additions, Pairs
from obligor.features.lake_slabs import Slab, file_slab, integers, memory_slab
from obligor.features.lake_store import DataFile, FileReaders
from obligor.features.lake_tables import LakeTable
from obligor.features.lake_timelines import Need, Reading, empty_timeline, join_timelines, slab_timeline
from obligor.features.plan import Plan
from obligor.features.timelines import Timeline

__all__ = ["Revisions", "TableView"]


class Revisions:
    """What replaces rows that lie in files, since they were written."""

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        rows = pa.concat_tables(tables)
        self._rows = rows.sort_by("bucket").combine_chunks() if rows.num_rows else rows
        self._buckets = self._rows.column("bucket").to_numpy()

    @property
    def rows(self) -> pa.Table:
        """All of them, by `REVISIONS` and sorted by bucket."""
        return self._rows

    def of(self, slab: Slab, buckets: Range) -> dict[int, Pairs]:
        """Return by row of a slab of these buckets what replaces it; the slab has `root`, `position` and `known`."""
        own = self._within(buckets)
        found: dict[int, Pairs] = {}
        if not own.num_rows:
            return found
        entities = pc.index_in(own.column("entity"), value_set=slab.keys).to_pylist()
        identity = [integers(slab, name) for name in ("root", "position", "known")]
        names = ("root", "position", "known", "replaced_position", "replaced_known")
        for entity, *key, position, known in zip(
            entities, *(own.column(name).to_pylist() for name in names), strict=True
        ):
            if entity is not None:
                start, end = slab.offsets[entity], slab.offsets[entity + 1]
                same = np.logical_and.reduce(
                    [numbers[start:end] == value for numbers, value in zip(identity, key, strict=True)]
                )
                for row in np.flatnonzero(same):
                    found.setdefault(int(start + row), []).append((position, known))
        return found

    def any(self, buckets: Range) -> bool:
        """Whether there are any in these buckets."""
        return bool(self._within(buckets).num_rows)

    def _within(self, buckets: Range) -> pa.Table:
        if not self._rows.num_rows:
            return self._rows
        first, last = buckets
        start, end = np.searchsorted(self._buckets, np.array([first, last + 1], np.int16))
        return self._rows.slice(int(start), int(end - start))


@dataclass(frozen=True)
class TableView:
    """One table up to a cut."""

    table: LakeTable
    store: FileReaders
    files: tuple[DataFile, ...]
    revisions: Revisions
    recent: Additions
    end: Mapping[int, int]  # the cut that shows all of the log that is in it
    _readings: dict[tuple[Plan, str], Reading] = field(default_factory=dict)
    _columns: dict[tuple[Reading, str, Need], list[str]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The number of rows in files."""
        return sum(file.rows for file in self.files)

    def ranges(self, rows: int) -> list[Range]:
        """Return ranges of buckets that cover all, with about so many rows each."""
        largest = next(iter(chains(self.files)), [])
        return ranges([self.store.reader(file).groups for file in largest], rows)

    def timeline(self, plan: Plan, name: str, buckets: Range, need: Need) -> Timeline:
        """Return a plan's timeline of the entities in a range of buckets."""
        reading = self._reading(plan, name)
        slabs = self._slabs(reading, buckets, need)
        if len(slabs) > 1 and not need.root:  # several sources are merged by root
            need = Need(need.position, True)
            slabs = self._slabs(reading, buckets, need)
        timelines = [slab_timeline(reading, slab, revised, need) for slab, revised in slabs]
        return join_timelines(timelines) if timelines else empty_timeline(reading)

    def _reading(self, plan: Plan, name: str) -> Reading:
        if (plan, name) not in self._readings:
            self._readings[plan, name] = Reading(plan, name, self.table)
        return self._readings[plan, name]

    def _slabs(self, reading: Reading, buckets: Range, need: Need) -> list[tuple[Slab, dict[int, Pairs]]]:
        first, last = buckets
        revised = self.revisions.any(buckets)
        need = Need(True, True) if revised else need
        slabs: list[tuple[Slab, dict[int, Pairs]]] = []
        for file in self.files:
            if file.first <= last and file.last >= first:
                reader = self.store.reader(file)
                slab = file_slab(reader, first, last, self._wanted(reading, file, need))
                if slab is not None:
                    slabs.append((slab, self.revisions.of(slab, buckets) if revised else {}))
        if self.recent.rows.num_rows:
            recent = memory_slab(self.recent.rows, first, last, types_note(self.table))
            slabs += [] if recent is None else [(recent, {})]
        return slabs

    def _wanted(self, reading: Reading, file: DataFile, need: Need) -> list[str]:
        """Return the columns to read of a file: of a type that has another version now all that the file has."""
        key = (reading, file.name, need)
        if key not in self._columns:
            reader = self.store.reader(file)
            versions, columns = versions_noted(reader.notes), reading.columns(need)
            for name, event in reading.events.items():
                if versions.get(name) != event.event.version:
                    columns += sorted(column for column in reader.names if column.startswith(f"{name}."))
            self._columns[key] = [column for column in dict.fromkeys(columns) if column in reader.names]
        return self._columns[key]
