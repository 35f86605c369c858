"""Features of many requests from timelines: the same kernels as online, the same bits.

Requests are independent, so threads take blocks of them without the GIL and the result does not depend on how many. An
entity with many rows and many requests is swept instead of scanned (`tiling.py`), and gives the same bits too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from obligor.errors import LimitError, Problem
from obligor.features.arranging import compiled
from obligor.features.kernels import columns as c
from obligor.features.kernels import sources as s
from obligor.features.kernels.compiling import entry
from obligor.features.kernels.integers import INTEGER_MAX
from obligor.features.kernels.keys import KEYS_MAX
from obligor.features.kernels.offline import add_steps, measure_rows, sweep
from obligor.features.kernels.programs import finish_rows
from obligor.features.kernels.tiles import encode_rows
from obligor.features.kernels.values import DISTINCT_MAX, ORDERED_MAX
from obligor.features.key_runs import places
from obligor.features.layout import Desk, Rows, read_only, room
from obligor.features.plan import Plan
from obligor.features.requests import (
    Requests,
    comparand_values,
    period_bounds,
    request_values,
    source_keys,
)
from obligor.features.tiling import Sweep, prepare, stretch, tiles_of, worth_sweeping
from obligor.features.timelines import Timelines

__all__ = ["Into", "evaluate", "limit_problem"]

BLOCK_ROWS = 8192  # requests a thread takes at a time; bounds the measures that wait for their programs
BLOCK_ROWS_MIN = 1024  # for less no other thread is asked

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Run = Callable[..., Iterable[Any]]

_LIMITS = {
    s.BEYOND_INTEGER: f"an integer beyond {INTEGER_MAX} has no exact float64",
    s.BEYOND_SQUARES: "the squares under it add up to more than 2**127",
    s.BEYOND_DISTINCT: f"more than {DISTINCT_MAX} distinct values in its window",
    s.BEYOND_KEYS: f"more than {KEYS_MAX} keys under it",
    s.BEYOND_ORDERED: f"more than {ORDERED_MAX} values in its window",
}


def limit_problem(plan: Plan, error: int, row: int | None) -> Problem:
    """Return what a kernel's error means, at the first feature it concerns; `row` None where there is but one."""
    if error < 0:
        name, message = plan.names[-1 - error], "a number in it has no finite or no exact float64"
    else:
        place, code = divmod(error, s.CODES)
        users = (f.name for f in plan.features if any(one.op == "measure" and one.value == place for one in f.program))
        name, message = next(users, "none"), _LIMITS[code]
    return Problem(f"$.features.{name}" if row is None else f"$[{row}].features.{name}", message)


def evaluate(
    plan: Plan, timelines: Timelines, requests: Requests, threads: int = 2, *,
    limits: dict[int, Problem] | None = None, into: Into | None = None, entities: Sequence[Ints] | None = None,
    desks: list[Desk] | None = None, run: Run | None = None,
) -> Floats:  # fmt: skip
    """Return the features of every request, (n, features), NaN for null; `into` says where, if not in new rows.

    `entities` are the places of each source's in its timeline, as `key_runs.places` gives them, where they are known;
    `desks` those that earlier evaluations of the plan have worked at, to which this one's come; `run` carries out the
    tasks of several threads (such as a pool's map), which else are started and ended here.

    A row that crosses a limit (an integer beyond 2**53, too many distinct values) raises LimitError naming the feature;
    with `limits` given, it is null throughout instead and its problem is put there under the row's number.
    """
    _check_cuts(timelines, requests.cuts)
    blocks = _blocks(len(requests), threads)
    with ThreadPoolExecutor(threads) if threads > 1 and run is None else nullcontext() as pool:
        several: Run = run or (map if pool is None else pool.map)
        run = several if len(blocks) > 1 else map
        into = _own_rows(plan, requests) if into is None else into
        entities = _entities(plan, timelines, requests, threads, run) if entities is None else entities
        work = _Work(plan, timelines, requests, entities, into, [] if desks is None else desks)
        work.sweep(threads, several)
        for _ in run(work.run, blocks):
            pass
    _report(plan, work.errors, limits)
    return into.out


