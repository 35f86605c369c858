"""The entities that are kept in memory, least recently asked for dropped first; see `indexed.py`.

What becomes of an entity's chunks is noted as it is written, and carried out after the commit or when the entity is
next asked for: the usual case, a last chunk that grew, costs one run. Some runs are left empty, so that a chunk that
split under late rows moves the few between it and the next empty one. The entity is read again where none is near,
where it has grown by more than an eighth, or where its oldest chunk has gone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from obligor.features.entries import unbound
from obligor.features.indexed import Indexed
from obligor.features.state_store import Entry
from obligor.features.tails import decode_chunk

__all__ = ["BYTES_MAX", "CHUNKS_MIN", "Indexes"]

CHUNKS_MIN = 16  # closed chunks of an entity from which it is kept in memory
BYTES_MAX = 1 << 30  # memory that the rows may take, about
SPARE_EVERY = 12  # chunks for which a run is left empty
MOVED_MAX = 100  # chunks that are moved for a new one: about a millisecond
_LOWEST = -(2**63 - 1)

Words = NDArray[np.int64]
Scanned = Sequence[tuple[bytes, Entry]]  # the keys and entries of all of an entity's chunks, in order


class _Kept:
    """One entity: its rows, which chunk lies in each run, and what became of chunks since."""

    def __init__(self, chunks: Scanned, width: int) -> None:
        entries: list[Entry | None] = []
        self.names: list[bytes | None] = []  # of the chunks in the order of runs; None of an empty run
        for number, (name, entry) in enumerate(chunks):
            if number and number % SPARE_EVERY == 0:
                self.names.append(None)
                entries.append(None)
            self.names.append(name)
            entries.append(entry)
        self.places = {name: run for run, name in enumerate(self.names) if name is not None}
        self.changed: dict[bytes, bytes | None] = {}
        self.tail: bytes | None = None  # where the store is far, as it is there; None where it has to be asked
        self._nothing = np.empty((width, 0), np.int64)
        self._width = width
        times = accumulate((_LOWEST if name is None else unbound(name)[0] for name in self.names), max)
        self.rows = Indexed([self._chunk(entry) for entry in entries], list(times))

    def _chunk(self, entry: Entry | None) -> Words:
        return self._nothing if entry is None else decode_chunk(entry, self._width)

    def refresh(self) -> bool:
        """Carry out what changed; False where the entity has to be read again."""
        if not self.changed:
            return True
        changed, self.changed = self.changed, {}
        left = [self.places.pop(name) for name, entry in changed.items() if entry is None and name in self.places]
        for place in left:
            self.names[place] = None
        if self.names[0] is None:  # then nothing would say where the rows begin
            return False
        for name, entry in sorted((name, entry) for name, entry in changed.items() if entry is not None):
            run = self.places[name] if name in self.places else self._room_for(name)
            if run is None or not self._put(run, entry):
                return False
            self.names[run], self.places[name] = name, run
        return all(self._put(run, None) for run in left if self.names[run] is None)

    def _put(self, run: int, entry: bytes | None) -> bool:
        before = next((name for name in reversed(self.names[:run]) if name is not None), None)
        return self.rows.replace(run, self._chunk(entry), _LOWEST if before is None else unbound(before)[0])

    def _room_for(self, name: bytes) -> int | None:
        """Return a run for a new chunk between those below and above it; None where no empty one is near."""
        below = next(run for run in range(len(self.names) - 1, -1, -1) if self.names[run] is not None)
        above = len(self.names)
        if name < (self.names[below] or b""):
            present = [(own, run) for run, own in enumerate(self.names) if own is not None]
            place = bisect_left(present, (name, 0))
            above, below = present[place][1], present[place - 1][1] if place else -1
        elif above == below + 1:
            self.names.append(None)
            return above
        for run in range(below + 1, above - 1):  # what fills them may be of later times than the new chunk
            self._put(run, None)
        return above - 1 if above - below > 1 else self._moved(below, above)

    def _moved(self, below: int, above: int) -> int | None:
        """Make one of two neighbouring runs free by moving chunks towards the nearest empty run."""
        for distance in range(1, MOVED_MAX + 1):
            right, left = above + distance, below - distance
            if right == len(self.names) < self.rows.capacity:
                self.names.append(None)
            if right < len(self.names) and self.names[right] is None:
                return above if all(self._move(run - 1, run) for run in range(right, above, -1)) else None
            if left >= 0 and self.names[left] is None:
                return below if all(self._move(run + 1, run) for run in range(left, below)) else None
        return None

    def _move(self, run: int, to: int) -> bool:
        name = self.names[run]
        assert name is not None, "only chunks are moved"
        self.names[to], self.names[run], self.places[name] = name, None, to
        return self.rows.replace(to, self.rows.run(run), _LOWEST)


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

    def tail(self, start: bytes) -> bytes | None:
        """Return the tail of an entity that is kept, where that is known."""
        kept = self._kept.get(start)
        return None if kept is None else kept.tail

    def set_tails(self, starts: Iterable[bytes], tail: Callable[[bytes], Entry | None]) -> list[bytes]:
        """Keep the tails of those among some entities that are kept, and return these; `tail`: of one of them."""
        found = [start for start in starts if start in self._kept] if self._kept else []
        for start in found:
            entry = tail(start)
            self._kept[start].tail = None if entry is None else bytes(entry)
        return found

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
