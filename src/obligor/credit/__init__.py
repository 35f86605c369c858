"""Credit: what happened to a loan after its decision, and ready-made features of what happened before.

from obligor.credit import Income, Loans, Outcome, Payments
"""

from obligor.credit.borrowing import Applications, Borrowing
from obligor.credit.cashflow import Balances, Bills, Income, OtherLenders
from obligor.credit.definitions import (
    Outcome,
    any_of,
    days_past_due,
    happens,
    labelled,
    late_first_payment,
    occurs,
    opened_by,
    paid_in_full,
)
from obligor.credit.lives import evaluate_lives
from obligor.credit.losses import evaluate_losses
from obligor.credit.merchants import Merchant, Relationship
from obligor.credit.outcomes import evaluate_outcomes
from obligor.credit.reasons import REASON_TEXTS
from obligor.credit.repayment import FailedPayments, Loans, Payments

__all__ = [
    "REASON_TEXTS",
    "Applications",
    "Balances",
    "Bills",
    "Borrowing",
    "FailedPayments",
    "Income",
    "Loans",
    "Merchant",
    "OtherLenders",
    "Outcome",
    "Payments",
    "Relationship",
    "any_of",
    "days_past_due",
    "evaluate_lives",
    "evaluate_losses",
    "evaluate_outcomes",
    "happens",
    "labelled",
    "late_first_payment",
    "occurs",
    "opened_by",
    "paid_in_full",
]
