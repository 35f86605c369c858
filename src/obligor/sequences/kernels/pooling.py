"""What is kept of all hidden vectors y_t, and the readout made of it.

Kept are the last, the least, the most, the sum and the sum of squares, and for each of the encoder's spans a sum that
fades: of each y is left exp(-age / span). What lies in habits of the last weeks adds up there without an encoder having
to remember it. A sum stands for the moment of the last event, and what has faded since is taken off in the readout.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from obligor.features.kernels.compiling import entry, inlined
from obligor.features.kernels.values import log2
from obligor.sequences.kernels.functions import exp

__all__ = [
    "LAST", "LEAST", "MOST", "POOLED", "SQUARES", "SUM", "elapsed", "fade", "fill_readout", "forget", "pool", "readout",
    "restore",
]  # fmt: skip

LAST, LEAST, MOST, SUM, SQUARES = range(5)  # rows of what is kept (POOLED or more, h); those of the spans follow
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
def elapsed(time: Any, t: Any, begin: Any, held: Any) -> Any:
    """Return the microseconds from the event before event t, of a slice from `begin` on behind what is held; or 0."""
    before = time[t - 1] if t > begin else (held[1] if held[0] > 0 else time[t])
    return time[t] - before


@inlined
def fade(kept: Any, spans: Any, passed: Any) -> None:
    """Let the sums of the spans fade by the microseconds that have passed, and take in the vector in row LAST."""
    for r in range(spans.shape[0]):
        left = exp(-np.float64(passed) / spans[r])
        for j in range(kept.shape[1]):
            kept[POOLED + r, j] = kept[POOLED + r, j] * left + kept[LAST, j]


@inlined
def fill_readout(kept: Any, spans: Any, count: Any, last_time: Any, as_of: Any, empty: Any, out: Any) -> None:
    """Write last, mean, deviation, least, most, what has faded, and the logarithms of the age in seconds and the count.

    Microseconds; spans (s,), empty and out ((5 + s) h + 2,).
    """
    h, s = kept.shape[1], spans.shape[0]
    if count == 0:
        for j in range((5 + s) * h + 2):
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
    for r in range(s):
        left = exp(-np.float64(as_of - last_time) / spans[r])
        for j in range(h):
            out[(5 + r) * h + j] = kept[POOLED + r, j] * left
    out[(5 + s) * h] = log2(1.0 + np.float64(as_of - last_time) / _SECOND) / _STEPS
    out[(5 + s) * h + 1] = log2(1.0 + n) / _STEPS


@entry
def readout(kept: Any, spans: Any, counts: Any, as_of: Any, empty: Any, out: Any) -> None:
    """Write the readout of a state at `as_of`."""
    fill_readout(kept, spans, counts[0], counts[1], as_of, empty, out)
