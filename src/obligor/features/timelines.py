"""Timelines offline: all facts of an entity type as flat columns, one entity after the other (CSR).

Every version of a fact that could win at some (cut, as_of) is a row of its own, with what ranks above it beside. So one
set of timelines serves every cut up to its own and every instant, and nothing is resolved before a question is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from obligor.features.delays import stored
from obligor.features.filters import comparisons, parse_predicate
from obligor.features.layout import Rows, read_only
from obligor.features.measures import Timeline as TimelineSpec
from obligor.features.plan import Plan
from obligor.features.projection import project

__all__ = ["Facts", "FactsSource", "Timeline", "Timelines", "Versions", "build_timelines", "cut_array"]

Ints = NDArray[np.int64]
_VERSIONED = np.int64(-(2**63))  # the sign bit of a mask
_SEQUENCE_MAX = 2**48 - 1


class Versions(Protocol):
    """The versions that rank above a row, as (start, end) into the two arrays below."""

    @property
    def start(self) -> Ints:
        """Where a version's list starts."""

    @property
    def end(self) -> Ints:
        """Where it ends."""

    @property
    def sup_position(self) -> Ints:
        """The greatest position of each version's chain."""

    @property
    def sup_known(self) -> Ints:
        """The greatest known_time of each version's chain."""


class Facts(Protocol):
    """All versions of one event type's facts, as the log gives them."""

    @property
    def rows(self) -> pa.Table:
        """Columns position, known, root, event_time and the fields."""

    @property
    def version(self) -> NDArray[np.int32]:
        """Per row -1, or its place in `versions`."""

    @property
    def versions(self) -> Versions:
        """What ranks above the rows that have other versions."""


class FactsSource(Protocol):
    """The log, as far as timelines need it."""

    def facts(self, type_name: str, cut: dict[int, int] | None = None, columns: list[str] | None = None) -> Facts:
        """Return the facts of one type whose versions are within `cut`."""


class Timeline(NamedTuple):
    """All entities of one type: `keys[i]` has the rows from offsets[i] to offsets[i + 1]."""

    keys: pa.StringArray
    rows: Rows


@dataclass(frozen=True)
class Timelines:
    """The timelines of a plan by name, of everything up to `cut`."""

    by_name: dict[str, Timeline]
    cut: Ints  # (shards,) the greatest sequence that could be in it
    last: Ints  # (shards,) the greatest sequence that is


def cut_array(cut: Mapping[int, int]) -> Ints:
    """Return a cut as the kernels take it: the sequence at the shard's place, 0 for absent shards.

    >>> cut_array({0: 7})
    array([7])
    """
    array = np.zeros(max(cut, default=0) + 1, np.int64)
    for shard, sequence in cut.items():
        array[shard] = sequence
    return array


def columns_needed(plan: Plan, event_name: str) -> list[str]:
    """Return the fields of an event type that the plan looks at."""
    names: dict[str, None] = {}
    for timeline in plan.timelines.values():
        for selection in timeline.selections:
            if selection.event == event_name:
                names.update(dict.fromkeys(selection.by))
                where = () if selection.where is None else comparisons(parse_predicate(selection.where))
                names.update((comparison.field, None) for comparison in where)
        names.update((slot.field, None) for slot in timeline.fields.get(event_name, ()))
    return list(dict.fromkeys(stored(name) for name in names))


class _Part(NamedTuple):
    """The rows that one event type makes in one timeline."""

    key: pa.StringArray
    event_time: Ints
    root: Ints
    mask: Ints
    values: Ints  # (n, slots)
    position: Ints
    known: Ints
    version: NDArray[np.int32]


def build_timelines(
    plan: Plan, source: FactsSource | Mapping[str, Facts], cut: Mapping[int, int] | None = None
) -> Timelines:
    """Return the plan's timelines of everything up to `cut` (None: all there is), from a log or its facts by type."""
    events = dict.fromkeys(event for spec in plan.timelines.values() for event in spec.events)
    facts: dict[str, Facts] = {}
    for event in events:
        if isinstance(source, Mapping):
            facts[event] = source[event]
        else:
            facts[event] = source.facts(event, None if cut is None else dict(cut), columns_needed(plan, event))
    by_name = {name: _build(plan, name, spec, facts) for name, spec in plan.timelines.items()}
    last = _last_sequences(by_name.values())
    return Timelines(by_name, np.full(len(last), _SEQUENCE_MAX) if cut is None else cut_array(cut), last)


