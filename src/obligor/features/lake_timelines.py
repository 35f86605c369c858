"""A plan's timelines out of slabs of the lake: the same rows as out of the log's facts, without a string for each row.

Rows lie in the order of timelines already and the lake knows their entities, so that `project` is given a text that
costs nothing in their place, unless the plan looks at it or an event type enters by several fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from obligor.events.schema import Event
from obligor.features.filters import comparisons, parse_predicate
from obligor.features.kernels.compiling import entry
from obligor.features.kernels.lanes import first_of
from obligor.features.lake_files import versions_noted
from obligor.features.lake_rows import Pairs, staircase
from obligor.features.lake_slabs import Slab, Sorted, integers, merger
from obligor.features.lake_tables import LakeTable, current_fields, stored_name
from obligor.features.layout import Rows, read_only
from obligor.features.plan import Plan
from obligor.features.projection import project
from obligor.features.timelines import Timeline, columns_needed

__all__ = ["Need", "Reading", "empty_timeline", "join_timelines", "slab_timeline"]

Ints = NDArray[np.int64]
_VERSIONED = np.int64(-(2**63))  # the sign bit of a mask
_SEQUENCE_MAX = 2**48 - 1


class Need(NamedTuple):
    """Which numbers of rows are needed beyond those that every question needs."""

    position: bool  # a question's cut is before the end of what is read
    root: bool  # a question leaves out its own application


class Reading:
    """What a plan's timeline reads of a lake table."""

    def __init__(self, plan: Plan, timeline: str, table: LakeTable) -> None:
        self.plan, self.timeline, self.table = plan, timeline, table
        spec = plan.timelines[timeline]
        by_name = {event.event_name: event for event in table.events}
        self.events = {name: _EventReading(plan, timeline, table, by_name[name]) for name in spec.events}
        self.slots = spec.slots

    def columns(self, need: Need) -> list[str]:
        """Return the columns to read of a file written by the current definitions."""
        fields = [column for event in self.events.values() for column in event.columns]
        more = ["root"] * need.root + ["position"] * need.position + ["replaced_position"] * need.position
        return ["event_time", "known", "replaced_known", "replaced_more", *more, *dict.fromkeys(fields)]


class _EventReading:
    """The same of one event type."""

    def __init__(self, plan: Plan, timeline: str, table: LakeTable, event: type[Event]) -> None:
        self.event = event
        selections = [s for s in plan.timelines[timeline].selections if s.event == event.event_name]
        self.several = len(table.entrances(event)) > 1
        keys = {field for selection in selections for field in selection.by}
        looked_at = {slot.field for slot in plan.timelines[timeline].fields.get(event.event_name, ())}
        for selection in selections:
            where = () if selection.where is None else comparisons(parse_predicate(selection.where))
            looked_at |= {comparison.field for comparison in where}
        # Keys that only say whose row it is; the lake knows that better.
        self.implied = set() if self.several else keys - looked_at
        self.fields = [name for name in columns_needed(plan, event.event_name) if name not in self.implied]
        self.columns = [stored_name(event, name) for name in self.fields]


class _Part(NamedTuple):
    """The rows that one event type makes: their places in the slab, and their columns."""

    place: Ints
    mask: Ints
    values: Ints  # (n, slots)


def slab_timeline(reading: Reading, slab: Slab, revised: Mapping[int, Pairs], need: Need) -> Timeline:
    """Return the timeline of a slab's rows; `revised` says what else replaces a row of the slab."""
    parts = list(_parts(reading, slab, need))
    if len(parts) == 1 and len(parts[0].place) == slab.rows:
        kept: Ints | None = None
        offsets, mask, values = slab.offsets, parts[0].mask, parts[0].values.T
    else:
        kept, offsets, mask, values = _assembled(slab, parts, reading.slots)
    numbers = {"event_time": integers(slab, "event_time"), "known": integers(slab, "known")}
    for name, needed in (("position", need.position), ("root", need.root)):
        numbers[name] = integers(slab, name) if needed else zeros(slab.rows)
    if kept is not None:
        numbers = {name: column[kept] for name, column in numbers.items()}
    places, replaced = _replaced(slab, revised, need, kept)
    mask[places] |= _VERSIONED
    arrays = {"offsets": offsets, "mask": mask, "values": values, **numbers, **replaced}
    return Timeline(slab.keys, Rows(**{name: read_only(array) for name, array in arrays.items()}))


def _parts(reading: Reading, slab: Slab, need: Need) -> Iterable[_Part]:
    """Yield the rows of each event type that the timeline looks at."""
    if slab.event is not None:
        if slab.event in reading.events:
            yield _projected(reading, reading.events[slab.event], slab, None, need)
        return
    column = slab.columns["event"]
    codes = column.indices.to_numpy()
    for code, name in enumerate(column.dictionary.to_pylist()):
        if name in reading.events:
            places = np.flatnonzero(codes == code)
            yield _projected(reading, reading.events[name], slab, places, need)


