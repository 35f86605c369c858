"""A decision as an event: what the next application's features, exposure first of all, see of it.

It happened at as_of, which every later application's as_of is beyond, so it is in every later view.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from obligor.decisions.decide import Decision
from obligor.events.assembly import Rows, part_table
from obligor.events.batch import ORIGINAL, Batch, field_columns
from obligor.events.schema import Event

__all__ = ["decided_batch"]

_KIND = np.array([ORIGINAL], np.int8)
_PLACE = np.zeros(1, np.int64)


def decided_batch(application: type[Event], decision: Decision, decision_id: str) -> Batch:
    """Return the one event of a decision: the same bytes as `parse_records` makes of its record (a test says so)."""
    decided, offer = application.Decided, decision.offer
    values: dict[str, Any] = dict(decision.application.fields)
    values |= {"application_id": decision.application.event_id, "outcome": decision.outcome}
    values |= {
        "offer_amount": None if offer is None else offer.amount,
        "offer_expires_at": None if offer is None else offer.expires_at,
    }
    columns = {
        c.name: pa.array([values[name]], c.type)
        for name, one in decided.fields.items()
        for c in field_columns(name, one)
    }
    rows = Rows(
        event_id=pa.array([decision_id], pa.string()),
        event_time=pa.array([decision.as_of], pa.int64()),
        kind=_KIND,
        target=None,
        columns=columns,
        personal=None,
    )
    return Batch({(decided.event_name, decided.version): part_table(decided, rows, _PLACE, b"")}, 1)
