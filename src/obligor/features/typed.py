"""Features as columns of their own types: whole numbers, numbers, yes or no, categories by name; null stays null."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.features.plan import FeatureSpec

__all__ = ["UNKNOWN", "typed_column"]

UNKNOWN = "(unknown)"  # a category's value that is not in the plan's vocabulary


def typed_column(spec: FeatureSpec, numbers: NDArray[np.float64]) -> pa.Array:
    """Return one feature's numbers, NaN for null, as int64, float64, bool or a dictionary of texts.

    Nothing is rounded: a feature of type `integer` is a whole number wherever it is known.
    """
    null = np.isnan(numbers)
    if spec.type == "real":
        return pa.array(numbers, mask=null)
    whole = np.where(null, 0, numbers).astype(np.int64)
    assert (whole == numbers)[~null].all(), f"{spec.name} is of type {spec.type} and not whole"
    if spec.type == "integer":
        return pa.array(whole, mask=null)
    if spec.type == "boolean":
        return pa.array(whole.astype(np.bool_), mask=null)
    names = pa.array([*(spec.values or ()), UNKNOWN], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(whole.astype(np.int32), mask=null), names)
