"""Facts of one entity as kernels take them online: matrices of rows, one behind the other in one array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pieces", "pieces", "pieces_of"]

Ints = NDArray[np.int64]


class Pieces(NamedTuple):
    """Facts of one entity in pieces, each sorted by (event_time, root), the pieces in the same order.

    A piece is a matrix (3 + slots, rows) in C order: event_time, root, mask, then the values slot by slot.
    """

    words: Ints  # all pieces one after the other
    spans: Ints  # (pieces, 2): where a piece begins in `words`, and how many rows it has


def pieces_of(entries: Sequence[bytes | memoryview], width: int) -> Pieces:
    """Return the bytes of matrices (width, rows) as pieces, copied once.

    >>> pieces_of([np.zeros((3, 2), np.int64).tobytes(), np.ones((3, 1), np.int64).tobytes()], 3).spans.tolist()
    [[0, 2], [6, 1]]
    """
    words = np.frombuffer(b"".join(entries), np.int64)
    spans, begin = [], 0
    for entry in entries:
        size = len(entry) // 8
        spans.append((begin, size // width))
        begin += size
    return Pieces(words, np.array(spans, np.int64).reshape(len(spans), 2))


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
    return Pieces(words, spans)
