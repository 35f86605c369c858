"""Passes: what a ladder adds up beside its cells. One place says how each kind is reset, updated and finished."""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.columns import (
    BUCKETED,
    COUNTED,
    DECAYED,
    MAP,
    O_KIND,
    O_PARAMETER,
    ORDERED,
    P_BIT,
    P_KIND,
    P_OUTPUTS,
    P_OUTPUTS_END,
    P_SIZE,
    P_SLOT,
    P_STEP_US,
    P_STORE,
    P_TILE,
    P_WEIGHTS,
    P_WEIGHTS_END,
    RECENT,
)  # fmt: skip
from obligor.features.kernels.compiling import kernel
from obligor.features.kernels.decay import finish_decay, reset_decay, take_rows_of_step, take_steps, update_decay
from obligor.features.kernels.dense import finish_buckets, finish_counts, finish_registers, reset_dense, update_dense
from obligor.features.kernels.tiles import dense_over
from obligor.features.kernels.values import (
    finish_map,
    finish_ordered,
    finish_recent,
    reset_map,
    update_map,
    update_ordered,
    update_recent,
)  # fmt: skip

__all__ = ["finish_pass", "reset_pass", "update_pass", "update_tiled_pass"]


@kernel
def reset_pass(passes: Any, p: Any, last: Any, room: Any) -> None:
    """Make a pass empty; `last` is the last place of its map."""
    kind, store = passes[p, P_KIND], passes[p, P_STORE]
    if kind == MAP:
        reset_map(room.maps[store], last)
    elif kind in (ORDERED, RECENT):
        room.held[store] = 0
    elif kind == DECAYED:
        reset_decay(room.decays[store], room.decayed[store])
    else:
        reset_dense(kind - COUNTED, room.dense[store : store + passes[p, P_SIZE]])


@kernel
def update_pass(
    passes: Any, p: Any, weights: Any, as_of: Any, last: Any, room: Any, times: Any, values: Any, masks: Any,
    base: Any, low: Any, high: Any,
) -> None:  # fmt: skip
    """Add the rows [low, high), all older than those before."""
    kind, store, bit, slot = passes[p, P_KIND], passes[p, P_STORE], passes[p, P_BIT], passes[p, P_SLOT]
    if kind == MAP:
        update_map(room.maps[store], last, bit, slot, values, masks, base, low, high)
    elif kind == ORDERED:
        room.held[store] = update_ordered(
            room.buffers[store], room.held[store], bit, slot, values, masks, base, low, high
        )
    elif kind == RECENT:
        wanted = passes[p, P_SIZE]
        room.held[store] = update_recent(
            room.buffers[store], room.held[store], wanted, bit, slot, values, masks, base, low, high
        )
    elif kind == DECAYED:
        step_us = passes[p, P_STEP_US]
        own = weights[passes[p, P_WEIGHTS] : passes[p, P_WEIGHTS_END]]
        update_decay(
            room.decays[store], room.decayed[store], as_of // step_us, own, step_us, bit, slot, times, values, masks,
            base, low, high,
        )  # fmt: skip
    else:
        places = room.dense[store : store + passes[p, P_SIZE]]
        update_dense(kind - COUNTED, places, bit, slot, values, masks, base, low, high)


@kernel
def _decay_over(
    passes: Any, p: Any, weights: Any, as_of: Any, room: Any, tiles: Any, times: Any, values: Any, masks: Any,
    low: Any, high: Any,
) -> None:  # fmt: skip
    """Add the rows [low, high), whole steps of them by their kept partials."""
    step_us, span, store = passes[p, P_STEP_US], tiles.steps[passes[p, P_TILE]], passes[p, P_STORE]
    own, now = weights[passes[p, P_WEIGHTS] : passes[p, P_WEIGHTS_END]], as_of // step_us
    words, added = room.decays[store], room.decayed[store]
    bit, slot, partials = passes[p, P_BIT], passes[p, P_SLOT], tiles.partials[span[1] : span[2]]
    newest, oldest = times[high - 1] // step_us, times[low] // step_us
    take_rows_of_step(
        words, added, now, own, step_us, newest, partials[newest - span[0]], bit, slot, times, values, masks, low, high
    )  # fmt: skip
    if oldest < newest:
        take_steps(words, added, now, own, span[0], partials, oldest + 1, newest)
        take_rows_of_step(
            words, added, now, own, step_us, oldest, partials[oldest - span[0]], bit, slot, times, values, masks, low,
            high,
        )  # fmt: skip


@kernel
def update_tiled_pass(
    spec: Any, ladders: Any, groups: Any, passes: Any, p: Any, weights: Any, as_of: Any, last: Any, room: Any,
    tiles: Any, times: Any, values: Any, masks: Any, low: Any, high: Any,
) -> None:  # fmt: skip
    """Add the rows [low, high) of an entity with tiles, all older than those before."""
    if low == high:
        return
    if passes[p, P_TILE] < 0:
        update_pass(passes, p, weights, as_of, last, room, times, values, masks, 0, low, high)
    elif passes[p, P_KIND] == DECAYED:
        _decay_over(passes, p, weights, as_of, room, tiles, times, values, masks, low, high)
    else:
        places = room.dense[passes[p, P_STORE] : passes[p, P_STORE] + passes[p, P_SIZE]]
        rows = times.shape[0]
        dense_over(spec, ladders, groups, passes, p, tiles, places, times, values, masks, rows, low, high)


@kernel
def finish_pass(
    passes: Any, p: Any, outputs: Any, parameters: Any, weights: Any, as_of: Any, last: Any, room: Any, at: Any
) -> Any:
    """Write the outputs of a pass from room.results[at] on; return whether any is infinite. A pass may go on."""
    kind, store, crossed = passes[p, P_KIND], passes[p, P_STORE], False
    for o in range(passes[p, P_OUTPUTS], passes[p, P_OUTPUTS_END]):
        what, parameter = outputs[o, O_KIND], outputs[o, O_PARAMETER]
        if kind == MAP:
            value = finish_map(room.maps[store], last, what, parameter, room.keys, room.bounds)
        elif kind == ORDERED:
            value = finish_ordered(room.buffers[store], room.held[store], parameters[o])
        elif kind == RECENT:
            value = finish_recent(room.buffers[store], room.held[store], parameter)
        elif kind == DECAYED:
            own = weights[passes[p, P_WEIGHTS] : passes[p, P_WEIGHTS_END]]
            value = finish_decay(room.decays[store], room.decayed[store], as_of // passes[p, P_STEP_US], own)
        else:
            places = room.dense[store : store + passes[p, P_SIZE]]
            if kind == COUNTED:
                value = finish_counts(places, what, parameter, room.keys, room.bounds)
            elif kind == BUCKETED:
                value = finish_buckets(places, parameters[o])
            else:
                value = finish_registers(places, room.ranks)
        room.results[at + o - passes[p, P_OUTPUTS]] = value
        crossed |= np.isinf(value)
    return crossed
