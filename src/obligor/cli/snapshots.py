"""Where data came from, as what was learnt from it records it: the log, how far it was read, and its chain there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obligor.events.log import EventLog

__all__ = ["snapshot_of"]


def snapshot_of(log: EventLog, cut: Mapping[int, int]) -> dict[str, Any]:
    """Return a log's id, a cut of it and the link of each shard's chain there, as JSON data."""
    chains = {str(shard): chain.hex() for shard, chain in log.chains(dict(cut)).items()}
    return {
        "log": log.id.hex(),
        "cut": {str(shard): sequence for shard, sequence in cut.items()},
        "chain": chains["0"],
        **({"chains": chains} if len(cut) > 1 else {}),
    }
