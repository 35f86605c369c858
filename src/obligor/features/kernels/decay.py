"""Decayed counts and sums: one exact partial for each step of time, weighted and summed from the newest to the oldest.

The steps are those of the clock (event_time // step), not of the question, so partials of whole steps can be kept; the
order of the sum is part of the definition, so its float64 is the same wherever the partials come from.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.compiling import inlined, kernel
from obligor.features.kernels.integers import NULL, to_float, total

__all__ = ["DECAY_WORDS", "finish_decay", "reset_decay", "take_steps", "update_decay"]

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
    for j in range(high - 1, low - 1, -1):
        if masks[np.uint64(j - base)] & bit == 0:
            continue
        v = values[slot, np.uint64(j)] if slot >= 0 else 1
        if v == NULL:
            continue
        _turn(words, added, times[j] // step_us, now, weights)
        words[SUM_HIGH] += v >> 32
        words[SUM_LOW] += v & 0xFFFFFFFF


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
