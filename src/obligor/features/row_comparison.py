"""Which rows differ: one feature's numbers for the same questions under two plans, and where they differ most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["EXAMPLES_MAX", "Rows", "compare_rows", "unlike"]

EXAMPLES_MAX = 3
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Rows:
    """How many of `rows` differ, and how; `examples` are the rows that differ most, those without a number last."""

    rows: int
    differ: int
    appeared: int  # null before and known after
    vanished: int  # known before and null after
    largest: float | None  # the greatest difference of two numbers; None where none differ, and of categories
    examples: tuple[int, ...]


def unlike(before: pa.Array, after: pa.Array) -> Bools | None:
    """Return in which rows two typed columns hold different values; None of numbers, which are their own.

    A category's number is a place among the values of its own plan.
    """
    if not any(pa.types.is_dictionary(column.type) for column in (before, after)):
        return None
    pairs = zip(before.to_pylist(), after.to_pylist(), strict=True)
    return np.array([value != other for value, other in pairs], np.bool_)


def compare_rows(before: Floats, after: Floats, other: Bools | None = None) -> Rows:
    """Return in which rows two columns differ, NaN for null: numbers to the bit, what is no number by `other`.

    >>> compare_rows(np.array([1.0, np.nan, 5.0]), np.array([1.0, 2.0, 3.0]))
    Rows(rows=3, differ=2, appeared=1, vanished=0, largest=2.0, examples=(2, 1))
    """
    was, is_ = np.isnan(before), np.isnan(after)
    both = ~was & ~is_
    differ = (was != is_) | (both & (before != after if other is None else other))
    distance = np.where(both, np.abs(after - before) if other is None else 0.0, -1.0)
    rows = np.flatnonzero(differ)
    most = rows[np.argsort(-distance[rows], kind="stable")][:EXAMPLES_MAX]
    known = distance[differ & both]
    return Rows(
        rows=len(before),
        differ=len(rows),
        appeared=int((was & ~is_).sum()),
        vanished=int((~was & is_).sum()),
        largest=float(known.max()) if len(known) and other is None else None,
        examples=tuple(most.tolist()),
    )
