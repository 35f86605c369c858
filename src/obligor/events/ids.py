"""The id index's hash: event_id to a 64-bit slot, keyed by the log so that nobody can choose ids that collide.

An id lives in the first free slot at or after its hash (linear probing, wrapping round). Slots never become free again,
so a search may stop at the first empty one. With 64 bits a second step is needed about once in a billion logs of 10M
events; tests shrink the hash to exercise it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from obligor.errors import IntegrityError

__all__ = ["PROBES_MAX", "SlotHash", "StagedIds", "probe", "slot_hash"]

SlotHash = Callable[[Iterable[str]], npt.NDArray[np.int64]]
PROBES_MAX = 1024

Int64s = npt.NDArray[np.int64]
_SLOT_MAX = 2**63 - 1
_MANY = 4096  # from here an array is sorted and searched; below, a dictionary is faster


def slot_hash(key: bytes) -> SlotHash:
    """Return the function from ids to their first slots: keyed BLAKE2b, 8 bytes."""
    keyed = hashlib.blake2b(key=key, digest_size=8)

    def slots(ids: Iterable[str]) -> npt.NDArray[np.int64]:
        digests = []
        for one in ids:
            digest = keyed.copy()
            digest.update(one.encode())
            digests.append(digest.digest())
        return np.frombuffer(b"".join(digests), np.int64)

    return slots


def probe(slot: int) -> Iterator[int]:
    """Yield the slots to try, in order; IntegrityError after `PROBES_MAX`, which no keyed hash of 64 bits comes near.

    >>> from itertools import islice
    >>> list(islice(probe(2**63 - 2), 3))
    [9223372036854775806, 9223372036854775807, -9223372036854775808]
    """
    for _ in range(PROBES_MAX):
        yield slot
        slot = slot + 1 if slot < _SLOT_MAX else -_SLOT_MAX - 1
    raise IntegrityError(f"{PROBES_MAX} ids have neighbouring hashes: the id index is damaged")


class StagedIds:
    """The slots that one transaction has taken so far, with the positions in them; can be undone to an earlier mark."""

    def __init__(self) -> None:
        self._added: list[tuple[Int64s, Int64s]] = []
        self._few: dict[int, int] = {}
        self._many: list[tuple[Int64s, Int64s]] = []

    def mark(self) -> int:
        """Return a mark to undo to."""
        return len(self._added)

    def undo(self, mark: int) -> None:
        """Take back what was added since the mark."""
        for slots, _ in reversed(self._added[mark:]):
            if len(slots) < _MANY:
                for slot in slots.tolist():
                    del self._few[slot]
            else:
                self._many.pop()
        del self._added[mark:]

    def add(self, slots: Int64s, positions: Int64s) -> None:
        """Take free slots."""
        self._added.append((slots, positions))
        if len(slots) < _MANY:
            self._few.update(zip(slots.tolist(), positions.tolist(), strict=True))
        else:
            order = np.argsort(slots)
            self._many.append((slots[order], positions[order]))

    def get(self, slot: int) -> int | None:
        """Return the position in a slot, or None."""
        position = self._few.get(slot)
        for slots, positions in self._many if position is None else ():
            place = int(np.searchsorted(slots, slot))
            if place < len(slots) and slots[place] == slot:
                return int(positions[place])
        return position

    def among(self, slots: Int64s) -> list[int]:
        """Return which of these slots (ascending) are taken."""
        taken = [slot for slot in slots.tolist() if slot in self._few] if self._few else []
        for own, _ in self._many:
            places = np.searchsorted(own, slots)
            places[places == len(own)] = 0
            taken += slots[own[places] == slots].tolist()
        return taken

    def ascending(self) -> tuple[Int64s, Int64s]:
        """Return all slots in ascending order, and their positions: the order that an index grows fastest in."""
        if not self._added:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        slots = np.concatenate([slots for slots, _ in self._added])
        order = np.argsort(slots)
        return slots[order], np.concatenate([positions for _, positions in self._added])[order]
