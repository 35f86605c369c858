"""Ragged sequences as tensors: the events of all rows one after another, and how they lie in other layouts.

Padding is never computed on where it can be helped: tokens are flat (N, ...), rows are lengths. A recurrent encoder
goes through them by step (all rows' first events, then all second ones, longest row first, so that a step's rows are a
prefix), an encoder of chunks through a padded block. A row may have no events.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from obligor.sequences.loading import Batch

__all__ = ["Ragged", "Rows", "ragged", "slices"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """How long each of B rows is, and what follows from that."""

    length: Ints  # (B,)
    device: torch.device

    @cached_property
    def start(self) -> Ints:
        """Return where each row's events begin in the flat layout, (B,)."""
        return np.cumsum(self.length) - self.length

    @cached_property
    def position(self) -> Ints:
        """Return each event's place within its row, (N,)."""
        return np.arange(int(self.length.sum())) - np.repeat(self.start, self.length)

    @cached_property
    def lengths(self) -> Tensor:
        """Return the lengths as a tensor, (B,)."""
        return self.tensor(self.length)

    @cached_property
    def by_step(self) -> tuple[Tensor, Tensor, list[int]]:
        """Return the layout by step: flat place of each event (N,), order of the rows (B,), rows of each step."""
        order = np.argsort(-self.length, kind="stable")
        longest = int(self.length.max(initial=0))
        step = np.arange(longest)[:, None]  # (L, 1)
        there = step < self.length[order]  # (L, B)
        return self.tensor((self.start[order] + step)[there]), self.tensor(order), there.sum(axis=1).tolist()

    @cached_property
    def longest(self) -> int:
        """Return the length of the longest row."""
        return int(self.length.max(initial=0))

    def padded(self, flat: Tensor, width: int, fill: float = 0.0) -> Tensor:
        """Return flat values (N, ...) as rows padded to a width (B, width, ...)."""
        block = flat.new_full((len(self.length) * width, *flat.shape[1:]), fill)
        filled = block.index_copy(0, self._places(width), flat)
        return filled.reshape(len(self.length), width, *flat.shape[1:])

    def flat(self, padded: Tensor) -> Tensor:
        """Return padded rows (B, L, ...) as flat values (N, ...)."""
        return padded.flatten(0, 1).index_select(0, self._places(padded.shape[1]))

    def _places(self, width: int) -> Tensor:
        return self.tensor(np.repeat(np.arange(len(self.length)) * width, self.length) + self.position)

    def tensor(self, values: NDArray[np.generic]) -> Tensor:
        """Return an array on the device of these rows."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.device)


class Ragged(NamedTuple):
    """Tokens of B rows, flat."""

    codes: Tensor  # (N, F) int32
    parts: Tensor  # (N, F) float32
    time: Ints  # (N,) microseconds; in numpy: only differences of it become tensors, and those in float64 first
    rows: Rows
    as_of: Ints  # (B,)

    def chunk(self, begin: int, end: int) -> Ragged:
        """Return the events at places [begin, end) of each row."""
        if begin == 0 and end >= self.rows.longest:
            return self
        inside = (self.rows.position >= begin) & (self.rows.position < end)
        return self._kept(inside, np.clip(self.rows.length - begin, 0, end - begin))

    def tail(self, events: int) -> Ragged:
        """Return the last events of each row, at most so many."""
        if self.rows.longest <= events:
            return self
        cut = np.maximum(self.rows.length - events, 0)
        return self._kept(self.rows.position >= np.repeat(cut, self.rows.length), self.rows.length - cut)

    def _kept(self, kept: NDArray[np.bool_], length: Ints) -> Ragged:
        place = np.flatnonzero(kept)
        index = self.rows.tensor(place)
        codes, parts = self.codes.index_select(0, index), self.parts.index_select(0, index)
        return Ragged(codes, parts, self.time[place], Rows(length, self.rows.device), self.as_of)


def ragged(batch: Batch, device: torch.device) -> Ragged:
    """Return a batch without its padding."""
    row = np.arange(len(batch.length))
    return slices(batch, row, np.zeros_like(row), batch.length.astype(np.int64), batch.as_of, device)


def slices(batch: Batch, row: Ints, begin: Ints, length: Ints, as_of: Ints, device: torch.device) -> Ragged:
    """Return some slices of a batch's rows: of each its row, its first event there, and how many events it has."""
    rows = Rows(length, device)
    place = np.repeat(row * batch.codes.shape[1] + begin, length) + rows.position
    codes = batch.codes.reshape(-1, batch.codes.shape[2])[place]
    parts = batch.parts.reshape(-1, batch.parts.shape[2])[place]
    return Ragged(rows.tensor(codes), rows.tensor(parts), batch.time.reshape(-1)[place], rows, as_of)
