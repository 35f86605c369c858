"""The view: which rows of an entity are visible to a question, and which fulfil its conditions on the application."""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.cells import lanes_from
from obligor.features.kernels.columns import C_BIT, C_COMPARAND, C_OF, C_OPERATOR, C_SLOT
from obligor.features.kernels.compiling import inlined, kernel
from obligor.features.kernels.integers import INT64_MAX, NULL
from obligor.features.kernels.lanes import LANES, at_most, below, choose, every, first_of, load, store

__all__ = ["apply_conditions", "view"]

EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL = range(6)  # the order of `measures.Condition.op`

_SEQUENCE = 2**48 - 1


@inlined
def view(rows: Any, as_of: Any, self_root: Any, cut: Any, low: Any, high: Any, visible: Any, base: Any) -> None:
    """Write the masks of rows [low, high) from visible[low - base] on, 0 where a row is not in the view.

    The `LANES` - 1 words before them are written, too. A cut of no shards is one that every row is in.
    """
    position, root, j, instant = rows.position, rows.root, high, every(as_of)
    while j > low:
        j -= LANES
        here = lanes_from(low - j)
        masks = choose(at_most(load(rows.known, j, here), instant), load(rows.mask, j, here), every(0))
        store(visible, j - base, masks)
        rivals = below(masks, every(0))
        while rivals != 0:
            row = j + first_of(rivals)
            rivals &= rivals - 1
            shown = not _superseded(rows, rows.version[row], as_of, cut)
            visible[row - base] = rows.mask[row] & INT64_MAX if shown else 0
    if self_root >= 0 or cut.shape[0] > 0:
        for j in range(low, high):
            shown = root[j] != self_root and (cut.shape[0] == 0 or position[j] & _SEQUENCE <= cut[position[j] >> 48])
            visible[j - base] = visible[j - base] if shown else 0


@kernel
def _superseded(rows: Any, version: Any, as_of: Any, cut: Any) -> Any:
    """Whether a version that ranks above this one is in the view."""
    known, position = rows.above_known, rows.above_position
    for k in range(rows.above_start[version], rows.above_end[version]):
        if known[k] <= as_of and (cut.shape[0] == 0 or position[k] & _SEQUENCE <= cut[position[k] >> 48]):
            return True
    return False


@inlined
def _holds(v: Any, operator: Any, wanted: Any) -> Any:
    return v != NULL and (
        (operator == EQUAL and v == wanted)
        or (operator == NOT_EQUAL and v != wanted)
        or (operator == LESS and v < wanted)
        or (operator == LESS_EQUAL and v <= wanted)
        or (operator == GREATER and v > wanted)
        or (operator == GREATER_EQUAL and v >= wanted)
    )


@kernel
def apply_conditions(
    conditions: Any, start: Any, end: Any, comparands: Any, values: Any, visible: Any, base: Any, low: Any, high: Any
) -> None:
    """Set the bits of conditions in the masks of rows [low, high).

    A condition gives its bit to rows that have the bit `of`; several conditions of one bit follow one another, each but
    the first of a bit that the one before has given.
    """
    for c in range(start, end):
        bit, of, wanted = conditions[c, C_BIT], conditions[c, C_OF], comparands[conditions[c, C_COMPARAND]]
        slot, operator = conditions[c, C_SLOT], conditions[c, C_OPERATOR]
        for j in range(low, high):
            mask = visible[np.uint64(j - base)]
            shown = mask & of != 0 and wanted != NULL and _holds(values[slot, np.uint64(j)], operator, wanted)
            visible[np.uint64(j - base)] = mask | bit if shown else mask & ~bit
