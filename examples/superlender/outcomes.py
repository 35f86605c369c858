"""What we predict: the first payment is late by the calendar in Lagos; for the July 2017 loans, the published flag.

The last first due date of the data lies 35 days after approval, so 36 days show whether it was met.
"""

from __future__ import annotations

from obligor.credit import Outcome, labelled, late_first_payment, opened_by

from .events import FirstRepayment, LoanApplication, LoanLabelled, LoanOpened

outcome = Outcome(
    application=LoanApplication,
    key="loan",
    opened=opened_by(LoanOpened),
    bad=[
        labelled(LoanLabelled.flag, bad=["Bad"]),
        late_first_payment(due=LoanOpened.due_at, paid=FirstRepayment),
    ],
    horizon="36d",
    zone="Africa/Lagos",
)
