"""Which facts' winners changed between two ends of the log: what online state and its rebuild apply.

A change is stated as whole rows: a correction removes the row that held before and inserts the one that holds now, so
that whoever keeps timelines needs no knowledge of versions. Rows carry `root` (position of the fact's original),
`event_time`, `known_time` and the type's fields; personal fields never.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obligor.errors import DefinitionError
from obligor.events.batch import ORIGINAL, field_columns
from obligor.events.block import BlockReader
from obligor.events.positions import pack
from obligor.events.schema import Event, Registry
from obligor.events.store import LogStore
from obligor.events.versions import winner_changes

__all__ = ["CHUNK_EVENTS", "Changes", "changes_between", "conform", "fact_schema"]

CHUNK_EVENTS = 65_536

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Changes:
    """Winners that went and came, by type, up to `position`; `chain` is the link of the last committed block."""

    removed: dict[str, pa.Table]
    inserted: dict[str, pa.Table]
    position: int
    chain: bytes
    size: int = field(init=False)

    def __post_init__(self) -> None:
        rows = sum(t.num_rows for part in (self.removed, self.inserted) for t in part.values())
        object.__setattr__(self, "size", rows)


@lru_cache(maxsize=1024)
def fact_schema(event: type[Event]) -> pa.Schema:
    """Return the columns of a type's fields as facts and changes have them."""
    return pa.schema([c for name, one in event.fields.items() if not one.personal for c in field_columns(name, one)])


def conform(table: pa.Table, columns: pa.Schema) -> dict[str, pa.ChunkedArray]:
    """Return `columns` of a table by name, null where an older version of the type lacks one; others are dropped."""
    found = {}
    for column in columns:
        place = table.schema.get_field_index(column.name)
        if place < 0:
            found[column.name] = pa.nulls(table.num_rows, column.type)
        elif table.schema.field(place).type != column.type:
            raise DefinitionError(f"{column.name}: the log holds {table.schema.field(place).type}, not {column.type}")
        else:
            found[column.name] = table.column(place)
    return found


def change_rows(table: pa.Table, root: Int64s, known_time: pa.ChunkedArray | Int64s, event: type[Event]) -> pa.Table:
    """Return rows of the log in the form of a change."""
    fields = conform(table, fact_schema(event))
    columns = [pa.array(root), table["event_time"], known_time, *fields.values()]
    return pa.Table.from_arrays(columns, names=["root", "event_time", "known_time", *fields])


def winner_rows(
    sequences: Collection[int], roots: dict[int, int], reader: BlockReader, registry: Registry, shard: int
) -> dict[str, pa.Table]:
    """Return the rows at these sequences as changes; `roots` gives the root of those that are not originals."""
    found: dict[str, pa.Table] = {}
    for name, table in reader.rows(sequences).items():
        if name in registry:
            own = np.array([pack(shard, roots.get(one, one)) for one in table["sequence"].to_pylist()], np.int64)
            found[name] = change_rows(table, own, table["known_time"], registry[name])
    return found


def merged(*parts: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the tables of all parts, joined by type."""
    some = [part for part in parts if part]
    if len(some) <= 1:
        return some[0] if some else {}
    names = dict.fromkeys(name for part in some for name in part)
    return {name: pa.concat_tables([part[name] for part in parts if name in part]) for name in names}


def changes_between(
    store: LogStore, reader: BlockReader, registry: Registry, shard: int, after: int, upto: int
) -> Iterator[Changes]:
    """Yield what changed in (after, upto], in steps of about `CHUNK_EVENTS` events, each complete in itself."""
    tables: dict[str, list[pa.Table]] = {}
    start, count = after, 0
    for row, block in reader.blocks(after, upto):
        last = min(row.last, upto)
        for part in block.parts:
            if part.type in registry:
                table = reader.part(block, part)
                if row.first <= after or row.last > upto:
                    sequence = table["sequence"]
                    table = table.filter(pc.and_(pc.greater(sequence, after), pc.less_equal(sequence, upto)))
                tables.setdefault(part.type, []).append(table)
        count += last - max(row.first - 1, after)
        if count >= CHUNK_EVENTS or last == upto:
            yield _step(tables, store, reader, registry, shard, start, last, row.chain)
            tables, start, count = {}, last, 0


def _step(
    tables: dict[str, list[pa.Table]],
    store: LogStore,
    reader: BlockReader,
    registry: Registry,
    shard: int,
    after: int,
    upto: int,
    chain: bytes,
) -> Changes:
    touched = {version.root for version in store.versions_visible(after, upto)}
    versions = store.versions_of(touched)
    removed, inserted = winner_changes(versions, after, upto)
    roots = {version.sequence: version.root for version in versions}
    plain = {name: _plain(pa.concat_tables(own, promote_options="default"), touched) for name, own in tables.items()}
    rows = {
        name: change_rows(table, table["sequence"].to_numpy() + pack(shard, 0), table["known_time"], registry[name])
        for name, table in plain.items()
        if table.num_rows
    }
    return Changes(
        removed=winner_rows(removed, roots, reader, registry, shard),
        inserted=merged(rows, winner_rows(inserted, roots, reader, registry, shard)),
        position=pack(shard, upto),
        chain=chain,
    )


def _plain(table: pa.Table, touched: set[int]) -> pa.Table:
    """Return the originals of facts that no version touches."""
    keep = pc.equal(table["kind"], ORIGINAL)
    if touched:
        keep = pc.and_(keep, pc.invert(pc.is_in(table["sequence"], value_set=pa.array(sorted(touched), pa.int64()))))
    return table.filter(keep)
