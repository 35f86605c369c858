"""Branches: all questions to one entity in one pass over its events.

The slices of two questions to an entity mostly begin alike: the later one has more events, and may have some that the
earlier one did not know of. So the longest slice of each entity is a trunk, and a question branches off where it last
agrees with it, with the few tokens of its own that follow, its application's at the end. A recurrent encoder goes
through the trunk once; each branch goes on from the state at its place. That is exact: a question sees the very tokens
that it would see alone, and none that another one knew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from obligor.features.kernels.compiling import entry
from obligor.sequences.asked import in_order
from obligor.sequences.batches import Branched
from obligor.sequences.dataset import Columns
from obligor.sequences.loading import EPOCHS_KEPT, Selection, arranged, filled

__all__ = ["Branches", "Trunks", "shared_tokens", "trunks_of"]

Ints: TypeAlias = NDArray[np.int64]


class Trunks(NamedTuple):
    """The slices of a dataset by trunk."""

    slices: Ints  # (Q,) in the order of trunk and place
    at: Ints  # (Q,)
    first: Ints  # (T + 1,) the questions of trunk t are first[t]..first[t + 1]
    trunk: Ints  # (T,) the slice that it is taken from
    length: Ints  # (T,) its events


@dataclass(frozen=True, eq=False)
class Branches(Selection):
    """The slices of a dataset, each once an epoch, by entity; `tokens_max` and `rows_max` are of a batch's trunks."""

    def __len__(self) -> int:
        """Return how many batches the first epoch of seed 0 has; others have about as many."""
        return len(self._order(0, 0)[1]) - 1

    def batches(self, seed: int, epoch: int | None, start: int = 0) -> Iterator[Branched]:
        """Yield the batches of an epoch from one on; their order is a pure function of seed and epoch.

        Without an epoch trunks come in the order of their length, the longest first: the same each time.
        """
        order, ends = self._order(seed, epoch)
        yield from in_order(
            lambda i: self._filled(order[ends[i] : ends[i + 1]]), range(start, len(ends) - 1), self.threads
        )  # fmt: skip

    @cached_property
    def _places(self) -> Trunks:
        return trunks_of(self.dataset.columns, self._wanted(), applications=self.dataset.header.applications)

    @lru_cache(maxsize=EPOCHS_KEPT)  # noqa: B019 - a source lives as long as its training
    def _order(self, seed: int, epoch: int | None) -> tuple[Ints, Ints]:
        return arranged(self._places.length, self.tokens_max, self.rows_max, seed, epoch)

    def _filled(self, trunks: Ints) -> Branched:
        places = self._places
        sizes = np.diff(places.first)[trunks]
        row = np.repeat(np.arange(len(trunks)), sizes)
        asked = np.repeat(places.first[trunks] - (np.cumsum(sizes) - sizes), sizes) + np.arange(len(row))
        slices, at = places.slices[asked], places.at[asked]
        nothing = np.zeros(len(trunks), np.int64)
        return Branched(
            filled(self.dataset, places.trunk[trunks], nothing, places.length[trunks]),
            row,
            at,
            filled(self.dataset, slices, at, self.dataset.columns.length[slices] - at),
        )


def trunks_of(columns: Columns, wanted: Ints, *, applications: bool) -> Trunks:
    """Return the slices at `wanted` by trunk; `applications`: whether each ends with its application's own token."""
    c = columns
    some = np.diff(c.first)[wanted] > 0
    begins = -1 - wanted  # one without events shares none
    begins[some] = c.start[c.first[wanted[some]]]
    events = c.length[wanted].astype(np.int64) - int(applications)
    order = np.lexsort((events, begins))
    starts = np.flatnonzero(np.diff(begins[order], prepend=begins[order][:1] - 1))
    sizes = np.diff(starts, append=len(order))
    longest = wanted[order[starts + sizes - 1]]
    at = shared_tokens(c, wanted[order], np.repeat(longest, sizes))
    group = np.repeat(np.arange(len(starts)), sizes)
    again = np.lexsort((at, group))
    ends = np.cumsum(sizes)
    return Trunks(wanted[order][again], at[again], np.append(0, ends), longest, at[again][ends - 1])


def shared_tokens(columns: Columns, slices: Ints, others: Ints) -> Ints:
    """Return with how many of the same tokens each slice and another one begin, (n,), the applications' own left out.

    A row has another token where a question does not see the row before it: then the time since it differs.
    """
    out = np.zeros(len(slices), np.int64)
    c = columns
    _share(c.first, c.start, c.end, c.gap_code, c.gap_part, slices, others, out)
    return out


@entry
def _share(first: Any, start: Any, end: Any, gap_code: Any, gap_part: Any, slices: Any, others: Any, out: Any) -> None:
    for i in range(slices.shape[0]):
        p, t, shared = first[slices[i]], first[others[i]], 0
        own_end, other_end = first[slices[i] + 1], first[others[i] + 1]
        while p < own_end and t < other_end and start[p] == start[t]:
            if gap_code[p] != gap_code[t] or gap_part[p] != gap_part[t]:
                break
            shared += min(end[p], end[t]) - start[p]
            if end[p] != end[t]:
                break
            p += 1
            t += 1
        out[i] = shared
