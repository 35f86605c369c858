"""An event's codes and parts as the rows of the folded table that are added up, checked before a state is touched."""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.compiling import entry, inlined, kernel

__all__ = ["first_wrong", "first_wrong_slice", "goes_on", "token_rows"]


@kernel
def first_wrong(first: Any, codes: Any, parts: Any, time: Any, start: Any, stop: Any, last: Any) -> Any:
    """The first place that no table has, as 1 + event * (F + 1) + field (F: the time goes back); 0 where all is well.

    `first` (F + 1,) is where each field's rows begin; `last` the time of the event before, the least integer if none.
    """
    fields = first.shape[0] - 1
    for t in range(start, stop):
        for f in range(fields):
            code, part = codes[t, f], parts[t, f]
            size = first[f + 1] - first[f]
            known = (code >= 0) & (code < size) & (part >= 0.0) & (part <= 1.0)
            if not (known & ((part == 0.0) | (code + 1 < size))):
                return 1 + (t - start) * (fields + 1) + f
        if time[t] < last:
            return 1 + (t - start) * (fields + 1) + fields
        last = time[t]
    return 0


@inlined
def token_rows(first: Any, codes: Any, parts: Any, t: Any, rows: Any, shares: Any) -> Any:
    """Write the rows of event t and their shares, field by field; return how many (at most two a field)."""
    count = 0
    for f in range(first.shape[0] - 1):
        row, part = first[f] + codes[t, f], np.float64(parts[t, f])
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
    first: Any, codes: Any, parts: Any, time: Any, begins: Any, ends: Any, as_of: Any, before: Any
) -> Any:
    """The first slice in which something is wrong, and the place as first_wrong says it: 0 where all is well.

    The place is -1 where as_of is before the slice's last event. `before` is the last time of what all slices go on
    from, the least integer if there is none.
    """
    for b in range(begins.shape[0]):
        new, last = begins[b], before
        if b > 0 and goes_on(begins, ends, b) and ends[b - 1] > begins[b]:
            new, last = ends[b - 1], time[ends[b - 1] - 1]
        wrong = first_wrong(first, codes, parts, time, new, ends[b], last)
        if wrong != 0:
            return b, wrong + (new - begins[b]) * first.shape[0]
        if as_of[b] < (time[ends[b] - 1] if ends[b] > begins[b] else before):
            return b, -1
    return 0, 0
