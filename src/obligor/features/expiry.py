"""Expiry: online state does not keep for ever what no window can reach any more.

Of a timeline whose windows all reach back a bounded time, rows that happened before the reach of the latest known time
matter to no question from then on. They are dropped chunk by chunk and entity by entity, a few at a time, in the
state's own transactions. The state says since when it holds rows, so that what comes to older ones later (a late event,
a correction) is left out, and a plan with a longer reach finds that the state does not serve it and has it built anew.

There is no time to live by a clock of the store's: it would drop rows that a window still reaches, and an entity with
fewer rows than the log has is a wrong answer.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from obligor.features.arranging import compiled
from obligor.features.plan import Plan
from obligor.features.state_store import Entry

__all__ = ["Kept", "decode_kept", "encode_kept", "reaches", "serves"]


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a state holds of a timeline: the rows with event_time >= `since_us`, for windows up to `reach_us` long."""

    since_us: int
    reach_us: int


_KEPT = msgspec.json.Decoder(dict[str, Kept])


def decode_kept(entry: Entry | None) -> dict[str, Kept]:
    """Return what is kept by timeline; those that are not there are held as a whole."""
    return {} if entry is None else _KEPT.decode(bytes(entry))


def encode_kept(kept: Mapping[str, Kept]) -> bytes:
    """Return the entry."""
    return msgspec.json.encode(dict(sorted(kept.items())))


def reaches(plan: Plan) -> dict[str, int]:
    """Return how far back a plan looks in each timeline, in microseconds; without those where it looks at all rows."""
    found: dict[str, int] = {}
    unbounded: set[str] = set()
    for timeline, _, reach_us, _ in compiled(plan).sources:
        if reach_us is None:
            unbounded.add(timeline)
        else:
            found[timeline] = max(reach_us, found.get(timeline, 0))
    return {timeline: reach_us for timeline, reach_us in found.items() if timeline not in unbounded}


def serves(kept: Mapping[str, Kept], plan: Plan) -> bool:
    """Whether a state that keeps no more than this has all that a plan looks at."""
    wanted = reaches(plan) if kept else {}
    return all(name in wanted and wanted[name] <= one.reach_us for name, one in kept.items())
