"""What we predict: 30 days past due, or written off, within 120 days of the application."""

from __future__ import annotations

from obligor.credit import Outcome, any_of, days_past_due, happens, occurs, opened_by

from .events import ChargedOff, InstalmentDue, LoanApplication, LoanCancelled, LoanOpened, Repayment

outcome = Outcome(
    application=LoanApplication,
    key="event_id",
    opened=opened_by(LoanOpened, application="application_id", key="loan"),
    bad=any_of(
        days_past_due(due=InstalmentDue.amount, paid=Repayment.amount, at_least=30),
        happens(ChargedOff),
    ),
    horizon="120d",
    lag="2d",
    exclusions={"returned": occurs(LoanCancelled)},
)
