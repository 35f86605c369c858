"""What is predicted: a bad end within 30 days, and whether the first payment comes."""

from __future__ import annotations

import dataclasses

from obligor.credit import Outcome, happens, late_first_payment, opened_by, paid_in_full

from .events import Asking, Due, Ended, Opened, Paid

outcome = Outcome(
    application=Asking,
    key="event_id",
    opened=opened_by(Opened, application="asking", key="loan"),
    horizon="30d",
    bad=happens(Ended, Ended.how == "bad"),
    repaid=paid_in_full(lent=Opened.amount, paid=Paid.amount),
)
first_payment = dataclasses.replace(outcome, horizon="12d", bad=late_first_payment(due=Due, paid=Paid, at_least=3))
