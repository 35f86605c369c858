"""Embedding all slices of a dataset by a portable encoder, part by part, in memory that does not grow with them.

Slices of like length are filled side by side, as batches are, and their padding is left out by where each ends: so the
encoder reads a batch as it lies. Each vector has the bits that the same events give one by one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from obligor.sequences.dataset import Dataset
from obligor.sequences.encoder import Encoder, Floats
from obligor.sequences.loading import arranged, filled

__all__ = ["PART_TOKENS", "embed"]

Ints = NDArray[np.int64]
PART_TOKENS = 1 << 20  # whose slices' vectors are in memory at once
PART_SLICES = 1 << 14
BATCH_TOKENS = 1 << 18  # that are filled at once, padding included


def embed(dataset: Dataset, encoder: Encoder, places: Ints, threads: int = 1) -> Iterator[tuple[Ints, Floats]]:
    """Yield the slices at `places` in their order, some at a time, and their readouts (n, r) at their as_of."""
    length = dataset.columns.length[places].astype(np.int64)
    begin = 0
    ends = np.cumsum(length)
    while begin < len(places):
        done = int(ends[begin - 1]) if begin else 0
        end = int(np.searchsorted(ends, done + PART_TOKENS, side="right"))
        end = min(max(end, begin + 1), begin + PART_SLICES)
        yield places[begin:end], _embedded(dataset, encoder, places[begin:end], length[begin:end], threads)
        begin = end


def _embedded(dataset: Dataset, encoder: Encoder, places: Ints, length: Ints, threads: int) -> Floats:
    out = np.empty((len(places), encoder.size))
    order, ends = arranged(length, BATCH_TOKENS, PART_SLICES, 0, None)
    for i in range(len(ends) - 1):
        rows = order[ends[i] : ends[i + 1]]
        batch = filled(dataset, places[rows], np.zeros(len(rows), np.int64), length[rows])
        count, longest, fields = batch.codes.shape
        begins = np.arange(count) * longest
        out[rows] = encoder.encode_slices(
            batch.codes.reshape(-1, fields), batch.parts.reshape(-1, fields), batch.time.reshape(-1), begins,
            begins + batch.length, batch.as_of, threads,
        )  # fmt: skip
    return out
