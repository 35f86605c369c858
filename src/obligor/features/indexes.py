"""The entities that are kept in memory, least recently asked for dropped first; see `indexed.py`.

What becomes of an entity's chunks is noted as it is written, and carried out after the commit or when the entity is
next asked for: the usual case, a last chunk that grew, costs one run; where chunks came between others the entity is
read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from obligor.features.entries import unbound
from obligor.features.indexed import Indexed
from obligor.features.state_store import Entry
from obligor.features.tails import decode_chunk

__all__ = ["BYTES_MAX", "CHUNKS_MIN", "Indexes"]

CHUNKS_MIN = 16  # closed chunks of an entity from which it is kept in memory
BYTES_MAX = 1 << 30  # memory that the rows may take, about

Words = NDArray[np.int64]
Scanned = Sequence[tuple[bytes, Entry]]  # the keys and entries of all of an entity's chunks, in order


class _Kept:
    """One entity: its rows, the keys of its chunks in order, and what became of chunks since."""

    def __init__(self, chunks: Scanned, width: int) -> None:
        self.names = [name for name, _ in chunks]
        self.places = {name: place for place, name in enumerate(self.names)}
        self.width = width
        self.changed: dict[bytes, bytes | None] = {}
        times = [unbound(name)[0] for name in self.names]
        self.rows = Indexed([decode_chunk(entry, width) for _, entry in chunks], times)

    def refresh(self) -> bool:
        """Carry out what changed; False where the entity has to be read again."""
        if not self.changed:
            return True
        gone = {name for name, entry in self.changed.items() if entry is None and name in self.places}
        end = len(self.names)
        while end and self.names[end - 1] in gone:
            gone.discard(self.names[end - 1])
            end -= 1
        put = sorted((name, entry) for name, entry in self.changed.items() if entry is not None)
        more = [name for name, _ in put if self.places.get(name, end) >= end]
        between = bool(more) and end > 0 and more[0] <= self.names[end - 1]
        if gone or between or end + len(more) < len(self.names):
            return False
        for name in self.names[end:]:
            del self.places[name]
        self.names[end:] = more
        self.places.update((name, end + i) for i, name in enumerate(more))
        self.changed = {}
        return all(self._replace(self.places[name], entry) for name, entry in put)

    def _replace(self, run: int, entry: bytes) -> bool:
        floor = unbound(self.names[run - 1])[0] if run else -(2**63 - 1)
        return self.rows.replace(run, decode_chunk(entry, self.width), floor)


class Indexes:
    """Entities by how their keys begin."""

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    def changed(self, start: bytes, name: bytes, entry: Entry | None) -> bool:
        """Note what became of a chunk (None: deleted) and say whether its entity is kept."""
        kept = self._kept.get(start)
        if kept is not None:
            kept.changed[name] = None if entry is None else bytes(entry)
        return kept is not None

    def find(self, start: bytes) -> Indexed | None:
        """Return an entity's rows if they are kept."""
        kept = self._kept.get(start)
        if kept is None:
            return None
        if not kept.refresh():
            del self._kept[start]
            return None
        self._kept.move_to_end(start)
        return kept.rows

    def tidy(self, starts: Iterable[bytes]) -> None:
        """Carry out what changed of some entities, so that no question has to."""
        for start in starts:
            rows = self.find(start)
            if rows is not None:
                rows.tidy()

    def keep(self, start: bytes, width: int, scan: Callable[[], Scanned]) -> Indexed:
        """Read an entity's rows and keep them."""
        chunks = scan()
        assert chunks, "an entity without chunks is not worth keeping"
        assert all(a < b for (a, _), (b, _) in pairwise(chunks)), "chunks come in the order of their keys"
        kept = self._kept[start] = _Kept(chunks, width)
        while len(self._kept) > 1 and sum(one.rows.nbytes for one in self._kept.values()) > self._bytes_max:
            self._kept.popitem(last=False)
        return kept.rows

    def forget(self, starts: Sequence[bytes] | None = None) -> None:
        """Drop some entities, or all."""
        for start in list(self._kept) if starts is None else starts:
            self._kept.pop(start, None)
