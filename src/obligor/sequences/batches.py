"""Where a trainer's batches come from: what it asks of a source, and a source in memory.

A source yields the batches of an epoch in an order that is a pure function of seed and epoch: so a run that was
interrupted goes on with the very batch that came next. A `Loader` of a dataset on disk is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput, Problem
from obligor.sequences.loading import Batch, arranged

__all__ = ["BatchSource", "MemorySource", "take_rows"]

Ints = NDArray[np.int64]


class BatchSource(Protocol):
    """Sequences that can be gone through again and again."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the rows of each field's table."""
        ...

    @property
    def slow(self) -> tuple[bool, ...]:
        """Return which fields are known to be slow-moving identifiers; nothing: none is."""
        ...

    def batches(self, seed: int, epoch: int | None, start: int = 0) -> Iterator[Batch]:
        """Yield every sequence once, in batches whose order is a pure function of seed and epoch, from `start` on.

        Without an epoch they come in the order of their length, the same each time.
        """
        ...

    def __len__(self) -> int:
        """Return how many batches an epoch has; one may have a few more or fewer than another."""
        ...


def take_rows(batch: Batch, keep: NDArray[np.bool_]) -> Batch:
    """Return the rows of a batch where `keep` is true, padded to the longest that is left."""
    length = batch.length[keep]
    longest = int(length.max(initial=0))
    codes, parts, time = batch.codes[keep, :longest], batch.parts[keep, :longest], batch.time[keep, :longest]
    return Batch(codes, parts, time, length, batch.question[keep], batch.as_of[keep])


@dataclass(frozen=True)
class MemorySource:
    """Sequences in memory: flat tokens of events, and the slice of them that each question sees."""

    sizes: tuple[int, ...]  # rows of each field's table
    codes: NDArray[np.int32]  # (n, F)
    parts: NDArray[np.float32]  # (n, F)
    time: Ints  # (n,) microseconds, ascending within a slice
    start: Ints  # (q,) first event of each question
    stop: Ints  # (q,) one past its last
    as_of: Ints  # (q,) microseconds, not before its last event
    tokens_max: int = 16_384  # of a batch, padding included
    rows_max: int = 512  # of a batch
    slow: tuple[bool, ...] = ()  # which fields are slow-moving identifiers; (): none is known to be

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
