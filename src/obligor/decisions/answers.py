"""The forms of the service's answers: plain data, ready for JSON.

`decision_answer` shows what an applicant may be told; `full=True` adds the record that replay needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from obligor.errors import Problem

__all__ = ["decision_answer", "errors_answer", "event_answers", "events_status", "moment"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FINE = ("accepted", "duplicate")


def moment(at_us: int) -> str:
    """Return microseconds since 1970 as RFC 3339 in UTC.

    >>> moment(1_000_001)
    '1970-01-01T00:00:01.000001Z'
    """
    return (_EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def errors_answer(problems: Iterable[Problem]) -> dict[str, Any]:
    """Return the one form that every error has.

    >>> errors_answer([Problem("$.amount", "missing")])
    {'errors': [{'path': '$.amount', 'message': 'missing'}]}
    """
    return {"errors": [{"path": problem.path, "message": problem.message} for problem in problems]}


def decision_answer(record: Mapping[str, Any], *, full: bool = False) -> dict[str, Any]:
    """Return a decision's record (`record.decode`) as the answer to its caller."""
    offer, score = record["offer"], record["score"]
    answer = {
        "decision_id": record["decision_id"],
        "application_id": record["application"]["event_id"],
        "as_of": moment(record["as_of"]),
        "outcome": record["outcome"],
        "offer": None if offer is None else {**offer, "expires_at": moment(offer["expires_at"])},
        "reasons": [{"code": reason["code"], "text": reason["text"]} for reason in record["reasons"]],
        "pd": None if score is None else score["pd"],
        "rung": record["rung"],
        "bundle": record["bundle"],
    }
    return {**answer, "record": dict(record)} if full else answer


def event_answers(
    records: Sequence[object],
    problems: Mapping[int, Sequence[Problem]],
    statuses: Sequence[str],
    positions: Sequence[int],
) -> tuple[dict[str, Any], dict[str, int]]:
    """Return a result for each of `records`, in order, and how many have each status.

    `problems` are those of invalid records by place; `statuses` and `positions` are of the others, in order. A status
    is `accepted`, `duplicate`, `conflict` or `rejected:<why>`.
    """
    results: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    place = 0
    for i, record in enumerate(records):
        event_id = record.get("event_id") if isinstance(record, dict) else None
        result: dict[str, Any] = {"event_id": event_id if isinstance(event_id, str) else None}
        if i in problems:
            status = "invalid"
            result |= {"status": status, **errors_answer(problems[i])}
        else:
            status, _, why = statuses[place].partition(":")
            result["status"] = status
            if status in _FINE:
                result["position"] = positions[place]
            else:
                message = why.strip() or f"the id {event_id!r} is known with other content"
                result |= errors_answer([Problem("$" if len(records) == 1 else f"$[{i}]", message)])
            place += 1
        counts[status] = counts.get(status, 0) + 1
        results.append(result)
    assert place == len(statuses), "every valid record has one status"
    return {"events": results}, counts


def events_status(counts: dict[str, int], many: bool) -> int:
    """Return 200 where all went in; else 207 of many, and what became of it of one."""
    if not counts.keys() - {"accepted", "duplicate"}:
        return 200
    if many:
        return 207
    return 409 if "conflict" in counts else 422
