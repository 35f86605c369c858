"""A batch: validated rows of mixed event types in one order, columnar by type.

It is what the edge hands to the log. Rows of one version of a type are one Arrow table with the standard columns below
and one column per field that is not personal (`part_schema`), so that a block of the log is written without touching a
row. An older version's rows stay in its form: they are read as newer ones (`obligor.events.reading`), never rewritten.
Everything in a batch has been checked: the log and all that follows trust its types.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obligor.events.fields import Field, Money
from obligor.events.schema import Event

__all__ = [
    "CORRECTION",
    "ORIGINAL",
    "RETRACTION",
    "STANDARD",
    "Batch",
    "TypeVersion",
    "arrow_type",
    "field_columns",
    "part_schema",
]

ORIGINAL: Final = 0
CORRECTION: Final = 1
RETRACTION: Final = 2

TypeVersion = tuple[str, int]  # an event type's name, and the version of it that a row was written in

STANDARD: Final = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),  # place in the batch, dense from 0
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("event_time", pa.int64()),  # microseconds UTC; null only in a retraction that does not say
        pa.field("known_time", pa.int64()),  # null: measured by the log's writer; else declared
        pa.field("kind", pa.int8(), nullable=False),  # ORIGINAL, CORRECTION or RETRACTION
        pa.field("target", pa.string()),  # the id that a correction or retraction is about
        pa.field("content", pa.binary(16), nullable=False),  # obligor.events.content
        pa.field("personal", pa.binary()),  # canonical JSON of the personal fields, until the log encrypts it
    ]
)
_ARROW: Final = {
    "entity": pa.string(),
    "category": pa.string(),
    "text": pa.string(),
    "money": pa.int64(),
    "decimal": pa.int64(),
    "integer": pa.int64(),
    "timestamp": pa.int64(),
    "boolean": pa.bool_(),
}


def arrow_type(field: Field) -> pa.DataType:
    """Return the Arrow type of a field's stored values."""
    return _ARROW[field.kind]


def field_columns(name: str, field: Field) -> list[pa.Field]:
    """Return the columns of one field: its own and, for money of several currencies, `<name>.currency` (null: none).

    >>> [column.name for column in field_columns("amount", Money("NGN", "KES"))]
    ['amount', 'amount.currency']
    """
    columns = [pa.field(name, arrow_type(field))]
    if isinstance(field, Money) and len(field.currencies) > 1:
        columns.append(pa.field(f"{name}.currency", pa.string()))
    return columns


@lru_cache(maxsize=1024)
def part_schema(event: type[Event]) -> pa.Schema:
    """Return the columns of one type's table in a batch: the standard ones, then its fields that are not personal."""
    fields = [c for name, field in event.fields.items() if not field.personal for c in field_columns(name, field)]
    return pa.schema([*STANDARD, *fields])


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows in one order: `parts[type name, version]` holds those of one form, `index` their place (0 to `size` - 1)."""

    parts: Mapping[TypeVersion, pa.Table]
    size: int

    def __post_init__(self) -> None:
        assert sum(part.num_rows for part in self.parts.values()) == self.size, "a batch's size is its rows"

    @staticmethod
    def concat(batches: Iterable[Batch]) -> Batch:
        """Return the rows of `batches` one after the other.

        >>> Batch.concat([]).size
        0
        """
        parts: dict[TypeVersion, list[pa.Table]] = {}
        size = 0
        for batch in batches:
            for name, part in batch.parts.items():
                parts.setdefault(name, []).append(_shift(part, size))
            size += batch.size
        return Batch({name: pa.concat_tables(tables) for name, tables in parts.items()}, size)

    def slice(self, start: int, stop: int) -> Batch:
        """Return the rows with `start` <= index < `stop`, numbered anew from 0."""
        start, stop = max(start, 0), min(stop, self.size)
        parts: dict[TypeVersion, pa.Table] = {}
        for name, part in self.parts.items():
            index = part["index"]
            rows = part.filter(pc.and_(pc.greater_equal(index, start), pc.less(index, stop)))
            if rows.num_rows:
                parts[name] = _shift(rows, -start)
        return Batch(parts, max(stop - start, 0))

    def without(self, rows: Collection[int]) -> Batch:
        """Return the other rows, numbered anew from 0."""
        gone = np.array(sorted(rows), np.int64)
        parts: dict[TypeVersion, pa.Table] = {}
        for name, part in self.parts.items():
            index = part["index"].to_numpy()
            keep = ~np.isin(index, gone)
            if keep.any():
                index = index[keep]
                left = pa.array(index - np.searchsorted(gone, index))
                parts[name] = part.filter(pa.array(keep)).set_column(0, STANDARD.field("index"), left)
        return Batch(parts, self.size - len(gone))


def _shift(part: pa.Table, by: int) -> pa.Table:
    return part.set_column(0, STANDARD.field("index"), pc.add(part["index"], by)) if by else part
