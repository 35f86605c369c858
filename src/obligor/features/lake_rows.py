"""What a stretch of the log adds to the lake: new rows, and what from then on replaces older ones.

The lake's rows are made here and nowhere else: an update writes them to files, a read takes those of the log's last
blocks from memory. Events are read as facts are, by the current definitions of their types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from obligor.events.batch import CORRECTION, ORIGINAL
from obligor.events.log import EventLog
from obligor.events.positions import Cut, shard_of, shows, stretches
from obligor.events.reading import read_rows, stored_columns
from obligor.events.schema import Event
from obligor.events.store import VersionRow
from obligor.features.buckets import JOINED_BY, buckets_of
from obligor.features.lake_tables import (
    REPLACED,
    REVISIONS,
    STANDARD,
    LakeTable,
    disclosed,
    stored_name,
)

__all__ = ["Additions", "Pairs", "Stretch", "additions", "read_stretch", "replaced_columns", "staircase"]

Ints = NDArray[np.int64]
Pairs: TypeAlias = list[tuple[int, int]]  # (position, known)
_IDENTITY = ["bucket", "entity", "root", "position", "known"]  # of a row of the lake
_LOGGED = ("event_time", "known_time", "kind")


class Stretch(NamedTuple):
    """One event type's part of a stretch of the log."""

    rows: pa.Table  # position, known, root, event_time, REPLACED, fields: versions that became visible in it
    older: pa.Table  # the same of versions from before, whose REPLACED holds only what became visible in it


class Additions(NamedTuple):
    """What a stretch adds to one table."""

    rows: pa.Table  # by the table's schema, sorted by (bucket, entity, event_time, root)
    revisions: pa.Table  # by REVISIONS, sorted by bucket


def staircase(points: Iterable[tuple[int, int]]) -> Pairs:
    """Return those (position, known) that no other of their shard is visible before, from the earliest known on.

    >>> staircase([(5, 30), (7, 20), (9, 25), (4, 40)])
    [(7, 20), (5, 30), (4, 40)]
    """
    found: Pairs = []
    least: dict[int, int] = {}  # by shard
    for known, position in sorted((known, position) for position, known in points):
        shard = shard_of(position)
        if shard not in least or position < least[shard]:
            found.append((position, known))
            least[shard] = position
    return found


def read_stretch(log: EventLog, events: Iterable[type[Event]], after: Cut, upto: Cut) -> dict[str, Stretch]:
    """Return what the log holds of these types from one cut to another, by the types' names."""
    types = {event.event_name: event for event in events}
    parts: dict[str, list[pa.Table]] = {name: [] for name in types}
    names = {name: [c.name for c in disclosed(event)] for name, event in types.items()}
    for begin, end in stretches(after, upto):
        for _, block in log.reader.blocks(begin, end):
            for part in block.parts:
                if part.type in types:
                    event = types[part.type]
                    stored = stored_columns(event, part.version, names[part.type])
                    table = log.reader.part(block, part, [*_LOGGED, *stored])
                    table = table.filter(pc.equal(table["kind"], ORIGINAL))
                    if block.first <= begin or block.last > end:
                        position = table["position"]
                        table = table.filter(pc.and_(pc.greater(position, begin), pc.less_equal(position, end)))
                    parts[part.type].append(_conformed(table, event, part.version))
    return {name: _stretch(log, event, parts[name], after, upto) for name, event in types.items()}


def _conformed(table: pa.Table, event: type[Event], version: int) -> pa.Table:
    """Return rows that a version wrote with the fields by the names of all versions, under the lake's names."""
    standard = {name: table.column(name) for name in ("position", *_LOGGED)}
    fields = read_rows(table, event, version, pa.schema(list(disclosed(event))))
    return pa.table({**standard, **{stored_name(event, name): column for name, column in fields.items()}})


