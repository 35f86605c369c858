"""One source of a plan for one question: reset, accumulate piece by piece, finish into the results of its measures."""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.columns import (
    K_AGGREGATE,
    K_INNER,
    K_INNER_END,
    K_PROGRAM,
    K_PROGRAM_END,
    K_RESULT,
    K_WHOLE,
    S_DIRECT_END,
    S_KEYS,
    S_KEYS_END,
    S_MAPS,
    S_USES,
    S_USES_END,
    U_FEATURE,
    U_LIMIT,
    U_PLACE,
    U_RESULT,
)  # fmt: skip
from obligor.features.kernels.compiling import inlined, kernel
from obligor.features.kernels.keys import finish_keys, reset_keys, update_keys
from obligor.features.kernels.values import entries
from obligor.features.kernels.windows import finish_windows, reset_windows

__all__ = [
    "BEYOND_DISTINCT", "BEYOND_INTEGER", "BEYOND_KEYS", "BEYOND_ORDERED", "BEYOND_SQUARES", "CODES", "NOT_NAMED", "OK",
    "begin_source", "deliver", "end_source", "finish_source", "gather", "reset_source", "update_source_keys",
]  # fmt: skip

OK, BEYOND_INTEGER, BEYOND_SQUARES, BEYOND_DISTINCT, BEYOND_KEYS, BEYOND_ORDERED = range(6)  # what went wrong
CODES = 8  # an error is the measure's place * CODES + one of these
NOT_NAMED = -2  # the place of an entity that the application does not name


@inlined
def reset_source(layout: Any, spec: Any, last: Any, room: Any, whole: Any) -> None:
    """Empty all that a source is accumulated in; `whole`: its rows come in one piece."""
    reset_windows(spec, layout.ladders, layout.groups, layout.passes, last, room, whole)
    for k in range(spec[S_KEYS], spec[S_KEYS_END]):
        reset_keys(room.tables[k], last)


@kernel
def update_source_keys(
    layout: Any, spec: Any, as_of: Any, times: Any, values: Any, masks: Any, base: Any, low: Any, high: Any, last: Any,
    room: Any,
) -> None:  # fmt: skip
    """Add rows to the measures over keys."""
    for k in range(spec[S_KEYS], spec[S_KEYS_END]):
        start, end = layout.keys[k, K_INNER], layout.keys[k, K_INNER_END]
        update_keys(
            layout.inner, start, end, room.tables[k], last, room.numbers[k], as_of, times, values, masks, base, low,
            high,
        )  # fmt: skip


@kernel
def _finish_source_keys(layout: Any, spec: Any, as_of: Any, last: Any, room: Any) -> Any:
    crossed = False
    for k in range(spec[S_KEYS], spec[S_KEYS_END]):
        one = layout.keys[k]
        value = finish_keys(
            layout.inner, one[K_INNER], one[K_INNER_END], layout.inner_divisors, layout.steps, one[K_PROGRAM],
            one[K_PROGRAM_END], layout.constants, one[K_AGGREGATE], one[K_WHOLE] != 0, room.tables[k], last,
            room.numbers[k], as_of, room.row, room.stack, room.found, room.bounds,
        )  # fmt: skip
        room.results[one[K_RESULT]] = value
        crossed |= np.isinf(value)
    return crossed


@kernel
def _first_error(spec: Any, uses: Any, results: Any) -> Any:
    """The error of the first measure of a source whose result crosses a limit."""
    error = OK
    for m in range(spec[S_USES], spec[S_USES_END]):
        value = results[uses[m, U_RESULT]]
        limit = uses[m, U_LIMIT]
        code = limit if value < 0 or limit == BEYOND_SQUARES else BEYOND_INTEGER
        if np.isinf(value) and (error == OK or uses[m, U_PLACE] * CODES + code < error):
            error = uses[m, U_PLACE] * CODES + code
    return error


@inlined
def finish_source(layout: Any, spec: Any, as_of: Any, last: Any, room: Any, crossed: Any, whole: Any) -> Any:
    """Take the results of all measures of a source; return the first error. `whole`: its rows came in one piece."""
    crossed |= finish_windows(layout, spec, as_of, last, room, whole)
    if spec[S_KEYS] < spec[S_KEYS_END]:
        crossed |= _finish_source_keys(layout, spec, as_of, last, room)
    return _first_error(spec, layout.uses, room.results) if crossed else OK


@kernel
def begin_source(layout: Any, spec: Any, rows: Any, room: Any) -> Any:
    """Empty all that a source of so many rows is accumulated in; return the last place of its hash tables."""
    last = entries(rows) - 1 if spec[S_MAPS] != 0 else 0
    reset_source(layout, spec, last, room, False)
    return last


@kernel
def end_source(layout: Any, spec: Any, as_of: Any, last: Any, room: Any, crossed: Any) -> Any:
    """`finish_source`, compiled once for those who call it rarely."""
    return finish_source(layout, spec, as_of, last, room, crossed, False)


@inlined
def gather(spec: Any, uses: Any, results: Any, row: Any) -> None:
    """Copy the results of a source's measures to a row of their own."""
    for m in range(spec[S_USES], spec[S_USES_END]):
        row[m - spec[S_USES]] = results[uses[m, U_RESULT]]


@inlined
def deliver(
    spec: Any, uses: Any, divisors: Any, entity: Any, results: Any, gathered: Any, i: Any, row: Any, measured: Any,
    out: Any,
) -> None:  # fmt: skip
    """Write a source's measures: to row `row` of `out` those that are features, to row `i` of `measured` the others.

    All are null where the application names no entity. `gathered`: the results are those of `gather`.
    """
    first, direct, end = spec[S_USES], spec[S_DIRECT_END], spec[S_USES_END]
    if entity == NOT_NAMED:
        for m in range(first, direct):
            out[row, uses[m, U_FEATURE]] = np.nan
        for m in range(direct, end):
            measured[i, uses[m, U_PLACE]] = np.nan
        return
    for m in range(first, direct):
        u = np.uint64(m)
        place = np.uint64(m - first) if gathered else np.uint64(uses[u, U_RESULT])
        out[row, np.uint64(uses[u, U_FEATURE])] = results[place] / divisors[u]
    for m in range(direct, end):
        u = np.uint64(m)
        place = np.uint64(m - first) if gathered else np.uint64(uses[u, U_RESULT])
        measured[i, np.uint64(uses[u, U_PLACE])] = results[place] / divisors[u]
