"""The arrays that drive the kernels, and the room they work in; `arranging.py` makes them of a plan.

Layouts and rooms are named tuples of arrays, because that is what kernels take.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from obligor.features.kernels.cells import BASE_WORDS
from obligor.features.kernels.decay import DECAY_WORDS
from obligor.features.kernels.keys import KEYS_MAX
from obligor.features.kernels.values import DISTINCT_MAX, entries
from obligor.features.measures import Unit
from obligor.features.plan import STACK_MAX

__all__ = ["FOREVER_US", "Compiled", "Layout", "Room", "Rows", "Sizes", "Source", "read_only", "room"]

FOREVER_US = 2**62  # a window without a lower bound; longer than any that dates can span
OWN_MAX = 64  # versions of an application's own fact among the rows of one entity

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]


class Layout(NamedTuple):
    """A plan as arrays; every index is into another array. Made by `layout.py`, columns in `kernels/columns.py`."""

    sources: Ints  # (sources, SOURCE_COLUMNS)
    ladders: Ints  # (ladders, LADDER_COLUMNS)
    rungs: Ints  # (rungs,) window length in us, ascending within a ladder
    groups: Ints  # (groups, 11)
    passes: Ints  # (passes, PASS_COLUMNS)
    outputs: Ints  # (outputs, 2)
    parameters: Floats  # (outputs,)
    weights: Floats  # of decays, by age in steps
    uses: Ints  # (uses, 4) source by source
    divisors: Floats  # (uses,) 10 ** scale
    conditions: Ints  # (conditions, 5)
    keys: Ints  # (measures over keys, 6)
    inner: Ints  # (inner measures, 6)
    inner_divisors: Floats  # (inner measures,)
    programs: Ints  # (programs, 3): feature, start and end of its steps
    steps: Ints  # (steps, 2): operation, place of its operand
    constants: Floats


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


class Room(NamedTuple):
    """What one thread works in."""

    state: Ints  # cells of all groups
    reached: Ints  # (ladders,) the window that rows are added to
    progress: Ints  # (ladders,) rows missing, or since when
    results: Floats
    maps: Ints  # (maps, entries + 1, 3)
    buffers: Ints  # (ordered and recent passes, values)
    held: Ints  # (ordered and recent passes,)
    dense: NDArray[np.int32]
    decays: Ints  # (decays, DECAY_WORDS)
    decayed: Floats  # (decays, 1)
    tables: Ints  # (measures over keys, entries + 1, 2)
    numbers: Ints  # (measures over keys, words)
    row: Floats  # (inner measures,)
    found: Floats  # (KEYS_MAX,)
    keys: Ints  # (DISTINCT_MAX,) of a ranking
    bounds: Ints  # (128,) of a sort
    ranks: Ints  # (64,) of registers
    own: Ints  # (64,) masks of the application's own rows
    visible: Ints  # (rows,) masks of the rows that are in the view
    stack: Floats  # (STACK_MAX,)


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


class Compiled(NamedTuple):
    """A plan's arrays, the sources that they speak of, in order, and the calendar periods (unit, back) they need."""

    layout: Layout
    sources: tuple[Source, ...]
    periods: tuple[tuple[Unit, int], ...]
    sizes: Sizes


def room(sizes: Sizes, ladders: int, rows_max: int) -> Room:
    """Return room for questions whose sources have at most `rows_max` rows each."""
    held = entries(rows_max) + 1
    keys = min(rows_max, KEYS_MAX)
    return Room(
        state=np.empty(sizes.state, np.int64),
        reached=np.empty(ladders, np.int64),
        progress=np.empty(ladders, np.int64),
        results=np.empty(sizes.results, np.float64),
        maps=np.empty((sizes.maps, held, 3), np.int64),
        buffers=np.empty((sizes.buffers, min(sizes.values, max(rows_max, 1))), np.int64),
        held=np.empty(sizes.buffers, np.int64),
        dense=np.empty(sizes.dense, np.int32),
        decays=np.empty((sizes.decays, DECAY_WORDS), np.int64),
        decayed=np.empty((sizes.decays, 1), np.float64),
        tables=np.empty((sizes.keys, held, 2), np.int64),
        numbers=np.empty((sizes.keys, keys * sizes.inner * BASE_WORDS), np.int64),
        row=np.empty(sizes.inner, np.float64),
        found=np.empty(keys if sizes.keys else 0, np.float64),
        keys=np.empty(DISTINCT_MAX if sizes.maps or sizes.dense else 0, np.int64),
        bounds=np.empty(128, np.int64),
        ranks=np.empty(64, np.int64),
        own=np.empty(OWN_MAX, np.int64),
        visible=np.empty(rows_max, np.int64),
        stack=np.empty(STACK_MAX, np.float64),
    )


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in the one form that kernels are compiled for: contiguous, aligned, read only."""
    flags = array.flags
    if not flags.writeable and flags.c_contiguous and flags.aligned:
        return array
    array = np.require(array, requirements=["C", "A"]).view()
    array.flags.writeable = False
    return array