def _stretch(log: EventLog, event: type[Event], parts: list[pa.Table], after: Cut, upto: Cut) -> Stretch:
    effective = [
        version for part in stretches(after, upto) for version in log.store.versions_visible(*part, event.event_name)
    ]
    roots = {version.root for version in effective}
    by_root: dict[int, list[VersionRow]] = {root: [] for root in roots}
    for version in log.store.versions_of(roots):
        if shows(upto, version.visible_position):
            by_root[version.root].append(version)
    versions = {version.position: version for own in by_root.values() for version in own}
    corrections = [v.position for v in effective if v.kind == CORRECTION]
    older = [root for root in roots if shows(after, root)]
    older += [v.position for v in versions.values() if v.kind == CORRECTION and shows(after, v.visible_position)]
    above = {}
    for root, own in by_root.items():
        above[root] = _points(own)
        for version in own:
            above[version.position] = _points(v for v in own if _rank(v) > _rank(version))
    new = pa.concat_tables([*parts, _fetched(log, event, corrections)])
    return Stretch(
        _with_replaced(new, versions, lambda position: above.get(position, [])),
        _with_replaced(
            _fetched(log, event, older),
            versions,
            lambda position: [pair for pair in above[position] if not shows(after, pair[0])],
        ),
    )


def _rank(version: VersionRow) -> tuple[int, int]:
    return version.known_time, version.position


def _points(versions: Iterable[VersionRow]) -> Pairs:
    return staircase((version.visible_position, version.visible_known) for version in versions)


def _fetched(log: EventLog, event: type[Event], positions: Sequence[int]) -> pa.Table:
    """Return some rows of a type, in the order of their positions."""
    standard = zip(("position", *_LOGGED), (pa.int64(), pa.int64(), pa.int64(), pa.int8()), strict=True)
    fields = [pa.field(stored_name(event, c.name), c.type) for c in disclosed(event)]
    found = [
        _conformed(table, event, version)
        for (name, version), table in log.reader.rows(positions).items()
        if name == event.event_name
    ]
    return pa.concat_tables([pa.schema([*standard, *fields]).empty_table(), *found]).sort_by("position")


def _with_replaced(table: pa.Table, versions: Mapping[int, VersionRow], above: Callable[[int], Pairs]) -> pa.Table:
    """Return rows of the log as rows of the lake, those left out that no view shows."""
    own = table["position"].to_numpy()
    position, known, root = own.copy(), table["known_time"].to_numpy().copy(), own.copy()
    for place in np.flatnonzero(table["kind"].to_numpy() == CORRECTION):
        version = versions[int(own[place])]
        position[place], known[place], root[place] = version.visible_position, version.visible_known, version.root
    replaced: dict[int, Pairs] = {}
    hidden = np.zeros(len(own), np.bool_)
    touched = np.isin(root, np.fromiter({v.root for v in versions.values()}, np.int64))
    for place in np.flatnonzero(touched):
        pairs = above(int(own[place]))
        hidden[place] = any(
            shard_of(p) == shard_of(int(position[place])) and p <= position[place] and k <= known[place]
            for p, k in pairs
        )
        if pairs:
            replaced[int(place)] = pairs
    standard = {
        "position": pa.array(position),
        "known": pa.array(known),
        "root": pa.array(root),
        "event_time": table["event_time"],
        **dict(zip(REPLACED, replaced_columns(len(own), replaced), strict=True)),
    }
    fields = table.drop_columns(["position", *_LOGGED])
    rows = pa.table({**standard, **{name: fields.column(name) for name in fields.column_names}})
    return rows.filter(pa.array(~hidden)) if hidden.any() else rows


def replaced_columns(rows: int, replaced: Mapping[int, Pairs]) -> list[pa.Array]:
    """Return the columns REPLACED of so many rows; `replaced` by row, nothing where it has none."""
    null = np.ones(rows, np.bool_)
    first = np.zeros((2, rows), np.int64)
    for place, pairs in replaced.items():
        null[place] = False
        first[:, place] = pairs[0]
    more = {place: pairs[1:] for place, pairs in replaced.items() if len(pairs) > 1}
    return [*(pa.array(column, mask=null) for column in first), _lists(rows, more)]


