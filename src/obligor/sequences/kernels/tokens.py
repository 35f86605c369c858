"""An event's codes and parts as the rows of the folded table that are added up, checked before a state is touched.

A field has a table, of whose rows one or two count, or it is periodic: then all of its rows do, by sine and cosine of
its number. What the fields are is `fields`, int64 (3, F + 1):

    FIRST        where each field's rows begin in the folded table, and where the last one's end
    SIZE         how many codes it has; 0 behind the last
    FREQUENCIES  where a periodic field's begin among the frequencies of all, else NONE
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from obligor.features.kernels.compiling import entry, inlined, kernel
from obligor.sequences.kernels.functions import cos, rounded, sin

__all__ = [
    "FIRST",
    "FREQUENCIES",
    "NONE",
    "SIZE",
    "SPREADS_MAX",
    "first_wrong",
    "first_wrong_slice",
    "goes_on",
    "token_rows",
]

FIRST, SIZE, FREQUENCIES = range(3)
NONE: Final = -1
SPREADS_MAX: Final = 1024.0  # how far from the middle of all a periodic field's number may be said to be
_TURN: Final = 6.283185307179586  # radians


@inlined
def _known(fields: Any, f: Any, code: Any, part: Any) -> Any:
    """Whether a field has a code with this part."""
    size = fields[SIZE, f]
    there = (code >= 0) & (code < size)
    if fields[FREQUENCIES, f] != NONE:
        return there & (abs(part) <= SPREADS_MAX) & ((part == 0.0) | (code > 0))
    known = there & (part >= 0.0) & (part <= 1.0)
    return known & ((part == 0.0) | (code + 1 < size))


@kernel
def first_wrong(fields: Any, codes: Any, parts: Any, time: Any, start: Any, stop: Any, last: Any) -> Any:
    """The first place that no field has, as 1 + event * (F + 1) + field (F: the time goes back); 0 where all is well.

    `last` is the time of the event before, the least integer if none.
    """
    count = fields.shape[1] - 1
    for t in range(start, stop):
        for f in range(count):
            if not _known(fields, f, codes[t, f], parts[t, f]):
                return 1 + (t - start) * (count + 1) + f
        if time[t] < last:
            return 1 + (t - start) * (count + 1) + count
        last = time[t]
    return 0


@kernel
def _waves(frequencies: Any, at: Any, waves: Any, x: Any, first: Any, rows: Any, shares: Any, count: Any) -> None:
    """Write the rows of a number's sines from `first` on, then those of its cosines, and what these are.

    A frequency and a number have 24 bits each, so their product and what is left of a turn are exact.
    """
    for j in range(waves):
        turns = frequencies[at + j] * x
        angle = _TURN * (turns - rounded(turns))
        rows[count + j], rows[count + waves + j] = first + j, first + waves + j
        shares[count + j], shares[count + waves + j] = sin(angle), cos(angle)


@kernel
def token_rows(fields: Any, frequencies: Any, codes: Any, parts: Any, t: Any, rows: Any, shares: Any) -> Any:
    """Write the rows of event t and their shares, field by field; return how many (encoder.terms says at most)."""
    count = 0
    for f in range(fields.shape[1] - 1):
        row, part = fields[FIRST, f] + codes[t, f], np.float64(parts[t, f])
        if fields[FREQUENCIES, f] != NONE and codes[t, f] != 0:
            first = fields[FIRST, f] + 1
            waves = (fields[FIRST, f + 1] - first) >> 1
            _waves(frequencies, fields[FREQUENCIES, f], waves, part, first, rows, shares, count)
            count += 2 * waves
            continue
        rows[count], shares[count] = row, 1.0 - part
        count += 1
        if part != 0.0:
            rows[count], shares[count] = row + 1, part
            count += 1
    return count


@inlined
def goes_on(begins: Any, ends: Any, b: Any) -> Any:
    """Whether slice b is the slice before it and perhaps more: a later question to the same entity."""
    return (begins[b] == begins[b - 1]) & (ends[b] >= ends[b - 1])


@entry
def first_wrong_slice(
    fields: Any, codes: Any, parts: Any, time: Any, begins: Any, ends: Any, as_of: Any, before: Any
) -> Any:
    """The first slice in which something is wrong, and the place as first_wrong says it: 0 where all is well.

    The place is -1 where as_of is before the slice's last event. `before` is the last time of what all slices go on
    from, the least integer if there is none.
    """
    for b in range(begins.shape[0]):
        new, last = begins[b], before
        if b > 0 and goes_on(begins, ends, b) and ends[b - 1] > begins[b]:
            new, last = ends[b - 1], time[ends[b - 1] - 1]
        wrong = first_wrong(fields, codes, parts, time, new, ends[b], last)
        if wrong != 0:
            return b, wrong + (new - begins[b]) * fields.shape[1]
        if as_of[b] < (time[ends[b] - 1] if ends[b] > begins[b] else before):
            return b, -1
    return 0, 0
