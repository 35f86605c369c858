from __future__ import annotations

import pyarrow as pa
import pytest

from obligor.events.batch import CORRECTION, ORIGINAL, RETRACTION
from obligor.events.fields import Boolean, Decimal, Entity, Money, Timestamp
from obligor.events.rendering import record_of, timestamp_text
from obligor.events.schema import Event


class Quote(Event):
    consumer = Entity()
    price = Money("NGN", "KES", optional=True)
    rate = Decimal(2, optional=True)
    count = Decimal(0, optional=True)
    seen = Timestamp(optional=True)
    firm = Boolean(optional=True)


def row(**values: object) -> pa.Table:
    standard = {"event_id": "q-1", "event_time": 0, "known_time": 1_000_000, "kind": ORIGINAL, "target": None}
    return pa.Table.from_pylist([standard | {"consumer": "c-1"} | values])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"price": 5, "price.currency": "KES"}, {"price": {"amount": 5, "currency": "KES"}}),
        ({"rate": 1250, "count": 3}, {"rate": "12.50", "count": "3"}),
        ({"rate": -5}, {"rate": "-0.05"}),
        ({"seen": 1_500_000, "firm": False}, {"seen": "1970-01-01T00:00:01.500000Z", "firm": False}),
        ({"kind": CORRECTION, "target": "q-0"}, {"corrects": "q-0"}),
        ({"rate": None}, {}),
    ],
)
def test_stored_values_read_as_json(values: dict[str, object], expected: dict[str, object]) -> None:
    shown = record_of(Quote, row(**values))
    envelope = {
        "type": "quote",
        "version": 1,
        "event_id": "q-1",
        "event_time": "1970-01-01T00:00:00Z",
        "consumer": "c-1",
    }
    assert shown == envelope | expected | {"known_time": "1970-01-01T00:00:01Z"}


def test_a_retraction_without_a_moment_has_none() -> None:
    shown = record_of(Quote, row(kind=RETRACTION, target="q-0", event_time=None, consumer=None))
    expected = {"type": "quote", "version": 1, "event_id": "q-1", "retracts": "q-0"}
    assert shown == expected | {"known_time": "1970-01-01T00:00:01Z"}


def test_personal_fields_are_shown_only_when_given() -> None:
    assert record_of(Quote, row(), {"phone": "1"})["phone"] == "1"


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (1_800_000_000_000_001, "2027-01-15T08:00:00.000001Z"),
    ],
)
def test_timestamps_keep_their_microseconds(moment: int, expected: str) -> None:
    assert timestamp_text(moment) == expected
