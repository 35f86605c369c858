"""What we look at: how late each earlier loan was first repaid, how the customer borrows, what is asked for.

How late a loan was is the time from its due date to its first repayment: both are seen from as_of, and subtracted. The
first repayment within a window picks one earlier loan; over windows of several lengths nearly every loan is picked.
"""

from __future__ import annotations

from functools import reduce
from operator import add

from obligor.features import as_of, feature, maximum, minimum, outstanding, request, reserved

from .events import FirstRepayment, LoanApplication, LoanClosed, LoanOpened

_repaid = FirstRepayment.by("customer")
_closed = LoanClosed.by("customer")
_opened = LoanOpened.by("customer")
_WINDOWS = ("30d", "45d", "60d", "90d", "120d", "180d", "270d", "lifetime")


# ---- the request ----------------------------------------------------------------------------------------------------

amount = request("amount", reason="REQUEST", description="Amount asked for")
total_due = request("total_due", reason="REQUEST", description="Amount to be paid back")
term_days = request("term_days", reason="REQUEST", description="Length of the loan in days")
loan_number = request("loan_number", reason="HISTORY", description="Which loan of this customer it is")
hour = as_of.hour(reason="TIMING", description="Hour of the application, in Lagos")

# ---- lateness of earlier first repayments ---------------------------------------------------------------------------

late_days = feature(
    as_of.since(_repaid.first("due_at", *_WINDOWS)) - _repaid.time_since_first(*_WINDOWS, unit="days"),
    reason="LATENESS",
    monotone="increasing",
    description="Days from the due date to the first repayment, of the earliest loan first repaid in the window",
)
last_late_days = feature(
    as_of.since(_repaid.last("due_at")) - _repaid.time_since_last(unit="days"),
    reason="LATENESS",
    monotone="increasing",
    description="Days from the due date to the first repayment, of the latest loan",
)
_picked = [late_days[window] for window in _WINDOWS] + [last_late_days]  # null where the window holds no repayment
_NEVER = 100_000  # days; beyond any lateness, so that a null neither wins nor counts
worst_late_days = feature(
    reduce(maximum, [one.fill(-_NEVER) for one in _picked], last_late_days),
    reason="LATENESS",
    monotone="increasing",
    description="The latest of these first repayments, in days from its due date",
)
best_late_days = feature(
    reduce(minimum, [one.fill(_NEVER) for one in _picked], last_late_days),
    reason="LATENESS",
    monotone="increasing",
    description="The earliest of these first repayments, in days from its due date",
)
usual_late_days = feature(
    reduce(add, [one.fill(0) for one in _picked]) / reduce(add, [one.fill(-_NEVER) > -_NEVER for one in _picked]),
    reason="LATENESS",
    monotone="increasing",
    description="Mean lateness over the windows",
)

# ---- how the customer borrows ---------------------------------------------------------------------------------------

loans = _opened.count("30d", "90d", "180d", "lifetime", reason="HISTORY", description="Earlier loans")
loans_repaid = _repaid.count(reason="HISTORY", description="Earlier loans with a first repayment")
days_since_first_loan = _opened.time_since_first(unit="days", reason="HISTORY", description="Days since the first loan")
days_since_last_loan = _opened.time_since_last(unit="days", reason="HISTORY", description="Days since the last loan")
days_since_repaid = _repaid.time_since_last(unit="days", reason="HISTORY", description="Days since a first repayment")
days_since_closed = _closed.time_since_last(
    unit="days", reason="HISTORY", description="Days since an earlier loan was paid back in full"
)
last_days_open = feature(
    as_of.since(_closed.last("opened_at")) - _closed.time_since_last(unit="days"),
    reason="LATENESS",
    description="Days that the last closed loan was open",
)
last_amount = _closed.last("amount", reason="HISTORY", description="Amount of the last closed loan")
last_term = _repaid.last("term_days", reason="HISTORY", description="Length of the last repaid loan in days")
mean_amount = _closed.mean("amount", reason="HISTORY", description="Mean amount of the closed loans")
greatest_amount = _closed.max("amount", reason="HISTORY", description="Greatest amount of the closed loans")
amount_to_last = feature(
    amount / last_amount, reason="REQUEST", description="Amount asked for against the last closed loan"
)
mean_price = feature(
    _closed.sum("total_due") / _closed.sum("amount") - 1,
    reason="HISTORY",
    description="Interest and fees of the closed loans, as a share of the amounts",
)

# ---- for the policy alone -------------------------------------------------------------------------------------------

closed_loans = _closed.count(scored=False, description="Earlier loans paid back in full")
exposure = feature(
    outstanding(opened=_opened.per("loan").amount("total_due"), closed=[_closed.per("loan")])
    + reserved(
        offered=LoanApplication.Decided.by("customer")
        .where(LoanApplication.Decided.outcome.isin(["approve", "counter_offer"]))
        .per("loan")
        .amount("offer_amount", expires="offer_expires_at"),
        ended=[_opened.per("loan")],
    ),
    scored=False,
    description="Owed on open loans, and offered but not yet taken up or expired",
)
