"""Features of one application from online state: the same kernels as the backfill, the same bits."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from obligor.errors import LimitError
from obligor.features.arranging import compiled
from obligor.features.evaluate import limit_problem
from obligor.features.history import Asked, History, TimelineReader
from obligor.features.kernels import sources as s
from obligor.features.kernels.online import finish_row, measure_history, measure_pieces
from obligor.features.layout import room
from obligor.features.pieces import Pieces, pieces
from obligor.features.plan import Plan
from obligor.features.requests import comparand_row, composite_key, period_bounds, request_row
from obligor.features.state import StagedState

__all__ = ["Measured", "evaluate_one", "fetch", "finish_one", "measure_one"]

_ROWS_FIRST = 4096  # rows that room is made for at first
_NOBODY = History(pieces([]), None)
_NOTHING = np.empty(0, np.int64)
_NO_PERIODS = np.empty((0, 2), np.int64)
_NO_REQUESTS = np.empty((1, 0), np.float64)


class _Desk:
    """Where one thread answers for one plan: the plan's arrays, and the room it works in, grown as needed."""

    def __init__(self, plan: Plan) -> None:
        self.layout, self.sources, self.periods, self.sizes, packed = compiled(plan)
        self.driven = packed.ints, packed.floats
        # Those that are kept in memory first, so that they are measured while the others come from a store far away.
        numbers = range(len(self.sources))
        self.order = sorted(numbers, key=lambda number: not plan.timelines[self.sources[number].timeline].hot)
        self.measures = np.empty((1, len(plan.measures)), np.float64)
        self.errors = np.zeros(1, np.int64)
        self.features = len(plan.features)
        self._make_room(_ROWS_FIRST)

    def _make_room(self, rows: int) -> None:
        own = room(self.sizes, len(self.layout.ladders), len(self.layout.rungs), rows)
        self.rows_max, self.room, self.stack = rows, own.packed, own.room.stack

    def measure(
        self, plan: Plan, number: int, key: str | None, history: History, when: tuple[int, int, int],
        bounds: NDArray[np.int64], comparands: NDArray[np.int64], out: NDArray[np.float64],
    ) -> int:  # fmt: skip
        """Write the measures of one source; return the first error. `when`: as_of, self_root, self_time."""
        (words, spans), indexed = history
        width = self.sources[number].width
        tiles = None if indexed is None else indexed.tiles(plan, number)
        if indexed is not None and tiles is None:  # steps too fine to be kept
            (words, spans), indexed = indexed.before(Pieces(words, spans)), None
        rows = len(words) // width + (0 if indexed is None else len(indexed.times))
        if rows > self.rows_max:
            self._make_room(2 * rows)
        newest = words, spans, width
        if indexed is None:
            entity = s.NOT_NAMED if key is None else 0
            return int(
                measure_pieces(
                    *self.driven, *self.room, number, entity, *newest, *when[:2], bounds, comparands, self.measures, out
                )
            )  # fmt: skip
        older = indexed.times, indexed.roots, indexed.masks, indexed.values, tiles
        return int(
            measure_history(
                *self.driven, *self.room, number, *newest, *older, *when, bounds, comparands, self.measures, out
            )
        )  # fmt: skip


class _Desks(threading.local):
    """The desks of this thread."""

    def __init__(self) -> None:
        self.by_plan: WeakKeyDictionary[Plan, _Desk] = WeakKeyDictionary()

    def of(self, plan: Plan) -> _Desk:
        desk = self.by_plan.get(plan)
        if desk is None:
            desk = self.by_plan[plan] = _Desk(plan)
        return desk


_DESKS = _Desks()


def fetch(plan: Plan, state: StagedState, as_of: int, *applications: Mapping[str, str | None]) -> None:
    """Ask for what will be read of these applications' entities in one round trip, where the state is far.

    That is what `evaluate_one` reads, and what is folded.
    """
    if not state.far:
        return
    asked = []
    for timeline, via, reach_us, _ in compiled(plan).sources:
        for entities in applications:
            key = entities.get(via[0]) if len(via) == 1 else composite_key([entities.get(name) for name in via])
            if key is not None:
                asked.append(Asked(timeline, key, None if reach_us is None else as_of - reach_us))
    folded = [] if state.fold is None else [
        composite_key([entities.get(name) for name in state.fold.via]) for entities in applications
    ]  # fmt: skip
    state.fetch(asked, [key.encode() for key in folded if key is not None])


