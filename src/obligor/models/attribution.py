"""Why a score is what it is: exact interventional Shapley values against one reference applicant.

The game: a coalition's players (features) take the applicant's values, all others the reference's; a player's value is
its average contribution over all orders. Per tree, only nodes where applicant and reference part matter: a leaf that
needs `a` players to be the applicant's and `b` to be the reference's gives each of the former (a-1)! b! / (a+b)! of its
value and takes a! (b-1)! / (a+b)! from each of the latter (Lundberg et al. 2020, algorithm 3, with one background row).
The sum over players is the applicant's score minus the reference's. One walk per tree, no loop over coalitions.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from obligor.models.trees import DEPTH_MAX, Bools, Floats, Floats32, Ints32, Trees, goes_left

__all__ = ["Attribution"]

Ints = NDArray[np.int64]

_APPLICANT: Final = 1
_REFERENCE: Final = 0


def _weights() -> Floats:
    """Return w[a, b] = (a-1)! b! / (a+b)!, the share of a leaf for each of its `a` players; 0 at a = 0."""
    table = np.zeros((DEPTH_MAX + 1, DEPTH_MAX + 1))
    for a in range(1, DEPTH_MAX + 1):
        for b in range(DEPTH_MAX + 1):
            table[a, b] = math.factorial(a - 1) * math.factorial(b) / math.factorial(a + b)
    return table


_SHARE: Final = _weights()


class Attribution:
    """Contributions of players to a score against one fixed reference; the reference's way is worked out once."""

    def __init__(self, trees: Trees, players: Ints, player_count: int, reference: Floats) -> None:
        """`players[i]` owns input column i; `reference` is the reference applicant's row of input columns."""
        self._trees, self._player_count = trees, player_count
        inner = trees.left >= 0
        self._player = np.where(inner, players[np.where(inner, trees.column, 0)], -1)  # (nodes,)
        self._reference_left = _directions(reference, trees.left, trees.column, trees.threshold, trees.missing_left)

    def contributions(self, columns: Floats) -> Floats:
        """Return each player's part of score - reference score, in log-odds.  # (columns,) -> (players,)"""
        out = np.zeros(self._player_count)
        t = self._trees
        _explain(
            columns, t.roots, t.left, t.right, t.column, t.threshold, t.missing_left, t.value, self._player,
            self._reference_left, out,
        )  # fmt: skip
        return out


@njit(cache=True, nogil=True, fastmath=False)
def _directions(columns: Floats, left: Ints32, column: Ints32, threshold: Floats32, missing_left: Bools) -> Bools:
    out = np.zeros(left.shape[0], dtype=np.bool_)
    for node in range(left.shape[0]):
        if left[node] >= 0:
            out[node] = goes_left(columns[column[node]], threshold[node], missing_left[node])
    return out


@njit(cache=True, nogil=True, fastmath=False)
def _explain(
    columns: Floats, roots: Ints32, left: Ints32, right: Ints32, column: Ints32, threshold: Floats32,
    missing_left: Bools, value: Floats, player: Ints, reference_left: Bools, out: Floats,
) -> None:  # fmt: skip
    """Add all trees' contributions to `out`: depth first, the applicant's branch before the reference's.

    The path's decided players are a prefix of `path_player` and `path_side`; a postponed branch remembers its length.
    """
    path_player = np.empty(DEPTH_MAX + 1, dtype=np.int64)
    path_side = np.empty(DEPTH_MAX + 1, dtype=np.int64)
    later_node = np.empty(DEPTH_MAX + 1, dtype=np.int64)
    later_length = np.empty(DEPTH_MAX + 1, dtype=np.int64)
    for tree in range(roots.shape[0]):
        node = np.int64(roots[tree])
        length = 0
        postponed = 0
        while True:
            while left[node] >= 0:
                to_left = goes_left(columns[column[node]], threshold[node], missing_left[node])
                if to_left == reference_left[node]:
                    node = np.int64(left[node]) if to_left else np.int64(right[node])
                    continue
                side = -1
                for i in range(length):
                    if path_player[i] == player[node]:
                        side = path_side[i]
                if side == -1:
                    later_node[postponed] = node
                    later_length[postponed] = length
                    postponed += 1
                    path_player[length] = player[node]
                    path_side[length] = _APPLICANT
                    length += 1
                    side = _APPLICANT
                go_left = to_left if side == _APPLICANT else reference_left[node]
                node = np.int64(left[node]) if go_left else np.int64(right[node])
            _share_leaf(value[node], path_player, path_side, length, out)
            if postponed == 0:
                break
            postponed -= 1
            node, length = later_node[postponed], later_length[postponed]
            path_player[length] = player[node]
            path_side[length] = _REFERENCE
            length += 1
            node = np.int64(left[node]) if reference_left[node] else np.int64(right[node])


@njit(cache=True, nogil=True, fastmath=False)
def _share_leaf(value: float, path_player: Ints, path_side: Ints, length: int, out: Floats) -> None:
    """Give one leaf's value to the players that it needs."""
    ours = 0
    for i in range(length):
        ours += path_side[i]
    theirs = length - ours
    gain = value * _SHARE[ours, theirs]
    loss = value * _SHARE[theirs, ours]
    for i in range(length):
        if path_side[i] == _APPLICANT:
            out[path_player[i]] += gain
        else:
            out[path_player[i]] -= loss
