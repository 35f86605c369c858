"""A source of batches in memory, for sequences that are at hand as arrays; `Loader` has those of a dataset on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput, Problem
from obligor.sequences.batches import Batch
from obligor.sequences.kernels.tokens import SPREADS_MAX
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
    questions: Ints | None = None  # those that are wanted; None: all

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise BadInput(problems)

    @property
    def asked(self) -> Ints:
        """The questions, ascending."""
        return np.arange(len(self.start)) if self.questions is None else np.unique(self.questions)

    def _problems(self) -> Iterator[Problem]:
        """Yield what does not fit: a code beyond its field's table would be looked up in the next one's."""
        count, fields, asked = len(self.time), len(self.sizes), len(self.start)
        shapes = {
            "codes": (count, fields), "parts": (count, fields), "time": (count,), "start": (asked,), "stop": (asked,),
            "as_of": (asked,),
        }  # fmt: skip
        wrong = [name for name, shape in shapes.items() if getattr(self, name).shape != shape]
        for name in wrong:
            yield Problem(f"$.{name}", f"expected shape {shapes[name]}, got {getattr(self, name).shape}")
        if wrong:
            return
        for row in np.flatnonzero((self.start < 0) | (self.stop < self.start) | (self.stop > count))[:1]:
            got = f"{self.start[row]}..{self.stop[row]}"
            yield Problem(f"$.start[{row}]", f"expected a range within {count} events, got {got}")
            return
        waves = np.array(self.periodic or (False,) * fields)
        last = self.codes + ((self.parts != 0) & ~waves)  # the row of the table that it reaches
        for row, field in np.argwhere((self.codes < 0) | (last >= np.array(self.sizes)))[:1]:
            got = f"{self.codes[row, field]} and part {self.parts[row, field]}"
            yield Problem(
                f"$.codes[{row}, {field}]", f"expected a table of {self.sizes[field]} rows to have it, got {got}"
            )
        least, most = np.where(waves, -SPREADS_MAX, 0.0), np.where(waves, SPREADS_MAX, 1.0)
        for row, field in np.argwhere(~((self.parts >= least) & (self.parts <= most)))[:1]:
            expected = f"a number within {SPREADS_MAX}" if waves[field] else "a share from 0 to 1"
            yield Problem(f"$.parts[{row}, {field}]", f"expected {expected}, got {self.parts[row, field]}")
        seen = self.stop > self.start
        for row in np.flatnonzero(seen)[self.time[self.stop[seen] - 1] > self.as_of[seen]][:1]:
            yield Problem(f"$.as_of[{row}]", "expected an instant at or after the question's last event")
        falls = np.append(np.cumsum(np.diff(self.time, prepend=self.time[:1]) < 0), 0)  # (n + 1,) up to each event
        for row in np.flatnonzero(seen)[falls[self.stop[seen] - 1] > falls[self.start[seen]]][:1]:
            yield Problem(f"$.time[{self.start[row]}:{self.stop[row]}]", f"expected times of question {row} in order")

    def batches(self, seed: int, epoch: int | None, start: int = 0) -> Iterator[Batch]:
        """Yield every question once, from the batch numbered `start` on."""
        order, ends = self._arranged(seed, epoch)
        for index in range(start, len(ends) - 1):
            yield self._batch(order[ends[index] : ends[index + 1]])

    def __len__(self) -> int:
        """Return how many batches the first epoch of seed 0 has."""
        return len(self._arranged(0, 0)[1]) - 1

    def _arranged(self, seed: int, epoch: int | None) -> tuple[Ints, Ints]:
        asked = self.asked
        order, ends = arranged((self.stop - self.start)[asked], self.tokens_max, self.rows_max, seed, epoch)
        return asked[order], ends

    def _batch(self, rows: Ints) -> Batch:
        start, length = self.start[rows], (self.stop - self.start)[rows]
        place = start[:, None] + np.arange(int(length.max(initial=0)))  # (B, L)
        beyond = np.arange(place.shape[1]) >= length[:, None]
        place[beyond] = 0
        codes, parts, time = self.codes[place], self.parts[place], self.time[place]
        codes[beyond], parts[beyond], time[beyond] = 0, 0, 0
        return Batch(codes, parts, time, length.astype(np.int32), rows.astype(np.int64), self.as_of[rows])
