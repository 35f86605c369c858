"""One question to the current winners of one entity: its pieces, newest first, then its older rows with tiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.arrays import layout_of, room_of, view
from obligor.features.kernels.cells import first_at
from obligor.features.kernels.columns import S_CONDITIONS, S_CONDITIONS_END, S_KEYS, S_KEYS_END, S_REACH
from obligor.features.kernels.compiling import entry, kernel
from obligor.features.kernels.lanes import LANES
from obligor.features.kernels.offline import measure_tiled, set_row
from obligor.features.kernels.programs import finish_programs
from obligor.features.kernels.sources import NOT_NAMED, OK, begin_source, deliver, end_source, update_source_keys
from obligor.features.kernels.view import apply_conditions
from obligor.features.kernels.windows import accumulate

__all__ = ["finish_row", "measure_history", "measure_pieces"]


@kernel
def _add_piece(
    layout: Any, spec: Any, cells: Any, as_of: Any, self_root: Any, periods: Any, comparands: Any, last: Any, room: Any
) -> Any:
    """Add a piece, older than the pieces added before; return whether a result crosses a limit."""
    times, roots, masks, values, visible = cells[0], cells[1], cells[2], cells[3:], room.visible
    high = first_at(times, as_of, 0, times.shape[0])
    low = first_at(times, as_of - spec[S_REACH], 0, high)
    base = low - LANES
    for j in range(low, high):
        u = np.uint64(j)
        visible[np.uint64(j - base)] = masks[u] if roots[u] != self_root else 0
    if spec[S_CONDITIONS] < spec[S_CONDITIONS_END]:
        start, end = spec[S_CONDITIONS], spec[S_CONDITIONS_END]
        apply_conditions(layout.conditions, start, end, comparands, values, visible, base, low, high)
    crossed = accumulate(
        layout, spec, layout.ladders, layout.groups, as_of, periods, times, visible, base, values, low, high, last,
        room, False,
    )  # fmt: skip
    if spec[S_KEYS] < spec[S_KEYS_END]:
        update_source_keys(layout, spec, as_of, times, values, visible, base, low, high, last, room)
    return crossed


@kernel
def _deliver(
    layout: Any, spec: Any, entity: Any, as_of: Any, last: Any, crossed: Any, room: Any, measured: Any, out: Any
) -> Any:
    error = end_source(layout, spec, as_of, last, room, crossed)
    deliver(spec, layout.uses, layout.divisors, entity, room.results, False, 0, 0, measured, out)
    return error if entity != NOT_NAMED else OK


@kernel
def _add_pieces(
    layout: Any, spec: Any, words: Any, spans: Any, width: Any, as_of: Any, self_root: Any, periods: Any,
    comparands: Any, last: Any, room: Any,
) -> Any:  # fmt: skip
    """Add all pieces, the newest first; return whether a result crosses a limit."""
    crossed = False
    for k in range(spans.shape[0] - 1, -1, -1):
        cells = view(words, spans[k, 0], (width, spans[k, 1]))
        crossed |= _add_piece(layout, spec, cells, as_of, self_root, periods, comparands, last, room)
    return crossed


@entry
def measure_pieces(
    layout_ints: Any, layout_floats: Any, room_ints: Any, room_floats: Any, room_small: Any, source: Any, entity: Any,
    words: Any, spans: Any, width: Any, as_of: Any, self_root: Any, periods: Any, comparands: Any, measured: Any,
    out: Any,
) -> Any:  # fmt: skip
    """Write the measures of a source to the first row; return the first error."""
    layout, room = layout_of(layout_ints, layout_floats), room_of(room_ints, room_floats, room_small)
    spec = layout.sources[source]
    last = begin_source(layout, spec, words.shape[0] // width, room)
    crossed = _add_pieces(layout, spec, words, spans, width, as_of, self_root, periods, comparands, last, room)
    return _deliver(layout, spec, entity, as_of, last, crossed, room, measured, out)


@entry
def measure_history(
    layout_ints: Any, layout_floats: Any, room_ints: Any, room_floats: Any, room_small: Any, source: Any, words: Any,
    spans: Any, width: Any, times: Any, roots: Any, masks: Any, values: Any, tiles: Any, as_of: Any, self_root: Any,
    self_time: Any, periods: Any, comparands: Any, measured: Any, out: Any,
) -> Any:  # fmt: skip
    """The same with older rows that have tiles; `self_time` is the event_time of the application."""
    layout, room = layout_of(layout_ints, layout_floats), room_of(room_ints, room_floats, room_small)
    spec = layout.sources[source]
    high = first_at(times, as_of, 0, times.shape[0])
    low = first_at(times, as_of - spec[S_REACH], 0, high)
    last = begin_source(layout, spec, high - low + words.shape[0] // width, room)
    crossed = _add_pieces(layout, spec, words, spans, width, as_of, self_root, periods, comparands, last, room)
    own = first_at(times, self_time, low, high)
    while own < high and times[own] == self_time and (roots[own] != self_root or masks[own] == 0):
        own += 1
    there = own < high and times[own] == self_time
    kept = masks[own] if there else 0
    if there:
        set_row(layout, spec, tiles, times, values, masks, own, 0)
    crossed |= measure_tiled(
        layout, spec, as_of, periods, comparands, times, values, masks, tiles, low, high, last, room
    )  # fmt: skip
    if there:
        set_row(layout, spec, tiles, times, values, masks, own, kept)
    return _deliver(layout, spec, 0, as_of, last, crossed, room, measured, out)


@entry
def finish_row(
    layout_ints: Any, layout_floats: Any, measures: Any, requests: Any, errors: Any, stack: Any, out: Any
) -> None:
    """Run all programs of the one row."""
    errors[0] = finish_programs(
        layout_of(layout_ints, layout_floats), measures[0], requests[0], errors[0], stack, out[0]
    )
