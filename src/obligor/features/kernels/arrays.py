"""What kernels are driven by and work in: named tuples of arrays, each of which lies in one of three blocks.

A tuple of forty arrays costs some microseconds to hand over from Python, and as many misses of the cache and of the
page table when it has not been used for a while. So a question online hands over the blocks, and the kernel finds the
arrays in them by the table at the beginning of the integers: for each array its beginning and its dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numba import types as _types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic
from numba.np import arrayobj as _arrayobj
from numpy.typing import NDArray

from obligor.features.kernels.compiling import woven

__all__ = ["Blocks", "Layout", "Room", "blocks", "layout_of", "room_of", "view", "views"]

cgutils: Any = _cgutils  # which have no types
types: Any = _types
arrayobj: Any = _arrayobj

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Small: TypeAlias = NDArray[np.int32]

_ENTRY = 4  # words of the table for an array: where it begins, three dimensions
_ONE, _TWO, _THREE = np.uint64(1), np.uint64(2), np.uint64(3)  # words behind an entry's first


class Layout(NamedTuple):
    """A plan as arrays; every index is into another array. Columns in `columns.py`."""

    sources: Ints  # (sources, SOURCE_COLUMNS)
    ladders: Ints  # (ladders, LADDER_COLUMNS)
    rungs: Ints  # (rungs,) window length in us, ascending within a ladder
    groups: Ints  # (groups, GROUP_COLUMNS)
    passes: Ints  # (passes, PASS_COLUMNS)
    outputs: Ints  # (outputs, 2)
    uses: Ints  # (uses, 4) source by source
    conditions: Ints  # (conditions, 5)
    keys: Ints  # (measures over keys, 7)
    inner: Ints  # (inner measures, 6)
    programs: Ints  # (programs, 3): feature, start and end of its steps
    steps: Ints  # (steps, 2): operation, place of its operand; of + - * whether the result must be an exact integer
    parameters: Floats  # (outputs,)
    weights: Floats  # of decays, by age in steps
    divisors: Floats  # (uses,) 10 ** scale
    inner_divisors: Floats  # (inner measures,)
    constants: Floats


class Room(NamedTuple):
    """What one thread works in."""

    state: Ints  # cells of all groups
    reached: Ints  # (ladders,) the window that rows are added to
    progress: Ints  # (ladders,) rows missing, or since when
    guesses: Ints  # (rungs + ladders,) where edges were found for the question before
    maps: Ints  # (maps, entries + 1, 3)
    buffers: Ints  # (ordered and recent passes, values)
    held: Ints  # (ordered and recent passes,)
    decays: Ints  # (decays, DECAY_WORDS)
    tables: Ints  # (measures over keys, entries + 1, 2)
    numbers: Ints  # (measures over keys, words)
    keys: Ints  # (DISTINCT_MAX,) of a ranking
    bounds: Ints  # (128,) of a sort
    ranks: Ints  # (256,) of registers
    own: Ints  # (64,) masks of the application's own rows
    visible: Ints  # (rows + LANES,) masks of the rows that are in the view
    results: Floats
    decayed: Floats  # (decays, 1)
    row: Floats  # (inner measures,)
    found: Floats  # (KEYS_MAX,)
    stack: Floats  # (STACK_MAX,)
    dense: Small


class Blocks(NamedTuple):
    """The arrays of a tuple, by kind one behind the other; the integers begin with the table."""

    ints: Ints
    floats: Floats
    small: Small


def blocks(arrays: Sequence[NDArray[Any]]) -> Blocks:
    """Return arrays of int64, float64 or int32 and of one to three dimensions as blocks."""
    kinds: dict[Any, list[NDArray[Any]]] = {np.dtype(np.int64): [], np.dtype(np.float64): [], np.dtype(np.int32): []}
    table = np.zeros((len(arrays), _ENTRY), np.int64)
    ends = dict.fromkeys(kinds, 0) | {np.dtype(np.int64): table.size}
    for place, array in enumerate(arrays):
        table[place, 0] = ends[array.dtype]
        table[place, 1 : 1 + array.ndim] = array.shape
        ends[array.dtype] += array.size
        kinds[array.dtype].append(array.reshape(-1))
    ints, floats, small = kinds.values()
    return Blocks(
        np.concatenate([table.reshape(-1), *ints]),
        np.concatenate([np.empty(0, np.float64), *floats]),
        np.concatenate([np.empty(0, np.int32), *small]),
    )


def views(of: Blocks, dimensions: Sequence[tuple[str, int]]) -> list[NDArray[Any]]:
    """Return the arrays of blocks; `dimensions` says of each its block ("ints", "floats", "small") and its number."""
    found = []
    for place, (kind, number) in enumerate(dimensions):
        begin, *shape = of.ints[place * _ENTRY : place * _ENTRY + 1 + number].tolist()
        found.append(getattr(of, kind)[begin : begin + prod(shape)].reshape(shape))
    return found


def _view(typing: Any, block: Any, begin: Any, shape: Any) -> Any:
    found = types.Array(block.dtype, shape.count, "C", readonly=not block.mutable)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = context.get_abi_sizeof(context.get_data_type(block.dtype))
        extents, strides = cgutils.unpack_tuple(builder, arguments[2]), [context.get_constant(types.intp, size)]
        for extent in reversed(extents[1:]):
            strides.insert(0, builder.mul(strides[0], extent))
        data = builder.gep(arrayobj.make_array(block)(context, builder, arguments[0]).data, [arguments[1]])
        own = arrayobj.make_array(found)(context, builder)
        arrayobj.populate_array(own, data, extents, strides, size, None)
        return own._getvalue()

    return found(block, types.int64, types.UniTuple(types.int64, shape.count)), generate


# (block, begin, shape): the array of that shape, a tuple, that begins at an element of a block; nothing is checked.
# `reshape` of a slice would be a call, and the code around it some kilobytes for a layout and a room.
view: Any = intrinsic(_view)


@woven
def _vector(table: Any, block: Any, place: Any) -> Any:
    at = np.uint64(place * _ENTRY)
    return view(block, table[at], (table[at + _ONE],))


@woven
def _matrix(table: Any, block: Any, place: Any) -> Any:
    at = np.uint64(place * _ENTRY)
    return view(block, table[at], (table[at + _ONE], table[at + _TWO]))


@woven
def _cube(table: Any, block: Any, place: Any) -> Any:
    at = np.uint64(place * _ENTRY)
    return view(block, table[at], (table[at + _ONE], table[at + _TWO], table[at + _THREE]))


@woven
def layout_of(ints: Any, floats: Any) -> Any:
    """The layout in its blocks."""
    return Layout(
        _matrix(ints, ints, 0), _matrix(ints, ints, 1), _vector(ints, ints, 2), _matrix(ints, ints, 3),
        _matrix(ints, ints, 4), _matrix(ints, ints, 5), _matrix(ints, ints, 6), _matrix(ints, ints, 7),
        _matrix(ints, ints, 8), _matrix(ints, ints, 9), _matrix(ints, ints, 10), _matrix(ints, ints, 11),
        _vector(ints, floats, 12), _vector(ints, floats, 13), _vector(ints, floats, 14), _vector(ints, floats, 15),
        _vector(ints, floats, 16),
    )  # fmt: skip


@woven
def room_of(ints: Any, floats: Any, small: Any) -> Any:
    """The room in its blocks."""
    return Room(
        _vector(ints, ints, 0), _vector(ints, ints, 1), _vector(ints, ints, 2), _vector(ints, ints, 3),
        _cube(ints, ints, 4), _matrix(ints, ints, 5), _vector(ints, ints, 6), _matrix(ints, ints, 7),
        _cube(ints, ints, 8), _matrix(ints, ints, 9), _vector(ints, ints, 10), _vector(ints, ints, 11),
        _vector(ints, ints, 12), _vector(ints, ints, 13), _vector(ints, ints, 14), _vector(ints, floats, 15),
        _matrix(ints, floats, 16), _vector(ints, floats, 17), _vector(ints, floats, 18), _vector(ints, floats, 19),
        _vector(ints, small, 20),
    )  # fmt: skip
