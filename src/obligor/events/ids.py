"""The id index's hash: event_id to a 64-bit slot, keyed by the log so that nobody can choose ids that collide.

An id lives in the first free slot at or after its hash (linear probing, wrapping round). Slots never become free again,
so a search may stop at the first empty one. With 64 bits a second step is needed about once in a billion logs of 10M
events; tests shrink the hash to exercise it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

__all__ = ["SlotHash", "following_slot", "slot_hash"]

SlotHash = Callable[[Iterable[str]], npt.NDArray[np.int64]]
_SLOT_MAX = 2**63 - 1


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


def following_slot(slot: int) -> int:
    """Return the slot that is tried after `slot`."""
    return slot + 1 if slot < _SLOT_MAX else -_SLOT_MAX - 1
