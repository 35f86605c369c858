"""Losses: what was lent and what of it was lost, by application, as known at an instant.

Lost is what a loan that is bad within the outcome's horizon has not paid back by its end; a good loan loses nothing.
What comes in later, such as a recovery, is not in it, as it is not in the outcome.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from obligor.credit.arrears import last_row
from obligor.credit.definitions import Occurrence, Outcome, PaidInFull
from obligor.credit.facts import Cut, Ints, Log, View, integers
from obligor.credit.observation import Observation, originals_of
from obligor.credit.outcomes import evaluate_outcomes
from obligor.errors import DefinitionError, LimitError

__all__ = ["evaluate_losses"]

SUM_MAX = 2.0**62  # of all amounts, in minor units


def evaluate_losses(outcome: Outcome, log: Log, *, cut: Cut | None = None, seen_at: int) -> pa.Table:
    """Return the columns of `evaluate_outcomes`, and lent and lost int64 in minor units, null unless matured.

    Raises DefinitionError where the outcome does not say what is lent and what is paid.
    """
    rule = outcome.repaid
    if not isinstance(rule, PaidInFull):
        raise DefinitionError("losses need Outcome(repaid=paid_in_full(lent=..., paid=...))")
    cut = log.cut() if cut is None else cut
    table = evaluate_outcomes(outcome, log, cut=cut, seen_at=seen_at)
    end = integers(table, "as_of") + outcome.horizon_us
    seen = Observation(outcome, View(log, cut, seen_at), originals_of(log, outcome, cut, seen_at), end)
    lent, paid = _total(seen, rule.lent, rule.lent_amount), _total(seen, rule.paid, rule.paid_amount)
    unknown = np.asarray(table.column("bad").is_null())
    lost = np.where(integers(table, "bad") == 1, np.maximum(lent - paid, 0), 0)  # fees may have been paid beyond
    for name, amounts in (("lent", lent), ("lost", lost)):
        table = table.append_column(name, pa.array(amounts, mask=unknown))
    return table


def _total(seen: Observation, occurrence: Occurrence, amount: str) -> Ints:
    """Return the sum of what happened to each application's loan before its end, (n,)."""
    grouped = seen.grouped(occurrence)
    amounts = grouped.integers(amount)
    if float(np.sum(amounts, dtype=np.float64)) > SUM_MAX:
        raise LimitError(f"the sum of {amount} exceeds 2**62 minor units")
    before = np.concatenate([[0], np.cumsum(amounts)])
    last = last_row(seen.loan, seen.end, grouped.offsets, grouped.event_time)
    first = grouped.offsets[np.maximum(seen.loan, 0)]
    return np.where(last >= 0, before[last + 1] - before[first], 0)
