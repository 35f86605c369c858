"""Features of many requests from timelines, or of one from online state: the same kernels, the same bits.

Rows are independent, so threads take blocks of them without the GIL and the result does not depend on how many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from obligor.errors import LimitError, Problem
from obligor.features import kernels as k
from obligor.features.chunks import Chunk, TimelineReader
from obligor.features.layout import compiled, read_only, scratch
from obligor.features.plan import Plan
from obligor.features.programs import finish_rows
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
}


def _problem(plan: Plan, error: int, row: int | None) -> Problem:
    """Return what a kernel's error means, at the first feature it concerns."""
    if error < 0:
        name, message = plan.names[-1 - error], "a number in it has no finite or no exact float64"
    else:
        place, code = divmod(error, k.CODES)
        users = (f.name for f in plan.features if any(s.op == "measure" and s.value == place for s in f.program))
        name, message = next(users, "none"), _LIMITS[code]
    return Problem(f"$.features.{name}" if row is None else f"$[{row}].features.{name}", message)


def evaluate(
    plan: Plan, timelines: Timelines, requests: Requests, threads: int = 2, *, limits: dict[int, Problem] | None = None
) -> NDArray[np.float64]:
    """Return the features of every request, (n, features), NaN for null.

    A row that crosses a limit (an integer beyond 2**53, too many distinct values) raises LimitError naming the feature;
    with `limits` given, it is null throughout instead and its problem is put there under the row's number.
    """
    _check_cuts(timelines, requests.cuts)
    blocks = [slice(i, min(i + BLOCK_ROWS, len(requests))) for i in range(0, len(requests), BLOCK_ROWS)]
    with ThreadPoolExecutor(max(1, threads)) as pool:
        run = pool.map if threads > 1 and len(blocks) > 1 else map
        work = _Work(plan, timelines, requests, _entities(plan, timelines, requests, threads, run))
        for _ in run(work.run, blocks):
            pass
    _report(plan, work.errors, limits)
    return work.out


class _Work:
    """One evaluation: what all blocks read, and where each writes its own rows."""

    def __init__(self, plan: Plan, timelines: Timelines, requests: Requests, entities: list[NDArray[np.int64]]) -> None:
        self.layout, self.sources = compiled(plan)
        self.rows = [timelines.by_name[source.timeline].rows for source in self.sources]
        self.entities = entities
        self.longest = max((int(np.diff(rows.offsets).max(initial=0)) for rows in self.rows), default=0)
        self.as_of, self.self_root = read_only(requests.as_of), read_only(requests.self_root)
        self.cuts = read_only(_needed_cuts(timelines, requests.cuts))
        self.measures = len(plan.measures)
        self.values = request_values(plan, requests)
        self.errors = np.zeros(len(requests), np.int64)
        self.out: NDArray[np.float64] = np.empty((len(requests), len(plan.features)), np.float64)

    def run(self, block: slice) -> None:
        """Evaluate the requests of one block."""
        measures = np.empty((block.stop - block.start, self.measures), np.float64)
        room = scratch(self.layout, self.longest)
        cuts = self.cuts if len(self.cuts) == 1 else self.cuts[block]
        errors = self.errors[block]
        for s, rows in enumerate(self.rows):
            k.measure_rows(
                self.layout, s, rows, self.as_of[block], self.self_root[block], cuts, self.entities[s][block], room,
                errors, measures, self.out[block],
            )  # fmt: skip
        finish_rows(self.layout, measures, self.values[block], errors, room.stack, self.out[block])


def _check_cuts(timelines: Timelines, cuts: NDArray[np.int64]) -> None:
    known = timelines.cut
    beyond = cuts[:, : len(known)].max(axis=0, initial=0) > known[: cuts.shape[1]]
    if beyond.any() or cuts[:, len(known) :].any():
        raise ValueError("a request's cut lies beyond the cut that the timelines were built for")


def _needed_cuts(timelines: Timelines, cuts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the cuts, or one of no shards where all of them hold every position there is."""
    last = timelines.last
    if cuts.shape[1] < len(last):
        raise ValueError(f"expected cuts of at least {len(last)} shards, got {cuts.shape[1]}")
    whole = bool(np.all(cuts.min(axis=0, initial=2**48)[: len(last)] >= last))
    return np.empty((1, 0), np.int64) if whole else cuts


def _entities(
    plan: Plan, timelines: Timelines, requests: Requests, threads: int, run: Callable[..., Iterable[Any]]
) -> list[NDArray[np.int64]]:
    """Return each source's entities as places in its timeline, each thread looking up an equal part."""
    edges = [len(requests) * part // threads for part in range(threads + 1)]
    found = []
    for source in compiled(plan).sources:
        keys, wanted = timelines.by_name[source.timeline].keys, requests.entities[source.via]
        parts = [wanted[start:end] for start, end in pairwise(edges)]
        found.append(read_only(np.concatenate(list(run(partial(_places, keys), parts)))))
    return found


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
    measures = np.empty((1, len(plan.measures)), np.float64)
    out: NDArray[np.float64] = np.empty((1, len(plan.features)), np.float64)
    errors = np.zeros(1, np.int64)
    for s, source in enumerate(sources):
        key = entities.get(source.via)
        since = None if source.reach_us is None else as_of - source.reach_us
        chunks = () if key is None else reader.chunks(source.timeline, key, since)
        entity = _NOT_NAMED if key is None else _UNKNOWN
        error = _measure_source(plan, s, chunks, as_of, self_root, entity, measures, out)
        if error and (not errors[0] or error < errors[0]):
            errors[0] = error
    finish_rows(layout, measures, request_row(plan, as_of, fields), errors, scratch(layout, 0).stack, out)
    if errors[0]:
        raise LimitError(_problem(plan, int(errors[0]), None))
    features: NDArray[np.float64] = out[0]
    return features


def _measure_source(
    plan: Plan,
    s: int,
    chunks: Sequence[Chunk],
    as_of: int,
    self_root: int,
    entity: int,
    measures: NDArray[np.float64],
    out: NDArray[np.float64],
) -> int:
    layout = compiled(plan).layout
    sizes = [len(chunk.event_time) for chunk in chunks]
    room = scratch(layout, sum(sizes))
    last = k.begin(layout, s, sum(sizes), room)
    crossed = False
    for chunk in reversed(chunks):
        times, roots, masks, values = map(read_only, chunk)
        crossed |= k.accumulate_chunk(layout, s, as_of, self_root, times, roots, masks, values, room, last)
    return int(k.finish(layout, s, entity, as_of, last, room, crossed, measures, out))
