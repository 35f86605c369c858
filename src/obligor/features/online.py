"""Features of one application from online state: the same kernels as the backfill, the same bits."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from obligor.errors import LimitError
from obligor.features.arranging import compiled
from obligor.features.evaluate import limit_problem
from obligor.features.history import History, TimelineReader
from obligor.features.kernels import sources as s
from obligor.features.kernels.online import finish_row, measure_history, measure_pieces
from obligor.features.layout import Desk, read_only, room
from obligor.features.pieces import Pieces, pieces
from obligor.features.plan import Plan
from obligor.features.requests import comparand_row, composite_key, period_bounds, request_row

__all__ = ["evaluate_one"]

_ROWS_FIRST = 4096  # rows that room is made for at first
_NOBODY = History(pieces([]), None)
_NOTHING = np.empty(0, np.int64)
_NO_PERIODS = np.empty((0, 2), np.int64)
_NO_REQUESTS = np.empty((1, 0), np.float64)


class _Desks(threading.local):
    """The room of each plan that this thread answers for, grown as needed."""

    def __init__(self) -> None:
        self.desks: WeakKeyDictionary[Plan, Desk] = WeakKeyDictionary()

    def desk(self, plan: Plan, rows: int) -> Desk:
        own = self.desks.get(plan)
        if own is None or own.rows_max < rows:
            layout, _, _, sizes, _ = compiled(plan)
            own = self.desks[plan] = room(sizes, len(layout.ladders), max(_ROWS_FIRST, 2 * rows))
        return own


_DESKS = _Desks()


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
    _, sources, periods, _, (layout_ints, layout_floats, _) = compiled(plan)
    measures = np.empty((1, len(plan.measures)), np.float64)
    out: NDArray[np.float64] = np.empty((1, len(plan.features)), np.float64)
    errors = np.zeros(1, np.int64)
    bounds = period_bounds(plan, periods, np.array([as_of], np.int64))[0] if periods else _NO_PERIODS
    comparands = comparand_row(plan, as_of, fields)[0] if plan.comparands else _NOTHING
    own = _DESKS.desk(plan, 0)
    for number, source in enumerate(sources):
        key = composite_key([entities.get(name) for name in source.via])
        since = None if source.reach_us is None else as_of - source.reach_us
        (words, spans), indexed = _NOBODY if key is None else reader.read(source.timeline, key, since)
        tiles = None if indexed is None else indexed.tiles(plan, number)
        if indexed is not None and tiles is None:  # steps too fine to be kept
            (words, spans), indexed = indexed.before(Pieces(words, spans)), None
        rows = len(words) // source.width + (0 if indexed is None else len(indexed.times))
        own = _DESKS.desk(plan, rows)
        driven = layout_ints, layout_floats, *own.packed
        newest = read_only(words), read_only(spans), source.width
        if indexed is None:
            entity = s.NOT_NAMED if key is None else 0
            error = measure_pieces(
                *driven, number, entity, *newest, as_of, self_root, bounds, comparands, measures, out
            )  # fmt: skip
        else:
            older = indexed.times, indexed.roots, indexed.masks, indexed.values, tiles
            self_us = as_of if self_time is None else self_time
            error = measure_history(
                *driven, number, *newest, *older, as_of, self_root, self_us, bounds, comparands, measures, out
            )  # fmt: skip
        if error and (not errors[0] or error < errors[0]):
            errors[0] = error
    requests = request_row(plan, as_of, fields) if plan.requests else _NO_REQUESTS
    finish_row(layout_ints, layout_floats, measures, requests, errors, own.room.stack, out)
    if errors[0]:
        raise LimitError(limit_problem(plan, int(errors[0]), None))
    features: NDArray[np.float64] = out[0]
    return features