def _projected(reading: Reading, event: _EventReading, slab: Slab, places: Ints | None, need: Need) -> _Part:
    rows = slab.rows if places is None else len(places)
    taken = None if places is None else pa.array(places)

    def column(name: str) -> pa.Array:
        return slab.columns[name] if taken is None else slab.columns[name].take(taken)

    prefix = f"{event.event.event_name}."
    held = {n.removeprefix(prefix): column(n) for n in slab.columns if n.startswith(prefix)}
    times = column("event_time")
    version = versions_noted(slab.notes)[event.event.event_name]
    fields: Mapping[str, Any] = {name: held[name] for name in event.fields if name in held}
    if len(fields) < len(event.fields):
        fields = current_fields(pa.table({"event_time": times, **held}), event.event, version, event.fields)
    table = {
        "event_time": times,
        "root": column("root") if need.root else pa.Array.from_buffers(pa.int64(), rows, [None, _buffer(rows)]),
        **dict.fromkeys(event.implied, _texts(rows)),
        **fields,
    }
    made = project(reading.plan, reading.timeline, event.event.event_name, pa.table(table))
    source, mask, values = made.source, made.mask, made.values
    if event.several:  # of the rows that a fact makes, this is the one under the slab's entity
        own = _own_keys(slab, source if places is None else places[source])
        same = np.flatnonzero(pc.equal(made.key, own).to_numpy(zero_copy_only=False))
        source, mask, values = source[same], mask[same], values[same]
    return _Part(source if places is None else places[source], mask, values)


def _own_keys(slab: Slab, places: Ints) -> pa.StringArray:
    return slab.keys.take(pa.array(np.searchsorted(slab.offsets, places, side="right") - 1))


