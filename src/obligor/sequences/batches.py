"""Batches of token sequences: what a training set hands to a trainer, and the simplest thing that can.

A batch is a plain tuple of numpy arrays, so that whoever makes it needs no torch. A source yields the batches of an
epoch in an order that is a pure function of seed and epoch: so a run that was interrupted goes on with the very batch
that came next. Sequences of like length share a batch (Khomenko et al. 2016, bucketing), which leaves little padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput, Problem

__all__ = ["Batch", "BatchSource", "Branched", "MemorySource", "QuestionSource", "bucketed"]

Ints = NDArray[np.int64]

LENGTHS_PER_DOUBLING: Final = 4  # buckets of length between n and 2n


class Batch(NamedTuple):
    """B sequences, padded to the longest of them."""

    codes: NDArray[np.int32]  # (B, L, F); 0 beyond a sequence's length
    parts: NDArray[np.float32]  # (B, L, F)
    time: Ints  # (B, L) event times, microseconds
    length: NDArray[np.int32]  # (B,)
    question: Ints  # (B,) which row of the training set, or which entity
    as_of: Ints  # (B,) microseconds

    @property
    def events(self) -> int:
        """How many tokens it has, padding left out."""
        return int(self.length.sum())

    def take(self, keep: NDArray[np.bool_]) -> Batch:
        """Return the rows where `keep` is true, padded to the longest that is left."""
        length = self.length[keep]
        longest = int(length.max(initial=0))
        codes, parts, time = self.codes[keep, :longest], self.parts[keep, :longest], self.time[keep, :longest]
        return Batch(codes, parts, time, length, self.question[keep], self.as_of[keep])


class Branched(NamedTuple):
    """T trunks and Q questions to them: a question sees the beginning of its trunk, and tokens of its own behind."""

    trunk: Batch  # (T, L): question and as_of are those of the slice that it was taken from
    row: Ints  # (Q,) the trunk of each question, ascending
    at: Ints  # (Q,) how many of its events the question shares, ascending within a trunk; the last one shares all
    tail: Batch  # (Q, M) the tokens that follow; question and as_of of each

    @property
    def question(self) -> Ints:
        """The questions, (Q,)."""
        return self.tail.question

    @property
    def as_of(self) -> Ints:
        """The instants that they are asked at, (Q,)."""
        return self.tail.as_of

    @property
    def events(self) -> int:
        """How many tokens it has, padding left out."""
        return self.trunk.events + self.tail.events

    def take(self, keep: NDArray[np.bool_]) -> Branched:
        """Return the questions where `keep` is true, with as much of their trunks as they need."""
        row, at = self.row[keep], self.at[keep]
        needed = np.zeros(len(self.trunk.length), np.int64)
        np.maximum.at(needed, row, at)
        asked = np.bincount(row, minlength=len(needed)) > 0
        trunk = self.trunk._replace(length=needed.astype(np.int32)).take(asked)
        return Branched(trunk, (np.cumsum(asked) - 1)[row], at, self.tail.take(keep))


Kind = TypeVar("Kind", covariant=True)


class BatchSource(Protocol[Kind]):
    """Sequences that can be gone through again and again."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the rows of each field's table."""
        ...

    def batches(self, seed: int, epoch: int) -> Iterator[Kind]:
        """Yield every sequence once, in batches whose order is a pure function of seed and epoch."""
        ...

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        ...


QuestionSource: TypeAlias = "BatchSource[Batch | Branched]"  # questions, alone or as branches of what they share


def bucketed(length: Ints, tokens_max: int, rows_max: int, seed: int, epoch: int | None) -> list[Ints]:
    """Return the rows of each batch: like lengths together, at most so many tokens (padding counts) and rows.

    Without an epoch rows stay in the order of their length: the batches to embed with, which are the same each time.
    A row longer than the budget has a batch to itself.

    >>> [rows.tolist() for rows in bucketed(np.array([3, 100, 4, 3]), 12, 8, seed=0, epoch=None)]
    [[1], [2], [0, 3]]
    """
    bucket = np.floor(np.log2(np.maximum(length, 1)) * LENGTHS_PER_DOUBLING).astype(np.int64)
    if epoch is None:
        order = np.argsort(-length, kind="stable")
    else:
        chance = np.random.default_rng((seed, epoch))
        order = chance.permutation(len(length))
        order = order[np.argsort(-bucket[order], kind="stable")]
    found: list[Ints] = []
    start, longest = 0, 0
    for stop, row in enumerate(order):
        wider = max(longest, int(length[row]))
        if stop > start and (wider * (stop - start + 1) > tokens_max or stop - start == rows_max):
            found.append(order[start:stop])
            start, wider = stop, int(length[row])
        longest = wider
    if len(order):
        found.append(order[start:])
    return found if epoch is None else [found[i] for i in chance.permutation(len(found))]


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

    def __post_init__(self) -> None:
        seen = self.stop > self.start
        late = np.flatnonzero(self.time[self.stop[seen] - 1] > self.as_of[seen])
        if len(late):
            row = int(np.flatnonzero(seen)[late[0]])
            raise BadInput(Problem(f"$.as_of[{row}]", "expected an instant at or after the question's last event"))

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield every question once."""
        for rows in bucketed(self.stop - self.start, self.tokens_max, self.rows_max, seed, epoch):
            yield self._batch(rows)

    def __len__(self) -> int:
        """Return how many batches there are; their number hardly differs between epochs, this is that of the first."""
        return len(bucketed(self.stop - self.start, self.tokens_max, self.rows_max, 0, 0))

    def _batch(self, rows: Ints) -> Batch:
        start, length = self.start[rows], (self.stop - self.start)[rows]
        place = start[:, None] + np.arange(int(length.max(initial=0)))  # (B, L)
        beyond = np.arange(place.shape[1]) >= length[:, None]
        place[beyond] = 0
        codes, parts, time = self.codes[place], self.parts[place], self.time[place]
        codes[beyond], parts[beyond], time[beyond] = 0, 0, 0
        return Batch(codes, parts, time, length.astype(np.int32), rows.astype(np.int64), self.as_of[rows])