class Measured(NamedTuple):
    """What the histories of one application's entities gave, from which its fields make the features."""

    measures: NDArray[np.float64]  # (1, measures)
    features: NDArray[np.float64]  # (1, features): those that are measures; the others are not computed yet


def evaluate_one(
    plan: Plan,
    reader: TimelineReader,
    as_of: int,
    self_root: int,
    entities: Mapping[str, str | None],
    fields: Mapping[str, object],
    *,
    self_time: int | None = None,
) -> NDArray[np.float64]:
    """Return the features of one application from online state, (features,), NaN for null.

    `self_root` is the position of the application itself (-1: it is not in the state), `self_time` its event_time.
    Raises LimitError naming the feature that crossed a limit.
    """
    desk = _DESKS.of(plan)
    when = as_of, self_root, as_of if self_time is None else self_time
    out, error = _measure(desk, plan, reader, when, entities, fields)
    return _finish(desk, plan, Measured(desk.measures, out), as_of, fields, error)


def measure_one(
    plan: Plan,
    reader: TimelineReader,
    as_of: int,
    self_root: int,
    entities: Mapping[str, str | None],
    fields: Mapping[str, object],
) -> Measured:
    """Return what `finish_one` makes the features of; the arguments and the errors are those of `evaluate_one`."""
    desk = _DESKS.of(plan)
    out, error = _measure(desk, plan, reader, (as_of, self_root, as_of), entities, fields)
    if error:
        raise LimitError(limit_problem(plan, error, None))
    return Measured(desk.measures.copy(), out)


def finish_one(plan: Plan, measured: Measured, as_of: int, fields: Mapping[str, object]) -> NDArray[np.float64]:
    """Return the features that `evaluate_one` gives where the histories are as measured."""
    return _finish(_DESKS.of(plan), plan, measured._replace(features=measured.features.copy()), as_of, fields, 0)


def _measure(
    desk: _Desk, plan: Plan, reader: TimelineReader, when: tuple[int, int, int], entities: Mapping[str, str | None],
    fields: Mapping[str, object],
) -> tuple[NDArray[np.float64], int]:  # fmt: skip
    """Measure all sources at the desk; return the features that are measures, (1, features), and the first error."""
    as_of = when[0]
    out: NDArray[np.float64] = np.empty((1, desk.features), np.float64)
    bounds = period_bounds(plan, desk.periods, np.array([as_of], np.int64))[0] if desk.periods else _NO_PERIODS
    comparands = comparand_row(plan, as_of, fields)[0] if plan.comparands else _NOTHING
    first = 0
    for number in desk.order:
        timeline, via, reach_us, _ = desk.sources[number]
        key = entities.get(via[0]) if len(via) == 1 else composite_key([entities.get(name) for name in via])
        since = None if reach_us is None else as_of - reach_us
        history = _NOBODY if key is None else reader.read(timeline, key, since)
        error = desk.measure(plan, number, key, history, when, bounds, comparands, out)
        if error and (not first or error < first):
            first = error
    return out, first


def _finish(
    desk: _Desk, plan: Plan, measured: Measured, as_of: int, fields: Mapping[str, object], error: int
) -> NDArray[np.float64]:
    """Run the programs of the features; `measured.features` becomes the features."""
    desk.errors[0] = error
    requests = request_row(plan, as_of, fields) if plan.requests else _NO_REQUESTS
    finish_row(*desk.driven, measured.measures, requests, desk.errors, desk.stack, measured.features)
    if desk.errors[0]:
        raise LimitError(limit_problem(plan, int(desk.errors[0]), None))
    features: NDArray[np.float64] = measured.features[0]
    return features
