"""What is kept of all hidden vectors y_t: the last, least, most, sum and sum of squares; and the readout made of it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from obligor.features.kernels.compiling import entry, inlined
from obligor.features.kernels.values import log2

__all__ = ["LAST", "LEAST", "MOST", "POOLED", "SQUARES", "SUM", "fill_readout", "forget", "pool", "readout", "restore"]

LAST, LEAST, MOST, SUM, SQUARES = range(5)  # rows of what is kept (POOLED or more, h)
POOLED: Final = 5
_SECOND: Final = 1e6  # microseconds
_STEPS: Final = 16.0  # binary logarithms of an age and of a count are divided by it, to be about as large as the rest
_VARIANCE_FLOOR: Final = 1e-6


@inlined
def forget(kept: Any) -> None:
    """Begin without an event."""
    for r in range(kept.shape[0]):
        for j in range(kept.shape[1]):
            kept[r, j] = 0.0
    for j in range(kept.shape[1]):
        kept[LEAST, j], kept[MOST, j] = np.inf, -np.inf


@inlined
def restore(kept: Any, begun: Any) -> None:
    """Begin with what was kept before."""
    for r in range(kept.shape[0]):
        for j in range(kept.shape[1]):
            kept[r, j] = begun[r, j]


@inlined
def pool(kept: Any, width: Any) -> None:
    """Take in the vector that stands in row LAST."""
    for j in range(width):
        y = kept[LAST, j]
        kept[LEAST, j] = min(kept[LEAST, j], y)
        kept[MOST, j] = max(kept[MOST, j], y)
        kept[SUM, j] += y
        kept[SQUARES, j] += y * y


@inlined
def fill_readout(kept: Any, count: Any, last_time: Any, as_of: Any, empty: Any, out: Any) -> None:
    """Write last, mean, deviation, least, most and two logarithms: of the age in seconds, and of the count."""
    h = kept.shape[1]
    if count == 0:
        for j in range(5 * h + 2):
            out[j] = empty[j]
        return
    n = np.float64(count)
    for j in range(h):
        mean = kept[SUM, j] / n
        variance = kept[SQUARES, j] / n - mean * mean
        out[j] = kept[LAST, j]
        out[h + j] = mean
        out[2 * h + j] = np.sqrt(max(variance, 0.0) + _VARIANCE_FLOOR)
        out[3 * h + j] = kept[LEAST, j]
        out[4 * h + j] = kept[MOST, j]
    out[5 * h] = log2(1.0 + np.float64(as_of - last_time) / _SECOND) / _STEPS
    out[5 * h + 1] = log2(1.0 + n) / _STEPS


@entry
def readout(kept: Any, counts: Any, as_of: Any, empty: Any, out: Any) -> None:
    """Write the readout (5h + 2,) of a state at `as_of`."""
    fill_readout(kept, counts[0], counts[1], as_of, empty, out)
