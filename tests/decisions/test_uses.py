"""Where features are used: by trees, scorecard, rules and limits; and what nothing uses."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest
from tests.decisions.desk import POLICY, REGISTRY, LoanApplication, Repayment, desk_bundle, desk_plan

from obligor.decisions.policy import Policy, load_policy
from obligor.decisions.uses import uses
from obligor.features import compile_plan
from obligor.features.plan import Plan
from obligor.models.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return desk_bundle(tmp_path_factory.mktemp("bundles"))


def policy_of(plan: Plan) -> Policy:
    return load_policy(POLICY, plan.data, LoanApplication.describe())


def test_splits_and_cards_are_those_of_the_models(bundle: Bundle) -> None:
    found = uses(bundle.plan, policy_of(bundle.plan), bundle)
    assert list(found) == bundle.plan.names
    trees = bundle._parts["trees.json"].decode()
    counts: Counter[str] = Counter()
    for tree in json.loads(trees)["learner"]["gradient_booster"]["model"]["trees"]:
        for left, column in zip(tree["left_children"], tree["split_indices"], strict=True):
            if left >= 0:
                counts[bundle.inputs.names[column]] += 1
    assert {name: use.splits for name, use in found.items() if use.splits} == dict(counts)
    cards = {card.feature: len(card.edges) + 2 for card in bundle.scorecard.cards}
    assert {name: use.bins for name, use in found.items() if use.bins} == cards
    assert all(use.known for use in found.values())


def test_rules_and_limits_are_said_with_their_reasons(bundle: Bundle) -> None:
    found = uses(bundle.plan, policy_of(bundle.plan), bundle)
    assert found["asked_before"].policy == (
        "rule many_applications: decline where asked_before > 1000 (reason APPLICATIONS: Many applications recently)",
    )
    assert found["exposure"].policy == (
        "exposure limit: at most 100,000 minor units (reason EXPOSURE: The amount outstanding is at its limit)",
    )
    assert (found["exposure"].modelled, found["exposure"].unused) == (False, False)
    assert found["repaid_7d"].reason_text == "Little repaid recently"


def test_what_nothing_looks_at_is_unused(bundle: Bundle) -> None:
    policy = policy_of(bundle.plan)
    bare = uses(bundle.plan, None, None)
    assert all(use.unused and not use.known and use.reason_text == "" for use in bare.values())
    without = uses(bundle.plan, dataclasses.replace(policy, rules=(), exposure=None), bundle)
    assert without["exposure"].unused
    assert {name for name, use in without.items() if use.unused} == {
        name for name, use in without.items() if not use.splits and not use.bins
    }


def test_a_model_does_not_know_what_is_computed_otherwise_now(bundle: Bundle, tmp_path: Path) -> None:
    features = {
        "repaid_7d": Repayment.by("consumer").sum("amount", "168h", reason="REPAYMENT"),
        "repaid_30d": Repayment.by("consumer").sum("amount", "31d", reason="REPAYMENT"),
        "fresh": Repayment.by("consumer").count("1d", reason="REPAYMENT"),
    }
    plan = compile_plan(features, REGISTRY, application=LoanApplication)
    found = uses(plan, None, bundle)
    old = uses(desk_plan(), None, bundle)
    assert [use.known for use in found.values()] == [True, False, False]
    assert found["repaid_7d"].splits == old["repaid_7d"].splits > 0
    assert (found["repaid_30d"].splits, found["repaid_30d"].bins) == (0, 0)
