"""Sequences in words."""

from __future__ import annotations

from tests.features.lake_world import Purchase, Sale, Transfer
from tests.features.test_sequence import Login, compiled

from obligor.features import Sequence
from obligor.features.sequence_words import sequence_entries


def test_a_sequence_is_told_in_full() -> None:
    naira = Sale.by("consumer").where(Sale.price.currency_is("NGN"), Sale.items > 2)
    plan = compiled(
        history=Sequence.by(
            "consumer",
            {Login: ["channel", "device"], naira: ["price"], Transfer.by("sender"): ["amount"],
             Transfer.by("receiver"): ["amount"], Purchase: ["amount"]},
            shared=["amount"], limit=2000,
        )
    )  # fmt: skip
    [entry] = sequence_entries(plan)
    assert (entry.name, entry.whose, entry.limit) == ("history", "the consumer", "the newest 2,000")
    assert entry.events == (
        "login",
        "sale where currency of price is NGN and items > 2",
        "transfer by sender",
        "transfer by receiver",
        "purchase, the application itself last",
    )
    assert entry.fields == (
        ("login.channel", "a category", "login.channel"),
        ("login.device", "a category, kept out of contrastive objectives", "login.device"),
        ("sale.price", "a number, by sign and magnitude", "sale.price"),
        ("amount", "a number, by sign and magnitude", "transfer.amount, purchase.amount"),
    )


def test_a_plan_without_sequences_has_none() -> None:
    assert sequence_entries(compiled()) == []
