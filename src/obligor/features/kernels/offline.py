"""Many questions to timelines of all versions: scanned, or swept in the order of as_of where an entity has many rows.

The sweep keeps one set of tiles: rows come as they become known and go as they are superseded, so that the ten
thousandth question to a merchant of a million rows costs what its windows' edges cost.
"""

from __future__ import annotations

from typing import Any

from obligor.features.kernels.cells import near
from obligor.features.kernels.columns import (
    DECAYED,
    L_PASSES,
    L_PASSES_END,
    P_BIT,
    P_KIND,
    P_SLOT,
    P_STEP_US,
    P_TILE,
    S_CONDITIONS,
    S_CONDITIONS_END,
    S_KEYS,
    S_KEYS_END,
    S_LADDERS,
    S_LADDERS_END,
    S_MAPS,
    S_REACH,
)  # fmt: skip
from obligor.features.kernels.compiling import entry, inlined, kernel, woven
from obligor.features.kernels.integers import INT64_MAX, NULL
from obligor.features.kernels.lanes import LANES, fetch
from obligor.features.kernels.sources import (
    NOT_NAMED,
    OK,
    deliver,
    finish_source,
    gather,
    reset_source,
    update_source_keys,
)  # fmt: skip
from obligor.features.kernels.tiles import LEAF, touch
from obligor.features.kernels.values import entries
from obligor.features.kernels.view import apply_conditions, view
from obligor.features.kernels.windows import accumulate, accumulate_tiled

__all__ = ["add_steps", "measure_rows", "measure_tiled", "set_row", "set_rows", "sweep"]

_AHEAD = 16  # questions: what lies in memory takes as long as some of them
_AHEAD_ROWS = 128  # of an entity


@inlined
def _note(error: Any, errors: Any, i: Any) -> None:
    if error != OK and (errors[i] == OK or error < errors[i]):
        errors[i] = error


@inlined
def _fetch_ahead(rows: Any, entity: Any, i: Any) -> None:
    """Bring the rows of the entity of a question to come into the cache, where it is not that of the one before."""
    last = entity.shape[0] - 1
    fetch(rows.offsets, max(entity[min(i + _AHEAD, last)], 0))
    if i <= last and entity[i] != entity[i - 1] and entity[i] >= 0:
        start = rows.offsets[entity[i]]
        for row in range(start, min(rows.offsets[entity[i] + 1], start + _AHEAD_ROWS), LANES):
            fetch(rows.event_time, row)
            fetch(rows.known, row)
            fetch(rows.mask, row)
            fetch(rows.version, row)
            for slot in range(rows.values.shape[0]):
                fetch(rows.values[slot], row)


@entry
def measure_rows(
    layout: Any, source: Any, rows: Any, as_of: Any, self_root: Any, cuts: Any, entity: Any, periods: Any,
    comparands: Any, kept: Any, kept_at: Any, kept_errors: Any, room: Any, errors: Any, measured: Any,
    places: Any, out: Any,
) -> None:  # fmt: skip
    """The measures of one source for many questions; `entity` is -1 without facts, -2 where none is named.

    Where `kept_at` is not negative the results lie in that row of `kept` already. `places` are the rows of `out` that
    the questions' features belong to.
    """
    spec = layout.sources[source]
    ladders, groups, uses, divisors = layout.ladders, layout.groups, layout.uses, layout.divisors
    times, values, visible, last = rows.event_time, rows.values, room.visible, 0
    now, oldest, newest, low, high = NOT_NAMED, 0, 0, 0, 0
    for i in range(as_of.shape[0]):
        if kept_at[i] >= 0:
            deliver(spec, uses, divisors, entity[i], kept[kept_at[i]], True, i, places[i], measured, out)
            _note(kept_errors[kept_at[i]], errors, i)
            continue
        cut = cuts[i if cuts.shape[0] > 1 else 0]
        _fetch_ahead(rows, entity, i + _AHEAD)
        if entity[i] != now:
            now, oldest, newest = entity[i], 0, 0
            if now >= 0:
                oldest, newest = rows.offsets[now], rows.offsets[now + 1]
            low, high = newest, newest
        high = near(times, as_of[i], oldest, newest, high)  # questions to an entity mostly follow one another
        low = near(times, as_of[i] - spec[S_REACH], oldest, high, low)
        base = low - LANES
        view(rows, as_of[i], self_root[i], cut, low, high, visible, base)
        if spec[S_CONDITIONS] < spec[S_CONDITIONS_END]:
            start, end = spec[S_CONDITIONS], spec[S_CONDITIONS_END]
            apply_conditions(layout.conditions, start, end, comparands[i], values, visible, base, low, high)
        if spec[S_MAPS] != 0:
            last = entries(high - low) - 1
        reset_source(layout, spec, last, room, True)
        crossed = accumulate(
            layout, spec, ladders, groups, as_of[i], periods[i], times, visible, base, values, low, high, last, room,
            True,
        )  # fmt: skip
        if spec[S_KEYS] < spec[S_KEYS_END]:
            update_source_keys(layout, spec, as_of[i], times, values, visible, base, low, high, last, room)
        error = finish_source(layout, spec, as_of[i], last, room, crossed, True)
        deliver(spec, uses, divisors, entity[i], room.results, False, i, places[i], measured, out)
        if entity[i] != NOT_NAMED:
            _note(error, errors, i)


