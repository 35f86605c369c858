"""What can happen to a digital loan. Amounts are minor units of NGN (kobo)."""

from __future__ import annotations

from obligor.features import Category, Entity, Event, Integer, Money, Timestamp


class LoanApplication(Event, application=True):
    """A customer asks for a loan in the app; every loan of the data begins with one."""

    customer = Entity()
    loan = Entity()
    loan_number = Integer(1, 1_000, doc="which loan of this customer it is")
    amount = Money("NGN")
    total_due = Money("NGN", doc="amount, interest and fees")
    term_days = Integer(1, 366)
    referrer = Entity(optional=True, doc="the customer who referred this one")
    source = Category("earlier", "scored", doc="which of the two files it comes from; never a feature")


class LoanOpened(Event):
    """The loan is approved and paid out."""

    customer = Entity()
    loan = Entity()
    amount = Money("NGN")
    total_due = Money("NGN")
    term_days = Integer(1, 366)
    due_at = Timestamp(optional=True, doc="the first due date, a calendar day; not published for the scored loans")


class FirstRepayment(Event):
    """The first payment on a loan."""

    customer = Entity()
    loan = Entity()
    amount = Money("NGN", doc="the amount lent")
    term_days = Integer(1, 366)
    due_at = Timestamp(doc="the first due date")


class LoanClosed(Event):
    """The loan is paid back in full."""

    customer = Entity()
    loan = Entity()
    amount = Money("NGN", doc="the amount lent")
    total_due = Money("NGN")
    opened_at = Timestamp()


class LoanLabelled(Event):
    """The published verdict on a loan of July 2017."""

    customer = Entity()
    loan = Entity()
    flag = Category("Good", "Bad")
