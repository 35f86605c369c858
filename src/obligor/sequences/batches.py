"""Batches: what a trainer learns from, and what it asks of a source of them.

A source yields the batches of an epoch in an order that is a pure function of seed and epoch: so a run that was
interrupted goes on with the very batch that came next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput, Problem

__all__ = ["Batch", "BatchSource", "Branched", "QuestionSource", "of_questions"]

Ints = NDArray[np.int64]


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
        """Return how many codes each field has."""
        ...

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Return which fields are periodic; nothing: none is."""
        ...

    @property
    def slow(self) -> tuple[bool, ...]:
        """Return which fields are known to be slow-moving identifiers; nothing: none is."""
        ...

    def batches(self, seed: int, epoch: int | None, start: int = 0) -> Iterator[Kind]:
        """Yield every sequence once, in batches whose order is a pure function of seed and epoch, from `start` on.

        Without an epoch they come in the order of their length, the same each time.
        """
        ...

    def __len__(self) -> int:
        """Return how many batches an epoch has; one may have a few more or fewer than another."""
        ...


QuestionSource: TypeAlias = "BatchSource[Batch | Branched]"  # questions, alone or as branches of what they share


def of_questions(values: NDArray[np.bool_], question: Ints) -> NDArray[np.bool_]:
    """Return what is said of some questions, (Q,); BadInput where nothing is said of one."""
    last = int(question.max(initial=-1))
    if last >= len(values):
        raise BadInput(Problem("$.y", f"expected a row for each question, question {last} too, got {len(values)} rows"))
    return values[question]
