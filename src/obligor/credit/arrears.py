"""Arrears, loan by loan: fixed kernels over facts grouped by the loan's key.

Facts are CSR: those of loan k are rows offsets[k] to offsets[k + 1], sorted as each kernel says. An application names a
loan (or -1) and the end of its observation; facts count while their event_time lies before that end.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["NEVER", "NO_EVIDENCE", "days_past_due", "earliest", "last_row", "paid_up", "past_due_from"]

Ints: TypeAlias = npt.NDArray[np.int64]
NO_EVIDENCE = -(2**63)
NEVER = 2**63 - 1


@njit(cache=True, nogil=True, fastmath=False)
def days_past_due(
    loan: Any,  # (n,) of each application
    end: Any,  # (n,) microseconds, exclusive
    end_day: Any,  # (n,) calendar day of the last moment observed
    due_offsets: Any,
    due_at: Any,  # sorted within a loan
    due_day: Any,
    due_event_time: Any,
    due_amount: Any,
    paid_offsets: Any,
    paid_at: Any,  # sorted within a loan
    paid_day: Any,
    paid_amount: Any,
) -> Ints:
    """Return the most days any instalment was past due, (n,), NO_EVIDENCE for a loan of which nothing fell due.

    Repayments settle the oldest instalment first: one is settled by the first payment at which all that was paid
    reaches all that was due up to it. One that is never settled is past due until the end.
    """
    out = np.empty(len(loan), np.int64)
    for row in range(len(loan)):
        out[row] = NO_EVIDENCE
        k = loan[row]
        if k < 0:
            continue
        payment, last = paid_offsets[k], paid_offsets[k + 1]
        owed, paid, worst = 0, 0, NO_EVIDENCE
        for i in range(due_offsets[k], due_offsets[k + 1]):
            if due_event_time[i] >= end[row] or due_at[i] >= end[row]:
                continue
            worst = max(worst, 0)
            if due_amount[i] == 0:
                continue
            owed += due_amount[i]
            while paid < owed and payment < last and paid_at[payment] < end[row]:
                paid += paid_amount[payment]
                payment += 1
            settled = paid_day[payment - 1] if paid >= owed else end_day[row]
            worst = max(worst, settled - due_day[i])
        out[row] = worst
    return out


@njit(cache=True, nogil=True, fastmath=False)
def past_due_from(
    loan: Any,
    end: Any,
    end_day: Any,
    at_least: Any,
    due_offsets: Any,
    due_at: Any,
    due_day: Any,
    due_event_time: Any,
    due_amount: Any,
    paid_offsets: Any,
    paid_at: Any,
    paid_day: Any,
    paid_amount: Any,
) -> Ints:
    """Return the first calendar day on which an instalment was `at_least` days past due, (n,), or NEVER.

    Arguments and the order of settlement are those of `days_past_due`: there is such a day where that says so.
    """
    out = np.full(len(loan), NEVER, np.int64)
    for row in range(len(loan)):
        k = loan[row]
        if k < 0:
            continue
        payment, last = paid_offsets[k], paid_offsets[k + 1]
        owed, paid = 0, 0
        for i in range(due_offsets[k], due_offsets[k + 1]):
            if due_event_time[i] >= end[row] or due_at[i] >= end[row] or due_amount[i] == 0:
                continue
            owed += due_amount[i]
            while paid < owed and payment < last and paid_at[payment] < end[row]:
                paid += paid_amount[payment]
                payment += 1
            settled = paid_day[payment - 1] if paid >= owed else end_day[row]
            if settled - due_day[i] >= at_least:
                out[row] = min(out[row], due_day[i] + at_least)
    return out


@njit(cache=True, nogil=True, fastmath=False)
def paid_up(
    loan: Any, end: Any, owed_offsets: Any, owed_at: Any, owed: Any, paid_offsets: Any, paid_at: Any, paid: Any
) -> Ints:
    """Return when all that was paid first reached all that was lent, (n,), or NEVER; facts sorted by moment.

    A loan of which nothing was lent by then is not paid up.
    """
    out = np.full(len(loan), NEVER, np.int64)
    for row in range(len(loan)):
        k = loan[row]
        if k < 0:
            continue
        lent, back = owed_offsets[k], 0
        owing = 0
        for i in range(paid_offsets[k], paid_offsets[k + 1]):
            if paid_at[i] >= end[row]:
                break
            while lent < owed_offsets[k + 1] and owed_at[lent] <= paid_at[i]:
                owing += owed[lent]
                lent += 1
            back += paid[i]
            if 0 < owing <= back:
                out[row] = paid_at[i]
                break
    return out


@njit(cache=True, nogil=True, fastmath=False)
def earliest(loan: Any, end: Any, offsets: Any, moment: Any, event_time: Any) -> Ints:
    """Return the row of the smallest `moment` among the loan's facts before the end, (n,), -1 for none.

    Facts are sorted by moment within a loan.
    """
    out = np.full(len(loan), -1, np.int64)
    for row in range(len(loan)):
        k = loan[row]
        if k < 0:
            continue
        for i in range(offsets[k], offsets[k + 1]):
            if event_time[i] < end[row]:
                out[row] = i
                break
    return out


@njit(cache=True, nogil=True, fastmath=False)
def last_row(loan: Any, end: Any, offsets: Any, event_time: Any) -> Ints:
    """Return the row of the loan's last fact before the end, (n,), -1 for none; sorted by (event_time, root)."""
    out = np.full(len(loan), -1, np.int64)
    for row in range(len(loan)):
        k = loan[row]
        if k < 0:
            continue
        for i in range(offsets[k], offsets[k + 1]):
            if event_time[i] >= end[row]:
                break
            out[row] = i
    return out
