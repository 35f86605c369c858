"""The catalogue reads as a person would say it, from the plan alone."""

from __future__ import annotations

import pytest
from tests.features.lender import LoanApplication, LoanOpened, Repayment, Sale, plan_of

from obligor.events.schema import Registry
from obligor.features import (
    Category,
    Entity,
    Event,
    Feature,
    Integer,
    Plan,
    application,
    as_of,
    compile_plan,
    delay,
    feature,
    maximum,
    outstanding,
    request,
    reserved,
)
from obligor.features.catalogue import catalogue
from obligor.features.wording import length_words

MINE = Repayment.by("consumer")
LATE = Repayment.late == True  # noqa: E712
LOANS, PAID = LoanOpened.by("consumer").per("loan"), MINE.per("loan")
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
        "number of distinct values of loan among the consumer's repayment events where "
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
    (as_of.hour() >= 22, "hour of the day (0 to 23) in UTC >= 22"),
    (~(as_of.hour() > 5), "not (hour of the day (0 to 23) in UTC > 5)"),
    (
        (as_of.hour() > 5) & (request("channel") == "web"),
        "(hour of the day (0 to 23) in UTC > 5) and (the application's channel = 'web')",
    ),
    (maximum(request("term"), 3), "the greater of the application's term and 3"),
    (
        outstanding(opened=LOANS.amount("principal"), reduced=[PAID.amount("amount")]),
        "sum over the consumer's loans of (the greater of 0 and ((sum of principal over its loan_opened events, ever) "
        "- (sum of amount over its repayment events, ever)))",
    ),
    (
        reserved(
            offered=DECIDED.by("consumer")
            .where(DECIDED.outcome == "approve")
            .per("application_id")
            .amount("offer_amount", expires="offer_expires_at", lasts="30m"),
            ended=[LoanOpened.by("consumer").per("application_id")],
        ),
        "sum over the consumer's application_ids of ((the greater of 0 and ((sum of offer_amount over its "
        "loan_application_decided events where outcome is approve and offer_expires_at is after the moment of the "
        "question, ever) + (sum of offer_amount over its loan_application_decided events where outcome is approve and "
        "offer_expires_at is absent, less than 30 minutes ago))) if (number of its loan_opened events, ever) = 0, "
        "else 0)",
    ),
    # windows
    (
        MINE.sum("amount", "30d before 30d"),
        "sum of amount over the consumer's repayment events, the 30 days before the last 30 days",
    ),
    (MINE.count("lifetime before 7d"), "number of the consumer's repayment events, all before the last 7 days"),
    (MINE.sum("amount", "10 events"), "sum of amount over the newest 10 of the consumer's repayment events"),
    (MINE.count("this month"), "number of the consumer's repayment events, this month so far (UTC)"),
    (MINE.count("last week"), "number of the consumer's repayment events, last week (UTC)"),
    (MINE.count("last year").previous(), "number of the consumer's repayment events, the year before last (UTC)"),
    (
        MINE.count("last day").previous().previous(),
        "number of the consumer's repayment events, the day 3 days back (UTC)",
    ),
    (
        MINE.since(LoanOpened.by("consumer").where(LoanOpened.principal > 5)).count(),
        "number of the consumer's repayment events, since the last of the consumer's loan_opened events where "
        "principal > 5",
    ),
    # aggregates
    (MINE.nth("amount", 1), "newest amount among the consumer's repayment events, ever"),
    (MINE.nth("amount", 12), "12th newest amount among the consumer's repayment events, ever"),
    (MINE.mean_gap(unit="days"), "mean days from one of the consumer's repayment events to the next, ever"),
    (MINE.std_gap(), "standard deviation of the seconds from one of the consumer's repayment events to the next, ever"),
    (MINE.longest_gap("90d"), "most seconds from one of the consumer's repayment events to the next, last 90 days"),
    (
        MINE.slope("amount", "90d"),
        "growth per day (least squares) of amount over the consumer's repayment events, last 90 days",
    ),
    (
        MINE.decayed_count("30d", "365d"),
        "number of the consumer's repayment events, each half as much for every 30 days of age in calendar days (UTC), "
        "last 365 days",
    ),
    (
        MINE.where(Repayment.channel == "app").streak(LATE & (Repayment.amount > 5)),
        "number in a row, from the newest back, of the consumer's repayment events where channel is app that also meet "
        "late is true and amount > 5, ever",
    ),
    (
        MINE.longest_streak(LATE, "90d"),
        "most in a row of the consumer's repayment events that also meet late is true, last 90 days",
    ),
    (
        MINE.most_frequent("channel") == "app",
        "(most frequent channel among the consumer's repayment events, ever) = 'app'",
    ),
    (MINE.top_k("channel", 3)[3], "3rd most frequent channel among the consumer's repayment events, ever"),
    (MINE.top_share("loan"), "share of the most frequent loan among the consumer's repayment events, ever"),
    (
        MINE.top_share("loan", k=3),
        "share of the 3 most frequent values of loan among the consumer's repayment events, ever",
    ),
    (MINE.entropy("bank"), "entropy, in bits, of bank among the consumer's repayment events, ever"),
    (MINE.median("amount", "7d"), "median of amount over the consumer's repayment events, last 7 days"),
    (MINE.quantile("amount", 0.9), "0.9 quantile of amount over the consumer's repayment events, ever"),
    (
        MINE.pivot("channel").count("7d")["app"],
        "number of the consumer's repayment events where channel is app, last 7 days",
    ),
    (
        MINE.sum("amount", "7d").ratio_to_previous(),
        "(sum of amount over the consumer's repayment events, last 7 days) / "
        "(sum of amount over the consumer's repayment events, the 7 days before the last 7 days)",
    ),
    # entities and the application
    (
        Sale.by(["consumer", "merchant"]).where(Sale.amount.currency_is("EUR")).sum("amount", "90d"),
        "sum of amount over the sale events of the consumer with the merchant where currency of amount is EUR, "
        "last 90 days",
    ),
    (
        Sale.by("consumer").where(Sale.merchant == application.merchant).count("90d"),
        "number of the consumer's sale events where merchant is the application's merchant, last 90 days",
    ),
    (
        MINE.where((Repayment.amount > 5) | LATE, Repayment.amount < application.amount).count(),
        "number of the consumer's repayment events where (amount > 5 or late is true) and amount < the application's "
        "amount, ever",
    ),
    (
        LoanOpened.by("consumer").where(LoanOpened.due_at <= as_of).count(),
        "number of the consumer's loan_opened events where due_at is not after the moment of the question, ever",
    ),
    (
        LoanOpened.by("consumer").where(delay(LoanOpened.due_at) >= "36h").count(),
        "number of the consumer's loan_opened events where delay after due_at >= 36 hours, ever",
    ),
    (
        LoanOpened.by("consumer").max(delay(LoanOpened.due_at)) / 86_400_000_000,
        "greatest delay in days after due_at among the consumer's loan_opened events, ever",
    ),
    (
        LoanOpened.by("consumer").distinct("due_at") / (LoanOpened.by("consumer").count() >= 3),
        "(number of distinct values of due_at among the consumer's loan_opened events, ever) if (number of the "
        "consumer's loan_opened events, ever) >= 3, else unknown",
    ),
    # two levels
    (
        (LOANS.sum("principal") > PAID.sum("amount", "90d")).count(),
        "number of the consumer's loans whose (sum of principal over its loan_opened events, ever) > "
        "(sum of amount over its repayment events, last 90 days)",
    ),
    (
        (PAID.last("channel") == "app").mean(),
        "share of the consumer's loans whose (channel of the last of its repayment events, ever) = 'app'",
    ),
    ((PAID.count() > 5).max(), "whether any of the consumer's loans has (number of its repayment events, ever) > 5"),
    ((PAID.count() > 5).min(), "whether all of the consumer's loans have (number of its repayment events, ever) > 5"),
    (PAID.count("90d").mean(), "mean over the consumer's loans of (number of its repayment events, last 90 days)"),
    (
        PAID.mean("amount").count(),
        "number of the consumer's loans with a known (mean of amount over its repayment events, ever)",
    ),
    (
        PAID.time_since_last(unit="days").min(),
        "least over the consumer's loans of (days since the last of its repayment events, ever)",
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


def test_all_that_a_feature_reads_is_among_its_inputs() -> None:
    streak = MINE.where(Repayment.amount > application.amount).since(
        LoanOpened.by("consumer").where(LoanOpened.loan == "x")
    )
    plan = plan_of(
        streak=streak.streak(LATE),
        behind=(LOANS.sum("principal") - PAID.sum("amount", "90d")).max(),
        pair=Sale.by(["consumer", "merchant"]).count("10 events", "last month"),
    )
    entries = {entry.name: entry for entry in catalogue(plan)}
    assert set(entries["streak"].inputs) == {
        "repayment", "repayment.amount", "repayment.late", "loan_application.amount", "loan_opened", "loan_opened.loan",
    }  # fmt: skip
    assert set(entries["behind"].inputs) == {
        "loan_opened", "loan_opened.loan", "loan_opened.principal", "repayment", "repayment.loan", "repayment.amount",
    }  # fmt: skip
    assert entries["streak"].windows == ("since the last loan_opened where loan is x",)
    assert entries["behind"].windows == ("lifetime", "90 days")
    assert entries["pair_10_events"].entities == ("consumer with merchant",)
    assert entries["pair_10_events"].windows == ("newest 10 events",)
    assert entries["pair_last_month"].windows == ("last month (UTC)",)


class Visit(Event):
    merchant = Entity(hot=True)
    visitor = Entity()
    seconds = Integer()
    page = Category("home", "basket")


def test_the_exactness_of_a_feature_is_said() -> None:
    visits = Visit.by("merchant")
    features = {
        "visitors": visits.distinct("visitor", "30d"),
        "usual": visits.median("seconds", "30d") / visits.mean("seconds", "30d"),
        "pages": visits.distinct("page"),
        "late": visits.decayed_count("7d") - visits.last("seconds").fill(0),
        "amount": request("amount"),
    }
    plan = compile_plan(features, Registry([LoanApplication, Visit]), LoanApplication)
    found = {entry.name: (entry.exactness, entry.classes) for entry in catalogue(plan)}
    assert found == {
        "visitors": ("about, standard error 2.3%", ("sketch",)),
        "usual": ("about, within 1.6%", ("sketch", "group")),
        "pages": ("exact", ("group",)),
        "late": ("exact", ("decay", "tiled")),
        "amount": ("exact", ()),
    }
    words = [entry.definition for entry in catalogue(plan)]
    assert words[0] == "about the number of distinct values of visitor among the merchant's visit events, last 30 days"
    assert words[1].startswith("(about the median of seconds over the merchant's visit events, last 30 days) / (mean")
