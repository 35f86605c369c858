"""An event's codes and parts as the rows of the folded table that are added up, checked before a state is touched."""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.compiling import entry, inlined, kernel

__all__ = ["first_wrong", "first_wrong_sequence", "token_rows"]


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


@entry
def first_wrong_sequence(first: Any, codes: Any, parts: Any, time: Any, offsets: Any, as_of: Any) -> Any:
    """The first sequence in which something is wrong, and the place as first_wrong says it: 0 where all is well.

    The place is -1 where as_of is before the sequence's last event.
    """
    for b in range(offsets.shape[0] - 1):
        start, stop = offsets[b], offsets[b + 1]
        wrong = first_wrong(first, codes, parts, time, start, stop, np.iinfo(np.int64).min)
        if wrong == 0 and stop > start and as_of[b] < time[stop - 1]:
            wrong = -1
        if wrong != 0:
            return b, wrong
    return 0, 0
