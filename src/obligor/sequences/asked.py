"""What is asked of sequences: questions beside the rows of their entities, part by part, in bounded memory.

The lake is gone through in ranges of buckets as a backfill does, so that no more of it than a few ranges is in memory;
what has no lake is one part. Questions are those of a training set (`Requests`), or one for each entity that there is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.features.backfill import UNIT_ROWS, needed
from obligor.features.key_runs import Keys, places
from obligor.features.lake import Lake
from obligor.features.lake_routing import Routed, route
from obligor.features.lake_timelines import Need
from obligor.features.narrowing import sequence_alone
from obligor.features.plan import Plan
from obligor.features.requests import Requests, cut_rows, own_fields, source_keys
from obligor.features.timelines import FactsSource, Timeline, build_timelines, cut_array

__all__ = ["Asked", "Everyone", "Part", "Questions", "Source", "in_order", "parts"]

Ints: TypeAlias = NDArray[np.int64]
_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Everyone:
    """One question for each entity that has rows, at one instant and cut; applications are events like others."""

    as_of: int
    cut: Mapping[int, int]


Questions: TypeAlias = "Requests | Everyone"
Source: TypeAlias = "Lake | FactsSource"


class Asked(NamedTuple):
    """Some questions and the timeline that holds their entities."""

    timeline: Timeline
    last: Ints  # (shards,) the greatest sequences that are in it
    question: Ints  # (q,) their places among all questions; of everyone, from 0 on in the order of parts
    entity: Ints  # (q,) the place of each one's entity in the timeline, -1 where it has no rows
    as_of: Ints
    self_root: Ints
    cuts: Ints  # (q or 1, shards)
    fields: pa.Table | None  # the applications' own; None where nobody asks about one


Part: TypeAlias = Callable[[], Asked]


def parts(plan: Plan, name: str, source: Source, questions: Questions, threads: int = 1) -> Iterator[Part]:
    """Yield what reads each part of the questions with the rows of their entities, in one order.

    `plan` is the whole plan; the timelines hold its sequence `name` alone. `source` is the lake, or the log.
    """
    alone = sequence_alone(plan, name)
    spec = alone.sequences[0]
    if not isinstance(source, Lake):
        yield lambda: _whole(alone, source, questions)
        return
    if isinstance(questions, Everyone):
        table = source.view(alone, questions.cut).table(spec.timeline)
        last, need = cut_array(table.end), Need(position=True, root=True)
        for buckets in table.ranges(UNIT_ROWS):
            yield lambda own=buckets: _everyone(table.timeline(alone, spec.timeline, own, need), last, questions)  # type: ignore[misc]
        return
    cut = {shard: int(greatest) for shard, greatest in enumerate(questions.cuts.max(axis=0, initial=0))}
    table = source.view(alone, cut).table(spec.timeline)
    last = cut_array(table.end)
    need = needed(questions, last)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        routed = route(questions, source_keys(questions, spec.via), table.table.entities, threads, pool.map)
    for buckets in table.ranges(UNIT_ROWS):
        own = routed.of(buckets)
        if own.start < own.stop:
            narrow = routed.narrowed(buckets)
            yield lambda own=own, narrow=narrow: _routed(  # type: ignore[misc]
                table.timeline(alone, spec.timeline, narrow, need), last, alone, questions, routed, own
            )


def in_order(run: Callable[[_In], _Out], tasks: Iterable[_In], threads: int) -> Iterator[_Out]:
    """Yield the results of tasks in their order, a few of them carried out ahead."""
    if threads <= 1:
        yield from map(run, tasks)
        return
    waiting: deque[Future[_Out]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for task in tasks:
            waiting.append(pool.submit(run, task))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _whole(alone: Plan, source: FactsSource, questions: Questions) -> Asked:
    spec = alone.sequences[0]
    if isinstance(questions, Everyone):
        built = build_timelines(alone, source, questions.cut)
        return _everyone(built.by_name[spec.timeline], built.last, questions)
    cut = {shard: int(greatest) for shard, greatest in enumerate(questions.cuts.max(axis=0, initial=0))}
    built = build_timelines(alone, source, cut)
    timeline = built.by_name[spec.timeline]
    entity = _places(timeline, source_keys(questions, spec.via))
    fields = questions.fields.select(own_fields(alone, spec))
    everything = np.arange(len(questions))
    return Asked(timeline, built.last, everything, entity, questions.as_of, questions.self_root, questions.cuts, fields)


def _routed(timeline: Timeline, last: Ints, alone: Plan, questions: Requests, routed: Routed, own: slice) -> Asked:
    rows = routed.row[own]
    cuts = questions.cuts if len(questions.cuts) == 1 else questions.cuts[rows]
    fields = questions.fields.select(own_fields(alone, alone.sequences[0]))
    return Asked(
        timeline, last, rows, _places(timeline, routed.keys[own]), routed.as_of[own],
        np.ascontiguousarray(routed.self_root[own]), cuts, fields.take(pa.array(rows)),
    )  # fmt: skip


def _everyone(timeline: Timeline, last: Ints, questions: Everyone) -> Asked:
    """Return one question for each entity of a timeline, numbered within it."""
    n = len(timeline.keys)
    numbers = np.arange(n)
    as_of, nobody = np.full(n, questions.as_of), np.full(n, -1)
    return Asked(timeline, last, numbers, numbers, as_of, nobody, cut_rows([questions.cut]), None)


def _places(timeline: Timeline, keys: Keys) -> Ints:
    """Return the place of each key's entity in a timeline, -1 where it has none."""
    return np.maximum(places(timeline.keys, keys), -1)