@kernel
def set_row(layout: Any, spec: Any, tiles: Any, times: Any, values: Any, masks: Any, row: Any, mask: Any) -> Any:
    """Give a row of an entity with tiles another mask, 0 for one that is not in the view.

    Returns whether all steps that decay reach so far.
    """
    passes, reached = layout.passes, True
    for at in range(spec[S_LADDERS], spec[S_LADDERS_END]):
        for p in range(layout.ladders[at, L_PASSES], layout.ladders[at, L_PASSES_END]):
            if passes[p, P_KIND] != DECAYED or passes[p, P_TILE] < 0:
                continue
            v = values[passes[p, P_SLOT], row] if passes[p, P_SLOT] >= 0 else 1
            change = int(mask & passes[p, P_BIT] != 0) - int(masks[row] & passes[p, P_BIT] != 0)
            if v != NULL and change != 0:
                span = tiles.steps[passes[p, P_TILE]]
                place = span[1] + times[row] // passes[p, P_STEP_US] - span[0]
                if place < span[1] or place >= span[2]:
                    reached = False
                    continue
                tiles.partials[place, 0] += change
                tiles.partials[place, 1] += change * (v >> 32)
                tiles.partials[place, 2] += change * (v & 0xFFFFFFFF)
    masks[row] = mask
    touch(tiles, row)
    return reached


@entry
def add_steps(
    layout: Any, source: Any, tiles: Any, times: Any, values: Any, masks: Any, low: Any, high: Any
) -> None:  # fmt: skip
    """Add the rows [low, high) to the steps of what decays, none of which they are in."""
    spec, passes, partials = layout.sources[source], layout.passes, tiles.partials
    for at in range(spec[S_LADDERS], spec[S_LADDERS_END]):
        for p in range(layout.ladders[at, L_PASSES], layout.ladders[at, L_PASSES_END]):
            if passes[p, P_KIND] != DECAYED or passes[p, P_TILE] < 0:
                continue
            span, step_us = tiles.steps[passes[p, P_TILE]], passes[p, P_STEP_US]
            bit, slot, place, end = passes[p, P_BIT], passes[p, P_SLOT], 0, NULL
            for j in range(low, high):
                if times[j] >= end:
                    step = times[j] // step_us
                    place, end = span[1] + step - span[0], (step + 1) * step_us
                v = values[slot, j] if slot >= 0 else 1
                if masks[j] & bit != 0 and v != NULL:
                    partials[place, 0] += 1
                    partials[place, 1] += v >> 32
                    partials[place, 2] += v & 0xFFFFFFFF


@entry
def set_rows(layout: Any, source: Any, tiles: Any, times: Any, values: Any, masks: Any, new: Any, start: Any) -> Any:
    """Give the rows from `start` on other masks; return whether all steps that decay reach so far."""
    reached, spec = True, layout.sources[source]
    if tiles.steps.shape[0] == 0:
        for j in range(new.shape[0]):
            masks[start + j] = new[j]
        for row in range(start, start + new.shape[0], LEAF):
            touch(tiles, row)
        touch(tiles, start + new.shape[0] - 1)
        return reached
    for j in range(new.shape[0]):
        if masks[start + j] != new[j]:
            reached &= set_row(layout, spec, tiles, times, values, masks, start + j, new[j])
    return reached


@woven
def measure_tiled(
    layout: Any, spec: Any, as_of: Any, periods: Any, comparands: Any, times: Any, values: Any, masks: Any, tiles: Any,
    low: Any, high: Any, last: Any, room: Any,
) -> Any:  # fmt: skip
    """Add the rows [low, high) of an entity with tiles; return whether a result crosses a limit."""
    if spec[S_CONDITIONS] < spec[S_CONDITIONS_END]:
        start, end = spec[S_CONDITIONS], spec[S_CONDITIONS_END]
        apply_conditions(layout.conditions, start, end, comparands, values, masks, 0, low, high)
    crossed = accumulate_tiled(layout, spec, as_of, periods, times, masks, values, tiles, low, high, last, room)
    if spec[S_KEYS] < spec[S_KEYS_END]:
        update_source_keys(layout, spec, as_of, times, values, masks, 0, low, high, last, room)
    return crossed


@entry
def sweep(
    layout: Any, source: Any, rows: Any, masks: Any, tiles: Any, changes: Any, own: Any, own_rows: Any, as_of: Any,
    periods: Any, comparands: Any, room: Any, errors: Any, kept: Any,
) -> None:  # fmt: skip
    """Consecutive questions to one entity's rows, in the order of as_of; see `tiling.Stretch`."""
    spec, last = layout.sources[source], 0
    times, values, mask = rows.event_time, rows.values, rows.mask
    change, low, high = 0, 0, 0
    for r in range(as_of.shape[0]):
        while change < changes.shape[0] and changes[change, 0] <= r:
            row, shown = changes[change, 1], changes[change, 1] >= 0
            row = row if shown else ~row
            set_row(layout, spec, tiles, times, values, masks, row, mask[row] & INT64_MAX if shown else 0)
            change += 1
        high = near(times, as_of[r], 0, times.shape[0], high)
        low = near(times, as_of[r] - spec[S_REACH], 0, high, low)
        for k in range(own[r, 0], own[r, 1]):  # an application is not in its own view
            room.own[k - own[r, 0]] = masks[own_rows[k]]
            set_row(layout, spec, tiles, times, values, masks, own_rows[k], 0)
        if spec[S_MAPS] != 0:
            last = entries(high - low) - 1
        reset_source(layout, spec, last, room, False)
        crossed = measure_tiled(
            layout, spec, as_of[r], periods[r], comparands[r], times, values, masks, tiles, low, high, last, room
        )  # fmt: skip
        errors[r] = finish_source(layout, spec, as_of[r], last, room, crossed, False)
        gather(spec, layout.uses, room.results, kept[r])
        for k in range(own[r, 0], own[r, 1]):
            set_row(layout, spec, tiles, times, values, masks, own_rows[k], room.own[k - own[r, 0]])
