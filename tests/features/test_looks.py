"""Looks say whose events, which, when and what of them, for every kind of measure."""

from __future__ import annotations

from tests.features.lender import LoanOpened, Repayment, Sale, plan_of

from obligor.features import Feature, application, delay
from obligor.features.looks import Look, looks

MINE = Repayment.by("consumer")
LOANS = LoanOpened.by("consumer").per("loan")


def looked(feature: Feature) -> list[Look]:
    plan = plan_of(f=feature)
    return [look for measure in plan.measures for look in looks(plan, measure)]


def test_a_plain_measure_is_one_look() -> None:
    (look,) = looked(MINE.where(Repayment.channel == "app", Repayment.late == True).sum("amount", "30d"))  # noqa: E712
    assert look == Look(
        role="",
        event="repayment",
        whose="the consumer",
        filter="channel is app and late is true",
        window="30 days",
        made="sum of amount over these",
        by_key="",
        keys=("consumer",),
        reads=("amount", "channel", "late"),
        compares=(),
        values=(),
    )


def test_conditions_on_the_application_say_what_they_compare_with() -> None:
    (look,) = looked(Sale.by(["consumer", "merchant"]).where(Sale.items > application.term).last("items"))
    assert (look.whose, look.keys) == ("the consumer with the merchant", ("consumer", "merchant"))
    assert (look.filter, look.compares) == ("items > the application's term", ("term",))


def test_what_a_window_begins_with_and_what_keeps_a_streak_going_are_looks_too() -> None:
    begun = LoanOpened.by("consumer").where(LoanOpened.principal > 5)
    own, anchor, condition = looked(MINE.since(begun).streak(Repayment.channel == "app"))
    assert (own.window, own.reads) == ("since the last loan_opened where principal > 5", ())
    assert (anchor.role, anchor.event, anchor.filter) == ("begins the window", "loan_opened", "principal > 5")
    assert (condition.role, condition.filter, condition.reads) == (
        "keeps the streak going", "channel is app", ("channel",),
    )  # fmt: skip


def test_a_number_by_key_is_a_look_for_each_number() -> None:
    first, second = looked((LOANS.sum("principal") - MINE.per("loan").sum("amount", "90d")).max())
    assert (first.role, first.by_key, first.event, first.window) == ("by key", "loan", "loan_opened", "lifetime")
    assert (second.by_key, second.window, second.reads) == ("loan", "90 days", ("amount", "loan"))


def test_fields_are_those_that_are_stored_and_vocabularies_those_of_the_plan() -> None:
    (look,) = looked(LoanOpened.by("consumer").max(delay(LoanOpened.due_at)))
    assert look.reads == ("due_at",)
    (look,) = looked(MINE.last("channel") == "app")
    assert look.values == ("app", "ussd", "branch")
