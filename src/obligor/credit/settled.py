"""What has been settled between two moments: the outcomes that are known now and were not, or were others, before.

Outcomes at a moment are a function of the log, so what was known before need not be kept: it is computed again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obligor.credit.definitions import Outcome
from obligor.credit.facts import Cut, Ints, Log, integers
from obligor.credit.outcomes import evaluate_outcomes

__all__ = ["IMMATURE", "Moment", "settled"]

IMMATURE = "immature"
SAID = ("status", "bad", "days_past_due")  # what makes an outcome another one


class Moment(NamedTuple):
    """What is visible, and the instant that it is looked at."""

    cut: Cut
    seen_at: int


def settled(outcome: Outcome, log: Log, before: Moment | None, now: Moment) -> pa.Table:
    """Return the outcomes, as `evaluate_outcomes`, that differ at `now` from what was known `before`.

    What was immature and is so still is not among them; what was settled and is immature again, because a fact was
    corrected, is. `before` None: all that is settled.
    """
    then = evaluate_outcomes(outcome, log, cut=now.cut, seen_at=now.seen_at)
    if before is None:
        return then.filter(pc.not_equal(then.column("status"), IMMATURE))
    earlier = evaluate_outcomes(outcome, log, cut=before.cut, seen_at=before.seen_at)
    place = _places(integers(then, "root"), integers(earlier, "root"))
    known = earlier.take(pa.array(place, mask=place < 0))
    differs = np.zeros(then.num_rows, np.bool_)
    for name in SAID:
        one, other = then.column(name), known.column(name)
        same = pc.or_(pc.fill_null(pc.equal(one, other), False), pc.and_(pc.is_null(one), pc.is_null(other)))
        differs |= ~np.asarray(same, np.bool_)
    unsettled = pc.is_in(pc.fill_null(known.column("status"), IMMATURE), value_set=pa.array([IMMATURE]))
    waits = pc.and_(unsettled, pc.equal(then.column("status"), IMMATURE))
    return then.filter(pa.array(differs & ~np.asarray(waits, np.bool_)))


def _places(wanted: Ints, among: Ints) -> Ints:
    """Return where each root is among others in ascending order, -1 where it is not."""
    if not len(among):
        return np.full(len(wanted), -1, np.int64)
    found = np.minimum(np.searchsorted(among, wanted), len(among) - 1)
    return np.where(among[found] == wanted, found, -1)
