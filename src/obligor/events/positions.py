"""Positions and cuts: an event's place in the log, and the set of places that a question may see.

A position is an int64, shard << 48 | sequence; sequences start at 1 and have no gaps. A cut is the last visible
sequence of each shard. The embedded log has the one shard 0, where position and sequence are the same number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from obligor.errors import BadInput

__all__ = [
    "SEQUENCE_BITS",
    "SEQUENCE_MAX",
    "SHARD_MAX",
    "Cut",
    "cut_array",
    "pack",
    "sequence_of",
    "shard_of",
    "visible",
]

SEQUENCE_BITS = 48
SEQUENCE_MAX = (1 << SEQUENCE_BITS) - 1
SHARD_MAX = (1 << 15) - 1

Cut = dict[int, int]
Positions = npt.NDArray[np.int64]


def pack(shard: int, sequence: int) -> int:
    """Return the position of a shard's sequence.

    >>> pack(0, 7), shard_of(pack(3, 7)), sequence_of(pack(3, 7))
    (7, 3, 7)
    """
    if not (0 <= shard <= SHARD_MAX and 0 <= sequence <= SEQUENCE_MAX):
        raise BadInput(f"expected a shard of 15 bits and a sequence of 48 bits, got {shard!r} and {sequence!r}")
    return shard << SEQUENCE_BITS | sequence


def shard_of(position: int) -> int:
    """Return the shard of a position."""
    return position >> SEQUENCE_BITS


def sequence_of(position: int) -> int:
    """Return the sequence of a position within its shard."""
    return position & SEQUENCE_MAX


def cut_array(cut: Mapping[int, int]) -> Positions:
    """Return the cut as an int64 array indexed by shard, the form that kernels take; an absent shard shows nothing.

    >>> cut_array({0: 5, 2: 9})
    array([5, 0, 9])
    """
    bounds = np.zeros(max(cut, default=0) + 1, dtype=np.int64)
    for shard, sequence in cut.items():
        bounds[shard] = sequence
    return bounds


def visible(positions: Positions, cut: Mapping[int, int]) -> npt.NDArray[np.bool_]:
    """Return which positions the cut shows.

    >>> visible(np.array([1, 5, 6, pack(1, 1)]), {0: 5})
    array([ True,  True, False, False])
    """
    bounds = cut_array(cut)
    shards = positions >> SEQUENCE_BITS
    known = shards < len(bounds)
    limits: Any = bounds[np.where(known, shards, 0)]
    shown: npt.NDArray[np.bool_] = known & ((positions & SEQUENCE_MAX) <= limits)
    return shown
