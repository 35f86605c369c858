"""What can happen: the events of a buy-now-pay-later lender. Amounts are minor units of EUR."""

from __future__ import annotations

from obligor.features import Category, Entity, Event, Integer, Money, Text, Timestamp


class Signup(Event, lag="5m"):
    """A consumer opens an account."""

    consumer = Entity()
    declared_income = Money("EUR", doc="net income a month, as the consumer states it")
    email = Text(254, personal=True)
    gender = Category("female", "male", "other", protected=True, optional=True)
    birth_year = Integer(1900, 2100, protected=True)


class AppVisit(Event, lag="5m"):
    """A consumer looks at a screen of the app."""

    consumer = Entity()
    screen = Category("home", "browse", "orders", "limit", "pay", "help")


class BankTransaction(Event, lag="6h"):
    """A movement on the consumer's bank account, seen through open banking."""

    consumer = Entity()
    kind_of = Category("wage", "lender_in", "lender_out", "gambling", "cash", "transfer_in")
    amount = Money("EUR")


class Purchase(Event, lag="1h"):
    """A purchase at a merchant, paid at once."""

    consumer = Entity()
    merchant = Entity()
    amount = Money("EUR")
    method = Category("card", "wallet")


class LoanApplication(Event, application=True):
    """A consumer asks at a merchant's checkout to pay by instalments."""

    consumer = Entity()
    merchant = Entity()
    amount = Money("EUR")
    instalments = Integer(1, 24)
    category = Category("fashion", "electronics", "home", "beauty", "sports", "travel")
    channel = Category("web", "app", "till")
    bureau_score = Integer(0, 1_000, optional=True, doc="from the bureau's answer to the application")


class LoanOpened(Event, lag="1m"):
    """An approved offer was accepted: the merchant is paid, the consumer owes."""

    consumer = Entity()
    merchant = Entity()
    loan = Entity()
    application_id = Entity("application")
    amount = Money("EUR")
    instalments = Integer(1, 24)
    interval_days = Integer(1, 366)


class InstalmentDue(Event, lag="1m"):
    """An instalment falls due."""

    consumer = Entity()
    merchant = Entity()
    loan = Entity()
    amount = Money("EUR")
    number = Integer(0, 24)


class Repayment(Event, lag="1h"):
    """A payment received on a loan."""

    consumer = Entity()
    merchant = Entity()
    loan = Entity()
    amount = Money("EUR")
    number = Integer(0, 24)
    method = Category("card", "bank_transfer")
    due_at = Timestamp(doc="when the instalment that it is for falls due")


class PaymentFailed(Event, lag="1h"):
    """A collection that did not go through."""

    consumer = Entity()
    merchant = Entity()
    loan = Entity()
    amount = Money("EUR")
    number = Integer(0, 24)
    cause = Category("insufficient_funds", "card_expired")


class ChargedOff(Event, lag="1h"):
    """The lender writes off what is still owed."""

    consumer = Entity()
    merchant = Entity()
    loan = Entity()
    amount = Money("EUR")


class LoanCancelled(Event, lag="1h"):
    """The order was returned in full: nothing is owed any more."""

    consumer = Entity()
    merchant = Entity()
    loan = Entity()
    amount = Money("EUR")


class Dispute(Event, lag="1d"):
    """A consumer disputes what was delivered."""

    consumer = Entity()
    merchant = Entity()
    loan = Entity()
    amount = Money("EUR")
