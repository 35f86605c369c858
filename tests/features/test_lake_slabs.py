"""Slabs: each entity found once whatever lies between the groups, and several made one in order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given, settings
from hypothesis import strategies as st

from obligor.features.buckets import bucket_of
from obligor.features.lake_slabs import Slab, Sorted, file_slab, integers, memory_slab, merger
from obligor.features.lake_store import Group

ENTITIES = ["consumer"]
KEYS = [f"c-{i}" for i in range(7)]
Row = tuple[str, int, int]  # entity, event_time, root

ROWS = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 3), st.integers(0, 9)), max_size=25)


def in_order(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (bucket_of(ENTITIES, row[0]), *row))


def table_of(rows: Sequence[Row], events: Sequence[str] | None = None) -> pa.Table:
    rows = in_order(rows)
    return pa.table(
        {
            "bucket": pa.array([bucket_of(ENTITIES, key) for key, _, _ in rows], pa.int16()),
            "entity": pa.array([key for key, _, _ in rows], pa.string()),
            "event": pa.array(events or ["repayment"] * len(rows), pa.string()),
            "event_time": pa.array([time for _, time, _ in rows], pa.int64()),
            "root": pa.array([root for _, _, root in rows], pa.int64()),
        }
    )


class Groups:
    """A reader of a table in memory, in groups that end anywhere, also within an entity."""

    def __init__(self, table: pa.Table, ends: Sequence[int]) -> None:
        edges = [0, *sorted({min(end, len(table)) for end in ends}), len(table)]
        self._parts = [table.slice(a, b - a) for a, b in pairwise(edges) if b > a]
        self.groups = [Group(len(p), p["bucket"][0].as_py(), p["bucket"][-1].as_py()) for p in self._parts]
        self.names = frozenset(table.column_names)
        self.notes = {"types": "{}"}

    def only(self, groups: Sequence[int], column: str) -> str | None:
        found = {value for group in groups for value in self._parts[group].column(column).to_pylist()}
        return found.pop() if len(found) == 1 else None

    def read(self, groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
        parts = []
        for group in groups:
            part = self._parts[group].select(columns)
            for name, encode in (("entity", pc.run_end_encode), ("event", pc.dictionary_encode)):
                if name in columns:
                    place = part.schema.get_field_index(name)
                    part = part.set_column(place, name, encode(part.column(name)))
            parts.append(part)
        return pa.concat_tables(parts)


def rows_of(slab: Slab | None) -> list[Row]:
    if slab is None:
        return []
    keys = np.repeat(np.array(slab.keys.to_pylist(), object), np.diff(slab.offsets))
    assert len(set(slab.keys.to_pylist())) == len(slab.keys)
    return list(zip(keys, integers(slab, "event_time").tolist(), integers(slab, "root").tolist(), strict=True))


@settings(deadline=None)
@given(ROWS, st.lists(st.integers(0, 25), max_size=4), st.integers(0, 4095), st.integers(0, 4095))
def test_a_slab_has_the_rows_of_its_buckets_however_they_are_grouped(
    rows: list[Row], ends: list[int], one: int, other: int
) -> None:
    first, last = min(one, other), max(one, other)
    expected = [row for row in in_order(rows) if first <= bucket_of(ENTITIES, row[0]) <= last]
    table = table_of(rows)
    assert rows_of(file_slab(Groups(table, ends), first, last, ["event_time", "root"])) == expected
    assert rows_of(memory_slab(table, first, last, {})) == expected
    whole = file_slab(Groups(table, ends), 0, 4095, ["event_time", "root"])
    assert rows_of(whole) == in_order(rows)
    assert whole is None or (whole.event, whole.rows) == ("repayment", len(rows))


def test_events_of_several_types_can_be_told_apart() -> None:
    table = table_of([("c-1", i, i) for i in range(4)], ["sale", "repayment", "sale", "transfer"])
    slab = file_slab(Groups(table, [1, 2]), 0, 4095, ["event_time", "root"])
    assert slab is not None
    assert slab.event is None
    assert slab.columns["event"].to_pylist() == ["sale", "repayment", "sale", "transfer"]


def part_of(rows: Sequence[Row]) -> Sorted | None:
    slab = memory_slab(table_of(rows), 0, 4095, {})
    return (
        None if slab is None else Sorted(slab.keys, slab.offsets, integers(slab, "event_time"), integers(slab, "root"))
    )


@settings(deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=4))
def test_parts_become_one_in_order(sources: list[list[Row]]) -> None:
    parts = [part for part in map(part_of, sources) if part is not None]
    if not parts:
        return
    merged = merger(parts, ENTITIES)
    times, roots = (np.concatenate([getattr(part, name) for part in parts]) for name in ("event_time", "root"))
    keys = np.repeat(np.array(merged.keys.to_pylist(), object), np.diff(merged.offsets))
    found = list(zip(keys, times[merged.order].tolist(), roots[merged.order].tolist(), strict=True))
    assert found == in_order([row for rows in sources for row in rows])
    quick = merger(parts)
    by_key = {
        key: [(int(times[j]), int(roots[j])) for j in quick.order[quick.offsets[e] : quick.offsets[e + 1]]]
        for e, key in enumerate(quick.keys.to_pylist())
    }
    assert by_key == {key: [row[1:] for row in found if row[0] == key] for key in {row[0] for row in found}}


def test_entities_of_any_number_of_rows_begin_where_they_do() -> None:
    sizes = [1, 15, 16, 17, 32, 33, 200]
    rows = [(key, time, 0) for key, size in zip(KEYS, sizes, strict=True) for time in range(size)]
    for ends in ([], [10, 40, 100]):  # of groups, also within an entity
        slab = file_slab(Groups(table_of(rows), ends), 0, 4095, ["event_time", "root"])
        assert slab is not None
        found = dict(zip(slab.keys.to_pylist(), np.diff(slab.offsets).tolist(), strict=True))
        assert found == dict(zip(KEYS, sizes, strict=True))
