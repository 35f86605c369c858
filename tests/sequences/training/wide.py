"""Token sequences as lenders have them: many fields, most of which an event lacks, and one that names who it is.

Each event has a type, a gap, and one field of its own type's; the outcome lies in the order of two types of events, at
places of chance among many others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from obligor.sequences.memory import MemorySource

TYPES = 12
NAMES = 400  # values of the field that names
SIZES = (TYPES + 2, 18, *(8 for _ in range(TYPES)), NAMES + 2)
NAME = len(SIZES) - 1  # the field that names
DAY_US = 86_400_000_000


def wide(
    questions: int, seed: int, *, events: tuple[int, int] = (20, 60), permuted: bool = False
) -> tuple[MemorySource, NDArray[np.float64]]:
    """Return sequences and outcomes: mostly 1 where events of type 3 follow those of type 2, mostly 0 the other way.

    Both types come equally often in either. `permuted` puts each sequence's events in an order of chance, at the same
    times.
    """
    chance = np.random.default_rng(seed)
    length = chance.integers(*events, questions)
    stop = np.cumsum(length)
    start, n = stop - length, int(stop[-1])
    outcome = chance.integers(2, size=questions).astype(np.float64)
    kind = chance.integers(4, TYPES + 2, n)
    for row in range(questions):
        pairs = int(length[row]) // 10
        places = start[row] + np.sort(chance.choice(length[row] - 1, pairs, replace=False))
        order = np.where(chance.random(pairs) < 0.8, outcome[row], 1 - outcome[row]) > 0
        kind[places], kind[places + 1] = np.where(order, 2, 3), np.where(order, 3, 2)
    codes = np.zeros((n, len(SIZES)), np.int32)
    parts = np.zeros((n, len(SIZES)), np.float32)
    codes[:, 0], codes[:, 1], parts[:, 1] = kind, chance.integers(1, 17, n), chance.random(n)
    codes[np.arange(n), kind] = chance.integers(2, 8, n)
    codes[:, NAME] = np.repeat(chance.integers(2, NAMES + 2, questions), length)
    if permuted:
        owner = np.repeat(np.arange(questions), length)
        order_of_chance = np.lexsort((chance.random(n), owner))
        codes, parts = codes[order_of_chance], parts[order_of_chance]
    time = np.concatenate([np.sort(chance.integers(0, 90 * DAY_US, size)) for size in length])
    as_of = time[stop - 1] + chance.integers(0, DAY_US, questions)
    return MemorySource(SIZES, codes, parts, time, start, stop, as_of, tokens_max=2048), outcome
