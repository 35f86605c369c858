"""Some requests computed offline, from the facts about their entities alone: what replay and parity compare with.

A handful of questions need not sort the whole log. Which facts concern an entity is said by every version of a fact, so
that those which have moved away from it, or to it only later, are there to be seen at any cut.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from obligor.errors import Problem
from obligor.events.log import EventLog
from obligor.features.backfill import backfill
from obligor.features.evaluate import evaluate
from obligor.features.lake import Lake
from obligor.features.plan import Plan
from obligor.features.projection import joined_keys
from obligor.features.requests import Requests, source_keys
from obligor.features.timelines import Facts, FactsSource, Timelines, Versions, build_timelines

__all__ = ["Concerned", "compute", "features_of", "messages", "timelines_of"]


class _Kept:
    """The facts that were kept of all."""

    def __init__(self, rows: pa.Table, version: NDArray[np.int32], versions: Versions) -> None:
        self.rows, self.version, self.versions = rows, version, versions


class Concerned:
    """A log's facts about the entities of some requests only."""

    def __init__(self, log: FactsSource, plan: Plan, requests: Requests) -> None:
        self._log = log
        keys: dict[str, list[pa.Array]] = {}
        looks = [(one.timeline, one.via) for one in plan.measures] + [(one.timeline, one.via) for one in plan.sequences]
        for timeline, via in dict.fromkeys(looks):
            keys.setdefault(timeline, []).append(source_keys(requests, via))
        values = {name: pc.drop_null(pc.unique(pa.concat_arrays(arrays))) for name, arrays in keys.items()}
        self._entrances: dict[str, dict[tuple[str, ...], list[pa.Array]]] = {}
        for name, spec in plan.timelines.items():
            for selection in spec.selections:
                by_fields = self._entrances.setdefault(selection.event, {}).setdefault(selection.by, [])
                by_fields.append(values.get(name, pa.array([], pa.string())))

    def facts(self, type_name: str, cut: dict[int, int] | None = None, columns: list[str] | None = None) -> Facts:
        """Return the log's facts of a type, reduced to those about the entities."""
        facts = self._log.facts(type_name, cut, columns)
        concerned = np.zeros(facts.rows.num_rows, np.bool_)
        for by, values in self._entrances[type_name].items():
            names = joined_keys([facts.rows.column(name).cast(pa.string()) for name in by])
            for value_set in values:
                concerned |= pc.is_in(names, value_set=value_set).to_numpy()
        return _Kept(facts.rows.filter(pa.array(concerned)), facts.version[concerned], facts.versions)


def timelines_of(log: FactsSource, plan: Plan, requests: Requests) -> Timelines:
    """Return the timelines of the requests' entities, of everything up to the latest of their cuts."""
    cut = {shard: int(last) for shard, last in enumerate(requests.cuts.max(axis=0, initial=0))}
    return build_timelines(plan, Concerned(log, plan, requests), cut)


def compute(
    plan: Plan, timelines: Timelines, requests: Requests, threads: int
) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Return the features of requests, (n, features), and for rows that crossed a limit the message.

    The message is worded as the one that `evaluate_one` raises. Such a row is null throughout.
    """
    problems: dict[int, Problem] = {}
    features = evaluate(plan, timelines, requests, threads, limits=problems)
    return features, messages(problems)


def features_of(
    log: EventLog, plan: Plan, requests: Requests, threads: int, lake: Lake | None = None
) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Return the same from a `lake` that has tables for the plan's entities, and else from the log."""
    if lake is None or not lake.covers(plan):
        return compute(plan, timelines_of(log, plan, requests), requests, threads)
    problems: dict[int, Problem] = {}
    features = backfill(plan, lake, requests, threads, limits=problems)
    return features, messages(problems)


def messages(problems: Mapping[int, Problem]) -> dict[int, str]:
    """Return the problems of rows as `evaluate_one` words them."""
    return {row: str(Problem("$" + p.path.removeprefix(f"$[{row}]"), p.message)) for row, p in problems.items()}
