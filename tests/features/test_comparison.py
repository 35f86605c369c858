"""The difference of two plans: each thing that can change, said in its words."""

from __future__ import annotations

from typing import Any

import pytest
from tests.features.lake_world import Purchase, Transfer
from tests.features.lake_world import Sale as Basket
from tests.features.lender import LoanOpened, Repayment, Sale, plan_of
from tests.features.test_sequence import Login, compiled

from obligor.features import Feature, Sequence, as_of, feature, maximum, request
from obligor.features.comparison import Change, compare_plans

MINE = Repayment.by("consumer")
APP = MINE.where(Repayment.channel == "app")

CHANGES: list[tuple[Feature, Feature, tuple[str, ...]]] = [
    (MINE.sum("amount", "30d"), MINE.sum("amount", "60d"), ("window: 30 days → 60 days",)),
    (APP.count(), MINE.count(), ("filter: channel is app → none",)),
    (MINE.sum("amount"), MINE.max("amount"), ("taken: sum of amount over these → greatest amount among these",)),
    (MINE.count(), LoanOpened.by("consumer").count(), ("event type: repayment → loan_opened",)),
    (Sale.by("consumer").count(), Sale.by("merchant").count(), ("whose events: the consumer → the merchant",)),
    (
        Sale.by("merchant").where(Sale.amount.currency_is("NGN")).sum("amount"),
        Sale.by("merchant").where(Sale.amount.currency_is("EUR")).sum("amount"),
        ("unit: NGN minor units → EUR minor units", "filter: currency of amount is NGN → currency of amount is EUR"),
    ),
    (request("amount") / 100, request("amount") / 1_000, ("number: 100.0 → 1,000.0",)),
    (MINE.max("amount").fill(0), MINE.max("amount").fill(5), ("filled with: 0.0 → 5.0",)),
    (
        request("amount") / 2,
        request("term") / 2,
        (
            "unit: NGN minor units → none",
            "of the application: the application's amount → the application's term",
        ),
    ),
    (
        MINE.last("bank", values=["a"]) == "a",
        MINE.last("bank", values=["a", "b"]) == "a",
        ("known values: a → a, b",),
    ),
    (
        MINE.count(),
        MINE.count() / maximum(MINE.count("7d"), 1),
        (
            "unit: events → ratio",
            "type: integer → real",
            "computed as: number of the consumer's repayment events, ever → (number of the consumer's repayment "
            "events, ever) / (the greater of (number of the consumer's repayment events, last 7 days) and 1)",
        ),
    ),
]


@pytest.mark.parametrize(("one", "other", "words"), CHANGES)
def test_what_changed_is_said(one: Feature, other: Feature, words: tuple[str, ...]) -> None:
    found = compare_plans(plan_of(f=one, same=MINE.count("7d")), plan_of(same=MINE.count("7d"), f=other))
    assert found.same == ("same",)
    assert (found.added, found.removed, found.renamed) == ((), (), ())
    (change,) = found.changed
    assert change == Change("f", True, words)


def test_words_alone_change_no_number() -> None:
    before = feature(MINE.count("7d"), reason="OLD", description="Payments", monotone="increasing")
    after = feature(MINE.count("7d"), reason="NEW", description="Payments made", scored=False, unit="payments")
    (change,) = compare_plans(plan_of(f=before), plan_of(f=after)).changed
    assert change == Change(
        "f",
        False,
        (
            "unit: events → payments",
            "reason: OLD → NEW",
            "direction of risk: risk rises with it → none",
            "description: Payments → Payments made",
            "scored: yes → no",
        ),
    )


def test_one_computation_under_two_names_is_a_renaming() -> None:
    before = plan_of(paid=MINE.sum("amount", "30d"), old=MINE.count(), kept=APP.count())
    after = plan_of(
        kept=APP.count(), received=feature(MINE.sum("amount", "720h"), description="Paid"), new=APP.max("fee")
    )
    found = compare_plans(before, after)
    (renamed,) = found.renamed
    assert (renamed.old, renamed.new, renamed.computed) == ("paid", "received", False)
    assert renamed.words == ("description: none → Paid",)
    assert (found.added, found.removed, found.same) == (("new",), ("old",), ("kept",))


def test_a_window_in_a_name_is_the_same_feature_over_another_window() -> None:
    before = plan_of(paid=MINE.sum("amount", "30d", "90d"), count=MINE.count("30d"))
    found = compare_plans(before, plan_of(paid=MINE.sum("amount", "60d", "90d"), count=MINE.count("30d")))
    assert [(one.old, one.new, one.computed, one.words) for one in found.renamed] == [
        ("paid_30d", "paid_60d", True, ("window: 30 days → 60 days",))
    ]
    assert (found.added, found.removed, found.same) == ((), (), ("paid_90d", "count"))
    found = compare_plans(before, plan_of(paid=MINE.sum("amount", "60d", "10d"), count=MINE.count("30d")))
    assert found.renamed == (), "which became which cannot be told"
    assert (found.added, found.removed) == (("paid_60d", "paid_10d"), ("paid_30d", "paid_90d"))


def test_the_zone_changes_what_looks_at_calendars_alone() -> None:
    def plan(zone: str) -> object:
        return plan_of(zone, hour=as_of.hour(), month=MINE.count("this month"), days=MINE.count("30d"))

    found = compare_plans(plan("UTC"), plan("Africa/Lagos"))  # type: ignore[arg-type]
    assert {one.name: one.words for one in found.changed} == {
        "hour": ("of the application: hour of the day (0 to 23) in UTC → hour of the day (0 to 23) in Africa/Lagos",),
        "month": ("window: this month so far (UTC) → this month so far (Africa/Lagos)",),
    }
    assert found.same == ("days",)


def test_a_plan_does_not_differ_from_itself() -> None:
    plan = plan_of(**{f"f{i}": one for i, (one, _, _) in enumerate(CHANGES)})  # type: ignore[arg-type]
    found = compare_plans(plan, plan)
    assert found.same == tuple(plan.names)
    assert (found.added, found.removed, found.renamed, found.changed) == ((), (), (), ())


def test_sequences_are_compared_by_what_an_encoder_reads() -> None:
    kept = Sequence.by("consumer", [Login, Purchase])
    old = compiled(
        history=Sequence.by("consumer", {Login: ["channel"], Basket: ["items"], Purchase: ["amount"]}),
        gone=Sequence.by("consumer", {Basket: ["items"], Purchase: []}),
        kept=kept,
    )
    later: dict[Any, list[str]] = {Login: ["channel", "mood"], Transfer.by("sender"): ["amount"], Purchase: ["amount"]}
    new = compiled(
        history=Sequence.by("consumer", later, slow=["channel"], limit=50),
        come=Sequence.by("consumer", {Basket: ["items"], Purchase: []}),
        kept=kept,
    )
    found = compare_plans(old, new)
    assert (found.sequences_added, found.sequences_removed) == (("come",), ("gone",))
    (change,) = found.sequences_changed
    assert (change.name, change.computed) == ("history", True)
    assert change.words == (
        "how many: all of them → the newest 50",
        "events, added: transfer",
        "events, removed: sale",
        "fields, added: login.mood",
        "fields, added: transfer.amount",
        "fields, removed: sale.items",
        "field login.channel: a category (login.channel) → a category, kept out of contrastive objectives "
        "(login.channel)",
    )
    same = compare_plans(old, old)
    assert (same.sequences_added, same.sequences_removed, same.sequences_changed) == ((), (), ())
