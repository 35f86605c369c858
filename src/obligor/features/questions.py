"""What parity asks: of which entities, with what in the application, and as of which instants.

Entities come from the events of a log, so that those of one event are asked about together, as an application would,
and from the state itself, because one that the log does not know must have no rows. Instants lie from now on: where a
row enters or leaves a window to the microsecond, where a calendar period begins, and anywhere within the longest reach.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from obligor.events.block import BlockReader
from obligor.events.log import EventLog
from obligor.events.reading import read_rows
from obligor.features.calendar import period_begin
from obligor.features.history import TimelineReader
from obligor.features.measures import CalendarWindow, TimeWindow, Unit, Window
from obligor.features.parity import DAMAGE, Question
from obligor.features.plan import Plan
from obligor.features.projection import KEY_SEPARATOR, project
from obligor.features.requests import composite_key, field_names, key_names

__all__ = ["Instants", "Pool", "questions", "read_pool"]

NULL_SHARE = 0.05  # of the application's fields that may name somebody: how often one names nobody
DAY_US = 86_400_000_000
REACH_US = 400 * DAY_US  # how far ahead instants lie where no window of the plan reaches further

Together = Mapping[str, str]  # by timeline: the entities that one event is about


@dataclass(frozen=True)
class Pool:
    """Whom to ask about, and with which applications."""

    together: Sequence[Together]
    applications: Sequence[Mapping[str, object]]  # their stored fields


def read_pool(plan: Plan, log: EventLog, positions: Iterable[int]) -> Pool:
    """Return the entities of the events at these positions, of every version of a fact that is there.

    The blocks are read apart from those that the log keeps for its writer.
    """
    together: list[dict[str, str]] = []
    applications: list[Mapping[str, object]] = []
    by_event: dict[str, list[str]] = {}
    for timeline, spec in plan.timelines.items():
        for event in spec.events:
            by_event.setdefault(event, []).append(timeline)
    for (event, version), table in BlockReader(log.store).rows(list(positions)).items():
        if event not in by_event and event != plan.application:
            continue
        fields = read_rows(table, log.registry[event], version)
        if event == plan.application:
            applications += pa.table(fields).to_pylist()
        rows: list[dict[str, str]] = [{} for _ in range(table.num_rows)]
        whole = pa.table({"event_time": table["event_time"], "root": table["position"], **fields})
        for timeline in by_event.get(event, ()):
            found = project(plan, timeline, event, whole)
            for row, key in zip(found.source.tolist(), found.key.to_pylist(), strict=True):
                rows[row][timeline] = key
        together += [row for row in rows if row]
    return Pool(together, applications)


def questions(plan: Plan, pool: Pool, chance: random.Random) -> Iterator[Question]:
    """Yield a question for each event of the pool; whom it does not name is drawn from the others."""
    looks = [(one.timeline, one.via) for one in plan.measures] + [(one.timeline, one.via) for one in plan.sequences]
    sources = list(dict.fromkeys(looks))
    others = {timeline: [row[timeline] for row in pool.together if timeline in row] for timeline, _ in sources}
    for row in pool.together:
        entities: dict[str, str | None] = {}
        order = sorted(sources, key=lambda source: (-len(source[1]), chance.random()))
        for own in (True, False):
            left = dict(row)
            for timeline, via in order:
                key = left.pop(timeline, None) if own else chance.choice(others[timeline] or [None])
                parts = (None,) * len(via) if key is None else key.split(KEY_SEPARATOR)
                if not any(name in entities for name in via) and not (own and key is None):
                    entities.update(zip(via, parts, strict=True))
        named = {name: None if chance.random() < NULL_SHARE else entities.get(name) for name in key_names(plan)}
        fields: dict[str, Any] = dict(chance.choice(pool.applications)) if pool.applications else {}
        yield Question(named, {name: named.get(name, fields.get(name)) for name in field_names(plan)})


class Instants:
    """Draws the instants that a plan is asked about."""

    def __init__(self, plan: Plan, chance: random.Random) -> None:
        self._plan, self._chance = plan, chance
        windows = list(_windows(plan))
        self._edges_us = sorted({edge for window in windows for edge in _edges_us(window)})
        self._units: list[Unit] = sorted({one.unit for one in windows if isinstance(one, CalendarWindow)})
        self._reach_us = max([REACH_US, *self._edges_us]) + DAY_US
        self._sources = list(dict.fromkeys((measure.timeline, measure.via) for measure in plan.measures))

    def draw(self, reader: TimelineReader, question: Question, now: int) -> int:
        """Return `now` or a later instant; `reader` knows when the newest rows happened."""
        kind = self._chance.random()
        if kind < 0.3:
            return now
        if kind < 0.7 and self._edges_us:
            at = self._edge(reader, question, now)
            if at is not None:
                return at
        if kind < 0.8 and self._units:
            unit = self._chance.choice(self._units)
            begins = int(period_begin(self._plan.zone_offsets, unit, -1, np.array([now], np.int64))[0])
            return max(now, begins + self._chance.choice((-1, 0, 1)))
        return now + self._chance.randrange(self._reach_us)

    def _edge(self, reader: TimelineReader, question: Question, now: int) -> int | None:
        """Return an instant at which one of the newest rows is the first or the last in a window, if there is one."""
        timeline, via = self._chance.choice(self._sources)
        key = composite_key([question.entities.get(name) for name in via])
        if key is None:
            return None
        try:
            words, spans = reader.read(timeline, key, now).pieces
        except DAMAGE:
            return None  # the answer will tell
        times = words[spans[-1, 0] : spans[-1, 0] + spans[-1, 1]] if len(spans) else words[:0]
        edges = [int(time) + edge for time in times for edge in self._edges_us if int(time) + edge >= now]
        return self._chance.choice(edges) + self._chance.choice((0, 1)) if edges else None


def _windows(plan: Plan) -> Iterator[Window]:
    for measure in plan.measures:
        yield measure.window
        yield from (inner.window for inner in (measure.per.inner if measure.per is not None else ()))


def _edges_us(window: Window) -> Iterator[int]:
    """Yield how long after its time a row enters or leaves a window."""
    if isinstance(window, TimeWindow):
        yield window.offset_us
        if window.length_us is not None:
            yield window.offset_us + window.length_us
