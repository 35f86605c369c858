"""Requests in the order in which the lake is gone through: those of one bucket lie together.

They are read once from the first to the last and copied to where they belong, in parts that threads take, because what
each range of buckets would otherwise gather from all over them costs more than reading the range itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.features.buckets import BUCKETS, buckets_of
from obligor.features.kernels.compiling import entry
from obligor.features.lake_files import Range
from obligor.features.layout import read_only
from obligor.features.requests import Requests, text_arrays

__all__ = ["Routed", "route"]

Ints = NDArray[np.int64]
Run = Callable[..., Iterable[Any]]
_ONE, _EIGHT = np.uint64(1), np.uint64(8)


@dataclass(frozen=True)
class Routed:
    """n requests bucket by bucket, within a bucket in their own order."""

    start: Ints  # (BUCKETS + 1,) where each bucket's requests begin
    row: Ints  # (n,) the place of each among the requests
    as_of: Ints  # (n,)
    self_root: Ints  # (n,), -1 throughout where nobody asks about an application
    keys: pa.StringArray

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


def route(requests: Requests, keys: pa.StringArray, entities: Sequence[str], parts: int, run: Run) -> Routed:
    """Return requests by the buckets of their `keys`; null lies in the first.

    The work is cut in `parts` that `run` (such as a pool's map) carries out.
    """
    n = len(requests)
    edges = [n * part // parts for part in range(parts + 1)]
    offsets, texts = text_arrays(keys)
    buckets, counts = np.empty(n, np.int16), np.zeros((parts, BUCKETS, 2), np.int64)

    def count(part: int) -> None:
        own = slice(edges[part], edges[part + 1])
        buckets[own] = buckets_of(entities, keys[own])
        _count(buckets[own], offsets[own.start :], counts[part])

    for _ in run(count, range(parts)):
        pass
    # A bucket's rows come part by part, so each part begins where those before it end.
    by_bucket = counts.transpose(1, 0, 2).reshape(-1, 2)
    begins = (np.cumsum(by_bucket, axis=0) - by_bucket).reshape(BUCKETS, parts, 2).transpose(1, 0, 2)
    size = int(counts[:, :, 1].sum())
    instants, roots = read_only(requests.as_of), read_only(requests.self_root)
    own_facts = bool((roots >= 0).any())
    row, as_of, root = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n if own_facts else 0, np.int64)
    ends, copied = np.empty(n + 1, np.int32), np.empty(size, np.uint8)
    ends[n] = size

    def place(part: int) -> None:
        own = slice(edges[part], edges[part + 1])
        _place(
            buckets[own], own.start, instants[own], roots[own], offsets[own.start :], texts,
            begins[part].copy(order="C"), row, as_of, root, ends, copied,
        )  # fmt: skip

    for _ in run(place, range(parts)):
        pass
    valid = None
    if keys.null_count:
        valid = pa.array(keys.is_valid().to_numpy(zero_copy_only=False)[row]).buffers()[1]
    if not own_facts:
        root = np.broadcast_to(np.int64(-1), n)
    start = np.append(begins[0, :, 0], n)
    return Routed(
        start, row, as_of, root, pa.StringArray.from_buffers(n, pa.py_buffer(ends), pa.py_buffer(copied), valid)
    )


@entry
def _count(buckets: Any, offsets: Any, counts: Any) -> None:
    """How many rows and bytes of keys each bucket has."""
    for i in range(buckets.shape[0]):
        counts[buckets[i], 0] += 1
        counts[buckets[i], 1] += offsets[i + 1] - offsets[i]


@entry
def _place(
    buckets: Any, first: Any, as_of: Any, self_root: Any, offsets: Any, texts: Any, places: Any, row: Any,
    to_as_of: Any, to_root: Any, ends: Any, copied: Any,
) -> None:  # fmt: skip
    """Copy each row to the next place of its bucket; `places` are the next row and the next byte of each."""
    for i in range(buckets.shape[0]):
        number = np.uint64(buckets[i])
        j, byte = np.uint64(places[number, 0]), np.uint64(places[number, 1])
        row[j], to_as_of[j], ends[j] = first + i, as_of[i], byte
        if to_root.shape[0] > 0:
            to_root[j] = self_root[i]
        start, length = np.uint64(offsets[i]), np.uint64(offsets[i + 1]) - np.uint64(offsets[i])
        k = np.uint64(0)
        while k + _EIGHT <= length:  # eight bytes are one move
            for one in range(8):
                copied[byte + k + np.uint64(one)] = texts[start + k + np.uint64(one)]
            k += _EIGHT
        while k < length:
            copied[byte + k] = texts[start + k]
            k += _ONE
        places[number, 0] = j + _ONE
        places[number, 1] = byte + length
