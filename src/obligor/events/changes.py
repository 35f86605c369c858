"""Which facts' winners changed between two cuts of the log: what online state and its rebuild apply.

A change is stated as whole rows: a correction removes the row that held before and inserts the one that holds now, so
that whoever keeps timelines needs no knowledge of corrections. Rows carry `root` (position of the fact's original),
`event_time`, `known_time` and the type's fields by every name that one of its versions has, because the plan that is
served may be older than the newest; personal fields never.

The shards' blocks are taken in an order in which each comes after those that its writer had seen, so that every step
leads to a cut that somebody might have stood at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obligor.errors import IntegrityError
from obligor.events.batch import ORIGINAL, TypeVersion
from obligor.events.block import Block, BlockReader
from obligor.events.positions import Cut, pack, sequence_of, shard_of, stretches
from obligor.events.reading import read_rows
from obligor.events.schema import Event, Registry
from obligor.events.store import BlockRow, LogStore
from obligor.events.versions import winner_changes

__all__ = ["CHUNK_EVENTS", "Changes", "causal_blocks", "changes_between"]

CHUNK_EVENTS = 65_536

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Changes:
    """Winners that went and came, by type, up to `cut`; `chains` are the links of the shards' last committed blocks."""

    removed: dict[str, pa.Table]
    inserted: dict[str, pa.Table]
    cut: Cut
    chains: dict[int, bytes]
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
    positions: Collection[int], roots: dict[int, int], reader: BlockReader, registry: Registry
) -> dict[str, pa.Table]:
    """Return the rows at these positions as changes; `roots` gives the root of those that are not originals."""
    found: list[dict[str, pa.Table]] = []
    for (name, version), table in reader.rows(positions).items():
        if name in registry:
            own = np.array([roots.get(one, one) for one in table["position"].to_pylist()], np.int64)
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
    store: LogStore,
    reader: BlockReader,
    registry: Registry,
    after: Cut,
    upto: Cut,
    chains: dict[int, bytes],
    step_events: int,
) -> Iterator[Changes]:
    """Yield what changed from one cut to another, in steps of about `step_events` events, each complete in itself.

    `chains` are the shards' links at `after`.
    """
    tables: dict[TypeVersion, list[pa.Table]] = {}
    begin, at, links, count = after, dict.fromkeys(upto, 0) | after, dict(chains), 0
    for row, block in causal_blocks(reader, after, upto):
        shard = shard_of(row.first)
        first, last = pack(shard, at.get(shard, 0)), min(row.last, pack(shard, upto[shard]))
        for part in block.parts:
            if part.type in registry:
                table = reader.part(block, part)
                if row.first <= first or row.last > last:
                    position = table["position"]
                    table = table.filter(pc.and_(pc.greater(position, first), pc.less_equal(position, last)))
                tables.setdefault((part.type, part.version), []).append(table)
        count += last - first
        at[shard], links[shard] = sequence_of(last), row.chain
        if count >= step_events or at == upto:
            yield _step(tables, store, reader, registry, begin, dict(at), dict(links))
            tables, begin, count = {}, dict(at), 0


def causal_blocks(reader: BlockReader, after: Cut, upto: Cut) -> Iterator[tuple[BlockRow, Block]]:
    """Yield the blocks that hold any position from one cut to another, each after those that it had seen.

    Both cuts are closed: they show what the writers of what they show had seen.
    """
    at = dict(after)
    waiting = {shard_of(first): reader.blocks(first, last) for first, last in stretches(after, upto)}
    following = {shard: next(blocks) for shard, blocks in waiting.items()}
    while following:
        ready = [
            shard
            for shard, (_, block) in following.items()
            if all(seen <= at.get(other, 0) for other, (seen, _) in block.after.items())
        ]
        if not ready:
            raise IntegrityError(f"the cut {upto} does not show what the writers of its events had seen")
        for shard in ready:
            row, block = following.pop(shard)
            yield row, block
            at[shard] = sequence_of(row.last)
            if at[shard] < upto[shard]:
                following[shard] = next(waiting[shard])


def _step(
    tables: dict[TypeVersion, list[pa.Table]],
    store: LogStore,
    reader: BlockReader,
    registry: Registry,
    after: Cut,
    upto: Cut,
    chains: dict[int, bytes],
) -> Changes:
    touched = {version.root for one in stretches(after, upto) for version in store.versions_visible(*one)}
    versions = store.versions_of(touched)
    removed, inserted = winner_changes(versions, after, upto)
    roots = {version.position: version.root for version in versions}
    plain: list[dict[str, pa.Table]] = []
    for (name, version), own in tables.items():
        table = _plain(pa.concat_tables(own, promote_options="default"), touched)
        if table.num_rows:
            root = table["position"].to_numpy()
            plain.append({name: change_rows(table, root, table["known_time"], registry[name], version)})
    return Changes(
        removed=winner_rows(removed, roots, reader, registry),
        inserted=merged(*plain, winner_rows(inserted, roots, reader, registry)),
        cut=upto,
        chains=chains,
    )


def _plain(table: pa.Table, touched: set[int]) -> pa.Table:
    """Return the originals of facts that no version touches."""
    keep = pc.equal(table["kind"], ORIGINAL)
    if touched:
        keep = pc.and_(keep, pc.invert(pc.is_in(table["position"], value_set=pa.array(sorted(touched), pa.int64()))))
    return table.filter(keep)
