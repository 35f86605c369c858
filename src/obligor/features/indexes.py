"""The entities that are kept in memory, least recently asked for dropped first; see `indexed.py`.

What becomes of an entity's chunks is noted as it is written and carried out when the entity is next asked for: the
usual case, a last chunk that grew, costs one run; where chunks came between others the entity is read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
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
        self.width = width
        self.changed: dict[bytes, bytes | None] = {}
        times = [unbound(name)[0] for name in self.names]
        self.rows = Indexed([decode_chunk(entry, width) for _, entry in chunks], times)

    def refresh(self) -> bool:
        """Carry out what changed; False where the entity has to be read again."""
        if not self.changed:
            return True
        kept = [name for name in self.names if name not in self.changed]
        put = {name: entry for name, entry in self.changed.items() if entry is not None}
        names = sorted([*kept, *put])
        same = next((i for i, (a, b) in enumerate(zip(self.names, names, strict=False)) if a != b), len(self.names))
        if len(names) < len(self.names) or same < len(self.names) - 1:
            return False
        for run, name in enumerate(names):
            if name in put and not self.rows.replace(run, decode_chunk(put[name], self.width), self._floor(names, run)):
                return False
        self.names, self.changed = names, {}
        return True

    @staticmethod
    def _floor(names: Sequence[bytes], run: int) -> int:
        return unbound(names[run - 1])[0] if run else -(2**63 - 1)


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
