"""Rows of one entity in online state: how they lie in bytes, and the kernel that merges a batch into many tails.

A row is `event_time, root, mask, values…` as int64. The newest rows of an entity, its *tail*, are rows one after the
other behind a header, so that a batch is merged into hundreds of tails by one kernel call; older rows lie in closed
*chunks*, column after column, so that reading one is three views of its bytes and no copy.
The order of rows is (event_time, root), which is unique; a tail's header is the *fence*: every closed row is below it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = [
    "FENCE_LOWEST",
    "HEADER_WORDS",
    "MERGED",
    "MISSING",
    "PRESENT",
    "ROW_FIXED",
    "UNDER_FENCE",
    "decode_chunk",
    "decode_tail",
    "encode_chunk",
    "encode_tail",
    "merge_rows",
    "merge_tails",
    "tail_columns",
    "warm_up",
]

Words = NDArray[np.int64]

HEADER_WORDS = 2  # the fence: event_time, root
ROW_FIXED = 3  # event_time, root, mask; then the values
FENCE_LOWEST = -(2**63)

MERGED, UNDER_FENCE, MISSING, PRESENT = 0, 1, 2, 3


@njit(cache=True, nogil=True, fastmath=False)
def _below(time: int, root: int, other_time: int, other_root: int) -> bool:
    return time < other_time or (time == other_time and root < other_root)


@njit(cache=True, nogil=True, fastmath=False)
def _merge_one(
    old: Any, old_at: int, old_end: int, width: int,
    removed: Any, removed_at: int, removed_end: int,
    inserted: Any, inserted_at: int, inserted_end: int,
    out: Any, out_at: int,
) -> tuple[int, int]:  # fmt: skip
    """Merge sorted rows into `out` from word `out_at`; return (status, the word after the last one written)."""
    while old_at < old_end or inserted_at < inserted_end:
        if old_at < old_end and removed_at < removed_end:
            if old[old_at] == removed[removed_at, 0] and old[old_at + 1] == removed[removed_at, 1]:
                old_at += width
                removed_at += 1
                continue
            if _below(removed[removed_at, 0], removed[removed_at, 1], old[old_at], old[old_at + 1]):
                return MISSING, out_at
        if inserted_at == inserted_end or (
            old_at < old_end
            and _below(old[old_at], old[old_at + 1], inserted[inserted_at, 0], inserted[inserted_at, 1])
        ):
            out[out_at : out_at + width] = old[old_at : old_at + width]
            old_at += width
        else:
            time, root = inserted[inserted_at, 0], inserted[inserted_at, 1]
            if old_at < old_end and old[old_at] == time and old[old_at + 1] == root:
                return PRESENT, out_at
            out[out_at : out_at + width] = inserted[inserted_at]
            inserted_at += 1
            if inserted_at < inserted_end and inserted[inserted_at, 0] == time and inserted[inserted_at, 1] == root:
                return PRESENT, out_at
        out_at += width
    return (MERGED, out_at) if removed_at == removed_end else (MISSING, out_at)


@njit(cache=True, nogil=True, fastmath=False)
def merge_tails(
    old: Any, old_offsets: Any, width: int, removed: Any, removed_offsets: Any, inserted: Any, inserted_offsets: Any
) -> tuple[Any, Any, Any]:
    """Merge a batch into the tails of n entities.

    `old`: the words of all tails with their headers, from `old_offsets[i]` to `old_offsets[i + 1]`; none for an entity
    without a tail. `removed`: (m, 2) rows' event_time and root. `inserted`: (k, width) rows. Both sorted within each
    entity; their offsets may begin and end anywhere. Return the new tails as words, their offsets (n + 1), and a status
    an entity: MERGED; UNDER_FENCE, a row belongs to a closed chunk and nothing was done; MISSING or PRESENT, the state
    does not fit the log.
    """
    n = len(old_offsets) - 1
    rows = inserted_offsets[n] - inserted_offsets[0]
    out = np.empty(len(old) + rows * width + HEADER_WORDS * n, dtype=np.int64)
    offsets = np.zeros(n + 1, dtype=np.int64)
    status = np.zeros(n, dtype=np.int64)
    at = 0
    for i in range(n):
        start, end = old_offsets[i], old_offsets[i + 1]
        fence_time, fence_root = FENCE_LOWEST, FENCE_LOWEST
        if end > start:
            fence_time, fence_root = old[start], old[start + 1]
            start += HEADER_WORDS
        r, r_end = removed_offsets[i], removed_offsets[i + 1]
        k, k_end = inserted_offsets[i], inserted_offsets[i + 1]
        if (r < r_end and _below(removed[r, 0], removed[r, 1], fence_time, fence_root)) or (
            k < k_end and _below(inserted[k, 0], inserted[k, 1], fence_time, fence_root)
        ):
            status[i] = UNDER_FENCE
        else:
            out[at], out[at + 1] = fence_time, fence_root
            status[i], at = _merge_one(
                old, start, end, width, removed, r, r_end, inserted, k, k_end, out, at + HEADER_WORDS
            )
        offsets[i + 1] = at
    return out[:at], offsets, status


def merge_rows(rows: Words, removed: Words, inserted: Words) -> tuple[int, Words]:
    """Return (status, merged rows) of one entity: sorted `rows` (n, width), `removed` (m, 2), `inserted` (k, width)."""
    width = rows.shape[1]
    flat = np.ascontiguousarray(rows).reshape(-1)
    out = np.empty(flat.size + inserted.size, dtype=np.int64)
    status, end = _merge_one(
        flat, 0, flat.size, width,
        np.ascontiguousarray(removed), 0, len(removed),
        np.ascontiguousarray(inserted), 0, len(inserted),
        out, 0,
    )  # fmt: skip
    return status, out[:end].reshape(-1, width)


def encode_chunk(rows: Words) -> bytes:
    """Return the bytes of a closed chunk of `rows` (n, width): its columns one after the other."""
    return np.ascontiguousarray(rows.T).tobytes()


def decode_chunk(entry: bytes | memoryview, width: int) -> Words:
    """Return the columns (width, n) of a closed chunk as a view of its bytes, read only.

    The bytes are copied where they are not aligned, which kernels need.
    """
    words = np.frombuffer(entry, dtype=np.int64)
    if not words.flags.aligned:
        words = words.copy()
    return words.reshape(width, len(words) // width)


def decode_tail(entry: bytes | memoryview, width: int) -> Words:
    """Return the rows (n, width) of a tail, a copy."""
    words = np.frombuffer(entry, dtype=np.int64)
    return words[HEADER_WORDS:].reshape(-1, width).copy()


def tail_columns(entry: bytes | memoryview, width: int) -> bytes:
    """Return the rows of a tail as a closed chunk has them: column after column."""
    return np.frombuffer(entry, np.int64, offset=8 * HEADER_WORDS).reshape(-1, width).tobytes("F")


def encode_tail(rows: Words, fence: tuple[int, int]) -> bytes:
    """Return the bytes of a tail of `rows` (n, width) above `fence`."""
    return np.array(fence, dtype=np.int64).tobytes() + np.ascontiguousarray(rows).tobytes()


def warm_up() -> None:
    """Load or compile the kernels for the forms of arrays that online state has."""
    row, none = np.ones((1, ROW_FIXED), np.int64), np.empty((0, 2), np.int64)
    merge_rows(row, none, row + 1)
    ends = np.array([0, 1], np.int64)
    tail = np.frombuffer(encode_tail(row, (0, 0)), dtype=np.int64)
    merge_tails(tail, np.array([0, len(tail)], np.int64), ROW_FIXED, none, ends * 0, row + 1, ends)
