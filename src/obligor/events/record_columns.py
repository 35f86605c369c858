"""The fast reading of records: one type, column by column, which gives up at the first doubt.

It never says what is wrong and never repairs: `obligor.events.records` then reads the same records one by one. What
it accepts is stored exactly as the exact reading would store it (a test compares the two on every kind of field).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obligor.events.assembly import Rows, personal_json
from obligor.events.batch import CORRECTION, ORIGINAL, RETRACTION
from obligor.events.fields import INT64_MAX, Boolean, Category, Decimal, Entity, Field, Integer, Money, Text, Timestamp
from obligor.events.moments import NULL, ZONED, read_moments
from obligor.events.schema import Event
from obligor.events.texts import controlled

__all__ = ["ENVELOPE", "ID_LENGTH_MAX", "read_columns"]

ID_LENGTH_MAX: Final = 200
ENVELOPE: Final = frozenset({"type", "version", "event_id", "event_time", "corrects", "retracts"})

_UNBOUNDED: Final[Mapping[str, int]] = {}

Columns = dict[str, pa.Array]


def read_columns(event: type[Event], rows: Sequence[Any], most: Mapping[str, int] = _UNBOUNDED) -> Rows | None:
    """Return the checked rows, or None at the first doubt; `most` bounds the numbers of some fields."""
    allowed = ENVELOPE | event.fields.keys()
    shapes = {tuple(row) for row in rows}
    if not all(allowed.issuperset(shape) for shape in shapes):
        return None
    if any("retracts" in shape or "corrects" in shape for shape in shapes):
        kinds = [_kind(row) for row in rows]
        if None in kinds or RETRACTION in kinds:
            return None
        target = _key_column([row.get("corrects") for row in rows], ID_LENGTH_MAX, True)
        if target is None:
            return None
    else:
        kinds, target = [ORIGINAL] * len(rows), None
    ids = _key_column([row.get("event_id") for row in rows], ID_LENGTH_MAX, False)
    times = _moment_column([row.get("event_time") for row in rows], False)
    if ids is None or times is None:
        return None
    columns: Columns = {}
    personal: dict[str, list[Any]] = {}
    for name, one in event.fields.items():
        read = _field_columns(name, one, [row.get(name) for row in rows])
        if read is None:
            return None
        if one.personal:
            personal.update({key: column.to_pylist() for key, column in read.items()})
        else:
            columns.update(read)
    if any((pc.max(pc.abs(columns[name])).as_py() or 0) > bound for name, bound in most.items()):
        return None
    sealed = personal_json(event, personal, len(rows)) if personal else None
    return Rows(ids, times, np.array(kinds, np.int8), target, columns, sealed)


def _kind(row: Mapping[str, object]) -> int | None:
    """Return the kind of a record whose links are right, else None."""
    corrects, retracts = row.get("corrects"), row.get("retracts")
    if corrects is None and retracts is None:
        return ORIGINAL
    link = retracts if corrects is None else corrects
    right = type(link) is str and 1 <= len(link) <= ID_LENGTH_MAX and link != row.get("event_id")
    if (corrects is not None and retracts is not None) or not right:
        return None
    return CORRECTION if retracts is None else RETRACTION


def _field_columns(name: str, one: Field, values: list[Any]) -> Columns | None:
    """Return the stored column (and the currency's) of one field, or None where a value may be wrong."""
    if isinstance(one, Money):
        return _money_columns(name, one, values)
    column: pa.Array | None
    if isinstance(one, Entity):
        column = _key_column(values, one.LENGTH_MAX, one.optional)
    elif isinstance(one, Category):
        closed = not one.values or set(values) - {None} <= set(one.values) if _all_text(values) else False
        column = _text_column(values, 1, one.LENGTH_MAX, one.optional) if closed else None
    elif isinstance(one, Text):
        column = _text_column(values, 0, one.length_max, one.optional)
    elif isinstance(one, Timestamp):
        column = _moment_column(values, one.optional)
    elif isinstance(one, Boolean):
        column = pa.array(values, pa.bool_()) if _all_of(bool, values, one.optional) else None
    elif isinstance(one, Decimal):
        column = _decimal_column(one, values)
    else:
        assert isinstance(one, Integer), "every kind of field has its column"
        column = _int_column(values, one.minimum, one.maximum, one.optional)
    return None if column is None else {name: column}


def _all_text(values: list[Any]) -> bool:
    return set(map(type, values)) <= {str, type(None)}


def _all_of(kind: type, values: list[Any], optional: bool) -> bool:
    found = set(map(type, values))
    return found == {kind} or (optional and found <= {kind, type(None)})


def _int_column(values: list[Any], minimum: int | None, maximum: int | None, optional: bool) -> pa.Array | None:
    if not _all_of(int, values, optional):
        return None
    present = values if not optional else [v for v in values if v is not None]
    if present:
        low = -INT64_MAX if minimum is None else max(minimum, -INT64_MAX)
        high = INT64_MAX if maximum is None else min(maximum, INT64_MAX)
        if min(present) < low or max(present) > high:
            return None
    return pa.array(values, pa.int64())


def _text_column(values: list[Any], shortest: int, longest: int, optional: bool) -> pa.Array | None:
    if not _all_of(str, values, optional):
        return None
    lengths = [len(v) for v in values if v is not None] if optional else list(map(len, values))
    if lengths and (min(lengths) < shortest or max(lengths) > longest):
        return None
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return None


def _key_column(values: list[Any], longest: int, optional: bool) -> pa.Array | None:
    column = _text_column(values, 1, longest, optional)
    return None if column is None or controlled(column).any() else column


def _moment_column(values: list[Any], optional: bool) -> pa.Array | None:
    if not _all_of(str, values, optional):
        return None
    try:
        us, status = read_moments(pa.array(values, pa.string()))
    except UnicodeEncodeError:
        return None
    null = status == NULL
    if not (null | (status == ZONED)).all():
        return None
    return pa.array(us, mask=null) if null.any() else pa.array(us)


def _decimal_column(one: Decimal, values: list[Any]) -> pa.Array | None:
    if not set(map(type, values)) <= {str, int, type(None)} or (None in values and not one.optional):
        return None
    try:
        return pa.array([None if v is None else one.parse(v) for v in values], pa.int64())
    except ValueError:
        return None


def _money_columns(name: str, one: Money, values: list[Any]) -> Columns | None:
    minimum = None if one.negative else 0
    if len(one.currencies) == 1 and dict not in set(map(type, values)):
        column = _int_column(values, minimum, None, one.optional)
        return None if column is None else {name: column}
    if not _all_of(dict, values, one.optional):
        return None
    if any(v is not None and (len(v) != 2 or "amount" not in v or "currency" not in v) for v in values):
        return None
    currencies = [None if v is None else v["currency"] for v in values]
    if not _all_text(currencies) or not set(currencies) <= {*one.currencies, *([None] if one.optional else [])}:
        return None
    if any((v is None) != (c is None) for v, c in zip(values, currencies, strict=True)):
        return None
    amounts = [None if v is None else v["amount"] for v in values]
    if any((v is None) != (a is None) for v, a in zip(values, amounts, strict=True)):
        return None
    column = _int_column(amounts, minimum, None, one.optional)
    if column is None or len(one.currencies) == 1:
        return None if column is None else {name: column}
    return {name: column, f"{name}.currency": pa.array(currencies, pa.string())}
