"""Batches out of a dataset: padded tensors of slices of like length, ready for torch.from_numpy without a copy.

Which slices make which batch, and in which order, is a pure function of (dataset, seed, epoch): so a run that was
stopped goes on with the very batch that came next. Slices are shuffled, sorted into buckets of length (eight between n
and 2n, so that at most an eighth of a batch is padding), cut by a budget of tokens, and the batches shuffled. A batch
is filled by one kernel call that copies ranges of rows; nothing is done for each record in Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from obligor.features.kernels.compiling import entry
from obligor.sequences.asked import in_order
from obligor.sequences.batches import Batch
from obligor.sequences.dataset import Columns, Dataset

__all__ = ["EPOCHS_KEPT", "Loader", "Selection", "SubSlices", "arranged", "filled", "filled_columns"]

Ints: TypeAlias = NDArray[np.int64]
BUCKETS_PER_DOUBLING: Final = 8
EPOCHS_KEPT = 2  # orders of epochs that are kept


class _Order(NamedTuple):
    """The batches of an epoch: batch i has the rows from ends[i] to ends[i + 1], the longest first."""

    slices: Ints  # (rows,) places in the dataset
    skip: Ints  # (rows,) tokens left out before
    take: Ints  # (rows,) tokens
    ends: Ints  # (batches + 1,)


@dataclass(frozen=True, eq=False)
class Selection:
    """Slices of a dataset, and how large batches of them may be."""

    dataset: Dataset
    tokens_max: int = 16_384  # of a batch, padding included; a longer sequence has a batch of its own
    rows_max: int = 512  # of a batch
    questions: Ints | None = None  # those that are wanted; None: all
    threads: int = 1  # that fill batches ahead

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many codes each field has."""
        return self.dataset.tokenizer.sizes

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which fields are periodic."""
        return self.dataset.tokenizer.periodic

    @property
    def slow(self) -> tuple[bool, ...]:
        """Which fields are kept out of contrastive objectives."""
        return self.dataset.tokenizer.slow

    @property
    def asked(self) -> Ints:
        """The questions, ascending."""
        return np.unique(self.dataset.columns.question[self._wanted()])

    def _wanted(self) -> Ints:
        """Return the places of the slices that are wanted."""
        if self.questions is None:
            return np.arange(len(self.dataset))
        return np.flatnonzero(np.isin(self.dataset.columns.question, self.questions))


@dataclass(frozen=True, eq=False)
class Loader(Selection):
    """The slices of a dataset, each once an epoch."""

    length_min: int = 0  # tokens; slices with fewer are left out

    def __len__(self) -> int:
        """Return how many batches the first epoch of seed 0 has; others have about as many."""
        return self.count(0, 0)

    def count(self, seed: int, epoch: int | None) -> int:
        """Return how many batches an epoch has."""
        return len(self._order(seed, epoch).ends) - 1

    def batches(self, seed: int, epoch: int | None, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from the one numbered `start` on.

        Without an epoch slices come in the order of their length, the longest first: the same each time.
        """
        order = self._order(seed, epoch)
        return in_order(lambda i: self._filled(order, i), range(start, len(order.ends) - 1), self.threads)

    def batch(self, seed: int, epoch: int | None, index: int) -> Batch:
        """Return one batch of an epoch."""
        return self._filled(self._order(seed, epoch), index)

    @lru_cache(maxsize=EPOCHS_KEPT)  # noqa: B019 - a loader lives as long as its training
    def _order(self, seed: int, epoch: int | None) -> _Order:
        wanted = self._wanted()
        length = self.dataset.columns.length[wanted].astype(np.int64)
        order, ends = arranged(length, self.tokens_max, self.rows_max, seed, epoch)
        return _Order(wanted[order], np.zeros(len(order), np.int64), length[order], ends)

    def _wanted(self) -> Ints:
        wanted = super()._wanted()
        return wanted[self.dataset.columns.length[wanted] >= self.length_min]

    def _filled(self, order: _Order, index: int) -> Batch:
        rows = slice(order.ends[index], order.ends[index + 1])
        return filled(self.dataset, order.slices[rows], order.skip[rows], order.take[rows])


def filled(dataset: Dataset, slices: Ints, skip: Ints, take: Ints) -> Batch:
    """Return `take` tokens of each slice from its token `skip` on, all (B,), padded to the longest."""
    return filled_columns(dataset.columns, slices, skip, take)


def filled_columns(columns: Columns, slices: Ints, skip: Ints, take: Ints) -> Batch:
    """Return the same of columns that are in no folder."""
    c, fields = columns, columns.codes.shape[1]
    b, longest = len(slices), max(1, int(take.max(initial=0)))
    batch = Batch(
        np.empty((b, longest, fields), np.int32),
        np.empty((b, longest, fields), np.float32),
        np.empty((b, longest), np.int64),
        take.astype(np.int32),
        c.question[slices],
        c.as_of[slices],
    )
    _fill(
        c.first, c.start, c.end, c.gap_code, c.gap_part, c.codes.reshape(-1), c.parts.reshape(-1), c.time,
        c.as_of, c.own_codes, c.own_parts, slices, skip, take, fields,
        batch.codes.reshape(-1), batch.parts.reshape(-1), batch.time,
    )  # fmt: skip
    return batch


