"""What can happen at a lender whose loans go bad by the order of two events."""

from __future__ import annotations

from obligor.features import Category, Entity, Event, Money


class Asking(Event, application=True):
    """A consumer asks for a loan."""

    consumer = Entity()
    amount = Money("EUR")
    channel = Category("app", "web", optional=True)


class Transfer(Event):
    """Money comes from another lender, or goes back to it."""

    consumer = Entity()
    way = Category("borrowed", "repaid")
    amount = Money("EUR")


class Opened(Event):
    """A loan is paid out."""

    consumer = Entity()
    asking = Entity("application")
    loan = Entity()
    amount = Money("EUR")


class Due(Event):
    """The first payment on a loan falls due."""

    consumer = Entity()
    loan = Entity()


class Paid(Event):
    """A payment on a loan."""

    consumer = Entity()
    loan = Entity()
    amount = Money("EUR")


class Ended(Event):
    """What became of a loan."""

    consumer = Entity()
    loan = Entity()
    how = Category("good", "bad")
