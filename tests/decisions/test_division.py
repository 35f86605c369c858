"""Reasons of a sequence's score in a decision: when its contribution is divided, between whom, and what is recorded."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.decisions import lender
from tests.decisions.lender import Linear

from obligor.decisions.decide import Application, Cached, Decision, decide
from obligor.decisions.record import encode
from obligor.errors import LimitError
from obligor.sequences.coalitions import Coalitions

SCORE = 1.5
FEATURES = (0.0, 20.0, 0.0, 0.0, 0.0, SCORE)
OTHERS = (1.0, 0.5, -2.0, 0.0, 0.0)
# by nobody, LENDERS, LATE, both, PAUSES, ...: LATE brings 0.75, LENDERS 0.5 and PAUSES -0.125, in whatever order
SCORES = [0.375 + 0.5 * (i & 1) + 0.75 * (i >> 1 & 1) - 0.125 * (i >> 2 & 1) for i in range(8)]
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


class Nested(Linear):
    """A scorer to which a sequence's score is worth its distance from a reference's, and to the power of `power`."""

    def __init__(self, pd: float, others: Sequence[float] = OTHERS, reference: float = 0.125, power: int = 1) -> None:
        super().__init__(pd, contributions=(*others, 0.0))
        self.others, self.reference, self.power = others, reference, power

    def contributions(self, features: Any) -> list[float]:
        return [*self.others, (float(features[-1]) - self.reference) ** self.power]


class Asked:
    """The scores of coalitions, and how often they were asked for."""

    def __init__(self, present: Sequence[str] = ("LENDERS", "LATE", "PAUSES"), scores: Sequence[float] = SCORES):
        self.found, self.times = Coalitions(tuple(present), np.array(scores)), 0

    def __call__(self) -> Coalitions:
        self.times += 1
        return self.found


@pytest.fixture(autouse=True)
def _with_a_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lender's features with a sequence's score behind them."""
    monkeypatch.setattr(lender, "PLAN", PLAN)


def take(
    asked: Asked | None = None,
    *,
    scorer: Linear | None = None,
    pd: float = 0.5,
    features: Sequence[float] = FEATURES,
    text: str = POLICY,
    **more: Any,
) -> Decision:
    """Decide on the application."""
    return lender.take(features, scorer=scorer or Nested(pd), text=text, coalitions=asked, **more)


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


def test_parts_stand_in_place_of_the_score_and_are_ranked_with_the_rest() -> None:
    asked = Asked()
    decision = take(asked)
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


@pytest.mark.parametrize("count", range(6))
@pytest.mark.parametrize("power", [1, 3])
def test_each_part_is_the_average_over_all_orders_of_what_a_group_adds(count: int, power: int) -> None:
    scores = np.append(np.random.default_rng(count).normal(0.4, 0.3, (1 << count) - 1), SCORE)
    present = ["LENDERS", "PAUSES", "FROZEN", "EXPOSURE", "AMOUNT"][:count]
    scorer = Nested(0.5, power=power)
    decision = take(Asked(present, scores.tolist()), scorer=scorer)
    worth = [(score - scorer.reference) ** power for score in scores.tolist()]
    assert decision.contributions["HISTORY"] == worth[0]
    for i, name in enumerate(present):
        added = []
        for order in itertools.permutations(range(count)):
            before = sum(1 << one for one in order[: order.index(i)])
            added.append(worth[before | 1 << i] - worth[before])
        assert decision.contributions[name] == pytest.approx(math.fsum(added) / len(added), rel=0, abs=1e-12)
    total = math.fsum(decision.contributions.values())
    assert total == pytest.approx(math.fsum(scorer.contributions(FEATURES)), rel=0, abs=1e-12)