@dataclass(frozen=True, eq=False)
class SubSlices(Loader):
    """Random pieces of each slice, several of one in the same batch: what a contrastive objective compares.

    Each has a length between `shortest` and `longest` and begins anywhere, both evenly drawn anew each epoch (Babaev
    et al. 2022, "CoLES: Contrastive Learning for Event Sequences with Self-Supervision", random slices). Slices with
    fewer than `shortest` tokens are left out. `rows_max` and `tokens_max` count pieces.
    """

    pieces: int = 5  # of each slice
    shortest: int = 25
    longest: int = 200

    @lru_cache(maxsize=EPOCHS_KEPT)  # noqa: B019 - a loader lives as long as its training
    def _order(self, seed: int, epoch: int | None) -> _Order:
        wanted, k = self._wanted(), self.pieces
        wanted = wanted[self.dataset.columns.length[wanted] >= max(1, self.shortest)]
        whole = self.dataset.columns.length[wanted].astype(np.int64)[:, None]  # (n, 1)
        chance = np.random.default_rng((seed, 0 if epoch is None else 1 + epoch, 1))
        take = chance.integers(self.shortest, np.minimum(self.longest, whole), (len(wanted), k), endpoint=True)
        skip = chance.integers(0, whole - take, endpoint=True)  # (n, k)
        widest = take.max(axis=1, initial=0)
        order, ends = arranged(widest, self.tokens_max, max(1, self.rows_max // k), seed, epoch, k)
        rows = (order[:, None] * k + np.arange(k)).reshape(-1)  # all pieces of a slice side by side
        rows = _longest_first(rows, take.reshape(-1), ends * k)
        return _Order(np.repeat(wanted, k)[rows], skip.reshape(-1)[rows], take.reshape(-1)[rows], ends * k)


def _longest_first(rows: Ints, take: Ints, ends: Ints) -> Ints:
    """Return rows with those of each batch in descending order of length."""
    batch = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    found: Ints = rows[np.lexsort((-take[rows], batch))]
    return found


def arranged(
    width: Ints, tokens_max: int, rows_max: int, seed: int, epoch: int | None, each: int = 1
) -> tuple[Ints, Ints]:
    """Return units of like width, batch by batch, and where each batch ends; a unit is `each` rows of that width.

    At most so many tokens, padding included, and so many units are a batch; a wider unit has one of its own.
    """
    if epoch is None:
        order = np.argsort(-width, kind="stable")
        return order, _ends(width[order], tokens_max, rows_max, each)
    chance = np.random.default_rng((seed, epoch))
    order = chance.permutation(len(width))
    order = order[np.argsort(-_bucket(width[order]), kind="stable")]
    ends = _ends(width[order], tokens_max, rows_max, each)
    shuffled = chance.permutation(len(ends) - 1)
    sizes = np.diff(ends)[shuffled]
    moved = np.append(0, np.cumsum(sizes))
    order = order[np.repeat(ends[:-1][shuffled] - moved[:-1], sizes) + np.arange(len(order))]
    return _longest_first(order, width, moved), moved


def _bucket(length: Ints) -> Ints:
    """Return a number that grows with a length: eight of them from n to 2n."""
    fraction, exponent = np.frexp(np.maximum(length, 1).astype(np.float64))
    bucket: Ints = exponent * BUCKETS_PER_DOUBLING + np.floor(fraction * 2 * BUCKETS_PER_DOUBLING).astype(np.int64)
    return bucket


def _ends(width: Ints, tokens_max: int, rows_max: int, each: int) -> Ints:
    ends: Ints = np.empty(len(width) + 1, np.int64)
    count: int = _cut(width, tokens_max, rows_max, each, ends)
    found: Ints = ends[: 1 + count]
    return found


@entry
def _cut(width: Any, tokens_max: int, rows_max: int, each: int, ends: Any) -> Any:
    """Cut units into batches: padded to their widest they hold at most so many tokens, or are one unit."""
    count, start, widest = 0, 0, 0
    ends[0] = 0
    for i in range(width.shape[0]):
        wider = max(widest, width[i])
        if i > start and (i + 1 - start > rows_max or (i + 1 - start) * each * wider > tokens_max):
            count += 1
            ends[count] = i
            start, wider = i, width[i]
        widest = wider
    if width.shape[0] > 0:
        count += 1
        ends[count] = width.shape[0]
    return count


@entry
def _fill(
    first: Any, start: Any, end: Any, gap_code: Any, gap_part: Any, codes: Any, parts: Any, time: Any, as_of: Any,
    own_codes: Any, own_parts: Any, slices: Any, skip: Any, take: Any, fields: int, to_codes: Any, to_parts: Any,
    to_time: Any,
) -> None:  # fmt: skip
    """Write `take` tokens of each slice from its token `skip` on, and zeros behind them; codes and parts lie flat."""
    width = to_time.shape[1]
    for b in range(slices.shape[0]):
        q = slices[b]
        at, left, wanted = 0, skip[b], take[b]
        for p in range(first[q], first[q + 1]):
            size = end[p] - start[p]
            begin = min(left, size)
            left -= begin
            n = min(size - begin, wanted - at)
            if n <= 0:
                continue
            source, target = (start[p] + begin) * fields, (b * width + at) * fields
            for i in range(n * fields):
                to_codes[target + i] = codes[source + i]
            for i in range(n * fields):
                to_parts[target + i] = parts[source + i]
            for i in range(n):
                to_time[b, at + i] = time[start[p] + begin + i]
            if begin == 0:
                to_codes[target + 1], to_parts[target + 1] = gap_code[p], gap_part[p]  # field 1 is the gap
            at += n
        target = (b * width + at) * fields
        if at < wanted:  # the application itself
            for f in range(fields):
                to_codes[target + f], to_parts[target + f] = own_codes[q, f], own_parts[q, f]
            to_time[b, at] = as_of[q]
            at += 1
            target += fields
        for i in range((width - at) * fields):
            to_codes[target + i], to_parts[target + i] = 0, 0.0
        for i in range(at, width):
            to_time[b, i] = 0
