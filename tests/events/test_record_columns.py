"""The fast reading gives up at the first doubt and never repairs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.events.edge import Everything, Person, Repayment, everything, repayment

from obligor.events.record_columns import read_columns


def test_right_records_are_read() -> None:
    rows = read_columns(Repayment, [repayment(), repayment(event_id="r-2", channel="web")])
    assert rows is not None
    assert rows.event_id.to_pylist() == ["r-1", "r-2"]
    assert rows.columns["channel"].to_pylist() == [None, "web"]
    assert (rows.kind.tolist(), rows.target, rows.personal, rows.known_time) == ([0, 0], None, None, None)


def test_corrections_are_read() -> None:
    rows = read_columns(Repayment, [repayment(), repayment(event_id="r-2", corrects="r-1")])
    assert rows is not None
    assert rows.target is not None
    assert (rows.kind.tolist(), rows.target.to_pylist()) == ([0, 1], [None, "r-1"])


def test_personal_fields_are_set_apart() -> None:
    record = {"event_id": "p", "event_time": "2026-01-01T00:00:00Z", "consumer": "c", "name": "Ada"}
    rows = read_columns(Person, [record])
    assert rows is not None
    assert (rows.personal, "name" in rows.columns) == ([b'{"name":"Ada"}'], False)


@pytest.mark.parametrize(
    "change",
    [
        {"amount": -1},
        {"amount": 1.0},
        {"amount": True},
        {"amount": 2**63},
        {"amount": None},
        {"event_id": ""},
        {"event_id": 5},
        {"event_time": "2026-01-01T00:00:00"},
        {"consumer": "\ud800"},
        {"consumer": "c\x1f"},
        {"event_id": "r\n"},
        {"corrects": "r\x1f0"},
        {"channel": "post"},
        {"unknown": 1},
        {"corrects": "r-1"},
        {"retracts": "r-0"},
    ],
    ids=str,
)
def test_any_doubt_ends_it(change: dict[str, Any]) -> None:
    assert read_columns(Repayment, [repayment(event_id="r-0"), repayment(**change)]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"price": 5},
        {"price": {"amount": 5, "currency": "USD"}},
        {"price": {"amount": 5, "currency": "NGN", "more": 1}},
        {"price": {"amount": None, "currency": "NGN"}},
        {"rebate": {"amount": 5, "currency": None}},
        {"rate": "0.00001"},
        {"rate": 1.5},
        {"items": 101},
        {"first": 1},
        {"due": "2026-02-30T00:00:00Z"},
        {"note": "x" * 21},
        {"note": "\udfff"},
    ],
    ids=str,
)
def test_any_doubt_in_any_kind_ends_it(change: dict[str, Any]) -> None:
    assert read_columns(Everything, [everything(**change)]) is None