def _assembled(slab: Slab, parts: Sequence[_Part], slots: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Return the places of the rows that are kept, and their offsets, masks and values."""
    flags = np.zeros(slab.rows, np.int64)
    for part in parts:
        flags[part.place] = 1
    before = np.concatenate([[0], np.cumsum(flags)])
    mask, values = np.zeros(before[-1], np.int64), np.zeros((slots, before[-1]), np.int64)
    for part in parts:
        own = before[part.place]
        mask[own], values[:, own] = part.mask, part.values.T
    return np.flatnonzero(flags), before[slab.offsets], mask, values


def _replaced(
    slab: Slab, revised: Mapping[int, Pairs], need: Need, kept: Ints | None
) -> tuple[Ints, dict[str, NDArray[Any]]]:
    """Return the places of rows that others may replace, and `version` and what ranks above them."""
    listed = _listed(slab, revised, need)
    places = _valid(slab.columns["replaced_known"])
    if kept is not None:
        at = np.full(slab.rows, -1, np.int64)
        at[kept] = np.arange(len(kept))
        listed = {int(at[row]): pairs for row, pairs in listed.items() if at[row] >= 0}
        source = places[at[places] >= 0]
        places = at[source]
    else:
        source = places
    firsts = [_values(slab, "replaced_position", source) if need.position else zeros(len(source)),
              _values(slab, "replaced_known", source)]  # fmt: skip
    rows = slab.rows if kept is None else len(kept)
    if listed:
        return _with_lists(rows, places, firsts, listed)
    version = np.full(rows, -1, np.int32)
    version[places] = np.arange(len(places), dtype=np.int32)
    one = np.arange(len(places) + 1)
    return places, {"version": version, "above_start": one[:-1], "above_end": one[1:],
                    "above_position": firsts[0], "above_known": firsts[1]}  # fmt: skip


def _valid(array: pa.Array) -> Ints:
    """Return where an array is not null; mostly it is."""
    if array.null_count == len(array):
        return np.empty(0, np.int64)
    if array.null_count == 0:
        return np.arange(len(array))
    found = np.empty(len(array) - array.null_count, np.int64)
    _set_bits(np.frombuffer(array.buffers()[0], np.uint8), array.offset, len(array), found)
    return found


@entry
def _set_bits(bits: Any, start: Any, count: Any, found: Any) -> None:
    """The places of the bits that are set, from bit `start` on."""
    n = 0
    for at in range(start >> 3, start + count + 7 >> 3):
        byte = np.int64(bits[at])
        while byte != 0:
            place = (at << 3) + first_of(byte) - start
            byte &= byte - 1
            if place >= 0 and n < found.shape[0]:
                found[n] = place
                n += 1


def _with_lists(
    rows: int, places: Ints, firsts: Sequence[Ints], listed: Mapping[int, Pairs]
) -> tuple[Ints, dict[str, NDArray[Any]]]:
    """Return the same where some rows have a list of their own."""
    above: dict[int, Pairs] = {int(p): [(int(a), int(b))] for p, a, b in zip(places, *firsts, strict=True)}
    above |= listed
    version = np.full(rows, -1, np.int32)
    counts = np.zeros(len(above) + 1, np.int64)
    pairs: Pairs = []
    for i, place in enumerate(sorted(above)):
        version[place], counts[i + 1] = i, len(above[place])
        pairs += above[place]
    edges, flat = np.cumsum(counts), np.array(pairs, np.int64).reshape(len(pairs), 2)
    return np.array(sorted(above), np.int64), {
        "version": version, "above_start": edges[:-1], "above_end": edges[1:],
        "above_position": flat[:, 0], "above_known": flat[:, 1],
    }  # fmt: skip


def _listed(slab: Slab, revised: Mapping[int, Pairs], need: Need) -> dict[int, Pairs]:
    """Return all that replaces a row, for the rows that more than one version may replace."""
    more = slab.columns["replaced_more"]
    rows = set(revised)
    if more.null_count < slab.rows:
        rows.update(_valid(more).tolist())
    positions = slab.columns["replaced_position"] if need.position else None
    found = {}
    for row in rows:
        pairs = list(revised.get(row, ()))
        known = slab.columns["replaced_known"][row].as_py()
        if known is not None:
            pairs.append((0 if positions is None else positions[row].as_py(), known))
        pairs += [(pair["position"], pair["known"]) for pair in more[row].as_py() or ()]
        found[row] = staircase(pairs) if need.position else [(0, min(known for _, known in pairs))]
    return found


def _values(slab: Slab, column: str, places: Ints) -> Ints:
    array = slab.columns[column]
    if array.null_count == len(array):
        return zeros(len(places))
    return np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array)][places]


def empty_timeline(reading: Reading) -> Timeline:
    """Return the timeline of no rows."""
    numbers = ("event_time", "known", "position", "root", "mask", "above_start", "above_end", "above_position",
               "above_known")  # fmt: skip
    arrays: dict[str, NDArray[Any]] = {name: np.zeros(0, np.int64) for name in numbers}
    arrays |= {"offsets": np.zeros(1, np.int64), "values": np.zeros((reading.slots, 0), np.int64),
               "version": np.zeros(0, np.int32)}  # fmt: skip
    return Timeline(pa.array([], pa.string()), Rows(**{name: read_only(array) for name, array in arrays.items()}))


def join_timelines(timelines: Sequence[Timeline]) -> Timeline:
    """Return timelines of the same buckets, with their roots, as one."""
    if len(timelines) == 1:
        return timelines[0]
    rows = [timeline.rows for timeline in timelines]
    merged = merger([Sorted(t.keys, t.rows.offsets, t.rows.event_time, t.rows.root) for t in timelines])
    arrays: dict[str, NDArray[Any]] = {
        name: np.concatenate([getattr(one, name) for one in rows])[merged.order]
        for name in ("event_time", "known", "position", "root", "mask")
    }
    arrays["values"] = np.concatenate([one.values for one in rows], axis=1)[:, merged.order]
    versions, starts, ends, listed, pairs = [], [], [], 0, 0
    for one in rows:
        versions.append(np.where(one.version < 0, one.version, one.version + np.int32(listed)))
        starts.append(one.above_start + pairs)
        ends.append(one.above_end + pairs)
        listed, pairs = listed + len(one.above_start), pairs + len(one.above_known)
    arrays |= {"version": np.concatenate(versions)[merged.order], "above_start": np.concatenate(starts),
               "above_end": np.concatenate(ends)}  # fmt: skip
    arrays |= {name: np.concatenate([getattr(one, name) for one in rows]) for name in ("above_position", "above_known")}
    arrays["offsets"] = merged.offsets
    return Timeline(merged.keys, Rows(**{name: read_only(array) for name, array in arrays.items()}))


_SHARED = np.zeros(1 << 17, np.int64)


def zeros(rows: int) -> Ints:
    """Return so many zeros, read only; they share their memory."""
    global _SHARED
    shared = _SHARED
    if len(shared) < rows:
        shared = _SHARED = np.zeros(rows, np.int64)  # another thread may put a shorter one there
    return read_only(shared[:rows])


def _buffer(rows: int) -> pa.Buffer:
    return pa.py_buffer(zeros(rows))


def _texts(rows: int) -> pa.StringArray:
    """Return so many empty texts, which share their memory."""
    return pa.StringArray.from_buffers(rows, _buffer(rows // 2 + 1), pa.py_buffer(b""))
