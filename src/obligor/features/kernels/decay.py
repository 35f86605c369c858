"""Decayed counts and sums: one exact partial for each step of time, weighted and summed from the newest to the oldest.

The steps are those of the clock (event_time // step), not of the question, so partials of whole steps can be kept; the
order of the sum is part of the definition, so its float64 is the same wherever the partials come from.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.cells import lanes_from, near
from obligor.features.kernels.compiling import inlined, kernel
from obligor.features.kernels.integers import INT64_MAX, NULL, to_float, total
from obligor.features.kernels.lanes import LANES, choose, common, count, differ, every, load, shifted
from obligor.features.kernels.lanes import added as sum_of
from obligor.features.kernels.lanes import total as total_of

__all__ = ["DECAY_WORDS", "finish_decay", "reset_decay", "take_rows_of_step", "take_steps", "update_decay"]

STEP, ANY, SUM_HIGH, SUM_LOW = range(4)  # words of a pass: the step under way, whether there is one, its partial
DECAY_WORDS = 4


@inlined
def reset_decay(words: Any, added: Any) -> None:
    """Make a pass empty; `added` is what its steps have added up to."""
    words[ANY] = words[SUM_HIGH] = words[SUM_LOW] = 0
    added[0] = 0.0


@kernel
def _weighted(words: Any, now: Any, weights: Any) -> Any:
    """What the step under way counts at step `now`."""
    age = now - words[STEP]
    if words[ANY] == 0 or age >= weights.shape[0]:
        return 0.0
    negative, high, low = total(words[SUM_HIGH], words[SUM_LOW])
    partial = to_float(high, low)
    return (-partial if negative else partial) * weights[age]


@inlined
def _turn(words: Any, added: Any, step: Any, now: Any, weights: Any) -> None:
    """Go on to an older step."""
    if words[ANY] == 0 or words[STEP] != step:
        added[0] += _weighted(words, now, weights)
        words[STEP], words[ANY], words[SUM_HIGH], words[SUM_LOW] = step, 1, 0, 0


@kernel
def update_decay(
    words: Any, added: Any, now: Any, weights: Any, step_us: Any, bit: Any, slot: Any, times: Any, values: Any,
    masks: Any, base: Any, low: Any, high: Any,
) -> None:  # fmt: skip
    """Add rows, all older than those before; without a slot (-1) each counts one."""
    begin = words[STEP] * step_us if words[ANY] != 0 else INT64_MAX  # of the step under way
    for j in range(high - 1, low - 1, -1):
        if masks[np.uint64(j - base)] & bit == 0:
            continue
        v = values[slot, np.uint64(j)] if slot >= 0 else 1
        if v == NULL:
            continue
        if times[np.uint64(j)] < begin:
            step = times[np.uint64(j)] // step_us
            _turn(words, added, step, now, weights)
            begin = step * step_us
        words[SUM_HIGH] += v >> 32
        words[SUM_LOW] += v & 0xFFFFFFFF


@kernel
def _sums(bit: Any, slot: Any, values: Any, masks: Any, low: Any, high: Any) -> Any:
    """What the rows [low, high) add up to: the sums of upper and lower halves; without a slot (-1) each counts one."""
    n, sum_high, sum_low, j = 0, every(0), every(0), high
    while j > low:
        j -= LANES
        here = lanes_from(low - j)
        seen = differ(common(load(masks, j, here), every(bit)), every(0))
        if slot < 0:
            n += count(seen)
        else:
            v = load(values[slot], j, here)
            number = choose(seen & differ(v, every(NULL)), v, every(0))
            sum_high = sum_of(sum_high, shifted(number, every(32)))
            sum_low = sum_of(sum_low, common(number, every(0xFFFFFFFF)))
    return total_of(sum_high), total_of(sum_low) + n


@kernel
def take_rows_of_step(
    words: Any, added: Any, now: Any, weights: Any, step_us: Any, step: Any, partial: Any, bit: Any, slot: Any,
    times: Any, values: Any, masks: Any, low: Any, high: Any,
) -> None:  # fmt: skip
    """Add those of the rows [low, high) that happened in one step, the `partial` of which is kept.

    They are what the step has less its other rows, where these are fewer: all of it is integers.
    """
    begin = near(times, step * step_us, 0, times.shape[0], low)
    end = near(times, (step + 1) * step_us, begin, times.shape[0], high)
    low, high = max(low, begin), min(high, end)
    _turn(words, added, step, now, weights)
    if high - low <= (low - begin) + (end - high):
        sum_high, sum_low = _sums(bit, slot, values, masks, low, high)
        words[SUM_HIGH] += sum_high
        words[SUM_LOW] += sum_low
        return
    before_high, before_low = _sums(bit, slot, values, masks, begin, low)
    after_high, after_low = _sums(bit, slot, values, masks, high, end)
    words[SUM_HIGH] += partial[1] - before_high - after_high
    words[SUM_LOW] += partial[2] - before_low - after_low


@kernel
def take_steps(words: Any, added: Any, now: Any, weights: Any, first: Any, partials: Any, low: Any, high: Any) -> None:
    """Add whole steps [low, high) from kept partials (see `Tiles`); `first` is the step of the first of them."""
    for step in range(high - 1, low - 1, -1):
        if partials[step - first, 0] != 0:
            _turn(words, added, step, now, weights)
            words[SUM_HIGH] += partials[step - first, 1]
            words[SUM_LOW] += partials[step - first, 2]


@kernel
def finish_decay(words: Any, added: Any, now: Any, weights: Any) -> Any:
    """The sum so far; the step under way may go on in older rows."""
    return added[0] + _weighted(words, now, weights)
