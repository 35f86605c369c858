"""Readout: one vector for a row of any length, from sums that go on as events come.

    r = [last, mean, std, min, max, f_1, ..., f_s, a_1, a_2]     ((5 + s) h + 2,)
    f_k = sum of y_i exp(-(as_of - t_i) / span_k)
    a_1 = log2(1 + seconds from the last event to as_of) / 16;  a_2 = log2(1 + count) / 16

Age enters here only, so a state never has to be computed again because time has passed. A row without events has a
learnt vector instead.

A habit of the last weeks is a sum over them, whatever came between. To remember it a recurrent body has to learn how to
forget by time instead of by event; a sum that fades (as the exponential averages of Mozer 1992, "Induction of
multiscale temporal structure") has it at once, and leaves to the body what lies in a few events.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from obligor.sequences.training.ragged import Rows
from obligor.sequences.weights import Config, readout_size

__all__ = ["Pool", "Readout"]

VARIANCE_FLOOR: Final = 1e-6
DAY_US: Final = 86_400e6
AGE_SCALE: Final = 16.0


class Pool(NamedTuple):
    """What is kept of each row's hidden vectors."""

    last: Tensor  # (B, h)
    low: Tensor  # (B, h)
    high: Tensor  # (B, h)
    total: Tensor  # (B, h)
    squares: Tensor  # (B, h)
    faded: Tensor  # (B, s, h) the sums that fade, as of each row's last event
    events: NDArray[np.int64]  # (B,)
    latest: NDArray[np.int64]  # (B,) when the last event happened; 0 where there is none
    days: tuple[int, ...]  # (s,) spans

    @classmethod
    def zero(cls, rows: int, hidden: int, device: torch.device, days: tuple[int, ...]) -> Pool:
        """Return what is kept of rows without events."""
        nothing = torch.zeros(rows, hidden, device=device)
        far = torch.full_like(nothing, torch.inf)
        faded, none = torch.zeros(rows, len(days), hidden, device=device), np.zeros(rows, np.int64)
        return cls(nothing, far, -far, nothing, nothing, faded, none, none, days)

    @classmethod
    def at(
        cls,
        y: Tensor,
        rows: Rows,
        time: NDArray[np.int64],
        row: NDArray[np.int64],
        at: NDArray[np.int64],
        last: Tensor,
        days: tuple[int, ...],
    ) -> Pool:
        """Return what is kept of the first `at` events of a row, (Q,), for each of Q places in the order of (row, at).

        `y` (N, h) are the hidden vectors of rows whose last place is their end, `time` (N,) when their events happened;
        `last` (Q, h) are the vectors at the places.
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
        latest = np.where(at > 0, np.append(time, 0)[rows.start[row] + at - 1], 0)
        faded = _recent(y, part, time, latest, days)  # (Q, s, h) of the events since the place before
        passed = np.where(same & (at > 0), latest - np.append(0, latest[:-1]), 0)
        left = _left(np.where(np.append(0, at[:-1]) > 0, passed, 0), days, faded)[:, :, None]  # (Q, s, 1)
        sums = faded.new_zeros(len(rows.length) * ranks, *faded.shape[1:]).index_copy(0, index, faded)
        kept = faded.new_zeros(len(rows.length) * ranks, len(days), 1).index_copy(0, index, left)
        sums, kept = (one.reshape(-1, ranks, *one.shape[1:]) for one in (sums, kept))
        steps = [sums[:, 0]] if ranks else []
        for k in range(1, ranks):
            steps.append(steps[-1] * kept[:, k] + sums[:, k])
        if steps:
            faded = torch.stack(steps, dim=1).flatten(0, 1).index_select(0, index)
        return cls(last, low, high, so_far("sum", 0.0, y), so_far("sum", 0.0, y * y), faded, at, latest, days)

    def update(self, y: Tensor, rows: Rows, time: NDArray[np.int64]) -> Pool:
        """Return what is kept once each row's next events, y (N, h) at time (N,), are in it."""
        y = y.float()
        there = rows.lengths > 0
        if not len(y):
            return self
        end = np.clip(rows.start + rows.length - 1, 0, len(y) - 1)
        latest = np.where(rows.length > 0, time[end], self.latest)
        left = _left(np.where(self.events > 0, latest - self.latest, 0), self.days, self.faded)
        final = y.index_select(0, rows.tensor(end))
        return Pool(
            torch.where(there[:, None], final, self.last),
            torch.minimum(self.low, _reduced(y, rows, "min")),
            torch.maximum(self.high, _reduced(y, rows, "max")),
            self.total + _reduced(y, rows, "sum"),
            self.squares + _reduced(y * y, rows, "sum"),
            self.faded * left[:, :, None] + _recent(y, rows, time, latest, self.days),
            self.events + rows.length,
            latest,
            self.days,
        )


def _left(passed_us: NDArray[np.int64], days: tuple[int, ...], like: Tensor) -> Tensor:
    """Return what is left after some microseconds (n,) of what fades over each span, (n, s)."""
    left = np.exp(-passed_us[:, None] / (np.array(days, np.float64) * DAY_US))
    return torch.from_numpy(left).to(like)


def _recent(y: Tensor, rows: Rows, time: NDArray[np.int64], latest: NDArray[np.int64], days: tuple[int, ...]) -> Tensor:
    """Return the sums that fade of each row's events (N, h), as of its `latest` (B,), (B, s, h)."""
    if not days:
        return y.new_zeros(len(rows.length), 0, y.shape[1])
    shares = _left(np.repeat(latest, rows.length) - time, days, y)  # (N, s)
    sums = _reduced((shares[:, :, None] * y[:, None]).flatten(1), rows, "sum")
    return sums.reshape(-1, len(days), y.shape[1])


def _reduced(y: Tensor, rows: Rows, how: str) -> Tensor:
    # Rows without events get what an operation begins with: 0, or an infinity.
    return torch.segment_reduce(y, how, lengths=rows.lengths, axis=0, unsafe=True)


class Readout(nn.Module):
    """The vector of a row, from what is kept of it."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.empty = nn.Parameter(torch.zeros(readout_size(config)))

    def forward(self, pool: Pool, age_us: NDArray[np.int64]) -> Tensor:
        """Return the readout of each row, (B, r); `age_us` is from its last event to as_of."""
        some = torch.from_numpy(pool.events > 0).to(pool.last.device)[:, None]
        count = torch.from_numpy(np.maximum(pool.events, 1)).to(pool.last)[:, None]
        mean = pool.total / count
        std = torch.sqrt(torch.clamp(pool.squares / count - mean * mean, min=0.0) + VARIANCE_FLOOR)
        ages = np.stack((np.log2(1 + age_us / 1e6), np.log2(1 + pool.events)), axis=1) / AGE_SCALE
        low = torch.where(some, pool.low, 0.0)  # an infinity would make the gradient of `empty`'s row NaN
        high = torch.where(some, pool.high, 0.0)
        ages_there = torch.from_numpy(ages).to(pool.last)
        faded = (pool.faded * _left(age_us, pool.days, pool.faded)[:, :, None]).flatten(1)
        found = torch.cat((pool.last, mean, std, low, high, faded, ages_there), dim=1)
        return torch.where(some, found, self.empty)
