"""A rehearsal's reader: everybody has one row of nothing, so that all code is loaded before there is a request."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from obligor.features.history import History
from obligor.features.indexed import Indexed
from obligor.features.pieces import pieces
from obligor.features.plan import Plan

__all__ = ["Rehearsal"]


class Rehearsal(NamedTuple):
    """Reads one row of nothing for everybody, kept in memory or not: a `TimelineReader`."""

    rows: dict[str, NDArray[np.int64]]
    kept: bool

    @classmethod
    def of(cls, plan: Plan, kept: bool) -> Rehearsal:
        """Return the reader of a plan's timelines."""
        return cls({name: np.zeros((3 + one.slots, 1), np.int64) for name, one in plan.timelines.items()}, kept)

    def read(self, timeline: str, key: str, since_us: int | None) -> History:
        """Return the history of anybody."""
        matrix = self.rows[timeline]
        return History(pieces([matrix]), Indexed([matrix], [0]) if self.kept else None)
