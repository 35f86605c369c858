"""Facts for offline work: all versions of one type's facts in a cut, columnar, and the winners of any view of them.

A version wins at (cut, as_of) if it is visible there and no visible version of its fact ranks above it. For the fact
with one version, which is nearly every one, that is one comparison; the others carry an index into `versions`, which
lists for each the versions that rank above it: so the question is answered in kernels, row by row, for any view.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obligor.errors import DefinitionError, did_you_mean
from obligor.events.batch import CORRECTION, ORIGINAL
from obligor.events.block import BlockReader
from obligor.events.positions import Cut, stretches, visible
from obligor.events.reading import fact_schema, read_rows, stored_columns
from obligor.events.schema import Event
from obligor.events.store import LogStore, VersionRow

__all__ = ["Facts", "Versions", "read_facts"]

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Versions:
    """For the rows of facts with several versions: those that rank above entry v are `start[v]` to `end[v]` of `sup_*`.

    `sup_position`, `sup_known`: from when on a superseding version is visible (greatest of its chain).
    """

    root: Int64s
    start: Int64s
    end: Int64s
    sup_position: Int64s
    sup_known: Int64s


@dataclass(frozen=True)
class Facts:
    """One type's originals and corrections in a cut. `rows` has

    `position`, `known` (from when on the row is visible), `root` (position of its fact's original), `event_time`, then
    `event_id` and the fields by every name that a version of the type has. `version`: int32, -1 for the only version of
    a fact, else an index into `versions`.
    """

    rows: pa.Table
    version: npt.NDArray[np.int32]
    versions: Versions

    def view(self, cut: Cut, as_of: int) -> pa.Table:
        """Return the facts that hold at (cut, as_of) with event_time < as_of: the winners' rows."""
        return self.rows.filter(pa.array(self.winning(cut, as_of)))

    def winning(self, cut: Cut, as_of: int) -> npt.NDArray[np.bool_]:
        """Return which rows hold at (cut, as_of) with event_time < as_of."""
        position, known = self.rows["position"].to_numpy(), self.rows["known"].to_numpy()
        wins: npt.NDArray[np.bool_] = (
            visible(position, cut) & (known <= as_of) & (self.rows["event_time"].to_numpy() < as_of)
        )
        several = self.versions
        above = visible(several.sup_position, cut) & (several.sup_known <= as_of)
        seen = np.concatenate([[0], np.cumsum(above)])
        beaten = seen[several.end] > seen[several.start]
        own = np.nonzero(self.version >= 0)[0]
        wins[own] &= ~beaten[self.version[own]]
        return wins


def read_facts(
    store: LogStore,
    reader: BlockReader,
    event: type[Event],
    cut: Cut,
    columns: Iterable[str] | None = None,
) -> Facts:
    """Read the versions of a type's facts that a cut, which ends within the log, shows."""
    schema, with_id = _wanted(event, columns)
    versions = [one for part in stretches({}, cut) for one in store.versions_visible(*part, event.event_name)]
    effective = pa.array(sorted(v.position for v in versions if v.kind == CORRECTION), pa.int64())
    standard = ["event_time", "known_time", *(["event_id"] if with_id else [])]
    tables: list[tuple[int, pa.Table]] = []
    for begin, end in stretches({}, cut):
        for _, block in reader.blocks(begin, end):
            for part in block.parts:
                if part.type == event.event_name:
                    stored = stored_columns(event, part.version, schema.names)
                    table = reader.part(block, part, [*standard, "kind", *stored])
                    tables.append((part.version, _in_cut(table, effective, block.last > end, end)))
    full = _joined(tables, event, ["position", *standard], schema)
    own = full["position"].to_numpy()
    position, known, root = own.copy(), full["known_time"].to_numpy().copy(), own.copy()
    _apply_versions(versions, own, position, known, root)
    version, several = _supersession(versions, own)
    placed = {
        "position": pa.array(position),
        "known": pa.array(known),
        "root": pa.array(root),
        "event_time": full["event_time"],
    }
    ids = {"event_id": full["event_id"]} if with_id else {}
    fields = {name: full[name] for name in schema.names}
    return Facts(pa.table({**placed, **ids, **fields}), version, several)


def _wanted(event: type[Event], columns: Iterable[str] | None) -> tuple[pa.Schema, bool]:
    schema = fact_schema(event)
    if columns is None:
        return schema, True
    names = list(dict.fromkeys(columns))
    for name in names:
        if name != "event_id" and name not in schema.names:
            raise DefinitionError(f"{event.event_name} facts have no {name!r}; {did_you_mean(name, schema.names)}")
    return pa.schema([schema.field(name) for name in names if name != "event_id"]), "event_id" in names


def _joined(tables: list[tuple[int, pa.Table]], event: type[Event], standard: list[str], schema: pa.Schema) -> pa.Table:
    """Return the rows of all versions, read as the fields of `schema`, in the order of their positions."""
    found = []
    for version, own in groupby(tables, lambda one: one[0]):
        table = pa.concat_tables([table for _, table in own], promote_options="default")
        found.append(pa.table({**{n: table[n] for n in standard}, **read_rows(table, event, version, schema)}))
    if not found:
        kinds = {"event_id": pa.string()}
        return pa.schema([*((n, kinds.get(n, pa.int64())) for n in standard), *schema]).empty_table()
    full = pa.concat_tables(found)
    position = full["position"].to_numpy()
    if len(found) > 1 and (position[1:] < position[:-1]).any():  # one block holds two versions
        full = full.take(pa.array(np.argsort(position)))
    return full


def _in_cut(table: pa.Table, effective: pa.Array, cut_through: bool, upto: int) -> pa.Table:
    """Return originals and effective corrections; retractions and what is pending or beyond the cut are left out."""
    kind = table["kind"]
    if pc.max(kind).as_py() != ORIGINAL:
        keep = pc.or_(pc.equal(kind, ORIGINAL), pc.is_in(table["position"], value_set=effective))
        table = table.filter(keep)
    if cut_through:
        table = table.filter(pc.less_equal(table["position"], upto))
    return table.drop_columns(["kind"])


def _apply_versions(versions: list[VersionRow], rows: Int64s, position: Int64s, known: Int64s, root: Int64s) -> None:
    """Overwrite what corrections inherit from their chains; `rows` are the rows' own positions, sorted."""
    own = sorted((v for v in versions if v.kind == CORRECTION), key=lambda v: v.position)
    at = np.searchsorted(rows, np.array([v.position for v in own], np.int64))
    position[at] = [v.visible_position for v in own]
    known[at] = [v.visible_known for v in own]
    root[at] = [v.root for v in own]


def _supersession(versions: list[VersionRow], rows: Int64s) -> tuple[npt.NDArray[np.int32], Versions]:
    """Return for each row its entry, and the entries. A fact's superseders are laid out once, in ascending rank, so

    that those above any of its versions are a suffix of them: entry v is (root, place after v, end of the fact).
    """
    ranked = sorted(versions, key=lambda v: (v.root, v.known_time, v.position))
    roots = np.array([v.root for v in ranked], np.int64)
    facts, first = np.unique(roots, return_index=True)
    ends = np.append(first[1:], len(ranked)).astype(np.int64)[: len(facts)]  # none of no facts
    fact_of = np.searchsorted(facts, roots)
    # Entries 0..F-1 are the facts' originals, whose superseders are all versions; F.. are the versions themselves.
    start = np.concatenate([first.astype(np.int64), np.arange(1, len(ranked) + 1)])
    entries = Versions(
        root=np.concatenate([facts, roots]),
        start=start,
        end=np.concatenate([ends, ends[fact_of]]),
        sup_position=np.array([v.visible_position for v in ranked], np.int64),
        sup_known=np.array([v.visible_known for v in ranked], np.int64),
    )
    version = np.full(len(rows), -1, np.int32)
    version[np.searchsorted(rows, facts)] = np.arange(len(facts), dtype=np.int32)
    for place, one in enumerate(ranked):
        if one.kind == CORRECTION:
            version[np.searchsorted(rows, one.position)] = len(facts) + place
    return version, entries