def _blocks(requests: int, threads: int) -> list[slice]:
    """Return blocks of about one size, for several threads at least so many of them unless that makes small ones."""
    count = max(-(-requests // BLOCK_ROWS), min(threads, requests // BLOCK_ROWS_MIN))
    edges = [requests * i // count for i in range(count + 1)] if count else []
    return [slice(*block) for block in pairwise(edges)]


def _own_rows(plan: Plan, requests: Requests) -> Into:
    return Into(np.empty((len(requests), len(plan.features)), np.float64), np.arange(len(requests)))


class Into(NamedTuple):
    """Where features are written to."""

    out: Floats  # (any, features)
    places: Ints  # (requests,) the row of each


class _Kept(NamedTuple):
    """The results of one source's swept requests."""

    at: Ints  # (requests,) the row below, -1 for a request that is to be scanned
    values: Floats  # (swept requests, uses of the source)
    errors: Ints  # (swept requests,)


class _Work:
    """One evaluation: what all blocks read, and where each writes its own rows."""

    def __init__(
        self, plan: Plan, timelines: Timelines, requests: Requests, entities: Sequence[Ints], into: Into,
        desks: list[Desk],
    ) -> None:  # fmt: skip
        self.layout, self.sources, periods, self.sizes, _ = compiled(plan)
        self.ladders, self.rungs = len(self.layout.ladders), len(self.layout.rungs)
        self.rows = [timelines.by_name[source.timeline].rows for source in self.sources]
        self.entities = [read_only(own) for own in entities]
        self.as_of, self.self_root = read_only(requests.as_of), read_only(requests.self_root)
        self.cuts = read_only(_needed_cuts(timelines, requests.cuts))
        self.measures = len(plan.measures)
        self.values = request_values(plan, requests)
        self.periods = read_only(period_bounds(plan, periods, requests.as_of))
        self.comparands = read_only(comparand_values(plan, requests))
        self.errors = np.zeros(len(requests), np.int64)
        self.out, self.places = into.out, read_only(into.places)
        self.kept = [_nothing_kept(len(requests)) for _ in self.sources]
        self.longest = 0
        self._desks = desks  # that no thread works at

    def sweep(self, threads: int, run: Run) -> None:
        """Take the requests to entities with many rows out of the blocks, entity by entity."""
        for number, rows in enumerate(self.rows):
            asked = self.entities[number]
            counts = np.zeros(len(rows.offsets) - 1, np.int64)
            longest = _counted(rows.offsets, asked, counts)
            large = np.flatnonzero(worth_sweeping(np.diff(rows.offsets), counts))
            swept = self._sweeps(number, rows, large) if len(large) else []
            if swept:
                self._sweep(number, swept, threads, run)
                counts[:] = 0
                longest = _counted(rows.offsets, read_only(asked[self.kept[number].at < 0]), counts)
            self.longest = max(self.longest, longest)

    def _sweeps(self, number: int, rows: Rows, large: Ints) -> list[Sweep]:
        """Return the sweeps of one source's entities."""
        asked = self.entities[number]
        order = np.argsort(asked, kind="stable")
        starts, ends = (np.searchsorted(asked[order], large, side) for side in ("left", "right"))
        reach = int(self.layout.sources[number, c.S_REACH])
        found = (
            prepare(rows, int(entity), order[start:end], self.as_of, self.self_root, self.cuts, reach)
            for entity, start, end in zip(large, starts, ends, strict=True)
        )
        return [one for one in found if one is not None]

    def _sweep(self, number: int, sweeps: list[Sweep], threads: int, run: Run) -> None:
        spec = self.layout.sources[number]
        total = sum(len(one.questions) for one in sweeps)
        at = np.full(len(self.as_of), -1, np.int64)
        values = np.empty((total, int(spec[c.S_USES_END] - spec[c.S_USES])), np.float64)
        kept = _Kept(at, values, np.zeros(total, np.int64))
        tasks, begin = [], 0
        for one in sweeps:
            n = len(one.questions)
            at[one.questions] = np.arange(begin, begin + n)
            # A long sweep is cut in as many parts as there are threads: each begins with the rows visible by then.
            cuts = [n * part // threads for part in range(threads + 1)] if len(sweeps) < 4 * threads else [0, n]
            tasks += [(one, first, end, begin) for first, end in pairwise(cuts) if first < end]
            begin += n
        for done in run(partial(self._sweep_part, number, kept), tasks):
            if not done[0]:
                at[done[1]] = -1
        self.kept[number] = kept._replace(at=read_only(at))

    def _sweep_part(self, number: int, kept: _Kept, task: tuple[Sweep, int, int, int]) -> tuple[bool, Ints]:
        """Sweep some of an entity's questions; return whether it could be done, and which."""
        one, first, end, begin = task
        asked, times = one.questions[first:end], one.rows.event_time
        own = stretch(one, first, end)
        tiles = tiles_of(self.layout, number, len(times), (int(times[0]), int(times[-1])), windows=self.rungs)
        if own is None or tiles is None:
            return False, asked
        encode_rows(self.layout, number, tiles, one.rows.values, own.low, own.high)
        add_steps(self.layout, number, tiles, times, one.rows.values, own.masks, own.low, own.high)
        at = slice(begin + first, begin + end)
        sweep(
            self.layout, number, one.rows, own.masks, tiles, own.changes, own.own, own.own_rows, one.as_of[first:end],
            self.periods[asked], self.comparands[asked],  # not read-only, as online: so both run the same machine code
            room(self.sizes, self.ladders, self.rungs, len(times)).room, kept.errors[at], kept.values[at],
        )  # fmt: skip
        return True, asked

    def run(self, block: slice) -> None:
        """Evaluate the requests of one block."""
        measures = np.empty((block.stop - block.start, self.measures), np.float64)
        desk = self._desk()
        cuts = self.cuts if len(self.cuts) == 1 else self.cuts[block]
        errors, places = self.errors[block], self.places[block]
        for number, rows in enumerate(self.rows):
            kept = self.kept[number]
            measure_rows(
                self.layout, number, rows, self.as_of[block], self.self_root[block], cuts,
                self.entities[number][block], self.periods[block], self.comparands[block], kept.values, kept.at[block],
                kept.errors, desk.room, errors, measures, places, self.out,
            )  # fmt: skip
        finish_rows(self.layout, measures, self.values[block], errors, desk.room.stack, places, self.out)
        self._desks.append(desk)

    def _desk(self) -> Desk:
        """Return a desk that no other thread works at, with room for the longest timeline."""
        while self._desks:
            with suppress(IndexError):  # another thread may take the last one
                desk = self._desks.pop()
                if desk.rows_max >= self.longest:
                    return desk
        return room(self.sizes, self.ladders, self.rungs, 1 << self.longest.bit_length())


@entry
def _counted(offsets: Any, asked: Any, counts: Any) -> Any:
    """Count the requests to each entity; return how many rows the longest of these timelines has."""
    longest = 0
    for i in range(asked.shape[0]):
        if asked[i] >= 0:
            counts[asked[i]] += 1
            longest = max(longest, offsets[asked[i] + 1] - offsets[asked[i]])
    return longest


def _nothing_kept(requests: int) -> _Kept:
    return _Kept(read_only(np.full(requests, -1, np.int64)), np.empty((0, 0)), np.empty(0, np.int64))


def _check_cuts(timelines: Timelines, cuts: Ints) -> None:
    known = timelines.cut
    beyond = cuts[:, : len(known)].max(axis=0, initial=0) > known[: cuts.shape[1]]
    if beyond.any() or cuts[:, len(known) :].any():
        raise ValueError("a request's cut lies beyond the cut that the timelines were built for")


def _needed_cuts(timelines: Timelines, cuts: Ints) -> Ints:
    """Return the cuts, or one of no shards where all of them hold every position there is."""
    last = timelines.last
    if cuts.shape[1] < len(last):
        raise ValueError(f"expected cuts of at least {len(last)} shards, got {cuts.shape[1]}")
    whole = bool(np.all(cuts.min(axis=0, initial=2**48)[: len(last)] >= last))
    return np.empty((1, 0), np.int64) if whole else cuts


def _entities(plan: Plan, timelines: Timelines, requests: Requests, threads: int, run: Run) -> list[Ints]:
    """Return each source's entities as places in its timeline, each thread looking up an equal part."""
    edges = [len(requests) * part // threads for part in range(threads + 1)]
    found = []
    for source in compiled(plan).sources:
        keys, wanted = timelines.by_name[source.timeline].keys, source_keys(requests, source.via)
        parts = [wanted[start:end] for start, end in pairwise(edges)]
        found.append(np.concatenate(list(run(partial(places, keys), parts))))
    return found


def _report(plan: Plan, errors: Ints, limits: dict[int, Problem] | None) -> None:
    rows = np.flatnonzero(errors)
    if not len(rows):
        return
    if limits is None:
        raise LimitError([limit_problem(plan, int(errors[row]), int(row)) for row in rows[:10]])
    limits.update({int(row): limit_problem(plan, int(errors[row]), int(row)) for row in rows})
