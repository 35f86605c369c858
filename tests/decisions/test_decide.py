"""The pure decision: outcomes, offers, reasons, and what null and limits lead to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.decisions.lender import POLICY, Linear, take

from obligor.decisions.decide import Offer

GOOD = (0.0, 20.0, 0.0, 0.0, 0.0)
NULL = math.nan


def codes(decision: object) -> list[str]:
    return [reason.code for reason in decision.reasons]  # type: ignore[attr-defined]


def test_an_approval_offers_what_was_asked() -> None:
    decision = take(GOOD, pd=0.01, amount=50_000)
    assert (decision.outcome, decision.reasons, decision.pd) == ("approve", (), 0.01)
    assert decision.offer == Offer(50_000, "NGN", 1_000 + 1_800_000_000, 30, 2_500, None)
    assert decision.request == {"amount": 50_000}
    assert [step["effect"] for step in decision.trace] == ["pass"] * 5


def test_the_fee_is_rounded_half_up() -> None:
    for amount, fee in ((10_009, 500), (10_010, 501), (10_011, 501)):
        offer = take(amount=amount).offer
        assert offer is not None
        assert offer.fee == fee


def test_a_score_decline_names_the_adverse_codes() -> None:
    decision = take(GOOD, pd=0.2)
    assert (decision.outcome, decision.offer, codes(decision)) == ("decline", None, ["LATE", "REPAYMENT"])
    assert decision.reasons[0].contribution == 1.0
    assert decision.contributions == {"LATE": 1.0, "REPAYMENT": 0.5, "CHANNEL": -2.0}


@pytest.mark.parametrize(("pd", "outcome"), [(0.0999, "approve"), (0.1, "refer"), (0.1999, "refer"), (0.2, "decline")])
def test_cut_offs_are_exact(pd: float, outcome: str) -> None:
    assert take(GOOD, pd=pd).outcome == outcome


def test_a_rule_decline_names_the_rule_and_not_the_score() -> None:
    decision = take((4.0, 20.0, 0.0, 0.0, 0.0), pd=0.01)
    assert (decision.outcome, codes(decision), decision.offer) == ("decline", ["LATE"], None)
    assert decision.reasons[0].contribution is None


def test_a_rule_and_a_score_decline_name_both() -> None:
    decision = take((4.0, 20.0, 0.0, 0.0, 0.0), pd=0.5)
    assert codes(decision) == ["LATE", "REPAYMENT"]
    assert [reason.contribution for reason in decision.reasons] == [None, 0.5]


def test_a_null_in_a_rule_is_never_silently_false() -> None:
    decision = take((NULL, 20.0, 0.0, 0.0, 0.0))
    assert (decision.outcome, codes(decision)) == ("refer", ["LATE"])
    assert decision.trace[0] == {"step": "eligibility", "effect": "refer", "rule": "late", "value": None}
    assert take((0.0, 20.0, 0.0, NULL, 0.0)).outcome == "approve"  # that rule says null = "pass"
    declines = POLICY.replace('when = "late_90d > 3"', 'when = "late_90d > 3"\nnull = "decline"')
    assert take((NULL, 20.0, 0.0, 0.0, 0.0), text=declines).outcome == "decline"


def test_a_referring_rule_refers_and_a_decline_outweighs_it() -> None:
    assert codes(take((0.0, 20.0, 0.0, 1.0, 0.0))) == ["FROZEN"]
    assert take((0.0, 20.0, 0.0, 1.0, 0.0), pd=0.5).outcome == "decline"
    assert codes(take((0.0, 20.0, 0.0, 1.0, 0.0), pd=0.5)) == ["LATE", "REPAYMENT"]


def test_exposure_without_room_declines() -> None:
    decision = take((0.0, 20.0, 0.0, 0.0, 500_000.0))
    assert (decision.outcome, codes(decision)) == ("decline", ["EXPOSURE"])


def test_a_little_room_makes_a_counter_offer_in_whole_steps() -> None:
    decision = take((0.0, 20.0, 0.0, 0.0, 468_000.0), amount=50_000)
    assert (decision.outcome, codes(decision)) == ("counter_offer", ["EXPOSURE"])
    assert decision.offer is not None
    assert decision.offer.amount == 30_000


def test_room_below_the_minimum_declines_for_exposure() -> None:
    decision = take((0.0, 20.0, 0.0, 0.0, 495_000.0), amount=50_000)
    assert (decision.outcome, codes(decision), decision.offer) == ("decline", ["EXPOSURE"], None)


def test_a_request_below_the_minimum_that_fits_is_approved() -> None:
    assert take((0.0, 20.0, 0.0, 0.0, 495_000.0), amount=5_000).outcome == "approve"


def test_a_null_exposure_refers() -> None:
    assert (take((0.0, 20.0, 0.0, 0.0, NULL)).outcome, codes(take((0.0, 20.0, 0.0, 0.0, NULL)))) == (
        "refer",
        ["EXPOSURE"],
    )


def test_the_best_band_caps_the_amount_and_a_lower_one_is_the_scores_doing() -> None:
    best = take(GOOD, pd=0.01, amount=400_000)
    assert (best.outcome, codes(best)) == ("counter_offer", ["AMOUNT"])
    assert best.offer is not None
    assert (best.offer.amount, best.offer.term_days) == (300_000, 30)
    lower = take(GOOD, pd=0.05, amount=400_000)
    assert codes(lower) == ["AMOUNT", "LATE", "REPAYMENT"]
    assert lower.offer is not None
    assert (lower.offer.amount, lower.offer.term_days, lower.offer.fee) == (100_000, 15, 10_000)


def test_an_application_without_an_amount_is_referred() -> None:
    assert (take(amount=None).outcome, codes(take(amount=None))) == ("refer", ["AMOUNT"])


@pytest.mark.parametrize("amount", [0, -5])
def test_an_application_for_nothing_is_referred_since_a_decline_would_have_no_reason(amount: int) -> None:
    decision = take(amount=amount)
    assert (decision.outcome, codes(decision)) == ("refer", ["AMOUNT"])
    assert decision.trace[-1]["why"] == f"amount is {amount}"


def test_the_scorecard_rung_uses_its_own_score_reasons_and_cut_offs() -> None:
    decision = take(GOOD, scorer=Linear(0.01, scorecard_pd=0.3), rung="scorecard")
    assert (decision.outcome, codes(decision), decision.pd) == ("decline", ["REPAYMENT"], 0.3)
    looser = POLICY + "\n[ladder.scorecard]\napprove_below = 0.4\n"
    assert take(GOOD, scorer=Linear(0.01, scorecard_pd=0.3), rung="scorecard", text=looser).outcome == "approve"


def test_the_last_rung_refers_without_features() -> None:
    decision = take(None, rung="refer")
    assert (decision.outcome, decision.features, decision.score) == ("refer", None, None)


def test_a_limit_refers_and_says_so() -> None:
    decision = take(None, limit="feature 'late_90d' overflows")
    assert (decision.outcome, decision.limit) == ("refer", "feature 'late_90d' overflows")
    assert decision.trace == ({"step": "features", "effect": "refer", "why": "feature 'late_90d' overflows"},)


def test_an_infinite_feature_is_a_limit() -> None:
    decision = take((0.0, math.inf, 0.0, 0.0, 0.0))
    assert (decision.outcome, decision.limit, decision.features) == (
        "refer",
        "feature 'repaid_30d' is not finite",
        None,
    )


def test_a_call_that_makes_no_sense_is_our_own_fault() -> None:
    with pytest.raises(AssertionError, match="not in the policy's ladder"):
        take(GOOD, rung="cached")
    with pytest.raises(AssertionError, match="features are missing"):
        take(None)


def test_reasons_are_at_most_the_policys_maximum() -> None:
    text = POLICY.replace("maximum = 4", "maximum = 1")
    assert codes(take((4.0, 20.0, 0.0, 0.0, 0.0), pd=0.5, text=text)) == ["LATE"]


def test_an_array_of_features_decides_alike() -> None:
    vector = np.array(GOOD)
    assert take(vector) == take(GOOD)  # type: ignore[arg-type]
