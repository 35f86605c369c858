"""When a feature is null, in words; held against what really is null."""

from __future__ import annotations

import pytest
from tests.features.lender import REGISTRY, LoanOpened, Repayment, Sale, plan_of

from obligor.features import Feature, as_of, request
from obligor.features.nulls import none_words, null_words

MINE = Repayment.by("consumer")

WORDS: list[tuple[Feature, tuple[str, ...]]] = [
    (MINE.count("30d"), ()),
    (MINE.sum("amount"), ()),
    (MINE.max("amount").fill(0), ()),
    (as_of.hour(), ()),
    (request("amount"), ()),
    (request("rate"), ("the application has no rate",)),
    (MINE.mean("amount", "30d"), ("there are none of the consumer's repayment events, last 30 days",)),
    (MINE.where(Repayment.channel == "app").last("amount"), (
        "there are none of the consumer's repayment events where channel is app, ever",
    )),
    (MINE.mean_gap(), ("there are fewer than two of the consumer's repayment events, ever",)),
    (Sale.by("merchant").count(), ("the application names no merchant",)),
    (MINE.since(LoanOpened.by("consumer").where(LoanOpened.principal > 5)).count(), (
        "there are none of the consumer's loan_opened events where principal > 5, ever",
    )),
    (MINE.per("loan").sum("amount").max(), ("none of the consumer's loans has any of these: repayment events, ever",)),
    (MINE.per("loan").sum("amount").sum(), ()),
    (MINE.count() / 3, ()),
    (request("amount") / MINE.sum("amount"), (
        "what it is divided by is 0: sum of amount over the consumer's repayment events, ever",
    )),
    (request("rate") / (MINE.count() >= 3), (
        "the application has no rate",
        "this does not hold: (number of the consumer's repayment events, ever) >= 3",
    )),
    (MINE.last("amount") - MINE.last("amount"), (
        "there are none of the consumer's repayment events, ever",
    )),
    (MINE.max("fee"), ("there are none with a fee of the consumer's repayment events, ever",)),
    (MINE.nth("fee", 3), ("there are fewer than 3 with a fee of the consumer's repayment events, ever",)),
    (MINE.top_k("channel", 2, "7d")[2] == "app", (
        "there are fewer than 2 different values of channel among the consumer's repayment events, last 7 days",
    )),
    (MINE.last("amount", "10 events"), ("there are none of the newest 10 of the consumer's repayment events",)),
    (MINE.slope("amount", "this month"), (
        "there are not two at different times of the consumer's repayment events, this month so far (UTC)",
    )),
    (MINE.per("loan").time_since_last().min(), ("the number is known of none of the consumer's loans",)),
    ((MINE.per("loan").sum("amount", "lifetime before 7d") + MINE.per("loan").sum("amount", "lifetime before 1d")
      > LoanOpened.by("consumer").per("loan").count("30d")).max(), (
        "none of the consumer's loans has any of these: repayment events, all before the last 1 day, or loan_opened "
        "events, last 30 days",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("definition", "words"), WORDS)
def test_nulls_in_words(definition: Feature, words: tuple[str, ...]) -> None:
    plan = plan_of(f=definition)
    assert null_words(plan, plan.features[0], REGISTRY) == words


def test_what_is_zero_of_none_is_said_of_a_measure_alone() -> None:
    for feature, words in ((MINE.sum("amount"), "0 of none"), (MINE.max("amount"), ""), (MINE.count() + 1, "")):
        plan = plan_of(f=feature)
        assert none_words(plan, plan.features[0]) == words
