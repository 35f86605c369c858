"""Which rows differ: one feature's numbers for the same questions under two plans, and where they differ most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["EXAMPLES_MAX", "Rows", "compare_rows"]

EXAMPLES_MAX = 3
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rows:
    """How many of `rows` differ, and how; `examples` are the rows that differ most, those without a number last."""

    rows: int
    differ: int
    appeared: int  # null before and known after
    vanished: int  # known before and null after
    largest: float | None  # the greatest difference of two numbers; None where none differ
    examples: tuple[int, ...]


def compare_rows(before: Floats, after: Floats) -> Rows:
    """Return in which rows two columns of numbers differ, to the bit, NaN for null.

    >>> compare_rows(np.array([1.0, np.nan, 5.0]), np.array([1.0, 2.0, 3.0]))
    Rows(rows=3, differ=2, appeared=1, vanished=0, largest=2.0, examples=(2, 1))
    """
    was, is_ = np.isnan(before), np.isnan(after)
    both = ~was & ~is_
    differ = (was != is_) | (both & (before != after))
    distance = np.where(both, np.abs(after - before), -1.0)
    rows = np.flatnonzero(differ)
    most = rows[np.argsort(-distance[rows], kind="stable")][:EXAMPLES_MAX]
    known = distance[differ & both]
    return Rows(
        rows=len(before),
        differ=len(rows),
        appeared=int((was & ~is_).sum()),
        vanished=int((~was & is_).sum()),
        largest=float(known.max()) if len(known) else None,
        examples=tuple(most.tolist()),
    )
