"""Where features come from: event types, fields and versions, as deep as they go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.events.evolving import FIRST, NEWEST, Loan, LoanV1, Sale, SaleV1
from tests.features.lender import REGISTRY, LoanApplication, LoanOpened, Repayment, plan_of

from obligor.events.schema import Registry
from obligor.features import Event as EventWithFeatures
from obligor.features import Feature, Stream, application, compile_plan, request
from obligor.features.origins import Branch, origins


def lines(branches: tuple[Branch, ...], depth: int = 0) -> Iterator[str]:
    for branch in branches:
        yield "  " * depth + branch.text
        yield from lines(branch.branches, depth + 1)


def of(event: type[Any], entity: str) -> Stream:
    """The facts of a type that is declared without the language of features."""
    stream: Stream = EventWithFeatures.by.__func__(event, entity)  # type: ignore[attr-defined]
    return stream


def tree(feature: Feature) -> list[str]:
    plan = plan_of(f=feature)
    return list(lines(origins(plan, REGISTRY, plan.features[0])))


def test_a_measure_is_followed_down_to_its_fields() -> None:
    mine = Repayment.by("consumer").where(Repayment.channel == "app", Repayment.amount < application.amount)
    assert tree(mine.sum("fee", "30d") / request("rate")) == [
        "sum of fee over the consumer's repayment events where channel is app and amount < the application's amount, "
        "last 30 days",
        "  repayment events",
        "    whose: the consumer, as the event's consumer",
        "    only where channel is app and amount < the application's amount",
        "    window: 30 days",
        "    taken: sum of fee over these",
        "    repayment.fee, a decimal of 2 places, may be absent",
        "    repayment.amount, money in minor units of NGN",
        "    repayment.channel, one of app, ussd, branch, may be absent",
        "    compared with the application's",
        "      loan_application.amount, money in minor units of NGN",
        "  kept as holistic: the events themselves are looked at again, exact; a decision that meets more than 4,096 "
        "values or keys, or 16,384 values of a quantile, is referred",
        "the application's rate",
        "  loan_application.rate, a decimal of 4 places, may be absent",
    ]


def test_rows_of_older_versions_are_followed_through_their_steps() -> None:
    sold = of(Sale, "merchant").where(Sale.rail == "card", Sale.channel == "web", Sale.online == True)  # noqa: E712
    features = {"f": sold.where(Sale.price.currency_is("NGN")).sum("price"), "g": sold.mean("commission")}
    plan = compile_plan(features, NEWEST, Loan)
    found = [text.strip() for one in plan.features for text in lines(origins(plan, NEWEST, one))]
    assert "sale events (versions 1, 2, 3): With steps upon steps" in found
    for wanted in (
        "in version 1: amt, renamed to amount, renamed to price",
        "in version 2: amount, renamed to price",
        "in version 1: method, renamed to paid_by, cc read as card, debit read as card, renamed to rail, iou read as "
        "other",
        "in version 1: 'till' for every row",
        "in version 1: not there, so unknown",
        "in version 1: fee, renamed to exact_fee, with more places, renamed to commission, with more places",
    ):
        assert wanted in found, wanted
    assert found.count("in version 2: amount, renamed to price") == 1, "a version that has the name needs no words"


def test_a_plan_of_an_older_version_reads_newer_rows_back() -> None:
    plan = compile_plan({"f": of(SaleV1, "shop").sum("amt"), "asked": request("amt")}, FIRST, LoanV1)
    found = [text.strip() for one in plan.features for text in lines(origins(plan, NEWEST, one))]
    assert "in version 3: price, read back from price, read back from amount" in found
    assert "in version 2: amount, read back from amount" in found


def test_what_is_no_longer_declared_is_said() -> None:
    plan = plan_of(f=LoanOpened.by("consumer").count())
    fewer = Registry([LoanApplication, Repayment])
    (measure,) = origins(plan, fewer, plan.features[0])
    assert measure.branches[0].text == "loan_opened events: no event class of events.py is named so"
