"""Where data comes from: what records it, the log and how far it was read, and where sequences are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from obligor.events.log import EventLog
    from obligor.features.plan import Plan
    from obligor.project import Project
    from obligor.sequences.asked import Source

__all__ = ["sequence_source", "snapshot_of"]


def snapshot_of(log: EventLog, cut: Mapping[int, int]) -> dict[str, Any]:
    """Return a log's id, a cut of it and the link of each shard's chain there, as JSON data."""
    chains = {str(shard): chain.hex() for shard, chain in log.chains(dict(cut)).items()}
    return {
        "log": log.id.hex(),
        "cut": {str(shard): sequence for shard, sequence in cut.items()},
        "chain": chains["0"],
        **({"chains": chains} if len(cut) > 1 else {}),
    }


def sequence_source(project: Project, log: EventLog, plan: Plan, name: str) -> Source:
    """Return the lake where it has the sequence's table, else the log, read in memory."""
    from obligor.features.narrowing import sequence_alone

    lake = project.lake(log)
    return lake if lake.covers(sequence_alone(plan, name)) else log
