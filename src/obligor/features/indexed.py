"""An entity with very many rows, kept in memory: its closed chunks as runs of 256 rows, and tiles over them.

A chunk of the state is one run; where it holds fewer rows the rest of the run is filled with rows of mask 0. So a late
event changes one run and the tiles above it, and all later runs stay where they are. The rows are a copy of what the
state's store holds, and are thrown away and read again whenever that is simpler.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from obligor.features.arranging import compiled
from obligor.features.kernels.offline import set_rows
from obligor.features.kernels.tiles import Tiles, encode_rows, tidy_tiles
from obligor.features.layout import read_only
from obligor.features.pieces import Pieces
from obligor.features.plan import Plan
from obligor.features.tiling import tiles_of

__all__ = ["RUN", "Indexed"]

Words = NDArray[np.int64]

RUN = 256  # rows of a run: a chunk of the state has at most so many
_SPARE = 8  # a table of runs is made an eighth longer than it has to be
STEPS_AHEAD = 512  # of a decay, for rows to come
_LATEST = 2**63 - 1  # the time of rows that are not there yet


class Indexed:
    """Rows in runs of 256, each run a chunk (3 + slots, n <= 256): event_time, root, mask, values."""

    def __init__(self, chunks: Sequence[Words], bounds: Sequence[int]) -> None:
        """`bounds[i]`: the event_time that no row of chunk i is after, and none of a later chunk before."""
        self.runs = len(chunks)
        width = len(chunks[0])
        self.capacity = self.runs + self.runs // _SPARE + 1
        self._words = np.empty((width, self.capacity * RUN), np.int64)
        self._words[0, self.runs * RUN :] = _LATEST
        self._words[1:, self.runs * RUN :] = 0
        for run, chunk in enumerate(chunks):
            self._write(run, chunk, bounds[run - 1] if run else -_LATEST)
        self.times, self.roots, self.values = map(read_only, (self._words[0], self._words[1], self._words[3:]))
        self.masks = self._words[2]
        self._tiles: WeakKeyDictionary[Plan, dict[int, Tiles | None]] = WeakKeyDictionary()

    @property
    def nbytes(self) -> int:
        """How much memory the rows and their tiles take."""
        tiles = (one for own in self._tiles.values() for one in own.values() if one is not None)
        return self._words.nbytes + sum(array.nbytes for one in tiles for array in one)

    def before(self, newer: Pieces) -> Pieces:
        """Return all rows as one piece, before newer ones."""
        rows = self._words[:, : self.runs * RUN]
        spans = np.concatenate([[[0, rows.shape[1]]], newer.spans + np.array([rows.size, 0])])
        return Pieces(read_only(np.concatenate([rows.reshape(-1), newer.words])), read_only(spans))

    def tiles(self, plan: Plan, source: int) -> Tiles | None:
        """Return the tiles of one source of a plan; None where they cannot be kept."""
        own = self._tiles.setdefault(plan, {})
        if source not in own:
            own[source] = self._build(plan, source)
        return own[source]

    def _build(self, plan: Plan, source: int) -> Tiles | None:
        layout, end = compiled(plan).layout, self.runs * RUN
        span = int(self.times[0]), int(self.times[end - 1])
        tiles = tiles_of(layout, source, self.capacity * RUN, span, STEPS_AHEAD)
        if tiles is not None:
            encode_rows(layout, source, tiles, self.values, 0, end)
            masks = self.masks[:end].copy()
            self.masks[:end] = 0
            set_rows(layout, source, tiles, self.times, self.values, self.masks, masks, 0)
        return tiles

    def run(self, run: int) -> Words:
        """Return a copy of a run, (3 + slots, 256), with what fills it up."""
        return self._words[:, run * RUN : (run + 1) * RUN].copy()

    def replace(self, run: int, chunk: Words, floor: int) -> bool:
        """Put a chunk in the place of a run, or behind the last one; say whether there was room for it."""
        if run >= self.capacity:
            return False
        start, end = run * RUN, (run + 1) * RUN
        none = np.zeros(RUN, np.int64)
        if run < self.runs:
            self._switch(start, none)
        self._write(run, chunk, floor)
        self.runs = max(self.runs, run + 1)
        for plan, own in self._tiles.items():
            for source, tiles in own.items():
                if tiles is not None:
                    encode_rows(compiled(plan).layout, source, tiles, self.values, start, end)
        masks = self.masks[start:end].copy()
        self.masks[start:end] = 0
        self._switch(start, masks)
        self.masks[start:end] = masks
        return True

    def tidy(self) -> None:
        """Bring all tiles up to date."""
        for plan, own in self._tiles.items():
            for source, tiles in own.items():
                if tiles is not None:
                    rows = self.runs * RUN
                    tidy_tiles(compiled(plan).layout, source, tiles, self.times, self.values, self.masks, rows)

    def _write(self, run: int, chunk: Words, floor: int) -> None:
        start, n = run * RUN, chunk.shape[1]
        self._words[:, start : start + n] = chunk
        self._words[0, start + n : start + RUN] = chunk[0, -1] if n else floor
        self._words[1:, start + n : start + RUN] = 0

    def _switch(self, start: int, masks: Words) -> None:
        """Give a run's rows other masks in all tiles; those whose steps do not reach so far are dropped."""
        before = self.masks[start : start + RUN].copy()
        for plan, own in self._tiles.items():
            layout = compiled(plan).layout
            for source, tiles in list(own.items()):
                self.masks[start : start + RUN] = before
                if tiles is not None and not set_rows(
                    layout, source, tiles, self.times, self.values, self.masks, masks, start
                ):
                    del own[source]
