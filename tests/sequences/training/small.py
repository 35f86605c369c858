"""Small token sequences whose outcome lies in the order of their events and in nothing else."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from obligor.sequences.memory import MemorySource
from obligor.sequences.training import Objectives, TrainerConfig

SIZES = (6, 7, 8)  # type, a number in 5 bins, a gap in 6
DAY_US = 86_400_000_000
QUICK = TrainerConfig(epochs=4, steps_min=0, rate=1e-2, look_steps=20)
PRETRAIN = Objectives(contrastive=1.0, next_event=0.5, times_ahead=0.0, slice_min=3, slice_max=12)


def source(
    questions: int, seed: int, *, events: tuple[int, int] = (5, 20), tokens_max: int = 1024, permuted: bool = False
) -> tuple[MemorySource, NDArray[np.float64]]:
    """Return sequences and outcomes: 1 where the one event of type 2 comes before the one of type 3.

    `permuted` puts each sequence's events in an order of chance, at the same times.
    """
    chance = np.random.default_rng(seed)
    length = chance.integers(*events, questions)
    stop = np.cumsum(length)
    start = stop - length
    codes = np.stack([chance.integers(low, size - 1, stop[-1]) for low, size in zip((4, 1, 1), SIZES, strict=True)], 1)
    parts = np.where(codes > 0, chance.random(codes.shape), 0).astype(np.float32)
    parts[:, 0] = 0  # a type is a category
    outcome = np.empty(questions)
    for row in range(questions):
        early, late = np.sort(chance.choice(length[row], 2, replace=False)) + start[row]
        outcome[row] = chance.integers(2)
        codes[early, 0], codes[late, 0] = (2, 3) if outcome[row] else (3, 2)
        if permuted:
            order = chance.permutation(length[row]) + start[row]
            codes[start[row] : stop[row]], parts[start[row] : stop[row]] = codes[order], parts[order]
    time = np.concatenate([np.sort(chance.integers(0, 90 * DAY_US, n)) for n in length])
    as_of = time[stop - 1] + chance.integers(0, DAY_US, questions)
    tokens = codes.astype(np.int32), parts, time
    return MemorySource(SIZES, *tokens, start, stop, as_of, tokens_max=tokens_max), outcome


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Return whether two sets of weights are the same to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
