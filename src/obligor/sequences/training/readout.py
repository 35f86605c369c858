"""Readout: one vector for a row of any length, from sums that go on as events come.

    r = [last, mean, std, min, max, a_1, a_2]     (5h + 2,)
    a_1 = log2(1 + seconds from the last event to as_of) / 16;  a_2 = log2(1 + count) / 16

Age enters here only, so a state never has to be computed again because time has passed. A row without events has a
learnt vector instead.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from obligor.sequences.training.ragged import Rows
from obligor.sequences.weights import readout_size

__all__ = ["Pool", "Readout"]

VARIANCE_FLOOR: Final = 1e-6
AGE_SCALE: Final = 16.0


class Pool(NamedTuple):
    """What is kept of each row's hidden vectors."""

    last: Tensor  # (B, h)
    low: Tensor  # (B, h)
    high: Tensor  # (B, h)
    total: Tensor  # (B, h)
    squares: Tensor  # (B, h)
    events: NDArray[np.int64]  # (B,)

    @classmethod
    def zero(cls, rows: int, hidden: int, device: torch.device) -> Pool:
        """Return what is kept of rows without events."""
        nothing = torch.zeros(rows, hidden, device=device)
        far = torch.full_like(nothing, torch.inf)
        return cls(nothing, far, -far, nothing, nothing, np.zeros(rows, np.int64))

    @classmethod
    def at(cls, y: Tensor, rows: Rows, row: NDArray[np.int64], at: NDArray[np.int64], last: Tensor) -> Pool:
        """Return what is kept of the first `at` events of a row, (Q,), for each of Q places in the order of (row, at).

        `y` (N, h) are the hidden vectors of rows whose last place is their end; `last` (Q, h) those at the places.
        """
        same = np.diff(row, prepend=-1) == 0
        part = Rows(np.where(same, np.diff(at, prepend=0), at), rows.device)  # the events since the place before
        rank = np.arange(len(row)) - np.flatnonzero(~same)[np.cumsum(~same) - 1]
        ranks = int(rank.max(initial=-1)) + 1
        index = rows.tensor(row * ranks + rank)

        def so_far(how: str, fill: float, values: Tensor) -> Tensor:
            block = values.new_full((len(rows.length) * ranks, values.shape[1]), fill)
            block = block.index_copy(0, index, _reduced(values, part, how)).reshape(-1, ranks, values.shape[1])
            if how == "sum":
                block = block.cumsum(dim=1)
            else:
                block = (block.cummin(dim=1) if how == "min" else block.cummax(dim=1)).values
            return block.flatten(0, 1).index_select(0, index)

        low, high = so_far("min", torch.inf, y), so_far("max", -torch.inf, y)
        return cls(last, low, high, so_far("sum", 0.0, y), so_far("sum", 0.0, y * y), at)

    def update(self, y: Tensor, rows: Rows) -> Pool:
        """Return what is kept once each row's next events (N, h) are in it."""
        y = y.float()
        there = rows.lengths > 0
        if not len(y):
            return self
        final = y.index_select(0, rows.tensor(np.clip(rows.start + rows.length - 1, 0, len(y) - 1)))
        return Pool(
            torch.where(there[:, None], final, self.last),
            torch.minimum(self.low, _reduced(y, rows, "min")),
            torch.maximum(self.high, _reduced(y, rows, "max")),
            self.total + _reduced(y, rows, "sum"),
            self.squares + _reduced(y * y, rows, "sum"),
            self.events + rows.length,
        )


def _reduced(y: Tensor, rows: Rows, how: str) -> Tensor:
    # Rows without events get what an operation begins with: 0, or an infinity.
    return torch.segment_reduce(y, how, lengths=rows.lengths, axis=0, unsafe=True)


class Readout(nn.Module):
    """The vector of a row, from what is kept of it."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.empty = nn.Parameter(torch.zeros(readout_size(hidden)))

    def forward(self, pool: Pool, age_us: NDArray[np.int64]) -> Tensor:
        """Return the readout of each row, (B, 5h + 2); `age_us` is from its last event to as_of."""
        some = torch.from_numpy(pool.events > 0).to(pool.last.device)[:, None]
        count = torch.from_numpy(np.maximum(pool.events, 1)).to(pool.last)[:, None]
        mean = pool.total / count
        std = torch.sqrt(torch.clamp(pool.squares / count - mean * mean, min=0.0) + VARIANCE_FLOOR)
        ages = np.stack((np.log2(1 + age_us / 1e6), np.log2(1 + pool.events)), axis=1) / AGE_SCALE
        low = torch.where(some, pool.low, 0.0)  # an infinity would make the gradient of `empty`'s row NaN
        high = torch.where(some, pool.high, 0.0)
        ages_there = torch.from_numpy(ages).to(pool.last)
        found = torch.cat((pool.last, mean, std, low, high, ages_there), dim=1)
        return torch.where(some, found, self.empty)
