"""Facts of one entity as kernels take them online: matrices of rows, one behind the other in one array."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from obligor.features.layout import read_only

__all__ = ["Pieces", "pieces", "pieces_of"]

Ints = NDArray[np.int64]


class Pieces(NamedTuple):
    """Facts of one entity in pieces, each sorted by (event_time, root), the pieces in the same order.

    A piece is a matrix (3 + slots, rows) in C order: event_time, root, mask, then the values slot by slot. Both arrays
    are `read_only`.
    """

    words: Ints  # all pieces one after the other
    spans: Ints  # (pieces, 2): where a piece begins in `words`, and how many rows it has


def pieces_of(entries: Sequence[bytes | memoryview], width: int) -> Pieces:
    """Return the bytes of matrices (width, rows) as pieces, copied once.

    >>> pieces_of([np.zeros((3, 2), np.int64).tobytes(), np.ones((3, 1), np.int64).tobytes()], 3).spans.tolist()
    [[0, 2], [6, 1]]
    """
    return Pieces(np.frombuffer(b"".join(entries), np.int64), _spans(tuple(map(len, entries)), width))


@lru_cache(maxsize=4096)  # because entities of the same sizes recur, and making the array takes longer than finding it
def _spans(sizes_bytes: tuple[int, ...], width: int) -> Ints:
    """Return where matrices of so many bytes begin and how many rows they have, read only."""
    begins = accumulate(sizes_bytes, initial=0)
    spans = [(begin // 8, size // (8 * width)) for begin, size in zip(begins, sizes_bytes, strict=False)]
    return read_only(np.array(spans, np.int64).reshape(len(spans), 2))


def pieces(matrices: Sequence[NDArray[np.int64]]) -> Pieces:
    """Return matrices (3 + slots, rows) as pieces.

    >>> pieces([np.zeros((3, 2), np.int64), np.ones((3, 1), np.int64)]).spans.tolist()
    [[0, 2], [6, 1]]
    """
    spans = np.empty((len(matrices), 2), np.int64)
    begin = 0
    for place, matrix in enumerate(matrices):
        spans[place] = begin, matrix.shape[1]
        begin += matrix.size
    words = np.concatenate([matrix.reshape(-1) for matrix in matrices]) if matrices else np.empty(0, np.int64)
    return Pieces(read_only(words), read_only(spans))
