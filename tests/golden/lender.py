"""The lender of the first golden ledger. Frozen: a later ledger gets definitions of its own beside these."""

from __future__ import annotations

from typing import Any

from obligor.credit import Outcome, days_past_due, opened_by
from obligor.events.schema import Registry
from obligor.features import (
    Category,
    Decimal,
    Entity,
    Event,
    Integer,
    Money,
    Plan,
    Text,
    Timestamp,
    application,
    as_of,
    compile_plan,
    definitions,
    feature,
    outstanding,
    request,
    reserved,
)


class Purchase(Event, application=True):
    """A consumer wants to pay later."""

    consumer = Entity()
    merchant = Entity(optional=True)
    amount = Money("NGN")
    basket = Decimal(2, optional=True)
    channel = Category("app", "web", "agent", optional=True)
    phone = Text(personal=True, optional=True)


class LoanOpened(Event):
    """An offer was taken up."""

    consumer = Entity()
    loan = Entity()
    application_id = Entity("application")
    principal = Money("NGN")
    due_at = Timestamp()


class Repayment(Event, lag="2h"):
    """Money came back."""

    consumer = Entity()
    loan = Entity()
    amount = Money("NGN")
    days_late = Integer(-30, 400, optional=True)


class Sale(Event):
    """A merchant sold something."""

    merchant = Entity()
    consumer = Entity(optional=True)
    amount = Money("NGN")
    returned = Category("yes", "no", optional=True)


REGISTRY = Registry([Purchase, LoanOpened, Repayment, Sale])


def _features() -> dict[str, Any]:
    repayments, sales = Repayment.by("consumer"), Sale.by("merchant")
    repaid = repayments.sum("amount", "30d", "90d", reason="REPAYMENT", monotone="decreasing")
    late = repayments.where(Repayment.days_late > 0).count("90d", "lifetime", reason="LATE", monotone="increasing")
    lateness = repayments.mean("days_late", "90d", reason="LATE")
    spread = repayments.std("days_late", "lifetime", reason="LATE")
    last_paid = repayments.last("amount", "lifetime", reason="REPAYMENT")
    since_paid = repayments.time_since_last("lifetime", reason="REPAYMENT")
    loans = LoanOpened.by("consumer").count("90d", "lifetime", reason="HISTORY")
    largest = LoanOpened.by("consumer").max("principal", "lifetime", reason="HISTORY")
    known_for = LoanOpened.by("consumer").time_since_first("lifetime", reason="HISTORY")
    sold = sales.sum("amount", "7d", "90d", reason="MERCHANT")
    mean_sale = sales.mean("amount", "90d", reason="MERCHANT")
    buyers = sales.distinct("consumer", "90d", reason="MERCHANT")
    returns = feature(sales.where(Sale.returned == "yes").count("90d") / sales.count("90d"), reason="MERCHANT")
    amount = feature(request("amount"), reason="AMOUNT")
    basket = feature(request("basket"), reason="AMOUNT")
    channel = feature(request("channel"), reason="CHANNEL")
    share = feature(request("amount") / LoanOpened.by("consumer").mean("principal", "lifetime"), reason="AMOUNT")
    hour = feature(as_of.hour(), reason="TIME")
    weekday = feature(as_of.day_of_week(), reason="TIME")
    fading = repayments.decayed_sum("amount", "20d", "180d", reason="REPAYMENT")
    usual = repayments.median("amount", "180d", reason="REPAYMENT")
    trend = repayments.slope("days_late", "180d", reason="LATE")
    rhythm = repayments.std_gap("lifetime", unit="days", reason="REPAYMENT")
    on_time = repayments.streak(Repayment.days_late <= 0, reason="LATE")
    latest = repayments.mean("amount", "5 events", reason="REPAYMENT")
    this_month = repayments.sum("amount", "this month", reason="REPAYMENT")
    worst_loan = repayments.per("loan").mean("days_late").max(reason="LATE")
    spread_of_returns = sales.entropy("returned", "90d", reason="MERCHANT")
    same_size = repayments.where(Repayment.amount >= application.amount).count("180d", reason="REPAYMENT")
    decided = Purchase.Decided
    exposure = feature(
        outstanding(
            opened=LoanOpened.by("consumer").per("loan").amount("principal"),
            reduced=[repayments.per("loan").amount("amount")],
        )
        + reserved(
            offered=decided.by("consumer")
            .where(decided.outcome.isin(["approve", "counter_offer"]))
            .per("application_id")
            .amount("offer_amount", expires="offer_expires_at"),
            ended=[LoanOpened.by("consumer").per("application_id")],
        ),
        scored=False,
    )
    return definitions(dict(locals()))


def plan() -> Plan:
    """Compile the features; only making a ledger needs this, replay reads the plan from the bundle."""
    return compile_plan(_features(), REGISTRY, Purchase, "Europe/Berlin")


OUTCOME = Outcome(
    application=Purchase,
    key="event_id",
    opened=opened_by(LoanOpened, application="application_id", key="loan"),
    bad=days_past_due(due=LoanOpened.principal, due_at=LoanOpened.due_at, paid=Repayment.amount, at_least=7),
    horizon="60d",
    lag="1d",
    zone="Europe/Berlin",
)
POLICY = b"""
[[eligibility]]
name = "late_now"
when = "late_90d > 8 or (lateness > 20 and not is_null(spread))"
null = "pass"
reason = "LATE"

[[eligibility]]
name = "new_by_agent"
when = "application.channel == 'agent' and loans_lifetime == 0"
outcome = "refer"
null = "pass"
reason = "CHANNEL"

[cutoffs]
approve_below = 0.35
decline_from = 0.5

[exposure]
feature = "exposure"
limit = 400_000
reason = "EXPOSURE"

[offer]
amount = "amount"
minimum = 5_000
step = 500
expires = "30m"
reason = "AMOUNT"
[[offer.bands]]
pd_below = 0.15
amount_max = 120_000
term_days = 30
fee_basis_points = 455
[[offer.bands]]
amount_max = 50_000
term_days = 14
fee_basis_points = 905
apr_basis_points = 23_590

[reasons.texts]
REPAYMENT = "Little was repaid recently"
LATE = "Payments were late"
HISTORY = "The history of loans"
MERCHANT = "The merchant's recent sales"
AMOUNT = "The amount asked for"
CHANNEL = "How the application came"
TIME = "The time of day or week"
EXPOSURE = "The amount outstanding is at its limit"

[ladder]
rungs = ["full", "scorecard", "refer"]
[ladder.scorecard]
approve_below = 0.3
decline_from = 0.45
"""
