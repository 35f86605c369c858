"""The policy: read whole, checked whole."""

from __future__ import annotations

import pytest
from tests.decisions.lender import APPLICATION, PLAN, POLICY, policy

from obligor.decisions.policy import load_policy
from obligor.errors import DefinitionError


def refused(text: str) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        load_policy(text, PLAN, APPLICATION)
    return [str(problem) for problem in caught.value.problems]


def test_a_policy_is_read_whole() -> None:
    read = policy()
    assert [rule.name for rule in read.rules] == ["late", "frozen"]
    assert (read.rules[0].outcome, read.rules[0].null) == ("decline", "refer")
    assert (read.rules[1].outcome, read.rules[1].null) == ("refer", "pass")
    assert (read.cutoffs.approve_below, read.cutoffs.decline_from) == (0.1, 0.2)
    assert read.scorecard_cutoffs == read.cutoffs
    assert read.exposure is not None
    assert (read.exposure.feature, read.exposure.limit) == (4, 500_000)
    assert read.offering is not None
    assert (read.offering.currency, read.offering.expires_us) == ("NGN", 1_800_000_000)
    assert [band.pd_below for band in read.offering.bands] == [0.05, 1.0]
    assert read.codes == ("LATE", "REPAYMENT", "CHANNEL", None, None)
    assert read.reads == ("amount",)
    assert read.rungs == ("full", "scorecard", "refer")


def test_the_smallest_policy_has_cut_offs_and_texts() -> None:
    texts = 'LATE = "a"\nREPAYMENT = "b"\nCHANNEL = "c"\n'
    read = policy(f"[cutoffs]\napprove_below = 0.1\n[reasons.texts]\n{texts}")
    assert (read.cutoffs.decline_from, read.exposure, read.offering, read.rules) == (0.1, None, None, ())
    assert (read.reasons_max, read.rungs) == (4, ("full", "refer"))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "late_90d > 3",
            "late_30d > 3",
            "policy.toml $.eligibility[0].when: unknown feature 'late_30d'; did you mean 'late_90d'?",
        ),
        (
            'feature = "exposure"',
            'feature = "exposrue"',
            "policy.toml $.exposure.feature: unknown feature 'exposrue'; did you mean 'exposure'?",
        ),
        (
            'feature = "exposure"',
            'feature = "channel"',
            "policy.toml $.exposure.feature: expected a number, 'channel' is a category",
        ),
        (
            'reason = "FROZEN"',
            'reason = "FROZE"',
            "policy.toml $.eligibility[1].reason: reason 'FROZE' has no text in [reasons.texts]; "
            "did you mean 'FROZEN'?",
        ),
        (
            'LATE = "Late payments in the last 90 days"',
            "",
            "policy.toml $.reasons.texts: no text for 'LATE', the reason of feature 'late_90d'",
        ),
        (
            "approve_below = 0.1",
            "approve_below = 0.3",
            "policy.toml $.cutoffs.decline_from: expected at least approve_below (0.3), got 0.2",
        ),
        ("[ladder]", "[lader]", "policy.toml $.lader: unknown key; did you mean 'ladder'?"),
        ('name = "frozen"', 'name = "late"', "policy.toml $.eligibility: two rules are named 'late'"),
        ('amount = "amount"', 'amount = "rate"', "policy.toml $.offer.amount: expected a Money field in one currency"),
        ("pd_below = 0.05", "", "policy.toml $.offer.bands: expected pd_below to rise from band to band"),
        ("maximum = 4", "maximum = 5", "policy.toml $.reasons.maximum: expected an integer from 1 to 4, got 5"),
        ('rungs = ["full",', 'rungs = ["fast",', "policy.toml $.ladder.rungs: expected a list of full, cached,"),
        ("[cutoffs]", "[cutoffs", "policy.toml: not valid TOML"),
    ],
)
def test_a_wrong_policy_names_the_place(old: str, new: str, problem: str) -> None:
    assert old in POLICY
    assert any(one.startswith(problem) for one in refused(POLICY.replace(old, new)))


def test_the_last_band_reaches_the_cut_off() -> None:
    text = POLICY.replace("[[offer.bands]]\namount_max = 100_000", "[[offer.bands]]\npd_below=0.06\namount_max = 1000")
    (problem,) = refused(text)
    assert problem.startswith("policy.toml $.offer.bands: the last band ends at 0.06, below cutoffs.approve_below")


def test_the_last_band_reaches_the_scorecards_cut_off() -> None:
    bands = POLICY.replace("[[offer.bands]]\namount_max = 100_000", "[[offer.bands]]\npd_below=0.15\namount_max = 1000")
    assert policy(bands + "\n[ladder.scorecard]\napprove_below = 0.15\n").scorecard_cutoffs.approve_below == 0.15
    (problem,) = refused(bands + "\n[ladder.scorecard]\napprove_below = 0.16\n")
    assert problem.startswith("policy.toml $.ladder.scorecard.approve_below: expected at most 0.15")


@pytest.mark.parametrize(("unit", "fits"), [("NGN minor units", True), ("", True), ("EUR minor units", False)])
def test_the_exposure_is_in_the_offers_currency(unit: str, fits: bool) -> None:
    *others, exposure = PLAN["features"]
    plan = {"features": [*others, {**exposure, "unit": unit}]}
    if fits:
        assert load_policy(POLICY, plan, APPLICATION).exposure is not None
        return
    with pytest.raises(DefinitionError, match=r"\$\.exposure\.feature: expected NGN as offered, 'exposure' is in EUR"):
        load_policy(POLICY, plan, APPLICATION)


def test_all_problems_are_reported_at_once() -> None:
    text = POLICY.replace("late_90d > 3", "late_30d > 3").replace("0.2", "2").replace("limit =", "limt =")
    assert len(refused(text)) == 4  # the name, the probability, the unknown key, the missing limit


def test_a_scored_feature_needs_a_reason() -> None:
    plan = {"features": [*PLAN["features"], {"name": "new", "type": "real", "reason": None, "scored": True}]}
    with pytest.raises(DefinitionError) as caught:
        load_policy(POLICY, plan, APPLICATION)
    assert "the scored feature 'new' has no reason code" in str(caught.value)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(DefinitionError, match="not valid TOML"):
        load_policy(b"\xff\xfe", PLAN, APPLICATION)
