"""What an empty online state is filled with from the lake: an entity's winners at a cut, all of them at once.

The lake has resolved which versions replace which, and holds each entity's rows together and in order, so that every
row is written once and no tail grows into chunks: a long log is gone through in two to three times as many seconds. The
lake is derived, too, and nothing here compares it with the log; who doubts a state builds it from the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.features.edits import Edits, in_order
from obligor.features.lake import View
from obligor.features.lake_timelines import Need
from obligor.features.tails import ROW_FIXED
from obligor.features.timelines import Timeline

__all__ = ["FILLED_ROWS", "Filling", "fillings", "winners"]

FILLED_ROWS = 1 << 20  # of the lake that are staged together, about; an entity is never divided
_NEED = Need(position=False, root=True)  # everything in the lake is in the cut

Ints = NDArray[np.int64]


class Filling(NamedTuple):
    """Rows of some entities of a timeline: all that they have."""

    timeline: str
    edits: Edits
    share: float  # of everything that there is, this included


def fillings(view: View) -> Iterator[Filling]:
    """Yield the winners at the end of a view, of all entities that its plan looks at."""
    plan = view.plan
    tables = {name: view.table(name) for name in plan.timelines}
    parts = [(name, buckets) for name, table in tables.items() for buckets in table.ranges(FILLED_ROWS)]
    for done, (name, buckets) in enumerate(parts, start=1):
        edits = winners(tables[name].timeline(plan, name, buckets, _NEED))
        yield Filling(name, edits, done / len(parts))


def winners(timeline: Timeline) -> Edits:
    """Return the rows of a timeline that no other version replaces, as edits of a state that has none of them."""
    rows = timeline.rows
    kept: Ints = np.flatnonzero(rows.version < 0)
    offsets = np.searchsorted(kept, rows.offsets)
    names = timeline.keys.cast(pa.binary())
    order = in_order(names)
    order = order[np.diff(offsets)[order] > 0]  # who has no winners is nobody
    counts = np.diff(offsets)[order]
    ends = np.concatenate([[0], np.cumsum(counts)])
    taken = kept[np.arange(ends[-1]) + np.repeat(offsets[:-1][order] - ends[:-1], counts)]
    matrix = np.empty((len(taken), ROW_FIXED + len(rows.values)), np.int64)
    for place, column in enumerate((rows.event_time, rows.root, rows.mask, *rows.values)):
        matrix[:, place] = column[taken]
    nothing = np.empty((0, 2), np.int64), np.zeros(len(order) + 1, np.int64)
    return Edits(names.take(pa.array(order)).to_pylist(), *nothing, matrix, ends)