@pytest.mark.parametrize(
    "unchanged",
    [
        {"pd": 0.01},  # approved
        {"scorer": Nested(0.5, reference=SCORE)},
        {"scorer": Nested(0.5, reference=3.0)},  # the score lowers the risk
        {"scorer": Nested(0.5, reference=1.25), "text": POLICY.replace("maximum = 4", "maximum = 2")},  # others lead
        {"pd": 0.01, "features": (4.0, *FEATURES[1:])},  # a rule declines
        {"pd": 0.01, "features": (*FEATURES[:4], 480_000.0, SCORE)},  # the exposure leaves too little
        {"rung": "scorecard"},
    ],
)
def test_nothing_is_divided_that_is_no_reason(unchanged: dict[str, Any]) -> None:
    asked = Asked()
    decision = take(asked, **unchanged)
    assert asked.times == 0
    assert decision == take(**unchanged)


def test_a_score_that_lowers_the_risk_is_not_blamed_for_features_of_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    named = [{**one, "reason": "HISTORY"} if one["name"] == "late_90d" else one for one in PLAN["features"]]
    monkeypatch.setattr(lender, "PLAN", {"features": named})
    asked = Asked()
    lowered, raised = (take(asked, scorer=Nested(0.5, reference=reference)) for reference in (1.75, 1.25))
    assert codes(lowered) == ["HISTORY", "REPAYMENT"]
    assert lowered.contributions["HISTORY"] == 0.75
    assert raised.contributions["HISTORY"] == 1.0 + 0.375 - 1.25
    assert asked.times == 1


def test_a_score_stays_whole_where_a_sequence_that_never_came_is_beyond_the_encoder() -> None:
    def beyond() -> Coalitions:
        raise LimitError("the encoder: a result is beyond float64")

    decision, whole = lender.take(FEATURES, scorer=Nested(0.5), text=POLICY, coalitions=beyond), take()
    assert (codes(decision), decision.contributions) == (codes(whole), whole.contributions)
    assert decision.outcome == whole.outcome
    assert decision.trace == (
        *whole.trace, {"step": "reasons", "effect": "pass", "why": "the encoder: a result is beyond float64"}
    )  # fmt: skip


def test_a_referral_and_a_counter_offer_for_the_score_are_adverse_too() -> None:
    asked = Asked()
    referred = take(asked, pd=0.15)
    less = take(asked, pd=0.06, amount=400_000)
    assert (referred.outcome, less.outcome) == ("refer", "counter_offer")
    assert codes(referred) == ["LATE", "LENDERS", "REPAYMENT", "HISTORY"]
    assert codes(less) == ["AMOUNT", "LATE", "LENDERS", "REPAYMENT"]
    assert asked.times == 2


def test_what_rests_on_cached_features_is_not_divided() -> None:
    policy = replace(lender.policy(POLICY), rungs=("full", "cached", "refer"))
    application, asked = Application("a-1", "loan_application", 7, {"amount": 50_000}), Asked()
    found = [
        decide(
            application, FEATURES, Nested(0.5), policy, as_of=1_000, cut={0: 6}, seed=5, rung=rung, coalitions=asked,
            cached=Cached({0: 5}, 900) if rung == "cached" else None,
        )
        for rung in ("full", "cached")
    ]  # fmt: skip
    assert [one.contributions["HISTORY"] for one in found] == [0.25, 1.375]
    assert asked.times == 1


def test_a_sequence_that_scores_otherwise_than_the_feature_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"it scores 1\.25, the feature is 1\.5"):
        take(Asked((), [1.25]))


def test_the_record_holds_the_parts_and_nothing_else_that_is_new() -> None:
    def record(decision: Decision) -> dict[str, Any]:
        own: dict[str, Any] = json.loads(encode(decision, log_id=b"log", bundle="b", chain=b"\1"))
        return own

    whole, divided = record(take()), record(take(Asked()))
    assert divided["contributions"] == {**whole["contributions"], **PARTS, "LATE": 1.75}
    assert {key for key in whole | divided if whole.get(key) != divided.get(key)} == {"contributions", "reasons"}
    assert [one["code"] for one in divided["reasons"]] == ["LATE", "LENDERS", "REPAYMENT", "HISTORY"]
