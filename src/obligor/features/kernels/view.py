"""The view: which rows of an entity are visible to a question, and which fulfil its conditions on the application."""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.columns import C_BIT, C_COMPARAND, C_OF, C_OPERATOR, C_SLOT
from obligor.features.kernels.compiling import inlined, kernel
from obligor.features.kernels.integers import INT64_MAX, NULL

__all__ = ["apply_conditions", "drop_superseded", "view"]

EQUAL, NOT_EQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL = range(6)  # the order of `measures.Condition.op`

_SEQUENCE = 2**48 - 1


@inlined
def view(
    known: Any, position: Any, root: Any, mask: Any, as_of: Any, self_root: Any, cut: Any, low: Any, high: Any,
    visible: Any,
) -> Any:  # fmt: skip
    """Write the masks of rows [low, high) to `visible`, 0 where a row is not in the view; say if any has rivals.

    A cut of no shards is one that every row is in.
    """
    rivals = np.int64(0)
    for j in range(low, high):
        u = np.uint64(j)
        seen = mask[u] if known[u] <= as_of else 0
        rivals |= seen
        visible[np.uint64(j - low)] = seen
    if self_root >= 0 or cut.shape[0] > 0:
        for j in range(low, high):
            shown = root[j] != self_root and (cut.shape[0] == 0 or position[j] & _SEQUENCE <= cut[position[j] >> 48])
            visible[j - low] = visible[j - low] if shown else 0
    return rivals < 0


@kernel
def drop_superseded(
    version: Any, start: Any, end: Any, position: Any, known: Any, as_of: Any, cut: Any, low: Any, high: Any,
    visible: Any,
) -> None:  # fmt: skip
    """Clear the masks of rows for which a version that ranks above is in the view, and their sign bits."""
    for j in range(low, high):
        if visible[j - low] < 0:
            visible[j - low] &= INT64_MAX
            for k in range(start[version[j]], end[version[j]]):
                if known[k] <= as_of and (cut.shape[0] == 0 or position[k] & _SEQUENCE <= cut[position[k] >> 48]):
                    visible[j - low] = 0


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
