"""Features of many requests from timelines, or of one from online state: the same kernels, the same bits.

Rows are independent, so threads take blocks of them without the GIL and the result does not depend on how many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from obligor.errors import LimitError, Problem
from obligor.features import kernels as k
from obligor.features.chunks import Chunk, TimelineReader
from obligor.features.layout import Compiled, compiled, read_only, scratch
from obligor.features.plan import Plan
from obligor.features.requests import Requests, request_row, request_values
from obligor.features.timelines import Timelines

__all__ = ["evaluate", "evaluate_one"]

BLOCK_ROWS = 8192  # requests a thread takes at a time; bounds the measures that wait for their programs
_UNKNOWN, _NOT_NAMED = -1, -2

_LIMITS = {
    k.BEYOND_INTEGER: f"an integer beyond {k.INTEGER_MAX} has no exact float64",
    k.BEYOND_SQUARES: "the squares under a standard deviation add up to more than 2**127",
    k.BEYOND_DISTINCT: f"more than {k.DISTINCT_MAX} distinct values in its window",
    k.BEYOND_KEYS: f"more than {k.KEYS_MAX} keys in its balance",
    k.BEYOND_FINITE: "the result is not finite",
}


def _problem(plan: Plan, error: int, row: int | None) -> Problem:
    """Return what a kernel's error means, at the first feature it concerns."""
    place, code = divmod(error, k.CODES)
    if code != k.BEYOND_FINITE:
        uses = (
            i
            for i, feature in enumerate(plan.features)
            if any(step.op == "measure" and step.value == place for step in feature.program)
        )
        place = next(uses, 0)
    name = plan.features[place].name if plan.features else "none"
    return Problem(f"$.features.{name}" if row is None else f"$[{row}].features.{name}", _LIMITS[code])


def evaluate(
    plan: Plan, timelines: Timelines, requests: Requests, threads: int = 2, *, limits: dict[int, Problem] | None = None
) -> NDArray[np.float64]:
    """Return the features of every request, (n, features), NaN for null.

    A row that crosses a limit (an integer beyond 2**53, too many distinct values) raises LimitError naming the feature;
    with `limits` given, it is null throughout instead and its problem is put there under the row's number.
    """
    plan_arrays = compiled(plan)
    n = len(requests)
    out = np.empty((n, len(plan.features)), np.float64)
    errors = np.zeros(n, np.int64)
    values = request_values(plan, requests)
    _check_cuts(timelines, requests.cuts)
    entities = [
        _places(timelines.by_name[source.timeline].keys, requests.entities[source.via])
        for source in plan_arrays.sources
    ]

    def block(start: int) -> None:
        rows = slice(start, min(start + BLOCK_ROWS, n))
        _evaluate_block(plan_arrays, timelines, requests, rows, entities, values, errors, out)

    starts = range(0, n, BLOCK_ROWS)
    if threads == 1 or len(starts) <= 1:
        for start in starts:
            block(start)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(block, starts))
    _report(plan, errors, limits)
    return out


def _evaluate_block(
    plan_arrays: Compiled,
    timelines: Timelines,
    requests: Requests,
    rows: slice,
    entities: Sequence[NDArray[np.int64]],
    values: NDArray[np.float64],
    errors: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:
    layout = plan_arrays.layout
    measures = np.full((rows.stop - rows.start, len(layout.measures)), np.nan)
    cuts = read_only(requests.cuts if len(requests.cuts) == 1 else requests.cuts[rows])
    as_of, self_root = read_only(requests.as_of[rows]), read_only(requests.self_root[rows])
    for s, source in enumerate(plan_arrays.sources):
        timeline = timelines.by_name[source.timeline]
        longest = int(np.diff(timeline.rows.offsets).max(initial=0))
        k.measure_rows(
            layout, s, timeline.rows, as_of, self_root, cuts, read_only(entities[s][rows]),
            scratch(layout, longest), errors[rows], measures,
        )  # fmt: skip
    k.finish_rows(layout, measures, values[rows], errors[rows], out[rows])


def _check_cuts(timelines: Timelines, cuts: NDArray[np.int64]) -> None:
    known = timelines.cut
    beyond = cuts[:, : len(known)].max(axis=0, initial=0) > known[: cuts.shape[1]]
    if beyond.any() or cuts[:, len(known) :].any():
        raise ValueError("a request's cut lies beyond the cut that the timelines were built for")


def _places(keys: pa.StringArray, wanted: pa.StringArray) -> NDArray[np.int64]:
    """Return each entity's place among the keys, -1 for one without facts, -2 for null."""
    places = pc.fill_null(pc.index_in(wanted, value_set=keys), _UNKNOWN).cast(pa.int64()).to_numpy(zero_copy_only=False)
    if wanted.null_count:
        places = np.where(wanted.is_null().to_numpy(zero_copy_only=False), _NOT_NAMED, places)
    return np.asarray(places, np.int64)


def _report(plan: Plan, errors: NDArray[np.int64], limits: dict[int, Problem] | None) -> None:
    rows = np.flatnonzero(errors)
    if not len(rows):
        return
    if limits is None:
        raise LimitError([_problem(plan, int(errors[row]), int(row)) for row in rows[:10]])
    limits.update({int(row): _problem(plan, int(errors[row]), int(row)) for row in rows})


def evaluate_one(
    plan: Plan,
    reader: TimelineReader,
    as_of: int,
    self_root: int,
    entities: Mapping[str, str | None],
    fields: Mapping[str, object],
) -> NDArray[np.float64]:
    """Return the features of one application from online state, (features,), NaN for null.

    Raises LimitError naming the feature that crossed a limit.
    """
    layout, sources = compiled(plan)
    measures = np.empty((1, len(layout.measures)), np.float64)
    errors = np.zeros(1, np.int64)
    for s, source in enumerate(sources):
        key = entities.get(source.via)
        since = None if source.reach_us is None else as_of - source.reach_us
        chunks = () if key is None else reader.chunks(source.timeline, key, since)
        error = _measure_source(
            plan, s, chunks, as_of, self_root, _UNKNOWN if key is not None else _NOT_NAMED, measures
        )
        if error and (not errors[0] or error < errors[0]):
            errors[0] = error
    out = np.empty((1, len(plan.features)), np.float64)
    k.finish_rows(layout, measures, request_row(plan, as_of, fields), errors, out)
    if errors[0]:
        raise LimitError(_problem(plan, int(errors[0]), None))
    features: NDArray[np.float64] = out[0]
    return features


def _measure_source(
    plan: Plan, s: int, chunks: Sequence[Chunk], as_of: int, self_root: int, entity: int, measures: NDArray[np.float64]
) -> int:
    layout = compiled(plan).layout
    sizes = [len(chunk.event_time) for chunk in chunks]
    room = scratch(layout, sum(sizes))
    visible = np.empty(max(sizes, default=0), np.int64)
    last = k.begin(layout, s, sum(sizes), room)
    for chunk in reversed(chunks):
        times, roots, masks, values = map(read_only, chunk)
        k.accumulate_chunk(layout, s, as_of, self_root, times, roots, masks, values, visible, room, last)
    return int(k.finish(layout, s, entity, as_of, last, room, measures))
