"""Backfill: features of many instants from the lake on disk, in memory that does not grow with the events.

Requests are routed to the buckets of their entities; then one range of buckets after the other is read, evaluated by
the same kernels as everywhere and forgotten, by threads that each take the next range: so one reads while another
computes. A plan that looks at several entities is taken apart into a plan of measures for each, whose requests are
routed on their own, and its programs are run on the measures at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.errors import LimitError, Problem
from obligor.events.positions import SEQUENCE_MAX
from obligor.features.arranging import compiled
from obligor.features.buckets import BUCKETS
from obligor.features.evaluate import BLOCK_ROWS, Into, evaluate
from obligor.features.kernels.programs import finish_rows
from obligor.features.key_runs import places
from obligor.features.lake import Lake, View
from obligor.features.lake_files import Range
from obligor.features.lake_routing import Routed, route
from obligor.features.lake_timelines import Need
from obligor.features.layout import Desk, read_only, room
from obligor.features.narrowing import without_sequences
from obligor.features.plan import Plan
from obligor.features.requests import Requests, field_names, request_values, source_keys
from obligor.features.timelines import Timelines, cut_array

__all__ = ["PROBLEMS_SHOWN", "UNIT_ROWS", "Part", "backfill", "joined", "needed", "parts_of"]

UNIT_ROWS = 131_072  # of the lake that a thread takes at a time
UNITS_MAX = 3  # that it takes at once where there are many: each time has its price, and more would need more memory
UNITS_A_THREAD = 4  # that there should be at least, so that all threads end at about the same time
PROBLEMS_SHOWN = 10
PLANS_KEPT = 16  # taken apart
NOT_EXACT = "a number in it has no finite or no exact float64"  # as `evaluate` says it

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Run: TypeAlias = Callable[..., Iterable[Any]]  # such as a pool's map


def backfill(
    plan: Plan, lake: Lake, requests: Requests, threads: int = 2, *, limits: dict[int, Problem] | None = None
) -> Floats:
    """Return the features of every request, (n, features), NaN for null: what `evaluate` makes of whole timelines.

    A row that crosses a limit raises LimitError, or with `limits` given is null and its problem is put there.
    """
    plan = without_sequences(plan)  # whose fields need not be read
    cut = {shard: int(last) for shard, last in enumerate(requests.cuts.max(axis=0, initial=0))}
    view = lake.view(plan, cut)
    found: dict[int, Problem] = {}
    with ThreadPoolExecutor(max(1, threads)) as pool:

        def measured(part: Part, problems: dict[int, Problem]) -> Floats:
            return _Pass(part, view, cut, requests, problems).run(pool, threads)

        out = joined(plan, requests, measured, found, pool.map)
    if found and limits is None:
        raise LimitError([found[row] for row in sorted(found)[:PROBLEMS_SHOWN]])
    if limits is not None:
        limits.update(found)
    return out


@dataclass(frozen=True)
class Part:
    """A plan that looks at one timeline under one key of the application."""

    plan: Plan
    timeline: str
    via: tuple[str, ...]
    places: tuple[int, ...]  # of its measures in the whole plan


@lru_cache(maxsize=PLANS_KEPT)
def parts_of(plan: Plan) -> list[Part]:
    """Return a plan by what its requests are routed by; itself if that is one."""
    places: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for place, measure in enumerate(plan.measures):
        places.setdefault((measure.timeline, measure.via), []).append(place)
    if len(places) == 1:
        [(timeline, via)] = places
        return [Part(plan, timeline, via, tuple(range(len(plan.measures))))]
    return [Part(_measures_only(plan, own), *source, tuple(own)) for source, own in places.items()]


def _measures_only(plan: Plan, places: Sequence[int]) -> Plan:
    """Return the plan whose features are some measures of another, named by their places."""
    data = plan.data
    feature = {"type": "real", "unit": "", "reason": None, "monotone": 0, "description": "", "scored": False,
               "values": None}  # fmt: skip
    return Plan.load(
        data
        | {
            "measures": [data["measures"][place] for place in places],
            "requests": [],
            "features": [
                {"name": str(place), "program": [["measure", i]], **feature} for i, place in enumerate(places)
            ],
        }
    )


def needed(requests: Requests, last: Ints) -> Need:
    """Return what requests need of rows; `last` holds the greatest sequence of each shard that there is."""
    cuts = requests.cuts
    whole = cuts.shape[1] >= len(last) and bool(np.all(cuts.min(axis=0, initial=SEQUENCE_MAX)[: len(last)] >= last))
    return Need(position=not whole, root=not whole or bool((requests.self_root >= 0).any()))


class _Pass:
    """One part's way through the lake: what all ranges share, and where each writes its own rows."""

    def __init__(
        self, part: Part, view: View, cut: Mapping[int, int], requests: Requests, problems: dict[int, Problem]
    ) -> None:
        self.part, self.requests, self.problems = part, requests, problems
        self.table = view.table(part.timeline)
        self.cut, self.last = cut_array(cut), cut_array(view.end)
        self.need = needed(requests, self.last)
        self.fields = requests.fields.select(field_names(part.plan)).combine_chunks()
        self.out: Floats = np.empty((len(requests), len(part.plan.features)), np.float64)
        self.desks: list[Desk] = []

    def run(self, pool: ThreadPoolExecutor, threads: int) -> Floats:
        """Go through all ranges that requests lie in."""
        ranges = self.table.ranges(UNIT_ROWS * self._units(threads))
        keys, entities = source_keys(self.requests, self.part.via), self.table.table.entities
        routed = route(self.requests, keys, entities, threads, pool.map)
        pieces = [(buckets, own) for buckets in ranges if (own := routed.of(buckets)).start < own.stop]
        share, helped = len(self.requests) // (2 * threads), _helped(pool, threads)

        def go(number: int) -> None:
            buckets, own = pieces[number]
            # A thread that finds no range left would wait for those that are still at work on the last ones.
            shared = number >= len(pieces) - threads or own.stop - own.start > share
            self._range(routed.narrowed(buckets), routed, own, *((threads, helped) if shared else (1, map)))

        for _ in pool.map(go, range(len(pieces))):
            pass
        return self.out

    def _units(self, threads: int) -> int:
        """Return how many units a thread takes at once: one where requests are too few to need all of them."""
        units = self.table.rows // (UNIT_ROWS * UNITS_A_THREAD * threads) if len(self.requests) > BUCKETS else 1
        return min(max(units, 1), UNITS_MAX)

    def _range(self, buckets: Range, routed: Routed, own: slice, threads: int, run: Run) -> None:
        timeline = self.table.timeline(self.part.plan, self.part.timeline, buckets, self.need)
        timelines = Timelines({self.part.timeline: timeline}, self.cut, self.last)
        limits: dict[int, Problem] = {}
        rows = routed.row[own]
        into = Into(self.out, rows)
        entities = [places(timeline.keys, routed.keys[own])]
        evaluate(
            self.part.plan, timelines, self._asked(routed, own), threads, limits=limits, into=into, entities=entities,
            desks=self.desks, run=run,
        )  # fmt: skip
        for row, problem in limits.items():
            path = f"$[{rows[row]}]" + problem.path.removeprefix(f"$[{row}]")
            self.problems[int(rows[row])] = Problem(path, problem.message)

    def _asked(self, routed: Routed, own: slice) -> Requests:
        rows, cuts = routed.row[own], self.requests.cuts
        return Requests(
            as_of=routed.as_of[own],
            cuts=cuts if len(cuts) == 1 else cuts[rows],
            self_root=routed.self_root[own],
            entities={},  # they are looked up already
            fields=self.fields.take(pa.array(rows)) if self.fields.num_columns else self.fields,
        )


