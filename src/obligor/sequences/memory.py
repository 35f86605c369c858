"""A source of batches in memory, for sequences that are at hand as arrays; `Loader` has those of a dataset on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput, Problem
from obligor.sequences.batches import Batch
from obligor.sequences.loading import arranged

__all__ = ["MemorySource"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class MemorySource:
    """Sequences in memory: flat tokens of events, and the slice of them that each question sees."""

    sizes: tuple[int, ...]  # how many codes each field has
    codes: NDArray[np.int32]  # (n, F)
    parts: NDArray[np.float32]  # (n, F)
    time: Ints  # (n,) microseconds, ascending within a slice
    start: Ints  # (q,) first event of each question
    stop: Ints  # (q,) one past its last
    as_of: Ints  # (q,) microseconds, not before its last event
    tokens_max: int = 16_384  # of a batch, padding included
    rows_max: int = 512  # of a batch
    slow: tuple[bool, ...] = ()  # which fields are slow-moving identifiers; (): none is known to be
    periodic: tuple[bool, ...] = ()  # which fields are periodic; (): none

    def __post_init__(self) -> None:
        seen = self.stop > self.start
        late = np.flatnonzero(self.time[self.stop[seen] - 1] > self.as_of[seen])
        if len(late):
            row = int(np.flatnonzero(seen)[late[0]])
            raise BadInput(Problem(f"$.as_of[{row}]", "expected an instant at or after the question's last event"))

    def batches(self, seed: int, epoch: int | None, start: int = 0) -> Iterator[Batch]:
        """Yield every question once, from the batch numbered `start` on."""
        order, ends = arranged(self.stop - self.start, self.tokens_max, self.rows_max, seed, epoch)
        for index in range(start, len(ends) - 1):
            yield self._batch(order[ends[index] : ends[index + 1]])

    def __len__(self) -> int:
        """Return how many batches the first epoch of seed 0 has."""
        return len(arranged(self.stop - self.start, self.tokens_max, self.rows_max, 0, 0)[1]) - 1

    def _batch(self, rows: Ints) -> Batch:
        start, length = self.start[rows], (self.stop - self.start)[rows]
        place = start[:, None] + np.arange(int(length.max(initial=0)))  # (B, L)
        beyond = np.arange(place.shape[1]) >= length[:, None]
        place[beyond] = 0
        codes, parts, time = self.codes[place], self.parts[place], self.time[place]
        codes[beyond], parts[beyond], time[beyond] = 0, 0, 0
        return Batch(codes, parts, time, length.astype(np.int32), rows.astype(np.int64), self.as_of[rows])
