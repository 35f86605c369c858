"""Credit: what happened to a loan after its decision, as known at an instant."""

from obligor.credit.definitions import (
    Outcome,
    any_of,
    days_past_due,
    happens,
    labelled,
    late_first_payment,
    occurs,
    opened_by,
)
from obligor.credit.outcomes import evaluate_outcomes

__all__ = [
    "Outcome",
    "any_of",
    "days_past_due",
    "evaluate_outcomes",
    "happens",
    "labelled",
    "late_first_payment",
    "occurs",
    "opened_by",
]