def _last_sequences(timelines: Iterable[Timeline]) -> Ints:
    """Return the greatest sequence of each shard, over all versions."""
    last: Ints = np.zeros(1, np.int64)
    for positions in (p for timeline in timelines for p in (timeline.rows.position, timeline.rows.above_position)):
        greatest = int(positions.max(initial=0))
        shards = (greatest >> 48) + 1  # the shard is the upper part of a position
        last = np.concatenate([last, np.zeros(max(0, shards - len(last)), np.int64)])
        if shards == 1:
            last[0] = max(int(last[0]), greatest)
        else:
            np.maximum.at(last, positions >> 48, positions & _SEQUENCE_MAX)
    return last


def _build(plan: Plan, name: str, spec: TimelineSpec, facts: Mapping[str, Facts]) -> Timeline:
    parts, above, offset = [], [], 0
    for event in spec.events:
        part, versions = _project(plan, name, event, facts[event], offset)
        parts.append(part)
        above.append(versions)
        offset += len(versions.start)
    keys, codes = _encode([part.key for part in parts])
    columns: dict[str, Any] = {
        name: _concat([getattr(part, name) for part in parts])
        for name in ("event_time", "known", "position", "root", "mask", "version")
    }
    values = _concat([part.values for part in parts])
    order = _order(codes, columns["event_time"], columns["root"])
    if order is not None:
        columns = {name: column[order] for name, column in columns.items()}
        codes, values = codes[order], values[order]
    arrays = {
        "offsets": np.searchsorted(codes, np.arange(len(keys) + 1, dtype=np.int32)).astype(np.int64),
        "values": values.T,
        **columns,
        **_above(above),
    }
    return Timeline(keys, Rows(**{name: read_only(array) for name, array in arrays.items()}))


def _project(plan: Plan, name: str, event: str, facts: Facts, offset: int) -> tuple[_Part, Versions]:
    """Return the rows of one event type; their places in `versions` start at `offset`."""
    table = _in_one_piece(facts.rows)
    rows = project(plan, name, event, table)
    whole = len(rows) == table.num_rows
    position, known = (
        column if whole else column[rows.source]
        for column in (_integers(table.column("position")), _integers(table.column("known")))
    )
    version = np.asarray(facts.version if whole else facts.version[rows.source], np.int32)
    several = np.flatnonzero(version >= 0)
    rows.mask[several] |= _VERSIONED
    if offset:
        version = version.copy()
        version[several] += np.int32(offset)
    return _Part(rows.key, rows.event_time, rows.root, rows.mask, rows.values, position, known, version), facts.versions


def _above(versions: Iterable[Versions]) -> dict[str, Ints]:
    """Return the versions of all event types one after the other."""
    starts, ends, positions, known, offset = [], [], [], [], 0
    for one in versions:
        starts.append(np.asarray(one.start, np.int64) + offset)
        ends.append(np.asarray(one.end, np.int64) + offset)
        positions.append(np.asarray(one.sup_position, np.int64))
        known.append(np.asarray(one.sup_known, np.int64))
        offset += len(one.sup_position)
    return {
        "above_start": _concat(starts),
        "above_end": _concat(ends),
        "above_position": _concat(positions),
        "above_known": _concat(known),
    }


def _concat(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _encode(keys: list[pa.StringArray]) -> tuple[pa.StringArray, NDArray[np.int32]]:
    """Return the distinct keys in order of first appearance, and each row's place among them."""
    encoded = pc.dictionary_encode(pa.chunked_array(keys, pa.string())).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pc.dictionary_encode(pa.array([], pa.string()))
    return encoded.dictionary, encoded.indices.to_numpy(zero_copy_only=False)


def _order(codes: NDArray[np.int32], event_time: Ints, root: Ints) -> Ints | None:
    """Return the order by (entity, event_time, root), None where the rows lie in it already."""
    later = codes[1:] > codes[:-1]
    same = codes[1:] == codes[:-1]
    newer = event_time[1:] > event_time[:-1]
    tie = event_time[1:] == event_time[:-1]
    if bool(np.all(later | (same & (newer | (tie & (root[1:] >= root[:-1])))))):
        return None
    return np.lexsort((root, event_time, codes)).astype(np.int64)


def _in_one_piece(table: pa.Table) -> Any:
    """Return the table as one record batch, whose columns are read without a copy; itself if a column is too large."""
    batches = table.combine_chunks().to_batches() if table.num_rows else []
    return batches[0] if len(batches) == 1 else table


def _integers(column: pa.Array | pa.ChunkedArray) -> Ints:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(array.cast(pa.int64()).to_numpy(zero_copy_only=False), np.int64)
