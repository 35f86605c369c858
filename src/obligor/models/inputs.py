"""From a plan's features to a model's inputs: which are scored, how categories become columns, who is one player.

A category is a code into the plan's frozen `values` (the code after the last one means unknown); it becomes one column
a code, 0 or 1, all null where the code is null. All columns of one feature are one player in attribution, so a reason
is never split over the columns of a category.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from obligor.errors import DefinitionError, IntegrityError, Problem
from obligor.features.plan import FeatureSpec

__all__ = ["NUMERIC", "Inputs", "expand_row"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NUMERIC: Final = -1  # the code of a column that is the feature itself


@dataclass(frozen=True)
class Inputs:
    """The columns a model sees, in order: column i is feature `source[i]`, or whether that feature has `code[i]`."""

    features: tuple[FeatureSpec, ...]
    names: tuple[str, ...]
    source: Ints  # (columns,) index into features: the player of the column
    code: Ints  # (columns,) NUMERIC or a category's code

    @classmethod
    def of(cls, features: Sequence[FeatureSpec]) -> Inputs:
        """Return the inputs made of a plan's features: those that are scored, in the plan's order."""
        names: list[str] = []
        source: list[int] = []
        code: list[int] = []
        for index, feature in enumerate(features):
            if not feature.scored:
                continue
            columns = _columns(feature)
            names.extend(name for name, _ in columns)
            source.extend(index for _ in columns)
            code.extend(c for _, c in columns)
        if not names:
            raise DefinitionError("the plan has no scored feature: a model needs at least one")
        return cls(tuple(features), tuple(names), np.array(source, dtype=np.int64), np.array(code, dtype=np.int64))

    @cached_property
    def monotone(self) -> tuple[int, ...]:
        """The declared direction of each column; none for the columns of a category."""
        return tuple(
            self.features[s].monotone if c == NUMERIC else 0 for s, c in zip(self.source, self.code, strict=True)
        )

    @property
    def width(self) -> int:
        """How many features a vector of the plan has, scored or not."""
        return len(self.features)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the plan's features in order, scored or not."""
        return tuple(feature.name for feature in self.features)

    def expand(self, features: Floats) -> Floats:
        """Return the columns of a matrix of features.  # (n, features) -> (n, columns)"""
        return expand_matrix(np.ascontiguousarray(features, dtype=np.float64), self.source, self.code)

    def reasons(self) -> dict[str, str]:
        """Return feature -> reason code of all scored features; DefinitionError names every one that has none."""
        missing = [f.name for f in self.features if f.scored and not f.reason]
        if missing:
            raise DefinitionError(
                Problem(f"$.features.{name}", "is scored and has no reason code: give it reason=..., or scored=False")
                for name in missing
            )
        return {f.name: f.reason for f in self.features if f.scored and f.reason}

    def check_names(self, names: Sequence[str]) -> None:
        """Raise IntegrityError unless a stored model was trained on exactly these columns."""
        if tuple(names) != self.names:
            raise IntegrityError(
                f"the model's inputs {list(names)[:5]}... are not the plan's {list(self.names)[:5]}..."
            )


def _columns(feature: FeatureSpec) -> list[tuple[str, int]]:
    if feature.type != "category":
        return [(feature.name, NUMERIC)]
    known = [(f"{feature.name}={value}", code) for code, value in enumerate(feature.values or ())]
    return [*known, (f"{feature.name}=(unknown)", len(feature.values or ()))]


@njit(cache=True, nogil=True, fastmath=False)
def expand_row(features: Floats, source: Ints, code: Ints, out: Floats) -> None:
    """Write one row's columns to `out`; null stays null (NaN)."""
    for column in range(source.shape[0]):
        value = features[source[column]]
        if code[column] == NUMERIC or value != value:
            out[column] = value
        else:
            out[column] = 1.0 if value == code[column] else 0.0


@njit(cache=True, nogil=True, fastmath=False)
def expand_matrix(features: Floats, source: Ints, code: Ints) -> Floats:
    """Return all rows' columns."""
    out = np.empty((features.shape[0], source.shape[0]), dtype=np.float64)
    for row in range(features.shape[0]):
        expand_row(features[row], source, code, out[row])
    return out