def _lists(rows: int, more: Mapping[int, Pairs]) -> pa.Array:
    kind = STANDARD.field("replaced_more").type
    if not more:
        return pa.nulls(rows, kind)
    counts, null = np.zeros(rows + 1, np.int32), np.ones(rows, np.bool_)
    for place, pairs in more.items():
        counts[place + 1], null[place] = len(pairs), False
    points = [pair for _, pairs in sorted(more.items()) for pair in pairs]
    values = pa.array([{"position": p, "known": k} for p, k in points], kind.value_type)
    return pa.ListArray.from_arrays(np.cumsum(counts, dtype=np.int32), values, kind, mask=pa.array(null))


def additions(table: LakeTable, stretch: Mapping[str, Stretch]) -> Additions:
    """Return what a stretch of the log adds to a table."""
    rows, revisions = [], []
    for event in table.events:
        new, older = stretch[event.event_name]
        rows.append(_under_entities(table, event, new))
        revisions.append(_under_entities(table, event, older).select([*_IDENTITY, *REPLACED]))
    return Additions(
        _sorted(pa.concat_tables(rows, promote_options="default").select(table.schema.names).cast(table.schema)),
        _revised(pa.concat_tables(revisions)),
    )


def _under_entities(table: LakeTable, event: type[Event], rows: pa.Table) -> pa.Table:
    """Return the rows under each of their entities, with `bucket`, `entity` and `event`."""
    found: list[pa.Table] = []
    keys: list[pa.Array] = []
    for fields in table.entrances(event):
        key = _key([rows.column(stored_name(event, field)) for field in fields])
        fresh = pc.is_valid(key)
        for other in keys:  # a fact that names one entity twice is one row of it
            fresh = pc.and_(fresh, pc.invert(pc.fill_null(pc.equal(key, other), False)))
        keys.append(key)
        found.append(_named(table, event, rows.append_column("entity", key).filter(fresh)))
    return pa.concat_tables(found)


def _key(parts: Sequence[pa.ChunkedArray]) -> pa.Array:
    key = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, JOINED_BY)
    return key.combine_chunks()


def _named(table: LakeTable, event: type[Event], rows: pa.Table) -> pa.Table:
    keys = rows.column("entity").combine_chunks()
    bucket = pa.array(buckets_of(table.entities, keys))
    return rows.append_column("bucket", bucket).append_column("event", pa.repeat(event.event_name, len(keys)))


def _sorted(rows: pa.Table) -> pa.Table:
    """Return rows in the lake's order."""
    encoded = pc.dictionary_encode(rows.column("entity")).combine_chunks()
    bucket = rows.column("bucket").to_numpy()
    codes = encoded.indices.to_numpy()
    of_code = np.zeros(len(encoded.dictionary), np.int16)
    of_code[codes] = bucket
    by_key = pc.sort_indices(
        pa.table({"bucket": of_code, "key": encoded.dictionary}), [("bucket", "ascending"), ("key", "ascending")]
    )
    rank = np.empty(len(by_key), np.int64)
    rank[by_key.to_numpy()] = np.arange(len(by_key))
    order = np.lexsort((rows.column("root").to_numpy(), rows.column("event_time").to_numpy(), rank[codes]))
    return rows.take(pa.array(order)).combine_chunks()


def _revised(older: pa.Table) -> pa.Table:
    """Return one row for each of what replaces an older row."""
    more = older.filter(pc.is_valid(older.column("replaced_more")))
    pairs = more.column("replaced_more").combine_chunks()
    parents = pa.array(pc.list_parent_indices(pairs))
    values = pc.list_flatten(pairs)
    further = more.select(_IDENTITY).take(parents)
    for name in ("position", "known"):
        further = further.append_column(f"replaced_{name}", pc.struct_field(values, name))
    found = pa.concat_tables([older.select([*_IDENTITY, "replaced_position", "replaced_known"]), further])
    found = found.filter(pc.is_valid(found.column("replaced_known"))).select(REVISIONS.names).cast(REVISIONS)
    return found.sort_by([("bucket", "ascending"), ("root", "ascending")]).combine_chunks()
