"""Which facts' winners changed between two ends of the log: what online state and its rebuild apply.

A change is stated as whole rows: a correction removes the row that held before and inserts the one that holds now, so
that whoever keeps timelines needs no knowledge of corrections. Rows carry `root` (position of the fact's original),
`event_time`, `known_time` and the type's fields by every name that one of its versions has, because the plan that is
served may be older than the newest; personal fields never.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obligor.events.batch import ORIGINAL, TypeVersion
from obligor.events.block import BlockReader
from obligor.events.positions import pack
from obligor.events.reading import read_rows
from obligor.events.schema import Event, Registry
from obligor.events.store import LogStore
from obligor.events.versions import winner_changes

__all__ = ["CHUNK_EVENTS", "Changes", "changes_between"]

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


def change_rows(
    table: pa.Table, root: Int64s, known_time: pa.ChunkedArray | Int64s, event: type[Event], version: int
) -> pa.Table:
    """Return rows of the log, written in a version of the type, in the form of a change."""
    fields = read_rows(table, event, version)
    columns = [pa.array(root), table["event_time"], known_time, *fields.values()]
    return pa.Table.from_arrays(columns, names=["root", "event_time", "known_time", *fields])


def winner_rows(
    sequences: Collection[int], roots: dict[int, int], reader: BlockReader, registry: Registry, shard: int
) -> dict[str, pa.Table]:
    """Return the rows at these sequences as changes; `roots` gives the root of those that are not originals."""
    found: list[dict[str, pa.Table]] = []
    for (name, version), table in reader.rows(sequences).items():
        if name in registry:
            own = np.array([pack(shard, roots.get(one, one)) for one in table["sequence"].to_pylist()], np.int64)
            found.append({name: change_rows(table, own, table["known_time"], registry[name], version)})
    return merged(*found)


def merged(*parts: dict[str, pa.Table]) -> dict[str, pa.Table]:
    """Return the tables of all parts, joined by type."""
    some = [part for part in parts if part]
    if len(some) <= 1:
        return some[0] if some else {}
    names = dict.fromkeys(name for part in some for name in part)
    return {name: pa.concat_tables([part[name] for part in parts if name in part]) for name in names}


def changes_between(
    store: LogStore, reader: BlockReader, registry: Registry, shard: int, after: int, upto: int, step_events: int
) -> Iterator[Changes]:
    """Yield what changed in (after, upto], in steps of about `step_events` events, each complete in itself."""
    tables: dict[TypeVersion, list[pa.Table]] = {}
    start, count = after, 0
    for row, block in reader.blocks(after, upto):
        last = min(row.last, upto)
        for part in block.parts:
            if part.type in registry:
                table = reader.part(block, part)
                if row.first <= after or row.last > upto:
                    sequence = table["sequence"]
                    table = table.filter(pc.and_(pc.greater(sequence, after), pc.less_equal(sequence, upto)))
                tables.setdefault((part.type, part.version), []).append(table)
        count += last - max(row.first - 1, after)
        if count >= step_events or last == upto:
            yield _step(tables, store, reader, registry, shard, start, last, row.chain)
            tables, start, count = {}, last, 0


def _step(
    tables: dict[TypeVersion, list[pa.Table]],
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
    plain: list[dict[str, pa.Table]] = []
    for (name, version), own in tables.items():
        table = _plain(pa.concat_tables(own, promote_options="default"), touched)
        if table.num_rows:
            root = table["sequence"].to_numpy() + pack(shard, 0)
            plain.append({name: change_rows(table, root, table["known_time"], registry[name], version)})
    return Changes(
        removed=winner_rows(removed, roots, reader, registry, shard),
        inserted=merged(*plain, winner_rows(inserted, roots, reader, registry, shard)),
        position=pack(shard, upto),
        chain=chain,
    )


def _plain(table: pa.Table, touched: set[int]) -> pa.Table:
    """Return the originals of facts that no version touches."""
    keep = pc.equal(table["kind"], ORIGINAL)
    if touched:
        keep = pc.and_(keep, pc.invert(pc.is_in(table["sequence"], value_set=pa.array(sorted(touched), pa.int64()))))
    return table.filter(keep)
