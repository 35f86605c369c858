"""The catalogue reads as a person would say it, from the plan alone."""

from __future__ import annotations

import pytest
from tests.features.lender import LoanApplication, LoanOpened, Repayment, Sale, plan_of

from obligor.features import Feature, Plan, as_of, feature, maximum, outstanding, request, reserved
from obligor.features.catalogue import catalogue, length_words

MINE = Repayment.by("consumer")
DECIDED = LoanApplication.Decided
DUE = LoanOpened.by("consumer").last("due_at")

WORDS: list[tuple[Feature, str]] = [
    (MINE.count("30d"), "number of the consumer's repayment events, last 30 days"),
    (MINE.sum("amount", "36h"), "sum of amount over the consumer's repayment events, last 36 hours"),
    (MINE.time_since_last(), "seconds since the last of the consumer's repayment events, ever"),
    (MINE.time_since_last(unit="days") > 30, "(days since the last of the consumer's repayment events, ever) > 30"),
    (MINE.last("channel") == "ussd", "(channel of the last of the consumer's repayment events, ever) = 'ussd'"),
    (MINE.max("fee").fill(0), "greatest fee among the consumer's repayment events, ever, or 0 if unknown"),
    (
        MINE.where(Repayment.channel.isin(["app", "ussd"]), Repayment.late == True).count("7d"),  # noqa: E712
        "number of the consumer's repayment events where channel is app or ussd and late is true, last 7 days",
    ),
    (
        MINE.where((Repayment.amount > 5) | Repayment.note.is_null(), ~(Repayment.channel == "app")).distinct("loan"),
        "number of distinct loan among the consumer's repayment events where "
        "(amount > 5 or note is absent) and not (channel is app), ever",
    ),
    (
        Sale.by("merchant", via="merchant").mean("items", "7d"),
        "mean of items over the merchant's sale events, last 7 days",
    ),
    (request("amount") / 100 - 1, "the application's amount / 100 - 1"),
    (request("amount") / (request("term") - 1), "the application's amount / (the application's term - 1)"),
    (request("amount") - (request("amount") - 1), "the application's amount - (the application's amount - 1)"),
    (request.age("born"), "days since the application's born"),
    (as_of.since(DUE), "days since due_at of the last of the consumer's loan_opened events, ever"),
    (as_of.hour() >= 22, "hour of the day in UTC >= 22"),
    (~(as_of.hour() > 5), "not (hour of the day in UTC > 5)"),
    (
        (as_of.hour() > 5) & (request("channel") == "web"),
        "(hour of the day in UTC > 5) and (the application's channel = 'web')",
    ),
    (maximum(request("term"), 3), "the greater of (the application's term) and (3)"),
    (
        outstanding(
            opened=LoanOpened.by("consumer").per("loan").amount("principal"),
            reduced=[MINE.per("loan").amount("amount")],
        ),
        "the consumer's principal of loan_opened events less amount of repayment events, at least 0 for each loan",
    ),
    (
        reserved(
            offered=DECIDED.by("consumer")
            .where(DECIDED.outcome == "approve")
            .per("application_id")
            .amount("offer_amount", expires="offer_expires_at", lasts="30m"),
            ended=[LoanOpened.by("consumer").per("application_id")],
        ),
        "the consumer's offer_amount of loan_application_decided events where outcome is approve until "
        "offer_expires_at, else for 30 minutes, at least 0 for each application_id, "
        "without those that have loan_opened events",
    ),
]


@pytest.mark.parametrize(("definition", "words"), WORDS, ids=[words[:60] for _, words in WORDS])
def test_a_definition_in_words(definition: Feature, words: str) -> None:
    assert catalogue(plan_of(f=definition))[0].definition == words


def test_an_entry_says_all_there_is_to_know() -> None:
    plan = plan_of(
        reach=feature(
            request("amount") / MINE.where(Repayment.channel == "app").sum("amount", "30d", "90d"),
            reason="REQUEST_SIZE",
            monotone="increasing",
            description="The amount asked for over what was repaid",
        ),
        exposure=feature(MINE.count(), scored=False),
    )
    reach, _, exposure = catalogue(Plan.load(plan.data))
    assert (reach.name, reach.type, reach.unit) == ("reach_30d", "real", "ratio")
    assert (reach.windows, reach.entities) == (("30 days",), ("consumer",))
    assert (reach.reason, reach.monotone) == ("REQUEST_SIZE", "risk rises with it")
    assert reach.description == "The amount asked for over what was repaid"
    assert reach.inputs == ("repayment", "repayment.amount", "repayment.channel", "loan_application.amount")
    assert (exposure.windows, exposure.scored, exposure.reason, exposure.monotone) == (("lifetime",), False, "", "")


def test_lengths_are_in_the_largest_whole_unit() -> None:
    lengths = [60 * 10**6, 3600 * 10**6, 36 * 3600 * 10**6, 7 * 86400 * 10**6, 90 * 10**6, 5]
    words = ["1 minute", "1 hour", "36 hours", "7 days", "90 seconds", "5 microseconds"]
    assert [length_words(length) for length in lengths] == words
