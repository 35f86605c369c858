"""What features cost, measured: microseconds of a decision and of a row offline.

A feature is evaluated alone, on the timelines and the state of its whole plan, by the functions that serve and that
backfill; the least of several rounds counts, because whatever else a machine does only adds to it. Features share work,
above all the reading of one history, so their costs do not add up to that of the plan. The clock is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from obligor.events.facts import Facts
from obligor.events.log import EventLog
from obligor.features.concerned import Concerned, timelines_of
from obligor.features.evaluate import evaluate
from obligor.features.narrowing import narrowed
from obligor.features.online import evaluate_one
from obligor.features.plan import Plan
from obligor.features.requests import Requests
from obligor.features.state import Head, OnlineState
from obligor.features.state_store import StateStore
from obligor.features.timelines import columns_needed

__all__ = ["DECISIONS", "EXPENSIVE", "ROUNDS", "Cost", "Costs", "measure_costs"]

DECISIONS: Final = 100  # questions that are asked online
ROUNDS: Final = 5
EXPENSIVE: Final = 3  # times what the median feature of the plan takes
Timer = Callable[[], float]  # seconds


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds, None where nothing was measured: of one decision, and of one row offline."""

    decision_us: float | None
    row_us: float | None


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of a plan, and of each of its features alone."""

    whole: Cost
    nothing: Cost  # a plan without features: what a question takes anyway
    alone: Mapping[str, Cost]
    decisions: int  # questions that were asked online
    rows: int  # and offline

    @property
    def expensive(self) -> list[str]:
        """The features that take three times what the median one takes, online or offline, the most expensive first."""
        times: dict[str, float] = {}
        for side in ("decision_us", "row_us"):
            costs = {name: value for name, cost in self.alone.items() if (value := getattr(cost, side)) is not None}
            usual = median(costs.values()) if costs else 0.0
            times |= {name: max(times.get(name, 0.0), cost / usual) for name, cost in costs.items() if usual}
        return sorted((name for name in times if times[name] >= EXPENSIVE), key=lambda name: -times[name])


class _Winners(NamedTuple):
    """What holds now, as a state takes it in."""

    removed: Mapping[str, pa.Table]
    inserted: Mapping[str, pa.Table]


class _Bench:
    """One plan's timelines and state, and the questions that are asked of them."""

    def __init__(self, plan: Plan, log: EventLog, requests: Requests, store: StateStore, timer: Timer) -> None:
        self.plan, self.requests, self.timer = plan, requests, timer
        self.timelines = timelines_of(log, plan, requests)
        last = np.arange(max(0, len(requests) - DECISIONS), len(requests))
        self.state, self.now = OnlineState(plan, store), log.last_known_time + 1
        self.asked = _questions(requests.take(last))
        with self.state.begin() as staged:
            staged.apply(_winners(plan, log, requests.take(last), self.now))
            staged.commit(Head(log.id.hex(), log.head.sequence, log.chain().hex()))

    def rows(self, plan: Plan) -> float:
        """Return the seconds that a part of the plan takes for all questions offline."""
        started = self.timer()
        evaluate(plan, self.timelines, self.requests, 1)
        return self.timer() - started

    def decisions(self, plan: Plan) -> float:
        """Return the seconds that a part of the plan takes for the questions online, on the state as it is now."""
        with self.state.begin() as staged:
            for keys, fields in self.asked:  # what is kept in memory is read before
                evaluate_one(plan, staged, self.now, -1, keys, fields)
            started = self.timer()
            for keys, fields in self.asked:
                evaluate_one(plan, staged, self.now, -1, keys, fields)
            return self.timer() - started

    def least(self, plan: Plan) -> Cost:
        """Return the least that a part of the plan takes, a question."""
        online = min(self.decisions(plan) for _ in range(ROUNDS))
        offline = min(self.rows(plan) for _ in range(ROUNDS))
        return Cost(1e6 * online / len(self.asked), 1e6 * offline / len(self.requests))


def measure_costs(plan: Plan, log: EventLog, requests: Requests, store: StateStore, timer: Timer) -> Costs:
    """Return what a plan and each of its features take for some questions, of which the last are asked online too.

    `store` is empty and takes the state of the entities asked about; `timer` gives seconds.
    """
    nothing = Cost(None, None)
    if not len(requests):
        return Costs(nothing, nothing, dict.fromkeys(plan.names, nothing), 0, 0)
    bench = _Bench(plan, log, requests, store, timer)
    parts = {name: narrowed(plan, [name], timelines="kept") for name in plan.names}
    alone = {name: bench.least(part) for name, part in parts.items()}
    least = bench.least(narrowed(plan, [], timelines="kept"))
    return Costs(bench.least(plan), least, alone, len(bench.asked), len(requests))


def _questions(requests: Requests) -> list[tuple[dict[str, str | None], dict[str, Any]]]:
    """Return keys and fields of each question, as a decision has them."""
    keys = pa.table(dict(requests.entities)).to_pylist() if requests.entities else [{}] * len(requests)
    fields = requests.fields.to_pylist() if requests.fields.num_columns else [{}] * len(requests)
    return list(zip(keys, fields, strict=True))


class _Holding:
    """A log's facts as they hold at an instant, each in its one version."""

    def __init__(self, log: EventLog, now: int) -> None:
        self._log, self._now = log, now

    def facts(self, type_name: str, cut: dict[int, int] | None = None, columns: list[str] | None = None) -> Facts:
        """Return the winners of one type."""
        facts = self._log.facts(type_name, cut, columns)
        rows = facts.view(self._log.cut() if cut is None else cut, self._now)
        return Facts(rows, np.full(rows.num_rows, -1, np.int32), facts.versions)


def _winners(plan: Plan, log: EventLog, requests: Requests, now: int) -> _Winners:
    """Return the facts about the requests' entities as they hold at an instant."""
    concerned, cut = Concerned(_Holding(log, now), plan, requests), log.cut()
    events = dict.fromkeys(event for spec in plan.timelines.values() for event in spec.events)
    return _Winners({}, {event: concerned.facts(event, cut, columns_needed(plan, event)).rows for event in events})
