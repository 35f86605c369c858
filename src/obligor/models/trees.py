"""Boosted trees read from XGBoost's own JSON, scored by one portable function.

XGBoost sums leaves in float32 and in an order of its own; here a feature is rounded to float32 and compared with the
float32 threshold as XGBoost does, and leaves are summed in float64 in tree order from the base. That sum *is* the score
(XGBoost's own is within 1e-5), the same bits everywhere. Only numeric splits of binary:logistic gbtree are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from obligor.errors import IntegrityError
from obligor.features.portable import logit

__all__ = ["DEPTH_MAX", "Trees", "goes_left", "predict_matrix", "predict_row"]

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints32 = NDArray[np.int32]
Bools = NDArray[np.bool_]

DEPTH_MAX: Final = 32  # bounds the walk of the attribution; XGBoost's default is 6
TREES_MAX: Final = 20_000
LEAF: Final = -1


@dataclass(frozen=True)
class Trees:
    """All trees' nodes in flat arrays; children are indices into the same arrays, LEAF where there are none."""

    names: tuple[str, ...]  # the model's input columns
    base: float  # log-odds before any tree
    roots: Ints32  # (trees,)
    left: Ints32  # (nodes,)
    right: Ints32  # (nodes,)
    column: Ints32  # (nodes,) input column that the node compares
    threshold: Floats32  # (nodes,) left where value < threshold
    missing_left: Bools  # (nodes,)
    value: Floats  # (nodes,) log-odds of a leaf

    @classmethod
    def from_xgboost(cls, data: Mapping[str, Any]) -> Trees:
        """Return the trees of a model saved by XGBoost as JSON; IntegrityError names what cannot be scored here."""
        try:
            return _read(data)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise IntegrityError(f"trees: not a model of XGBoost that can be scored here: {error!r}") from error

    @property
    def count(self) -> int:
        """How many trees there are."""
        return len(self.roots)

    def margin(self, columns: Floats) -> float:
        """Return the log-odds of one row of input columns."""
        return predict_row(
            columns, self.base, self.roots, self.left, self.right, self.column, self.threshold, self.missing_left,
            self.value,
        )  # fmt: skip

    def margins(self, columns: Floats) -> Floats:
        """Return the log-odds of all rows.  # (n, columns) -> (n,)"""
        return predict_matrix(
            np.ascontiguousarray(columns), self.base, self.roots, self.left, self.right, self.column, self.threshold,
            self.missing_left, self.value,
        )  # fmt: skip


def _read(data: Mapping[str, Any]) -> Trees:
    learner = data["learner"]
    booster, objective = learner["gradient_booster"], learner["objective"]["name"]
    if booster["name"] != "gbtree" or objective != "binary:logistic":
        raise ValueError(f"expected gbtree with binary:logistic, got {booster['name']!r} with {objective!r}")
    trees = booster["model"]["trees"]
    if len(trees) > TREES_MAX:
        raise ValueError(f"expected at most {TREES_MAX} trees, got {len(trees)}")
    names = tuple(learner["feature_names"])
    probability = float(np.float32(str(learner["learner_model_param"]["base_score"]).strip("[]")))
    parts = [_read_tree(tree, len(names)) for tree in trees]
    sizes = [len(part["left"]) for part in parts]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)

    def joined(key: str, dtype: type, shift: bool = False) -> NDArray[Any]:
        arrays = [
            np.where(p[key] < 0, LEAF, p[key] + s) if shift else p[key] for p, s in zip(parts, starts, strict=False)
        ]
        return np.concatenate([np.empty(0, dtype=dtype), *arrays]).astype(dtype)

    return Trees(
        names=names,
        base=logit(probability),
        roots=starts[:-1],
        left=joined("left", np.int32, shift=True),
        right=joined("right", np.int32, shift=True),
        column=joined("column", np.int32),
        threshold=joined("condition", np.float32),
        missing_left=joined("missing_left", np.bool_),
        value=joined("condition", np.float32).astype(np.float64),
    )


def _read_tree(tree: Mapping[str, Any], columns: int) -> dict[str, NDArray[Any]]:
    """Return one tree's arrays with children relative to its root, checked to be a tree of bounded depth."""
    left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
    column = np.array(tree["split_indices"])
    n = len(left)
    if any(tree.get("split_type", ())) or any(tree.get("categories", ())):
        raise ValueError("expected numeric splits only, got a categorical one")
    if not len(right) == len(column) == len(tree["split_conditions"]) == len(tree["default_left"]) == n:
        raise ValueError("expected arrays of one length in a tree")
    inner = left >= 0
    if not np.array_equal(inner, right >= 0) or (column[inner] >= columns).any() or (column[inner] < 0).any():
        raise ValueError("expected two children and a known column at every inner node")
    if _depth(left, right) > DEPTH_MAX:
        raise ValueError(f"expected trees of depth {DEPTH_MAX} at most")
    condition = np.array(tree["split_conditions"], dtype=np.float64).astype(np.float32)
    if not np.isfinite(condition).all():
        raise ValueError("expected finite thresholds and leaves")
    return {
        "left": left,
        "right": right,
        "column": column,
        "condition": condition,
        "missing_left": np.array(tree["default_left"]).astype(np.bool_),
    }


def _depth(left: NDArray[Any], right: NDArray[Any]) -> int:
    """Return the depth from node 0; ValueError where a node is reached twice (a cycle would never end)."""
    seen = np.zeros(len(left), dtype=np.bool_)
    level: Sequence[int] = [0]
    depth = 0
    while level:
        if seen[level].any() or len(set(level)) != len(level):
            raise ValueError("expected a tree, got a node with two parents")
        seen[level] = True
        level = [int(child) for node in level if left[node] >= 0 for child in (left[node], right[node])]
        depth += bool(level)
    return depth


@njit(cache=True, nogil=True, fastmath=False)
def goes_left(value: float, threshold: np.float32, missing_left: bool) -> bool:
    """Whether a value goes to the left child: null by the node's default, else as float32 below the threshold."""
    if value != value:
        return missing_left
    return bool(np.float32(value) < threshold)


@njit(cache=True, nogil=True, fastmath=False)
def predict_row(
    columns: Floats, base: float, roots: Ints32, left: Ints32, right: Ints32, column: Ints32, threshold: Floats32,
    missing_left: Bools, value: Floats,
) -> float:  # fmt: skip
    """Return base + the leaves of one row, in tree order."""
    total = base
    for tree in range(roots.shape[0]):
        node = roots[tree]
        while left[node] >= 0:
            to_left = goes_left(columns[column[node]], threshold[node], missing_left[node])
            node = left[node] if to_left else right[node]
        total = total + value[node]
    return total


@njit(cache=True, nogil=True, fastmath=False)
def predict_matrix(
    columns: Floats, base: float, roots: Ints32, left: Ints32, right: Ints32, column: Ints32, threshold: Floats32,
    missing_left: Bools, value: Floats,
) -> Floats:  # fmt: skip
    """Return `predict_row` of all rows."""
    out = np.empty(columns.shape[0], dtype=np.float64)
    for row in range(columns.shape[0]):
        out[row] = predict_row(columns[row], base, roots, left, right, column, threshold, missing_left, value)
    return out
