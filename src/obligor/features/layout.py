"""The arrays that drive the kernels, and the room they work in; `arranging.py` makes them of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from obligor.features.kernels.arrays import Blocks, Layout, Room, blocks, views
from obligor.features.kernels.cells import BASE_WORDS
from obligor.features.kernels.decay import DECAY_WORDS
from obligor.features.kernels.keys import KEYS_MAX
from obligor.features.kernels.lanes import LANES
from obligor.features.kernels.values import DISTINCT_MAX, entries
from obligor.features.measures import Unit
from obligor.features.plan import STACK_MAX

__all__ = [
    "FOREVER_US",
    "Compiled",
    "Desk",
    "Layout",
    "Room",
    "Rows",
    "Sizes",
    "Source",
    "layout_in_blocks",
    "read_only",
    "room",
]

FOREVER_US = 2**62  # a window without a lower bound; longer than any that dates can span
OWN_MAX = 64  # versions of an application's own fact among the rows of one entity

Ints: TypeAlias = NDArray[np.int64]


class Sizes(NamedTuple):
    """How much room a plan needs."""

    state: int = 0  # words of all groups' cells
    results: int = 0
    maps: int = 0
    buffers: int = 0  # of passes that keep values in order
    values: int = 0  # the most that one of them keeps
    dense: int = 0
    decays: int = 0
    keys: int = 0  # measures over keys
    inner: int = 0  # the most of one of them


class Rows(NamedTuple):
    """The facts of all entities of one type, sorted by (entity, event_time, root)."""

    offsets: Ints  # (entities + 1,)
    event_time: Ints  # (n,)
    known: Ints  # (n,) when the version was known, its chain included
    position: Ints  # (n,) the greatest position of the version's chain
    root: Ints  # (n,)
    mask: Ints  # (n,) selections; the sign bit says that versions of the fact may rank above this one
    values: Ints  # (slots, n)
    version: NDArray[np.int32]  # (n,) -1, or where the versions above are listed
    above_start: Ints
    above_end: Ints
    above_position: Ints
    above_known: Ints


class Source(NamedTuple):
    """A timeline under fields of the application."""

    timeline: str
    via: tuple[str, ...]
    reach_us: int | None  # how far back its measures look; None: to the beginning
    width: int  # words of a row: event_time, root, mask, values


class Compiled(NamedTuple):
    """A plan's arrays, the sources that they speak of, in order, and the calendar periods (unit, back) they need."""

    layout: Layout
    sources: tuple[Source, ...]
    periods: tuple[tuple[Unit, int], ...]
    sizes: Sizes
    packed: Blocks  # what the layout's arrays lie in


class Desk(NamedTuple):
    """Room for one thread, and the blocks that it lies in."""

    room: Room
    packed: Blocks
    rows_max: int


def room(sizes: Sizes, ladders: int, rungs: int, rows_max: int) -> Desk:
    """Return room for questions whose sources have at most `rows_max` rows each."""
    held = entries(rows_max) + 1
    keys = min(rows_max, KEYS_MAX)
    arrays = Room(
        state=np.empty(sizes.state, np.int64),
        reached=np.empty(ladders, np.int64),
        progress=np.empty(ladders, np.int64),
        guesses=np.zeros(rungs + ladders, np.int64),
        maps=np.empty((sizes.maps, held, 3), np.int64),
        buffers=np.empty((sizes.buffers, min(sizes.values, max(rows_max, 1))), np.int64),
        held=np.empty(sizes.buffers, np.int64),
        decays=np.empty((sizes.decays, DECAY_WORDS), np.int64),
        tables=np.empty((sizes.keys, held, 2), np.int64),
        numbers=np.empty((sizes.keys, keys * sizes.inner * BASE_WORDS), np.int64),
        keys=np.empty(DISTINCT_MAX if sizes.maps or sizes.dense else 0, np.int64),
        bounds=np.empty(128, np.int64),
        ranks=np.empty(256, np.int64),
        own=np.empty(OWN_MAX, np.int64),
        visible=np.empty(rows_max + LANES, np.int64),
        results=np.empty(sizes.results, np.float64),
        decayed=np.empty((sizes.decays, 1), np.float64),
        row=np.empty(sizes.inner, np.float64),
        found=np.empty(keys if sizes.keys else 0, np.float64),
        stack=np.empty(STACK_MAX, np.float64),
        dense=np.zeros(sizes.dense, np.int32),
    )
    packed = blocks(arrays)
    return Desk(Room(*views(packed, _shapes(arrays))), packed, rows_max)


def layout_in_blocks(layout: Layout) -> tuple[Layout, Blocks]:
    """Return a layout's arrays again as views of blocks, and the blocks."""
    packed = blocks(layout)
    return Layout(*views(packed, _shapes(layout))), packed


def _shapes(arrays: Sequence[NDArray[Any]]) -> list[tuple[str, int]]:
    kinds = {np.dtype(np.int64): "ints", np.dtype(np.float64): "floats", np.dtype(np.int32): "small"}
    return [(kinds[array.dtype], array.ndim) for array in arrays]


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in the one form that kernels are compiled for: contiguous, aligned, read only."""
    if not (array.flags.c_contiguous and array.flags.aligned):
        array = np.require(array, requirements=["C", "A"])
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array
