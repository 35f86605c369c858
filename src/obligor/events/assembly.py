"""From checked columns to a part of a batch: the standard columns, personal fields set apart, the content hash.

Records and bulk files meet here, so that one fact has one stored form whatever it came in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obligor.events.batch import STANDARD, part_schema
from obligor.events.content import commitment, content_hashes
from obligor.events.fields import Field, Money
from obligor.events.schema import Event

__all__ = ["Rows", "part_table", "personal_json", "personal_names"]


@dataclass(slots=True)
class Rows:
    """Checked rows of one type, all columns of one length.

    `columns` are the field columns of `part_schema`; `target` is None where all rows are originals, `known_time` where
    all are measured, `personal` (canonical JSON) where the type has no personal fields.
    """

    event_id: pa.Array
    event_time: pa.Array
    kind: npt.NDArray[np.int8]
    target: pa.Array | None
    columns: dict[str, pa.Array]
    personal: list[bytes | None] | None
    known_time: pa.Array | None = None


def personal_names(one: Field) -> list[str]:
    """Return the names under which a personal field's stored values are kept."""
    return [one.name, f"{one.name}.currency"] if isinstance(one, Money) else [one.name]


def personal_json(event: type[Event], columns: Mapping[str, list[Any]], size: int) -> list[bytes | None]:
    """Return the canonical JSON of each row's personal fields (sorted, absent ones left out), None where none is."""
    single = {
        f"{name}.currency": one.currencies[0]
        for name, one in event.fields.items()
        if one.personal and isinstance(one, Money) and len(one.currencies) == 1
    }
    names = sorted(set(columns) | set(single))
    rows: list[bytes | None] = []
    for i in range(size):
        present: dict[str, Any] = {}
        for name in names:
            value = columns[name][i] if name in columns else None
            if value is None and name in single and columns[name.removesuffix(".currency")][i] is not None:
                value = single[name]
            if value is not None:
                present[name] = value
        rows.append(msgspec.json.encode(present) if present else None)
    return rows


def part_table(event: type[Event], rows: Rows, places: npt.NDArray[np.int64], key: bytes) -> pa.Table:
    """Return the rows as a part of a batch, with their content hashes; `places` is the index column."""
    size = len(places)
    sealed = [None if p is None else commitment(key, p) for p in rows.personal] if rows.personal is not None else None
    content = content_hashes(event, rows.columns, rows.event_time, rows.kind, rows.target, sealed)
    schema = part_schema(event)
    standard = [
        pa.array(places),
        rows.event_id,
        rows.event_time,
        rows.known_time if rows.known_time is not None else pa.nulls(size, pa.int64()),
        pa.array(rows.kind),
        rows.target if rows.target is not None else pa.nulls(size, pa.string()),
        content,
        pa.array(rows.personal, pa.binary()) if rows.personal is not None else pa.nulls(size, pa.binary()),
    ]
    fields = [rows.columns[name] for name in schema.names[len(STANDARD) :]]
    return pa.Table.from_arrays([*standard, *fields], schema=schema)
