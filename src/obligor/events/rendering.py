"""A stored event back in the form of a JSON record: what the API and the ledger's readers show."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal as PyDecimal
from typing import Any

import pyarrow as pa

from obligor.events.batch import CORRECTION, RETRACTION
from obligor.events.fields import Decimal, Field, Money
from obligor.events.schema import Event

__all__ = ["record_of", "timestamp_text"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp_text(moment_us: int) -> str:
    """Return microseconds since 1970 UTC as RFC 3339.

    >>> timestamp_text(1_500_000)
    '1970-01-01T00:00:01.500000Z'
    """
    return (_EPOCH + timedelta(microseconds=moment_us)).isoformat().replace("+00:00", "Z")


def record_of(event: type[Event], table: pa.Table, personal: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the one row of `table` (a block's columns) as the record of its version, with `known_time`.

    `event` is the class of the version that the row was written in; absent fields are left out.
    """
    row = table.to_pylist()[0]
    record: dict[str, Any] = {"type": event.event_name, "version": event.version, "event_id": row["event_id"]}
    if row["event_time"] is not None:
        record["event_time"] = timestamp_text(row["event_time"])
    if row["kind"] in (CORRECTION, RETRACTION):
        record["corrects" if row["kind"] == CORRECTION else "retracts"] = row["target"]
    for name, one in event.fields.items():
        if row.get(name) is not None:
            record[name] = _shown(one, row[name], row.get(f"{name}.currency"))
    return record | dict(personal or {}) | {"known_time": timestamp_text(row["known_time"])}


def _shown(field: Field, value: Any, currency: str | None) -> Any:
    if isinstance(field, Money) and currency is not None:
        return {"amount": value, "currency": currency}
    if isinstance(field, Decimal):
        return str(PyDecimal(value).scaleb(-field.scale)) if field.scale else str(value)
    if field.kind == "timestamp":
        return timestamp_text(value)
    return value
