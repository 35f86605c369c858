"""A small lender with everything that definitions can get right or wrong."""

from __future__ import annotations

from obligor.events.schema import Registry
from obligor.features import (
    Boolean,
    Category,
    Decimal,
    Entity,
    Event,
    Feature,
    Integer,
    Money,
    Plan,
    Text,
    Timestamp,
    compile_plan,
)


class LoanApplication(Event, application=True):
    consumer = Entity()
    merchant = Entity(optional=True)
    amount = Money("NGN")
    term = Integer(1, 12)
    rate = Decimal(4, optional=True)
    channel = Category("app", "web", optional=True)
    referrer = Category(optional=True)
    born = Timestamp(optional=True)
    marital_status = Category("single", "married", protected=True, optional=True)
    phone = Text(personal=True, optional=True)


class LoanOpened(Event):
    consumer = Entity()
    loan = Entity()
    application_id = Entity("application")
    principal = Money("NGN")
    due_at = Timestamp()


class Repayment(Event):
    consumer = Entity()
    loan = Entity()
    amount = Money("NGN")
    fee = Decimal(2, optional=True)
    late = Boolean(optional=True)
    channel = Category("app", "ussd", "branch", optional=True)
    bank = Category(optional=True)
    note = Text(optional=True)


class Sale(Event):
    merchant = Entity()
    consumer = Entity(optional=True)
    amount = Money("NGN", "EUR")
    items = Integer()
    buyer_gender = Category("f", "m", protected=True, optional=True)


class Transfer(Event):
    sender = Entity("consumer")
    receiver = Entity("consumer")
    amount = Money("EUR")


REGISTRY = Registry([LoanApplication, LoanOpened, Repayment, Sale, Transfer])


def plan_of(zone: str = "UTC", **features: Feature) -> Plan:
    """Compile named features for the lender's application."""
    return compile_plan(features, REGISTRY, LoanApplication, zone)
