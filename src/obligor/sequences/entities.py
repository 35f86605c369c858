"""The entities of a dataset in the order of their keys: what is learnt from, and what of it is held back.

Where a slice lies in a dataset depends on where it was read from and on who else is there: an entity that is first
heard of after the cut-off moves the others. By their keys, and without those that have no event yet, they come in one
order, so that what is learnt depends on nothing but what was known at the cut-off.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from obligor.sequences.dataset import Dataset
from obligor.sequences.loading import Loader

__all__ = ["Entities", "by_key", "held_back"]

Ints = NDArray[np.int64]


def by_key(dataset: Dataset) -> Ints:
    """Return the places of the entities that have an event, in the order of their keys."""
    order: Ints = pc.sort_indices(dataset.keys()).to_numpy().astype(np.int64)
    return order[dataset.columns.length[order] > 0]


def held_back(dataset: Dataset, share: float, seed: int) -> NDArray[np.bool_]:
    """Return which entities are held back, by place: each by a hash of its key, whoever else there is."""
    keys: pa.StringArray = dataset.keys()
    salt = seed.to_bytes(8, "little")
    found = [hashlib.blake2b(key.encode(), digest_size=8, salt=salt).digest() for key in keys.to_pylist()]
    chance = np.frombuffer(b"".join(found), "<u8").astype(np.float64) / 2.0**64
    return np.asarray(chance < share)


@dataclass(frozen=True, eq=False)
class Entities(Loader):
    """The slices of entities that have an event, each once an epoch; the order of batches knows keys, not places."""

    places: Ints | None = None  # those of `by_key`

    def _wanted(self) -> Ints:
        return by_key(self.dataset) if self.places is None else self.places
