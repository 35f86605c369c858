"""Backtests: the same decisions as one at a time, and groups that add up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.models.lender import SMALL, training_data

from obligor.decisions.backtest import TAKEN, backtest
from obligor.decisions.decide import Application, Decision, decide
from obligor.decisions.policy import Policy, load_policy
from obligor.decisions.record import encode
from obligor.errors import Problem
from obligor.models.bundle import Bundle
from obligor.models.training import train
from obligor.models.training_set import TrainingSet

POLICY = """
[[eligibility]]
name = "far_too_much"
when = "utilisation > 2"
outcome = "decline"
reason = "UTILISATION"

[cutoffs]
approve_below = 0.2
decline_from = 0.4

[reasons.texts]
UTILISATION = "Too much of your credit is in use"
TENURE = "A short history with us"
CHANNEL = "How you applied"
NOISE = "Other information"
"""
APPLICATION = {"name": "loan_application", "version": 1, "lag_us": 0, "application": True, "fields": {}}


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    return training_data(rows=2_000, seed=4)


@pytest.fixture(scope="module")
def bundle(data: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return train(data, SMALL, policy=POLICY.encode(), outcome={}, root=tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def policy(bundle: Bundle) -> Policy:
    return load_policy(bundle.policy, bundle.plan.data, APPLICATION)


def _bytes(decision: Decision) -> bytes:
    return encode(decision, log_id=b"log", bundle="bundle", chain=b"chain")


def test_each_application_is_decided_as_if_it_were_alone(data: TrainingSet, bundle: Bundle, policy: Policy) -> None:
    some = data.take(np.arange(len(data)) % 40 == 0)
    steps: list[int] = []
    result = backtest(some, bundle, policy, cut={0: 9}, seed=len, progress=lambda done, total: steps.append(done))
    assert steps == list(range(1, len(some) + 1))
    for row, decision in enumerate(result.decisions):
        name = some.application_id[row]
        application = Application(
            name, "loan_application", int(some.root[row]), some.fields.slice(row, 1).to_pylist()[0]
        )
        alone = decide(
            application, some.features[row], bundle, policy, as_of=int(some.as_of[row]), cut={0: 9}, seed=len(name)
        )
        assert _bytes(decision) == _bytes(alone)


def test_the_summary_adds_up_against_plain_counts(data: TrainingSet, bundle: Bundle, policy: Policy) -> None:
    result = backtest(data, bundle, policy, cut={0: 9}, seed=len)
    summary = result.summary()
    taken = [decision.outcome in TAKEN for decision in result.decisions]
    declined = [status == "declined" for status in data.status]
    assert sum(summary["outcomes"].values()) == summary["applications"] == len(data)
    assert summary["approval_rate"] == sum(taken) / len(data)
    both = sum(t and not d for t, d in zip(taken, declined, strict=True))
    assert summary["swap_sets"]["taken then and now"]["count"] == both
    known = [bad for bad, t in zip(data.bad, taken, strict=True) if t and not np.isnan(bad)]
    assert summary["taken"]["observed_bad_rate"] == pytest.approx(sum(known) / len(known))
    assert summary["taken"]["matured"] == len(known)
    assert sum(month["count"] for month in summary["months"].values()) == sum(taken)
    assert summary["swap_sets"]["swapped in: declined then, taken now"]["observed_bad_rate"] is None


def test_a_stricter_policy_takes_fewer(data: TrainingSet, bundle: Bundle, policy: Policy) -> None:
    strict = load_policy(POLICY.replace("0.2", "0.05"), bundle.plan.data, APPLICATION)
    rates = [backtest(data, bundle, p, cut={0: 9}, seed=len).summary()["approval_rate"] for p in (strict, policy)]
    assert rates[0] < rates[1]


def test_an_application_whose_features_crossed_a_limit_is_referred(
    data: TrainingSet, bundle: Bundle, policy: Policy
) -> None:
    one = data.take(np.arange(len(data)) == 0)
    broken = replace(one, limits={0: Problem("$.noise", "too many values")})
    result = backtest(broken, bundle, policy, cut={0: 9}, seed=len)
    assert result.decisions[0].outcome == "refer"
    assert result.decisions[0].limit == "too many values"
