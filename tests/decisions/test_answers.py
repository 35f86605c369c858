"""The forms of answers."""

from __future__ import annotations

from obligor.decisions.answers import decision_answer, event_answers
from obligor.errors import Problem

RECORD = {
    "decision_id": "d-1",
    "application": {"event_id": "a-1", "type": "loan_application", "position": 4},
    "as_of": 1_000_000,
    "outcome": "approve",
    "offer": {"amount": 5, "currency": "NGN", "expires_at": 2_000_000},
    "reasons": [{"code": "A", "text": "because", "contribution": 0.5}],
    "score": {"margin": 0.1, "log_odds": 0.2, "pd": 0.3},
    "rung": "full",
    "bundle": "b",
    "features": [1.0],
}


def test_a_decision_tells_its_caller_no_contributions_and_no_features() -> None:
    assert decision_answer(RECORD) == {
        "decision_id": "d-1",
        "application_id": "a-1",
        "as_of": "1970-01-01T00:00:01.000000Z",
        "outcome": "approve",
        "offer": {"amount": 5, "currency": "NGN", "expires_at": "1970-01-01T00:00:02.000000Z"},
        "reasons": [{"code": "A", "text": "because"}],
        "pd": 0.3,
        "rung": "full",
        "bundle": "b",
    }
    assert decision_answer(RECORD, full=True)["record"] == RECORD


def test_a_decision_without_score_and_offer() -> None:
    answer = decision_answer({**RECORD, "offer": None, "score": None})
    assert (answer["offer"], answer["pd"]) == (None, None)


def test_results_are_in_the_order_of_the_records() -> None:
    records: list[object] = [{"event_id": "a"}, 5, {"event_id": "c"}, {"event_id": 7}]
    answer, counts = event_answers(
        records, {1: [Problem("$[1]", "no object")], 3: []}, ["accepted", "rejected: of another type"], [8, -1]
    )
    assert answer["events"] == [
        {"event_id": "a", "status": "accepted", "position": 8},
        {"event_id": None, "status": "invalid", "errors": [{"path": "$[1]", "message": "no object"}]},
        {"event_id": "c", "status": "rejected", "errors": [{"path": "$[2]", "message": "of another type"}]},
        {"event_id": None, "status": "invalid", "errors": []},
    ]
    assert counts == {"accepted": 1, "invalid": 2, "rejected": 1}
