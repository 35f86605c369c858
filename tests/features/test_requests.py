"""The application's own numbers: calendar in the plan's zone, ages, codings; one and many give the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from tests.features.worlds import plan_of

from obligor.features.plan import Plan
from obligor.features.requests import Requests, request_row, request_values
from obligor.features.zone import zone_offsets

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def spec(source: str, name: str, **parts: Any) -> dict[str, Any]:
    """Return a request value as JSON."""
    return {"source": source, "name": name, "coding": "integer", "values": None, "scale": 0} | parts


SPECS = [
    spec("calendar", "hour"),
    spec("calendar", "day_of_week"),
    spec("calendar", "day_of_month"),
    spec("calendar", "as_of"),
    spec("field", "amount"),
    spec("field", "income", scale=2),
    spec("field", "first_time"),
    spec("field", "channel", coding="vocabulary", values=["app", "web"]),
    spec("age", "born"),
]


def plan(zone: str = "UTC") -> Plan:
    """Return a plan of all request values."""
    offsets = [list(entry) for entry in zone_offsets(zone)]
    programs = [[["request", i]] for i in range(len(SPECS))]
    return plan_of([], programs, SPECS, zone=zone, zone_offsets=offsets)


def many(as_of: list[int], rows: list[dict[str, Any]]) -> Requests:
    """Return requests of these rows of fields."""
    schema = pa.schema(
        [
            ("amount", pa.int64()), ("income", pa.int64()), ("first_time", pa.bool_()), ("channel", pa.string()),
            ("born", pa.int64()),
        ]
    )  # fmt: skip
    n = len(as_of)
    return Requests(
        as_of=np.array(as_of, np.int64), cuts=np.zeros((1, 1), np.int64), self_root=np.full(n, -1), entities={},
        fields=pa.Table.from_pylist(rows, schema=schema),
    )  # fmt: skip


ROWS: list[dict[str, Any]] = [
    {"amount": 1200, "income": 12345, "first_time": True, "channel": "web", "born": 5},
    {"amount": None, "income": None, "first_time": None, "channel": None, "born": None},
    {"amount": -3, "income": 0, "first_time": False, "channel": "fax", "born": 2 * 10**15},
]


def test_values_are_what_they_say() -> None:
    as_of = int(datetime(2026, 3, 29, 12, 30, tzinfo=UTC).timestamp()) * 10**6
    found = request_values(plan(), many([as_of] * 3, ROWS))
    assert found[:, :4].tolist() == [[12.0, 6.0, 29.0, float(as_of)]] * 3
    assert found[0, 4:].tolist() == [1200.0, 123.45, 1.0, 1.0, (as_of - 5) / 1e6]
    assert np.isnan(found[1, 4:]).all()
    assert found[2, 4:].tolist() == [-3.0, 0.0, 0.0, 2.0, (as_of - 2 * 10**15) / 1e6]


@pytest.mark.parametrize("zone", ["UTC", "Africa/Lagos", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"])
def test_the_calendar_is_the_zones(zone: str) -> None:
    chance = np.random.default_rng(3)
    instants = [int(i) for i in chance.integers(10**15, 2 * 10**15, 500)]
    turn = int(datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp()) * 10**6  # Berlin's clocks go back
    instants += [turn - 1, turn, turn + 1, turn - 3600 * 10**6]
    found = request_values(plan(zone), many(instants, [ROWS[1]] * len(instants)))
    for row, instant in zip(found, instants, strict=True):
        local = (EPOCH + timedelta(microseconds=instant)).astimezone(ZoneInfo(zone))
        assert row[:3].tolist() == [local.hour, local.weekday(), local.day], instant


@pytest.mark.parametrize("row", ROWS)
def test_one_and_many_give_the_same_bits(row: dict[str, Any]) -> None:
    for zone in ("UTC", "Europe/Berlin"):
        for as_of in (0, 1_711_846_799_999_999, 1_711_846_800_000_000):
            one = request_row(plan(zone), as_of, row)
            assert one.tobytes() == request_values(plan(zone), many([as_of], [row])).tobytes()


def test_an_absent_field_is_null() -> None:
    assert np.isnan(request_row(plan(), 0, {})[0, 4:]).all()
