"""Contrastive pretraining of event sequences (CoLES, Babaev et al. 2022): slices of one entity lie close together.

Several random sub-slices of each row; every two of one row are drawn together, and each slice is pushed away from its
nearest ones of other rows (hard negatives within the batch) until they are a margin apart. Vectors are the last hidden
state on the unit sphere.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from obligor.sequences.batches import Batch
from obligor.sequences.training.chance import Chance
from obligor.sequences.training.ragged import Ragged, slices

__all__ = ["contrastive_loss", "random_slices"]

Ints = NDArray[np.int64]
NEAREST: float = 1e-6  # squared distance below which the slope of a distance is cut off


def random_slices(
    batch: Batch, chance: Chance, each: int, events_min: int, events_max: int, device: torch.device
) -> tuple[Ragged, Ints]:
    """Return `each` random slices of every row with at least two events, and the row of each slice.

    A slice has between `events_min` and `events_max` events; of a short row at least a third, at most all of it.
    """
    able = np.flatnonzero(batch.length >= 2)
    row = np.repeat(able, each)
    whole = batch.length[row].astype(np.int64)
    longest = np.minimum(events_max, whole)
    shortest = np.minimum(np.minimum(events_min, np.maximum(whole // 3, 1)), longest)
    length = chance.numpy.integers(shortest, longest + 1)
    begin = chance.numpy.integers(0, whole - length + 1)
    as_of = batch.time[row, begin + length - 1]
    return slices(batch, row, begin, length, as_of, device), row


def contrastive_loss(vectors: Tensor, row: Ints, *, margin: float, negatives: int) -> Tensor:
    """Return the mean loss over all pairs of one row and the hardest pairs of two rows.

    A pair at distance D costs D^2 if of one row, else max(0, margin - D)^2. `vectors` is (n, h), `row` (n,).
    """
    unit = nn.functional.normalize(vectors.float(), dim=1)
    label = torch.from_numpy(row).to(unit.device)
    with torch.autocast(unit.device.type, enabled=False):  # in half precision what lies close together coincides
        squared = (2.0 - 2.0 * (unit @ unit.t())).clamp(min=0.0)  # (n, n)
    same = label[:, None] == label
    positive = squared[same.triu(diagonal=1)]
    count = min(negatives, len(row) - 1)
    near, _ = squared.masked_fill(same, torch.inf).topk(count, dim=1, largest=False)  # (n, negatives)
    near = near[near.isfinite()]
    negative = (margin - near.clamp(min=NEAREST).sqrt()).clamp(min=0.0).square()
    return torch.cat((positive, negative)).mean() if len(positive) + len(negative) else vectors.sum() * 0.0
