"""What we look at: how late each earlier loan was first repaid, how the customer borrows, what is asked for."""

from __future__ import annotations

from obligor.features import as_of, delay, feature, outstanding, request, reserved

from .events import FirstRepayment, LoanApplication, LoanClosed, LoanOpened

_DAY = 86_400_000_000  # delays are in microseconds

# ---- the request ----------------------------------------------------------------------------------------------------

amount = request("amount", reason="REQUEST", description="Amount asked for")
total_due = request("total_due", reason="REQUEST", description="Amount to be paid back")
term_days = request("term_days", reason="REQUEST", description="Length of the loan in days")
loan_number = request("loan_number", reason="HISTORY", description="Which loan of this customer it is")
hour = as_of.hour(reason="TIMING", description="Hour of the application, in Lagos")
weekday = as_of.day_of_week(reason="TIMING", description="Weekday of the application, in Lagos (0 is Monday)")

# ---- lateness of earlier first repayments ---------------------------------------------------------------------------

_repaid = FirstRepayment.by("customer")
_late = delay(FirstRepayment.due_at)
last_late_days = feature(
    _repaid.last(_late) / _DAY,
    unit="days",
    reason="LATENESS",
    monotone="increasing",
    description="Days from the due date to the first repayment, of the latest loan",
)
first_late_days = feature(
    _repaid.first(_late) / _DAY,
    unit="days",
    reason="LATENESS",
    monotone="increasing",
    description="Days from the due date to the first repayment, of the first loan",
)
mean_late_days = feature(
    _repaid.mean(_late, "60d", "120d", "lifetime") / _DAY,
    unit="days",
    reason="LATENESS",
    monotone="increasing",
    description="Days from the due date to the first repayment, the mean of earlier loans",
)
worst_late_days = feature(
    _repaid.max(_late) / _DAY,
    unit="days",
    reason="LATENESS",
    monotone="increasing",
    description="Days from the due date to the first repayment, the most of earlier loans",
)
best_late_days = feature(  # no direction: the least of many loans is low because there are many
    _repaid.min(_late) / _DAY,
    unit="days",
    reason="LATENESS",
    description="Days from the due date to the first repayment, the least of earlier loans",
)
std_late_days = feature(
    _repaid.std(_late) / _DAY,
    unit="days",
    reason="LATENESS",
    description="Days from the due date to the first repayment, how much they differ from loan to loan",
)
_repaid_late = _repaid.where(_late >= "1d")
late_loans = _repaid_late.count(
    reason="LATENESS", monotone="increasing", description="Earlier loans first repaid on a later day than due"
)
days_since_late = _repaid_late.time_since_last(
    unit="days",
    reason="LATENESS",
    monotone="decreasing",
    description="Days since a first repayment that came on a later day than due",
)
late_share = feature(
    late_loans / _repaid.count(),
    reason="LATENESS",
    monotone="increasing",
    description="Share of the earlier loans first repaid on a later day than due",
)

# ---- how the customer borrows ---------------------------------------------------------------------------------------

_closed = LoanClosed.by("customer")
_opened = LoanOpened.by("customer")
loans = _opened.count("30d", "90d", "180d", "lifetime", reason="HISTORY", description="Earlier loans")
days_since_first_loan = _opened.time_since_first(unit="days", reason="HISTORY", description="Days since the first loan")
days_since_last_loan = _opened.time_since_last(unit="days", reason="HISTORY", description="Days since the last loan")
days_since_repaid = _repaid.time_since_last(unit="days", reason="HISTORY", description="Days since a first repayment")
days_since_closed = _closed.time_since_last(
    unit="days", reason="HISTORY", description="Days since an earlier loan was paid back in full"
)
_open = delay(LoanClosed.opened_at)
last_days_open = feature(
    _closed.last(_open) / _DAY, unit="days", reason="HISTORY", description="Days that the last closed loan was open"
)
mean_days_open = feature(
    _closed.mean(_open) / _DAY, unit="days", reason="HISTORY", description="Days that closed loans were open, the mean"
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
