"""Requests in the order in which the lake is gone through: those of one bucket lie together.

They are read once from the first to the last and copied to where they belong, in parts that threads take, because what
each range of buckets would otherwise gather from all over them costs more than reading the range itself. What depends
on the key alone is found out once a run of the same key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.features.buckets import BUCKETS, buckets_of
from obligor.features.kernels.compiling import entry
from obligor.features.key_runs import in_runs, run_starts, text_arrays
from obligor.features.lake_files import Range
from obligor.features.layout import read_only
from obligor.features.requests import Requests

__all__ = ["Routed", "route"]

Ints = NDArray[np.int64]
Run = Callable[..., Iterable[Any]]


@dataclass(frozen=True)
class Routed:
    """n requests bucket by bucket, within a bucket in their own order."""

    start: Ints  # (BUCKETS + 1,) where each bucket's requests begin
    row: Ints  # (n,) the place of each among the requests
    as_of: Ints  # (n,)
    self_root: Ints  # (n,), -1 throughout where nobody asks about an application
    keys: pa.RunEndEncodedArray  # (n,)

    def of(self, buckets: Range) -> slice:
        """Return where the requests of a range of buckets lie."""
        return slice(int(self.start[buckets[0]]), int(self.start[buckets[1] + 1]))

    def narrowed(self, buckets: Range) -> Range:
        """Return the part of a range that its requests lie in, where they are too few to need all of it."""
        first, last = buckets
        own = self.of(buckets)
        if own.stop - own.start > last - first:
            return buckets
        held = first + np.flatnonzero(np.diff(self.start[first : last + 2]))
        return int(held[0]), int(held[-1])


class _Part(NamedTuple):
    """Some of the requests, by the runs of their keys."""

    own: slice
    starts: Ints  # (runs + 1,) from the part's first request on
    keys: pa.StringArray  # (runs,)
    buckets: NDArray[np.int16]  # (runs,)
    counts: Ints  # (BUCKETS, 3) its requests, runs, and bytes of the runs' keys


def route(requests: Requests, keys: pa.StringArray, entities: Sequence[str], parts: int, run: Run) -> Routed:
    """Return requests by the buckets of their `keys`; null lies in the first.

    The work is cut in `parts` that `run` (such as a pool's map) carries out.
    """
    n = len(requests)
    edges = [n * part // parts for part in range(parts + 1)]
    found = list(run(lambda own: _part(keys, slice(*own), entities), pairwise(edges)))
    # A bucket's requests come part by part, so each part begins where those before it end.
    counts = np.stack([part.counts for part in found], axis=1)  # (BUCKETS, parts, 3)
    ends = np.cumsum(counts.reshape(-1, 3), axis=0)
    begins = ends.reshape(counts.shape) - counts
    _, runs, size = ends[-1].tolist()
    instants, roots = read_only(requests.as_of), read_only(requests.self_root)
    own_facts = bool((roots >= 0).any())
    row, as_of, root = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n if own_facts else 0, np.int64)
    run_ends, named = np.empty(runs, np.int32), np.empty(runs, np.bool_)
    text_begins, copied = np.empty(runs + 1, np.int32), np.empty(size, np.uint8)
    text_begins[runs] = size

    def place(number: int) -> None:
        part = found[number]
        offsets, texts = text_arrays(part.keys)
        _place(
            part.buckets, part.starts, part.own.start, instants[part.own], roots[part.own], offsets, texts,
            part.keys.is_valid().to_numpy(zero_copy_only=False), begins[:, number].copy(), row, as_of, root, run_ends,
            named, text_begins, copied,
        )  # fmt: skip

    for _ in run(place, range(parts)):
        pass
    valid = None if named.all() else pa.array(named).buffers()[1]
    texts = pa.StringArray.from_buffers(runs, pa.py_buffer(text_begins), pa.py_buffer(copied), valid)
    if not own_facts:
        root = np.broadcast_to(np.int64(-1), n)
    start = np.append(begins[:, 0, 0], n)
    return Routed(start, row, as_of, root, in_runs(run_ends, texts, n))


def _part(keys: pa.StringArray, own: slice, entities: Sequence[str]) -> _Part:
    starts = run_starts(keys[own])
    heads = keys[own].take(pa.array(starts))
    buckets, counts = buckets_of(entities, heads), np.zeros((BUCKETS, 3), np.int64)
    starts = np.append(starts, own.stop - own.start)
    _count(buckets, starts, text_arrays(heads)[0], counts)
    return _Part(own, starts, heads, buckets, counts)


@entry
def _count(buckets: Any, starts: Any, offsets: Any, counts: Any) -> None:
    """How many requests, runs and bytes of keys each bucket has."""
    for i in range(buckets.shape[0]):
        counts[buckets[i], 0] += starts[i + 1] - starts[i]
        counts[buckets[i], 1] += 1
        counts[buckets[i], 2] += offsets[i + 1] - offsets[i]


@entry
def _place(
    buckets: Any, starts: Any, first: Any, as_of: Any, self_root: Any, offsets: Any, texts: Any, valid: Any,
    places: Any, row: Any, to_as_of: Any, to_root: Any, run_ends: Any, named: Any, ends: Any, copied: Any,
) -> None:  # fmt: skip
    """Copy each run to the next place of its bucket; `places` are the next request, run and byte of each."""
    for i in range(buckets.shape[0]):
        own = np.uint64(buckets[i])
        j, run, byte = np.uint64(places[own, 0]), np.uint64(places[own, 1]), np.uint64(places[own, 2])
        start, count = np.uint64(starts[i]), np.uint64(starts[i + 1]) - np.uint64(starts[i])
        for k in range(count):
            row[j + k], to_as_of[j + k] = first + np.int64(start + k), as_of[start + k]
        if to_root.shape[0] > 0:
            for k in range(count):
                to_root[j + k] = self_root[start + k]
        begin, length = np.uint64(offsets[i]), np.uint64(offsets[i + 1]) - np.uint64(offsets[i])
        for k in range(length):
            copied[byte + k] = texts[begin + k]
        run_ends[run], named[run], ends[run] = j + count, valid[i], byte
        places[own, 0], places[own, 1], places[own, 2] = j + count, run + np.uint64(1), byte + length
