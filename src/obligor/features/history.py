"""What online evaluation reads: one entity's winners.

The features room owns the form; a state store provides a reader. The rows are current winners only, so that no
visibility is decided here except event_time < as_of and that an application is not in its own view. Old rows of an
entity that has very many are kept in memory, with tiles.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from obligor.errors import ObligorError
from obligor.features.indexed import Indexed
from obligor.features.pieces import Pieces

__all__ = ["Asked", "History", "TimelineReader", "TooLong"]


class TooLong(ObligorError):
    """Reading this would take longer than a glance may."""


class Asked(NamedTuple):
    """Whose history is wanted: at least all facts with event_time >= `since_us` (None: all)."""

    timeline: str
    key: str
    since_us: int | None


class History(NamedTuple):
    """All that is known of one entity in one timeline; what is kept in memory is older than the pieces."""

    pieces: Pieces
    indexed: Indexed | None


class TimelineReader(Protocol):
    """Reads timelines of the online state; an unknown key is an entity without facts."""

    def read(self, timeline: str, key: str, since_us: int | None) -> History:
        """Return the entity's history, at least all facts with event_time >= `since_us` (None: all)."""
        ...