def _helped(pool: ThreadPoolExecutor, threads: int) -> Run:
    """Return a map for threads of a pool, which those of the others that have nothing else to do take part in."""

    def run(task: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        done: dict[int, Any] = {}
        left = iter(list(enumerate(items)))  # of a list, because several threads may take its next at once

        def work() -> None:
            for number, item in left:
                done[number] = task(item)

        helpers = [pool.submit(work) for _ in range(threads - 1)]
        work()
        for helper in helpers:
            if not helper.cancel():  # one that has not begun has nothing left to do
                helper.result()
        return [done[number] for number in range(len(done))]

    return run


def joined(
    plan: Plan,
    requests: Requests,
    measured: Callable[[Part, dict[int, Problem]], Floats],
    problems: dict[int, Problem],
    run: Run,
) -> Floats:
    """Return the features of a plan out of its parts' measures.

    `measured` returns the features of a part's plan, and puts the problems of its rows where it is told to.
    """
    parts = parts_of(plan)
    if len(parts) == 1 and parts[0].plan is plan:
        return measured(parts[0], problems)
    measures = np.empty((len(requests), len(plan.measures)), np.float64)
    first: dict[int, tuple[int, str]] = {}  # the first measure of a row that crossed a limit, and its message
    for part in parts:
        crossed: dict[int, Problem] = {}
        measures[:, part.places] = measured(part, crossed)
        for row, problem in crossed.items():
            place = int(problem.path.rpartition(".")[2])
            first[row] = min(first.get(row, (place, problem.message)), (place, problem.message))
    errors = np.zeros(len(requests), np.int64)
    errors[list(first)] = 1
    out: Floats = np.empty((len(requests), len(plan.features)), np.float64)
    for i, feature in enumerate(plan.features):
        if len(feature.program) == 1 and feature.program[0].op == "measure":
            out[:, i] = measures[:, int(feature.program[0].value or 0)]
    _finish(plan, measures, request_values(plan, requests), errors, out, run)
    for row in np.flatnonzero(errors).tolist():
        problems[row] = _problem(plan, row, first.get(row), int(errors[row]))
    return out


def _finish(plan: Plan, measures: Floats, values: Floats, errors: Ints, out: Floats, run: Run) -> None:
    """Run the programs of all rows."""
    layout, _, _, sizes, _ = compiled(plan)
    rows = read_only(np.arange(len(out)))

    def finish(start: int) -> None:
        own = slice(start, start + BLOCK_ROWS)
        stack = room(sizes, len(layout.ladders), len(layout.rungs), 0).room.stack
        finish_rows(layout, measures[own], values[own], errors[own], stack, rows[own], out)

    for _ in run(finish, range(0, len(out), BLOCK_ROWS)):
        pass


def _problem(plan: Plan, row: int, crossed: tuple[int, str] | None, error: int) -> Problem:
    """Return what is wrong with a row: a measure crossed a limit, or else a program's number did."""
    if crossed is None:
        return Problem(f"$[{row}].features.{plan.names[-1 - error]}", NOT_EXACT)
    place, message = crossed
    users = (f.name for f in plan.features if any(s.op == "measure" and s.value == place for s in f.program))
    return Problem(f"$[{row}].features.{next(users, 'none')}", message)
