"""Compaction: several files of a table become fewer, sorted through, with what has replaced their rows written in.

Range of buckets by range, so that memory is bounded by a range and not by the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obligor.events.schema import Event
from obligor.features.buckets import buckets_of
from obligor.features.lake_files import Range, SortedWriter, chains, spread, types_note, versions_noted
from obligor.features.lake_rows import Pairs, replaced_columns, staircase
from obligor.features.lake_slabs import Slab, Sorted, file_slab, integers, merger
from obligor.features.lake_store import DataFile, FileReaders, TableStore
from obligor.features.lake_tables import REPLACED, STANDARD, LakeTable, current_fields, disclosed, stored_name
from obligor.features.lake_view import Revisions

__all__ = ["RANGE_ROWS", "compact_files", "due", "merged_rows"]

RANGE_ROWS = 1 << 19  # merged at a time
GROWTH = 4  # sorted sequences of files are merged when the next larger one is at most so many times as large
RUNS_MAX = 8  # more sequences than this are merged whatever their sizes
_KEPT = [name for name in STANDARD.names if name not in ("bucket", "entity")]
REVISED_SHARE = 0.02  # of the rows, from which on what replaces them is written in


def due(files: Sequence[DataFile], *, whole: bool, revised: int) -> list[DataFile]:
    """Return the files to merge, none where it is not worth it.

    The smallest sequences are merged as long as the next one is not much larger, so that a row is rewritten a number of
    times that grows with the logarithm of the table.
    """
    runs = chains(files)[::-1]
    rows = [sum(file.rows for file in run) for run in runs]
    if whole or revised > REVISED_SHARE * sum(rows):
        return list(files) if len(runs) > 1 or revised else []
    taken, held = 1, rows[0] if rows else 0
    while taken < len(runs) and (rows[taken] <= GROWTH * held or len(runs) - taken >= RUNS_MAX):
        held += rows[taken]
        taken += 1
    return [file for run in runs[:taken] for file in run] if taken > 1 else []


def compact_files(
    table: LakeTable, store: TableStore, files: Sequence[DataFile], revisions: Revisions
) -> list[DataFile]:
    """Write the rows of some files anew; what is returned replaces them once it is committed."""
    groups = [group for file in files for group in store.reader(file).groups]
    writer = SortedWriter(store, table.schema, types_note(table))
    try:
        for buckets in spread(groups, RANGE_ROWS):
            rows = merged_rows(table, store, files, buckets, revisions)
            if rows is not None:
                writer.write(rows)
        return writer.close()
    except BaseException:
        writer.abandon()
        raise


def merged_rows(
    table: LakeTable, store: FileReaders, files: Sequence[DataFile], buckets: Range, revisions: Revisions
) -> pa.Table | None:
    """Return the rows of a range of buckets in their order, with what replaces them; None where there are none."""
    first, last = buckets
    slabs, columns = [], []
    for file in files:
        reader = store.reader(file)
        names = sorted(reader.names - {"entity", "event", "bucket"})
        slab = file_slab(reader, first, last, names) if file.first <= last and file.last >= first else None
        if slab is not None:
            slabs.append(slab)
            columns.append(_revised(_current(table, slab), revisions.of(slab, buckets)))
    if not slabs:
        return None
    parts = [Sorted(s.keys, s.offsets, integers(s, "event_time"), integers(s, "root")) for s in slabs]
    merged = merger(parts, table.entities)
    counts = np.diff(merged.offsets)
    entity = pa.array(np.repeat(np.arange(len(merged.keys)), counts))
    rows = pa.concat_tables(columns, promote_options="default").take(pa.array(merged.order))
    standard = {
        "bucket": pa.array(np.repeat(buckets_of(table.entities, merged.keys), counts)),
        "entity": merged.keys.take(entity),
    }
    return (
        pa.table({**standard, **{name: rows.column(name) for name in rows.column_names}})
        .select(table.schema.names)
        .cast(table.schema)
    )


def _current(table: LakeTable, slab: Slab) -> pa.Table:
    """Return a slab's columns, but bucket and entity, with its fields by the current definitions."""
    event = pa.repeat(slab.event, slab.rows) if slab.event is not None else slab.columns["event"].dictionary_decode()
    held = pa.table({**slab.columns, "event": event})
    columns = {name: held.column(name) for name in _KEPT}
    versions = versions_noted(slab.notes)
    for one in table.events:
        if versions.get(one.event_name) == one.version:
            columns |= {name: held.column(name) for name in (stored_name(one, c.name) for c in disclosed(one))}
        elif one.event_name in versions:
            columns |= _converted(held, one, versions[one.event_name])
    return pa.table(columns)


def _converted(held: pa.Table, event: type[Event], version: int) -> dict[str, pa.ChunkedArray]:
    """Return the fields of rows that were written by another version of a type, null in rows of other types."""
    own = pc.equal(held.column("event"), event.event_name).to_numpy()
    prefix = stored_name(event, "")
    fields = {name.removeprefix(prefix): held.column(name) for name in held.column_names if name.startswith(prefix)}
    rows = pa.table({"event_time": held.column("event_time"), **fields}).filter(pa.array(own))
    place = pa.array(np.cumsum(own) - 1, mask=~own)
    fresh = current_fields(rows, event, version)
    return {stored_name(event, name): column.take(place) for name, column in fresh.items()}


def _revised(columns: pa.Table, revised: Mapping[int, Pairs]) -> pa.Table:
    """Return rows with what has replaced them since they were written."""
    if not revised:
        return columns
    position, known, more = (columns.column(name) for name in REPLACED)
    listed = np.flatnonzero(pc.is_valid(more).to_numpy()).tolist()
    replaced = {}
    for row in {*np.flatnonzero(pc.is_valid(known).to_numpy()).tolist(), *listed, *revised}:
        first = [] if known[row].as_py() is None else [(position[row].as_py(), known[row].as_py())]
        further = [(pair["position"], pair["known"]) for pair in more[row].as_py() or ()]
        replaced[row] = staircase([*first, *further, *revised.get(row, ())])
    for name, column in zip(REPLACED, replaced_columns(columns.num_rows, replaced), strict=True):
        columns = columns.set_column(columns.schema.get_field_index(name), name, column)
    return columns
