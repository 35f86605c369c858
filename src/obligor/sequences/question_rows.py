"""Questions as rows of a matrix: what scikit-learn cuts into folds, pipelines and learning curves.

    X = QuestionRows.of(Loader(dataset))
    cross_val_predict(SequenceClassifier(), X, y, groups=consumer, cv=GroupKFold(5), method="predict_proba")

`X[rows]` are some of the questions, which are then numbered as these rows are: from 0 on, in their order. So `y[rows]`
fits `X[rows]`, and no row of one fold is known by its number in another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput, Problem
from obligor.sequences.batches import Batch, Branched
from obligor.sequences.loading import Selection
from obligor.sequences.memory import MemorySource

__all__ = ["QuestionRows"]

Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class QuestionRows:
    """Rows of a source, each a question, in an order of their own."""

    source: Any  # a MemorySource, or a Loader or Branches of a dataset
    numbers: Ints  # (n,) of the source's questions, each once

    @classmethod
    def of(cls, source: MemorySource | Selection) -> Self:
        """Return all questions of a source, in ascending order."""
        return cls(source, source.asked)

    def __post_init__(self) -> None:
        if len(np.unique(self.numbers)) < len(self.numbers):
            raise BadInput(Problem("$.numbers", "expected each question once: as rows they would share an answer"))

    @property
    def shape(self) -> tuple[int]:
        """How many rows there are: a source's length is that of an epoch, in batches."""
        return (len(self.numbers),)

    def __getitem__(self, key: Any) -> Self:
        """Return some of the rows, by number, mask or slice; scikit-learn puts an ellipsis behind them."""
        rows = key[0] if isinstance(key, tuple) else key
        return type(self)(self.source, np.atleast_1d(self.numbers[rows]))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The rows of each field's table."""
        found: tuple[int, ...] = self.source.sizes
        return found

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which fields are periodic."""
        found: tuple[bool, ...] = self.source.periodic
        return found

    @property
    def slow(self) -> tuple[bool, ...]:
        """Which fields are known to be slow-moving identifiers."""
        found: tuple[bool, ...] = self.source.slow
        return found

    def batches(self, seed: int, epoch: int | None, start: int = 0) -> Iterator[Batch | Branched]:
        """Yield the batches of an epoch from one on, their questions by row."""
        row = np.empty(int(self.numbers.max(initial=-1)) + 1, np.int64)
        row[self.numbers] = np.arange(len(self.numbers))
        for batch in self._chosen.batches(seed, epoch, start):
            if isinstance(batch, Branched):
                yield batch._replace(tail=batch.tail._replace(question=row[batch.question]))
            else:
                yield batch._replace(question=row[batch.question])

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        return len(self._chosen)

    @cached_property
    def _chosen(self) -> Any:
        return dataclasses.replace(self.source, questions=self.numbers)
