"""A game between groups of events: the score by which of them are there, and what each of them has done to its worth.

Whatever a score is worth to its reader (to the trees: what it contributes), the worth of all coalitions is divided by
Shapley's value (1953): exactly, by its definition, in one order. As the score is itself one player among features, the
whole is a nested game (Owen 1977). No kernel is loaded here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Coalitions", "shapley"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Coalitions:
    """The score by which groups are there: bit i of a coalition's place says that group `present[i]` is."""

    present: tuple[str, ...]  # codes of the groups that have events
    scores: Floats  # (2^present,), the last one is that of everything


def shapley(worth: Floats) -> list[float]:
    """Return each player's value in a game: bit i of a coalition's place says that player i is in it.  # (2^n,) -> n

    They add up to the worth of all less that of nobody, within rounding.

    >>> shapley(np.array([1.0, 2.0, 4.0, 8.0]))
    [2.5, 4.5]
    """
    count = len(worth).bit_length() - 1
    assert len(worth) == 1 << count, f"expected the worth of all coalitions, got {len(worth)}"
    everybody = math.factorial(count)
    values = []
    for player in range(count):
        total = 0.0
        for without in range(len(worth)):
            if without >> player & 1:
                continue
            size = without.bit_count()
            orders = math.factorial(size) * math.factorial(count - size - 1)
            total += orders / everybody * (float(worth[without | 1 << player]) - float(worth[without]))
        values.append(total)
    return values
