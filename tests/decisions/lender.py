"""A small lender for the tests of decisions: three features, one application type, a scorer with known numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from obligor.decisions.decide import Application, Decision, decide
from obligor.decisions.policy import Policy, Rung, load_policy
from obligor.sequences.coalitions import Coalitions

PLAN: dict[str, Any] = {
    "features": [
        {"name": "late_90d", "type": "integer", "reason": "LATE", "scored": True, "values": None},
        {"name": "repaid_30d", "type": "integer", "reason": "REPAYMENT", "scored": True, "values": None},
        {"name": "channel", "type": "category", "reason": "CHANNEL", "scored": True, "values": ["app", "web"]},
        {"name": "frozen", "type": "boolean", "reason": None, "scored": False, "values": None},
        {"name": "exposure", "type": "integer", "reason": None, "scored": False, "values": None},
    ]
}
APPLICATION: dict[str, Any] = {
    "name": "loan_application",
    "fields": {
        "consumer": {"kind": "entity", "type": "consumer"},
        "amount": {"kind": "money", "currencies": ["NGN"]},
        "rate": {"kind": "decimal", "scale": 2, "optional": True},
        "device": {"kind": "category", "values": ["android", "ios"], "optional": True},
        "employed": {"kind": "boolean", "optional": True},
        "paid_at": {"kind": "timestamp", "optional": True},
        "name": {"kind": "text", "personal": True},
        "gender": {"kind": "category", "protected": True},
    },
}
POLICY = """
[[eligibility]]
name = "late"
when = "late_90d > 3"
reason = "LATE"

[[eligibility]]
name = "frozen"
when = "frozen"
outcome = "refer"
null = "pass"
reason = "FROZEN"

[cutoffs]
approve_below = 0.1
decline_from = 0.2

[exposure]
feature = "exposure"
limit = 500_000
reason = "EXPOSURE"

[offer]
amount = "amount"
minimum = 10_000
step = 5_000
expires = "30m"
reason = "AMOUNT"
[[offer.bands]]
pd_below = 0.05
amount_max = 300_000
term_days = 30
fee_basis_points = 500
[[offer.bands]]
amount_max = 100_000
term_days = 15
fee_basis_points = 1_000

[reasons]
maximum = 4
[reasons.texts]
LATE = "Late payments in the last 90 days"
REPAYMENT = "Little repaid recently"
CHANNEL = "Where the application came from"
FROZEN = "The account is frozen"
EXPOSURE = "The amount outstanding is at its limit"
AMOUNT = "The amount asked for is above what can be offered"

[ladder]
rungs = ["full", "scorecard", "refer"]
"""


class Points(NamedTuple):
    """A score."""

    margin: float
    log_odds: float
    pd: float


class Linear:
    """A scorer whose PD is given, and whose contributions are the features less a reference of (0, 10, 0)."""

    def __init__(self, pd: float, scorecard_pd: float = 0.5, contributions: Sequence[float] = (1.0, 0.5, -2.0, 0, 0)):
        self.pd, self.scorecard_pd, self.parts = pd, scorecard_pd, list(contributions)

    def score(self, features: Any) -> Points:
        return Points(0.25, math.log(self.pd / (1 - self.pd)), self.pd)

    def contributions(self, features: Any) -> list[float]:
        return self.parts

    def scorecard_score(self, features: Any) -> Points:
        return Points(0.5, 0.0, self.scorecard_pd)

    def scorecard_contributions(self, features: Any) -> list[float]:
        return [0.0, 3.0, *[0.0] * (len(self.parts) - 2)]


def policy(text: str = POLICY) -> Policy:
    """Return the checked policy of the tests."""
    return load_policy(text, PLAN, APPLICATION)


def take(
    features: Sequence[float] | None = (0.0, 20.0, 0.0, 0.0, 0.0),
    *,
    pd: float = 0.01,
    amount: int | None = 50_000,
    scorer: Linear | None = None,
    text: str = POLICY,
    rung: Rung = "full",
    limit: str = "",
    fields: Mapping[str, Any] | None = None,
    coalitions: Callable[[], Coalitions] | None = None,
) -> Decision:
    """Decide on one application."""
    application = Application("a-1", "loan_application", 7, {"amount": amount, "consumer": "c-1", **(fields or {})})
    scorer = scorer or Linear(pd)
    return decide(
        application, features, scorer, policy(text), as_of=1_000, cut={0: 6}, seed=5, rung=rung, limit=limit,
        coalitions=coalitions,
    )  # fmt: skip
