"""Slabs: the rows of some buckets out of one sorted source, and how several of them become one.

A source (a file, or the log's last blocks in memory) is sorted by (bucket, entity, event_time, root). A slab holds its
rows of a range of buckets with each entity found out once, so that whatever follows works on numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from obligor.features.buckets import buckets_of
from obligor.features.kernels.compiling import entry
from obligor.features.lake_store import FileReader

__all__ = ["Merger", "Slab", "Sorted", "file_slab", "integers", "memory_slab", "merger"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Slab:
    """Rows of some buckets: entity `keys[i]` has those from offsets[i] to offsets[i + 1]."""

    keys: pa.StringArray
    offsets: Ints
    columns: Mapping[str, pa.Array]  # each in one piece
    event: str | None  # the one event type of all rows, None where `columns` has `event` to tell them apart
    notes: Mapping[str, str]  # of the file

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self.offsets[-1])


class Sorted(NamedTuple):
    """What the order of some rows goes by: entity `keys[i]` has those from offsets[i] to offsets[i + 1]."""

    keys: pa.StringArray
    offsets: Ints
    event_time: Ints
    root: Ints


class Merger(NamedTuple):
    """How the rows of several parts, one after the other, come to lie in one order."""

    keys: pa.StringArray
    offsets: Ints
    order: Ints  # places in the parts' rows


def file_slab(reader: FileReader, first: int, last: int, columns: Sequence[str]) -> Slab | None:
    """Return these columns, which it has, of a file's rows in the buckets `first` to `last`; None where it has none."""
    groups = [i for i, group in enumerate(reader.groups) if group.first <= last and group.last >= first]
    if not groups:
        return None
    event = reader.only(groups, "event")
    whole = reader.groups[groups[0]].first >= first and reader.groups[groups[-1]].last <= last
    names = ["entity", *columns] + ([] if event is not None else ["event"]) + ([] if whole else ["bucket"])
    table = reader.read(groups, list(dict.fromkeys(names)))
    if not whole:
        table = _within(table, first, last)
    return _slab(table, event, reader.notes) if table.num_rows else None


def memory_slab(rows: pa.Table, first: int, last: int, notes: Mapping[str, str]) -> Slab | None:
    """Return those of some sorted rows that are in the buckets `first` to `last`, None where there are none."""
    table = _within(rows, first, last)
    if not table.num_rows:
        return None
    for name, encode in (("entity", pc.run_end_encode), ("event", pc.dictionary_encode)):
        table = table.set_column(table.schema.get_field_index(name), name, encode(table.column(name)))
    return _slab(table, None, notes)


def _within(table: pa.Table, first: int, last: int) -> pa.Table:
    """Return the rows of a range of buckets out of rows in their order."""
    buckets = table.column("bucket").to_numpy()
    start, end = np.searchsorted(buckets, np.array([first, last + 1], buckets.dtype))
    return table.slice(int(start), int(end - start))


def _slab(table: pa.Table, event: str | None, notes: Mapping[str, str]) -> Slab:
    keys, offsets = _entities(table.column("entity"))
    columns = {name: _in_one_piece(table.column(name)) for name in table.column_names if name != "entity"}
    return Slab(keys, offsets, columns, event, notes)


def _entities(column: pa.ChunkedArray) -> tuple[pa.StringArray, Ints]:
    """Return each entity once and where its rows start; the rows of an entity lie together."""
    keys: list[pa.StringArray] = []
    starts: list[Ints] = []
    rows = 0
    for chunk in column.chunks:
        if not len(chunk):
            continue
        first, found = chunk.find_physical_offset(), chunk.find_physical_length()
        own = chunk.values[first : first + found]
        ends = chunk.run_ends.to_numpy()[first : first + found - 1]
        places = np.concatenate([[rows], ends + np.int64(rows - chunk.offset)])
        if keys and keys[-1][-1].as_py() == own[0].as_py():
            own, places = own[1:], places[1:]
        if len(own):
            keys.append(own)
            starts.append(places)
        rows += len(chunk)
    whole = keys[0] if len(keys) == 1 else pa.concat_arrays(keys)
    return whole, np.append(np.concatenate(starts), rows)


def _in_one_piece(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return (
        column.unify_dictionaries().combine_chunks() if pa.types.is_dictionary(column.type) else column.combine_chunks()
    )


def merger(parts: Sequence[Sorted], entities: Sequence[str] | None = None) -> Merger:
    """Return how sorted parts of the same buckets become one.

    Entities come in the lake's order, by bucket and key, where `entities` says what they are, else in that of their
    first appearance, which is quicker and does for a timeline.
    """
    encoded = pc.dictionary_encode(pa.concat_arrays([part.keys for part in parts]))
    keys, codes = encoded.dictionary, encoded.indices.to_numpy()
    if entities is not None:
        table = pa.table({"bucket": buckets_of(entities, keys), "key": keys})
        ordered = pc.sort_indices(table, [("bucket", "ascending"), ("key", "ascending")])
        rank = np.empty(len(keys), np.int32)
        rank[ordered.to_numpy()] = np.arange(len(keys), dtype=np.int32)
        keys, codes = keys.take(ordered), rank[codes]
    start = np.zeros((len(parts), len(keys)), np.int64)
    end = np.zeros((len(parts), len(keys)), np.int64)
    rows = entity = 0
    for p, part in enumerate(parts):
        own = codes[entity : entity + len(part.keys)]
        start[p, own], end[p, own] = part.offsets[:-1] + rows, part.offsets[1:] + rows
        rows, entity = rows + int(part.offsets[-1]), entity + len(part.keys)
    times, roots = (np.concatenate([getattr(part, name) for part in parts]) for name in ("event_time", "root"))
    found = Merger(keys, np.zeros(len(keys) + 1, np.int64), np.empty(rows, np.int64))
    _merge(start, end, times, roots, np.empty(len(parts), np.int64), found.offsets, found.order)
    return found


def integers(slab: Slab, column: str) -> Ints:
    """Return a column of int64 without nulls as it lies in memory."""
    array = slab.columns[column]
    return np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array)]


@entry
def _merge(start: Any, end: Any, times: Any, roots: Any, active: Any, offsets: Any, order: Any) -> None:
    """The order of each entity's rows by (event_time, root), out of sources that lie in it; ties by source."""
    n = 0
    for e in range(start.shape[1]):
        sources = 0
        for s in range(start.shape[0]):
            if start[s, e] < end[s, e]:
                active[sources] = s
                sources += 1
        while sources > 0:
            best = 0
            for k in range(1, sources):
                one, other = start[active[k], e], start[active[best], e]
                if times[one] < times[other] or (times[one] == times[other] and roots[one] < roots[other]):
                    best = k
            s = active[best]
            order[n] = start[s, e]
            n += 1
            start[s, e] += 1
            if start[s, e] == end[s, e]:
                sources -= 1
                for k in range(best, sources):
                    active[k] = active[k + 1]
        offsets[e + 1] = n
