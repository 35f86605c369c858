"""When a feature is null, in words; held against what really is null."""

from __future__ import annotations

import pytest
from tests.features.lender import LoanApplication, LoanOpened, Repayment, Sale, plan_of

from obligor.features import Feature, as_of, request
from obligor.features.nulls import null_words

MINE = Repayment.by("consumer")

WORDS: list[tuple[Feature, tuple[str, ...]]] = [
    (MINE.count("30d"), ()),
    (MINE.sum("amount"), ()),
    (MINE.max("amount").fill(0), ()),
    (as_of.hour(), ()),
    (request("amount"), ()),
    (request("rate"), ("the application has no rate",)),
    (MINE.mean("amount", "30d"), ("none of the consumer's repayment events, 30 days",)),
    (MINE.where(Repayment.channel == "app").last("amount"), (
        "none of the consumer's repayment events where channel is app, ever",
    )),
    (MINE.mean_gap(), ("fewer than two of the consumer's repayment events, ever",)),
    (Sale.by("merchant").count(), ("the application names no merchant",)),
    (MINE.since(LoanOpened.by("consumer").where(LoanOpened.principal > 5)).count(), (
        "there was never a loan_opened where principal > 5",
    )),
    (MINE.per("loan").sum("amount").max(), ("there is no loan with a known number",)),
    (MINE.per("loan").sum("amount").sum(), ()),
    (MINE.count() / 3, ()),
    (request("amount") / MINE.sum("amount"), (
        "this is 0: sum of amount over the consumer's repayment events, ever",
    )),
    (request("rate") / (MINE.count() >= 3), (
        "the application has no rate",
        "not ((number of the consumer's repayment events, ever) >= 3)",
    )),
    (MINE.last("amount") - MINE.last("amount"), ("none of the consumer's repayment events, ever",)),
]  # fmt: skip


@pytest.mark.parametrize(("definition", "words"), WORDS)
def test_nulls_in_words(definition: Feature, words: tuple[str, ...]) -> None:
    plan = plan_of(f=definition)
    assert null_words(plan, plan.features[0], LoanApplication) == words
