"""Positions and cuts: an event's place in the log, and the set of places that a question may see.

A position is an int64, shard << 48 | sequence; sequences start at 1 and have no gaps. A cut is the last visible
sequence of each shard. The embedded log has the one shard 0, where position and sequence are the same number.
A ledger has places of the same form, so that a number alone says which shard's ledger a row is in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    "is_within",
    "newest",
    "nth",
    "pack",
    "sequence_of",
    "shard_of",
    "shows",
    "stretches",
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


def shows(cut: Mapping[int, int], position: int) -> bool:
    """Return whether the cut shows one position."""
    return sequence_of(position) <= cut.get(shard_of(position), 0)


def is_within(cut: Mapping[int, int], other: Mapping[int, int]) -> bool:
    """Return whether everything that the cut shows is shown by the other too.

    >>> is_within({0: 5}, {0: 5, 1: 9}), is_within({0: 5, 1: 1}, {0: 7})
    (True, False)
    """
    return all(sequence <= other.get(shard, 0) for shard, sequence in cut.items())


def stretches(after: Mapping[int, int], upto: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Yield for each shard in which `upto` shows more than `after` the positions (after, upto].

    >>> list(stretches({0: 5, 1: 9}, {0: 7, 1: 9, 2: 1})) == [(5, 7), (pack(2, 0), pack(2, 1))]
    True
    """
    for shard in sorted(upto):
        if upto[shard] > after.get(shard, 0):
            yield pack(shard, after.get(shard, 0)), pack(shard, upto[shard])


def nth(ends: Mapping[int, int], number: int) -> int:
    """Return the position of the event (or row) that is number `number`, from 1 on, of all shards one after the other.

    >>> nth({0: 5, 1: 9}, 5), nth({0: 5, 1: 9}, 6) == pack(1, 1)
    (5, True)
    """
    for shard in sorted(ends):
        if number <= ends[shard]:
            return pack(shard, number)
        number -= ends[shard]
    raise IndexError(f"{number} beyond the last of {sum(ends.values())}")


def newest(ends: Mapping[int, int], count: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches (after, upto] of the last `count` positions in all, from each shard its share.

    >>> list(newest({0: 7}, 3)), [(sequence_of(a), sequence_of(b)) for a, b in newest({0: 60, 1: 30}, 9)]
    ([(4, 7)], [(54, 60), (27, 30)])
    """
    total = sum(ends.values())
    for shard in sorted(ends):
        own = min(ends[shard], -(-count * ends[shard] // total) if total else 0)
        if own:
            yield pack(shard, ends[shard] - own), pack(shard, ends[shard])


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
