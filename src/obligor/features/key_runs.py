"""Runs of keys: who asks about an entity mostly asks several times in a row.

So whatever is found out about keys, such as their bucket or their place in a timeline, is found out once a run.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.features.kernels.compiling import entry, inlined
from obligor.features.kernels.sources import NOT_NAMED

__all__ = ["Keys", "in_runs", "places", "run_starts", "text_arrays"]

_UNKNOWN = -1
_IN_RUNS = pa.run_end_encoded(pa.int32(), pa.string())
_ALL_NAMED = np.empty(0, np.bool_)
_MIX, _HALF = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)  # the golden ratio's, as in Knuth's multiplicative hashing

Ints: TypeAlias = NDArray[np.int64]
Keys: TypeAlias = pa.StringArray | pa.RunEndEncodedArray  # one after the other, or by their runs


def text_arrays(texts: pa.StringArray) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return where each text begins, and ends with the next, and the bytes that this is counted in; read only."""
    _, offsets, data = texts.buffers()
    return np.frombuffer(offsets or bytes(4), np.int32)[texts.offset :], np.frombuffer(data or b"", np.uint8)


def in_runs(ends: NDArray[np.int32], texts: pa.StringArray, count: int) -> pa.RunEndEncodedArray:
    """Return `count` texts by where the run of each ends; what `from_arrays` gives, which looks at all of them again.

    >>> in_runs(np.array([2, 3], np.int32), pa.array(["a", "b"]), 3).to_pylist()
    ['a', 'a', 'b']
    """
    return pa.Array.from_buffers(_IN_RUNS, count, [None], null_count=0, children=[pa.array(ends), texts])


def run_starts(keys: pa.StringArray) -> Ints:
    """Return where each run of equal keys starts; null is a key.

    >>> run_starts(pa.array(["a", "a", "b", None, None, "b"])).tolist()
    [0, 2, 3, 5]
    """
    starts = np.empty(len(keys), np.int64)
    return starts[: _starts(*text_arrays(keys), _named(keys), starts)]


def places(keys: pa.StringArray, wanted: Keys) -> Ints:
    """Return each wanted key's place among the keys, -1 for one that is none of them, -2 for null.

    >>> places(pa.array(["a", "b"]), pa.array(["b", "b", "c", None])).tolist()
    [1, 1, -1, -2]
    """
    if isinstance(wanted, pa.RunEndEncodedArray):
        first, count = wanted.find_physical_offset(), wanted.find_physical_length()
        heads = wanted.values[first : first + count]
        ends = wanted.run_ends.to_numpy()[first : first + count] - np.int64(wanted.offset)
    else:
        starts = run_starts(wanted)
        heads, ends = wanted.take(pa.array(starts)), np.append(starts[1:], len(wanted))
    table = np.full(1 << max(2 * len(keys), 1).bit_length(), _UNKNOWN, np.int32)
    found = np.empty(len(wanted), np.int64)
    _find(*text_arrays(keys), *text_arrays(heads), _named(heads), ends, table, len(keys), found)
    return found


def _named(keys: pa.StringArray) -> NDArray[np.bool_]:
    """Return which keys are not null, nothing where all are."""
    return keys.is_valid().to_numpy(zero_copy_only=False) if keys.null_count else _ALL_NAMED


@inlined
def _word(texts: Any, at: Any, count: Any) -> Any:
    """So many bytes of a text as a number; eight are read at once."""
    word = np.uint64(0)
    for k in range(count):
        word |= np.uint64(texts[np.uint64(at + k)]) << np.uint64(8 * k)
    return word


@inlined
def _equal(a: Any, at: Any, b: Any, begin: Any, length: Any) -> Any:
    """Whether texts of one length are equal."""
    k = 0
    while k + 8 <= length:
        if _word(a, at + k, 8) != _word(b, begin + k, 8):
            return False
        k += 8
    while k < length:
        if a[np.uint64(at + k)] != b[np.uint64(begin + k)]:
            return False
        k += 1
    return True


@inlined
def _slot(texts: Any, at: Any, length: Any, last: Any) -> Any:
    """Where in a table with so many places but one a text is looked for first."""
    mixed, k = np.uint64(length), 0
    while k < length:
        word = _word(texts, at + k, 8) if k + 8 <= length else _word(texts, at + k, length - k)
        mixed = (mixed ^ word) * _MIX
        mixed ^= mixed >> _HALF
        k += 8
    return np.int64(mixed & np.uint64(last))


@entry
def _find(
    offsets: Any, texts: Any, wanted_offsets: Any, wanted_texts: Any, named: Any, ends: Any, table: Any, keys: Any,
    found: Any,
) -> None:  # fmt: skip
    """The place of each wanted text among so many keys, by an open table of their places, for all of its run."""
    last = table.shape[0] - 1
    for i in range(keys):
        slot = _slot(texts, np.int64(offsets[i]), np.int64(offsets[i + 1] - offsets[i]), last)
        while table[slot] >= 0:
            slot = (slot + 1) & last
        table[slot] = i
    first = np.int64(0)
    for j in range(ends.shape[0]):
        at, length = np.int64(wanted_offsets[j]), np.int64(wanted_offsets[j + 1] - wanted_offsets[j])
        slot = _slot(wanted_texts, at, length, last)
        place = np.int64(table[slot])
        while place >= 0:
            begin = np.int64(offsets[place])
            same = np.int64(offsets[place + 1]) - begin == length
            if same and _equal(texts, begin, wanted_texts, at, length):
                break
            slot = (slot + 1) & last
            place = np.int64(table[slot])
        if named.shape[0] > 0 and not named[j]:
            place = np.int64(NOT_NAMED)
        end = min(ends[j], found.shape[0])  # the last run may go on behind what is wanted of it
        found[first:end] = place
        first = end


@entry
def _starts(offsets: Any, texts: Any, named: Any, starts: Any) -> Any:
    """Where each run of equal texts starts; returns how many there are. `named` is of no length where all are."""
    found, begin, length = 0, np.int64(0), np.int64(-1)
    for i in range(starts.shape[0]):
        own, own_length = np.int64(offsets[i]), np.int64(offsets[i + 1]) - np.int64(offsets[i])
        differs = own_length != length or not _equal(texts, begin, texts, own, length)
        if named.shape[0] > 0 and i > 0 and named[i] != named[i - 1]:
            differs = True
        if differs:
            starts[found] = i
            found += 1
        begin, length = own, own_length
    return found
