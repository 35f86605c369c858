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
from obligor.features.kernels.online import measure_history, measure_pieces
from obligor.features.kernels.programs import finish_rows
from obligor.features.layout import Room, read_only, room
from obligor.features.pieces import pieces
from obligor.features.plan import Plan
from obligor.features.requests import comparand_row, composite_key, period_bounds, request_row

__all__ = ["evaluate_one"]

_ROWS_FIRST = 4096  # rows that room is made for at first
_NOBODY = History(pieces([]), None)


class _Desk(threading.local):
    """The room of each plan that this thread answers for, grown as needed."""

    def __init__(self) -> None:
        self.rooms: WeakKeyDictionary[Plan, Room] = WeakKeyDictionary()

    def room(self, plan: Plan, rows: int) -> Room:
        own = self.rooms.get(plan)
        if own is None or len(own.visible) < rows:
            layout, _, _, sizes = compiled(plan)
            own = self.rooms[plan] = room(sizes, len(layout.ladders), max(_ROWS_FIRST, 2 * rows))
        return own


_DESK = _Desk()


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
    layout, sources, periods, _ = compiled(plan)
    measures = np.empty((1, len(plan.measures)), np.float64)
    out: NDArray[np.float64] = np.empty((1, len(plan.features)), np.float64)
    errors = np.zeros(1, np.int64)
    instant = np.array([as_of], np.int64)
    bounds = period_bounds(plan, periods, instant)[0]
    comparands = comparand_row(plan, as_of, fields)[0]
    own = _DESK.room(plan, 0)
    for number, source in enumerate(sources):
        key = composite_key([entities.get(name) for name in source.via])
        since = None if source.reach_us is None else as_of - source.reach_us
        history = _NOBODY if key is None else reader.read(source.timeline, key, since)
        (words, spans), indexed = history
        tiles = None if indexed is None else indexed.tiles(plan, number)
        if indexed is not None and tiles is None:  # steps too fine to be kept
            (words, spans), indexed = indexed.before(history.pieces), None
        width = 3 + plan.timelines[source.timeline].slots
        rows = int(spans[:, 1].sum()) + (0 if indexed is None else len(indexed.times))
        own = _DESK.room(plan, rows)
        if indexed is None:
            entity = s.NOT_NAMED if key is None else 0
            error = measure_pieces(
                layout, number, entity, read_only(words), read_only(spans), width, as_of, self_root, bounds,
                comparands, own, measures, out,
            )  # fmt: skip
        else:
            error = measure_history(
                layout, number, read_only(words), read_only(spans), width, indexed.times, indexed.roots,
                indexed.masks, indexed.values, tiles, as_of, self_root,
                as_of if self_time is None else self_time, bounds, comparands, own, measures, out,
            )  # fmt: skip
        if error and (not errors[0] or error < errors[0]):
            errors[0] = error
    finish_rows(layout, measures, request_row(plan, as_of, fields), errors, own.stack, out)
    if errors[0]:
        raise LimitError(limit_problem(plan, int(errors[0]), None))
    features: NDArray[np.float64] = out[0]
    return features
