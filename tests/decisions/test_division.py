"""Reasons of a sequence's score in a decision: when its contribution is divided, and what then is recorded."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.decisions import lender
from tests.decisions.lender import Linear

from obligor.decisions.decide import Application, Cached, Decision, decide
from obligor.decisions.record import encode

FEATURES = (0.0, 20.0, 0.0, 0.0, 0.0, 0.75)
PARTS = {"HISTORY": 0.25, "LENDERS": 0.5, "LATE": 0.75, "PAUSES": -0.125}
PLAN: dict[str, Any] = {
    "features": [
        *lender.PLAN["features"],
        {"name": "history_score", "type": "real", "reason": "HISTORY", "scored": True, "values": None},
    ]
}
POLICY = lender.POLICY.replace(
    "[reasons.texts]",
    '[reasons.texts]\nHISTORY = "What happened so far"\nLENDERS = "Other lenders"\nPAUSES = "Long pauses"',
)


class Asked:
    """Parts of a contribution, and how often they were asked for."""

    def __init__(self, parts: dict[str, float]) -> None:
        self.parts, self.times = parts, 0

    def __call__(self) -> dict[str, float]:
        self.times += 1
        return self.parts


@pytest.fixture(autouse=True)
def _with_a_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lender's features with a sequence's score behind them."""
    monkeypatch.setattr(lender, "PLAN", PLAN)


def take(
    own: float = 1.375,
    *,
    pd: float = 0.5,
    asked: Asked | None = None,
    others: Sequence[float] = (1.0, 0.5, -2.0, 0, 0),
    features: Sequence[float] = FEATURES,
    text: str = POLICY,
    **more: Any,
) -> Decision:
    """Decide with contributions of which the last is the score's own."""
    return lender.take(features, scorer=Linear(pd, contributions=(*others, own)), text=text, divide=asked, **more)


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


def test_parts_stand_in_place_of_the_score_and_are_ranked_with_the_rest() -> None:
    asked = Asked(PARTS)
    decision = take(asked=asked)
    assert codes(decision) == ["LATE", "LENDERS", "REPAYMENT", "HISTORY"]
    assert [one.contribution for one in decision.reasons] == [1.75, 0.5, 0.5, 0.25]
    assert decision.reasons[1].text == "Other lenders"
    assert decision.contributions == {
        "LATE": 1.75, "REPAYMENT": 0.5, "CHANNEL": -2.0, "HISTORY": 0.25, "LENDERS": 0.5, "PAUSES": -0.125
    }  # fmt: skip
    whole = take()
    assert codes(whole) == ["HISTORY", "LATE", "REPAYMENT"]
    assert math.fsum(decision.contributions.values()) == math.fsum(whole.contributions.values()) == 0.875
    assert asked.times == 1


@pytest.mark.parametrize(
    "unchanged",
    [
        {"pd": 0.01},  # approved
        {"own": 0.0},
        {"own": -1.0},  # the score lowers the risk
        {"own": 0.25, "text": POLICY.replace("maximum = 4", "maximum = 2")},  # others are the principal reasons
        {"pd": 0.01, "features": (4.0, 20.0, 0.0, 0.0, 0.0, 0.75)},  # a rule declines
        {"pd": 0.01, "features": (0.0, 20.0, 0.0, 0.0, 480_000.0, 0.75)},  # the exposure leaves too little
        {"rung": "scorecard"},
    ],
)
def test_nothing_is_divided_that_is_no_reason(unchanged: dict[str, Any]) -> None:
    asked = Asked(PARTS)
    decision = take(asked=asked, **unchanged)
    assert asked.times == 0
    assert decision == take(**unchanged)


def test_a_referral_and_a_counter_offer_for_the_score_are_adverse_too() -> None:
    asked = Asked(PARTS)
    referred = take(pd=0.15, asked=asked)
    less = take(pd=0.06, asked=asked, amount=400_000)
    assert (referred.outcome, less.outcome) == ("refer", "counter_offer")
    assert codes(referred) == ["LATE", "LENDERS", "REPAYMENT", "HISTORY"]
    assert codes(less) == ["AMOUNT", "LATE", "LENDERS", "REPAYMENT"]
    assert asked.times == 2


def test_what_rests_on_cached_features_is_not_divided() -> None:
    policy = replace(lender.policy(POLICY), rungs=("full", "cached", "refer"))
    application, asked = Application("a-1", "loan_application", 7, {"amount": 50_000}), Asked(PARTS)
    scorer = Linear(0.5, contributions=(1.0, 0.5, -2.0, 0, 0, 1.375))
    found = [
        decide(
            application, FEATURES, scorer, policy, as_of=1_000, cut={0: 6}, seed=5, rung=rung, divide=asked,
            cached=Cached({0: 5}, 900) if rung == "cached" else None,
        )
        for rung in ("full", "cached")
    ]  # fmt: skip
    assert [one.contributions["HISTORY"] for one in found] == [0.25, 1.375]
    assert asked.times == 1


def test_the_record_holds_the_parts_and_nothing_else_that_is_new() -> None:
    def record(decision: Decision) -> dict[str, Any]:
        own: dict[str, Any] = json.loads(encode(decision, log_id=b"log", bundle="b", chain=b"\1"))
        return own

    whole, divided = record(take()), record(take(asked=Asked(PARTS)))
    assert divided["contributions"] == {**whole["contributions"], **PARTS, "LATE": 1.75}
    changed = {key for key in whole | divided if whole.get(key) != divided.get(key)}
    assert changed == {"contributions", "reasons"}
    assert [one["code"] for one in divided["reasons"]] == ["LATE", "LENDERS", "REPAYMENT", "HISTORY"]
