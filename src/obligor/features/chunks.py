"""What online evaluation reads: one entity's winners, chunk by chunk.

The features room owns the form; a state store provides a reader. A chunk holds facts that are current winners only, so
that no visibility is decided here except event_time < as_of and that an application is not in its own view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["NULL", "Chunk", "TimelineReader"]

NULL = -(2**63)  # null of an int64 slot; no field can hold it, since values are within -(2**63 - 1) .. 2**63 - 1


class Chunk(NamedTuple):
    """Facts of one entity sorted by (event_time, root); all arrays C-contiguous int64, read-only ones are fine."""

    event_time: NDArray[np.int64]  # (n,)
    root: NDArray[np.int64]  # (n,) position of the fact's original
    mask: NDArray[np.int64]  # (n,) bit i: the fact is in selection i of its timeline
    values: NDArray[np.int64]  # (slots, n): a slot's values lie together, since kernels read them column by column


class TimelineReader(Protocol):
    """Reads timelines of the online state; an unknown key is an entity without facts."""

    def chunks(self, timeline: str, key: str, since_us: int | None) -> Sequence[Chunk]:
        """Return the entity's chunks in time order, at least all facts with event_time >= `since_us` (None: all)."""
        ...
