"""A decision's event is what the edge would have made of its record."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.decisions.desk import REGISTRY, START_US, LoanApplication

from obligor.decisions.answers import moment
from obligor.decisions.decide import Application, Decision, Offer
from obligor.decisions.decided import decided_batch
from obligor.events.records import parse_records

OFFER = Offer(amount=50_000, currency="NGN", expires_at=START_US + 7)
DECISION = Decision(
    application=Application("a-1", "loan_application", 9, {"consumer": "c-1", "merchant": None, "amount": 60_000}),
    as_of=START_US,
    cut={0: 9},
    seed=1,
    rung="full",
    features=None,
    outcome="counter_offer",
    offer=OFFER,
    reasons=(),
    score=None,
    contributions={},
    trace=(),
    request={},
)


@pytest.mark.parametrize("decision", [DECISION, replace(DECISION, outcome="decline", offer=None)])
def test_it_equals_the_parsed_record(decision: Decision) -> None:
    record = {
        "type": "loan_application_decided",
        "event_id": "d-1",
        "event_time": moment(START_US),
        "consumer": "c-1",
        "application_id": "a-1",
        "outcome": decision.outcome,
    }
    if decision.offer is not None:
        record |= {"offer_amount": 50_000, "offer_expires_at": moment(START_US + 7)}  # type: ignore[dict-item]
    expected, problems = parse_records(REGISTRY, record, commitment_key=b"k" * 32, allow_platform_types=True)
    assert problems == {}
    made = decided_batch(LoanApplication, decision, "d-1")
    assert made.parts["loan_application_decided", 1].equals(expected.parts["loan_application_decided", 1])
    other = decided_batch(LoanApplication, replace(decision, as_of=START_US + 1), "d-1")
    assert not other.parts["loan_application_decided", 1].equals(expected.parts["loan_application_decided", 1])
