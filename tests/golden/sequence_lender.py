"""The lender of the second golden ledger: the first one's events, and a sequence of them that is scored. Frozen too."""

from __future__ import annotations

from typing import Any

from tests.golden.lender import REGISTRY, LoanOpened, Purchase, Repayment, Sale

from obligor.features import Plan, as_of, compile_plan, definitions, feature, outstanding, request
from obligor.features import Sequence as Definition
from obligor.models.model import Model
from obligor.sequences.head import SequenceHead

CUTOFF = "2026-09-01"
HISTORY = "history"


def _features() -> dict[str, Any]:
    repayments = Repayment.by("consumer")
    paid = repayments.sum("amount", "30d", reason="REPAYMENT", monotone="decreasing")
    loans = LoanOpened.by("consumer").count("90d", reason="LOANS")
    returns = Sale.by("merchant").mean("amount", "90d", reason="MERCHANT")
    amount = feature(request("amount"), reason="AMOUNT")
    hour = feature(as_of.hour(), reason="TIME")
    exposure = feature(
        outstanding(
            opened=LoanOpened.by("consumer").per("loan").amount("principal"),
            reduced=[repayments.per("loan").amount("amount")],
        ),
        scored=False,
    )
    return definitions(dict(locals()))


def plan() -> Plan:
    """Compile features and sequence; only making a ledger needs this, replay reads the plan from the bundle."""
    events = {LoanOpened: ["principal"], Repayment: ["amount", "days_late"], Sale: ["amount", "returned"],
              Purchase: ["amount", "channel"]}  # fmt: skip
    history = Definition.by("consumer", events)
    return compile_plan(_features(), REGISTRY, Purchase, "Europe/Berlin", sequences={HISTORY: history})


LOUDNESS = {"type": 2.0, "sale.returned": 2.0, "repayment.days_late": 1.0}  # of the encoder's fields; of others 0.1
HEAD = SequenceHead(
    sequence=HISTORY,
    reason="HISTORY",
    groups={
        "PAYMENTS": ("Repayment",),
        "LOANS": ("LoanOpened",),  # a window feature has this reason too
        "RETURNS": ("Sale.returned=yes",),
        "AGENTS": ("Purchase.channel=agent",),
        "ASKED": ("Purchase.channel=app", "Purchase.channel=web"),
    },
    folds=3,
    units=6,
    steps=400,
    rate=5e-3,
)
MODEL = Model(
    cutoff=CUTOFF, seed=5, search=2, rounds_max=40, bootstrap=10, learning_rate=0.15, depth_max=3, sequence=HEAD
)
POLICY = b"""
[[eligibility]]
name = "too_much_at_once"
when = "amount > 20_000_000"
reason = "AMOUNT"

[cutoffs]
approve_below = 0.25
decline_from = 0.4

[exposure]
feature = "exposure"
limit = 900_000
reason = "EXPOSURE"

[offer]
amount = "amount"
minimum = 5_000
step = 500
expires = "30m"
reason = "AMOUNT"
[[offer.bands]]
pd_below = 0.12
amount_max = 120_000
term_days = 30
fee_basis_points = 455
[[offer.bands]]
amount_max = 50_000
term_days = 14
fee_basis_points = 905

[reasons.texts]
REPAYMENT = "Little was repaid recently"
LOANS = "How often and when loans were taken"
MERCHANT = "The merchant's recent sales"
AMOUNT = "The amount asked for"
TIME = "The time of day"
EXPOSURE = "The amount outstanding is at its limit"
HISTORY = "What happened so far"
PAYMENTS = "When and how late loans were repaid"
RETURNS = "Purchases that were returned"
AGENTS = "Applications that came by an agent"
ASKED = "Earlier applications"

[ladder]
rungs = ["full", "scorecard", "refer"]
[ladder.scorecard]
approve_below = 0.2
decline_from = 0.35
"""
