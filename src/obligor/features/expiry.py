"""Expiry: online state does not keep for ever what no window can reach any more.

Of a timeline whose windows all reach back a bounded time, rows that happened before the reach of the latest known time
matter to no question from then on. They are dropped chunk by chunk and entity by entity, a few at a time, in the
state's own transactions. The state says since when it holds rows, so that what comes to older ones later (a late event,
a correction) is left out. How far back a plan looks is a part of what its state is: a plan with a longer reach has a
state of its own, which is built from the log beside the other.

There is no time to live by a clock of the store's: it would drop rows that a window still reaches, and an entity with
fewer rows than the log has is a wrong answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from obligor.features.arranging import compiled
from obligor.features.folds import Fold
from obligor.features.plan import Plan
from obligor.features.state_store import Entry

__all__ = ["decode_kept", "encode_kept", "reaches", "state_hash"]

_KEPT = msgspec.json.Decoder(dict[str, int])


def decode_kept(entry: Entry | None) -> dict[str, int]:
    """Return by timeline since when a state holds its rows: those with event_time >= that; without those held whole."""
    return {} if entry is None else _KEPT.decode(bytes(entry))


def encode_kept(kept: Mapping[str, int]) -> bytes:
    """Return the entry."""
    return msgspec.json.encode(dict(sorted(kept.items())))


def reaches(plan: Plan) -> dict[str, int]:
    """Return how far back a plan looks in each timeline, in microseconds; without those where it looks at all rows."""
    found: dict[str, int] = {}
    unbounded = {spec.timeline for spec in plan.sequences}  # they begin with an entity's first row
    for timeline, _, reach_us, _ in compiled(plan).sources:
        if reach_us is None:
            unbounded.add(timeline)
        else:
            found[timeline] = max(reach_us, found.get(timeline, 0))
    return {timeline: reach_us for timeline, reach_us in found.items() if timeline not in unbounded}


def state_hash(plan: Plan, fold: Fold | None = None) -> str:
    """Return the sha256 of what a plan's state holds: its timelines, how far back, and what is folded over them.

    Plans of one share a state.
    """
    held = [plan.timelines_hash, sorted(reaches(plan).items()), *([] if fold is None else [fold.name])]
    return hashlib.sha256(msgspec.json.encode(held)).hexdigest()
