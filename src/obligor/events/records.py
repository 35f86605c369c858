"""Records: JSON objects from outside, checked and turned into a `Batch`, with every problem of every record named.

Two readings, one result (a test holds them together). `_columns` reads the records of one type column by column and
gives up at the first doubt; only then `_parse` reads that type's records one by one and says all that is wrong with
each. Records that pass go on, the others are returned as problems: nothing is coerced, filled or dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from obligor.errors import BadInput, LimitError, Problem, did_you_mean
from obligor.events.batch import CORRECTION, ORIGINAL, RETRACTION, Batch, part_schema
from obligor.events.content import commitment, content_hashes
from obligor.events.fields import INT64_MAX, Boolean, Category, Decimal, Entity, Field, Integer, Money, Text, Timestamp
from obligor.events.fields import parse_timestamp as _parse_timestamp
from obligor.events.moments import NULL, ZONED, read_moments
from obligor.events.schema import Event, Registry

__all__ = ["ID_LENGTH_MAX", "RECORDS_MAX", "decode_json", "parse_records"]

ID_LENGTH_MAX: Final = 200
RECORDS_MAX: Final = 100_000
_ENVELOPE: Final = frozenset({"type", "event_id", "event_time", "corrects", "retracts"})
_OPTIONAL: Final = frozenset({type(None)})
_DECODER: Final = msgspec.json.Decoder()

Columns = dict[str, pa.Array]


@dataclass(slots=True)
class _Rows:
    """Checked rows of one type: places in the input, standard values and field columns, all of one length."""

    places: list[int]
    event_id: pa.Array
    event_time: pa.Array
    kind: list[int]
    target: list[str | None] | None
    columns: Columns
    personal: list[bytes | None] | None = field(default=None)


def parse_records(
    registry: Registry,
    records: bytes | Mapping[str, object] | Sequence[object],
    *,
    commitment_key: bytes,
    allow_platform_types: bool = False,
) -> tuple[Batch, dict[int, list[Problem]]]:
    """Return the batch of the records that are right, in order, and the problems of the others by their place.

    `records` is JSON text, one decoded record or many. Paths start with `$` for one and `$[3]` for many. The batch's
    index counts the right ones only. `commitment_key` is the log's. Types that the platform alone appends are refused
    unless `allow_platform_types`. Raises BadInput where the text is not JSON, and LimitError above RECORDS_MAX.
    """
    many = decode_json(records) if isinstance(records, bytes) else records
    prefix = "$[{}]"
    if isinstance(many, Mapping):
        many, prefix = [many], "$"
    if not isinstance(many, Sequence) or isinstance(many, str | bytes):
        raise BadInput(f"expected one event (an object) or an array of them, got {many!r:.80}")
    if len(many) > RECORDS_MAX:
        raise LimitError(f"expected at most {RECORDS_MAX} records at once, got {len(many)}")
    problems: dict[int, list[Problem]] = {}
    groups = _by_type(registry, many, prefix, allow_platform_types, problems)
    parts: dict[str, _Rows] = {}
    for name, places in groups.items():
        event, rows = registry[name], [many[i] for i in places]
        checked = _columns(event, rows, places) or _one_by_one(event, rows, places, prefix, problems)
        if checked.places:
            parts[name] = checked
    size = len(many) - len(problems)
    bad = np.array(sorted(problems), np.int64)
    tables = {name: _table(registry[name], rows, bad, commitment_key) for name, rows in parts.items()}
    return Batch(tables, size), dict(sorted(problems.items()))


def decode_json(text: bytes) -> object:
    """Return the decoded JSON; BadInput where it is none, or where an object names a key twice.

    >>> decode_json(b'{"amount": 1, "amount": 2}')
    Traceback (most recent call last):
    obligor.errors.BadInput: not valid JSON: the key 'amount' appears twice in one object
    """
    try:
        value = _DECODER.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadInput(f"not valid JSON (NaN and Infinity are not part of it): {error}") from None
    if _maybe_duplicate_keys(text, value):
        try:
            json.loads(text, object_pairs_hook=_refuse_duplicates)
        except (json.JSONDecodeError, RecursionError, UnicodeDecodeError) as error:
            raise BadInput(f"not valid JSON: {error}") from None
    return value


def _maybe_duplicate_keys(text: bytes, value: object) -> bool:
    """Whether keys might be lost in `value`: a cheap count that may be true without cause, never false with one.

    A key ends in an unescaped quote and a colon; so its quote and colon are adjacent unless space is between them.
    """
    if any(space in text for space in (b" :", b"\t:", b"\n:", b"\r:")):
        return True
    many = value if isinstance(value, list) else [value]
    keys = sum(len(one) for one in many if type(one) is dict)
    seen = text.count(b'":')
    if seen == keys:
        return False
    keys += sum(len(v) for one in many if type(one) is dict for v in one.values() if type(v) is dict)
    return seen != keys


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise BadInput(f"not valid JSON: the key {key!r} appears twice in one object")
        seen.add(key)


def _by_type(
    registry: Registry, many: Sequence[object], prefix: str, platform: bool, problems: dict[int, list[Problem]]
) -> dict[str, list[int]]:
    """Return the places of each known type's records; records without one go to `problems`."""
    groups: dict[str, list[int]] = {}
    for i, record in enumerate(many):
        name = record.get("type") if type(record) is dict else None
        if type(name) is str and name in groups:
            groups[name].append(i)
            continue
        refused = _refusal(registry, record, prefix.format(i), platform)
        if refused is not None:
            problems[i] = [refused]
        else:
            groups.setdefault(str(name), []).append(i)
    return groups


def _refusal(registry: Registry, record: object, path: str, platform: bool) -> Problem | None:
    """Return why a record's type cannot be used, or None."""
    if type(record) is not dict:
        return Problem(path, f"expected an object with type, event_id and event_time, got {record!r:.80}")
    valid = [n for n in registry.names() if platform or not registry.is_platform_type(n)]
    if "type" not in record:
        return Problem(f"{path}.type", f"missing; expected one of {', '.join(sorted(valid))}")
    name = record["type"]
    if not isinstance(name, str) or name not in registry:
        return Problem(f"{path}.type", f"unknown event type {name!r:.80}; {did_you_mean(str(name)[:80], valid)}")
    if name not in valid:
        return Problem(f"{path}.type", f"only the platform appends {name!r}; send an application instead")
    return None


# ---- the fast reading: one type, column by column -------------------------------------------------------------------


def _columns(event: type[Event], rows: Sequence[Any], places: list[int]) -> _Rows | None:
    """Return the checked rows, or None at the first doubt."""
    allowed = _ENVELOPE | event.fields.keys()
    shapes = {tuple(row) for row in rows}
    if not all(allowed.issuperset(shape) for shape in shapes):
        return None
    if any("retracts" in shape or "corrects" in shape for shape in shapes):
        kinds = [_kind(row) for row in rows]
        if None in kinds or RETRACTION in kinds:
            return None
        target = [row.get("corrects") for row in rows]
    else:
        kinds, target = [ORIGINAL] * len(rows), None
    ids = _text_column([row.get("event_id") for row in rows], 1, ID_LENGTH_MAX, False)
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
    sealed = _personal(event, personal, len(rows)) if personal else None
    return _Rows(places, ids, times, [int(k) for k in kinds if k is not None], target, columns, sealed)


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
        column = _text_column(values, 1, one.LENGTH_MAX, one.optional)
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


# ---- the exact reading: one record, all its problems ----------------------------------------------------------------


def _one_by_one(
    event: type[Event], rows: Sequence[Any], places: list[int], prefix: str, problems: dict[int, list[Problem]]
) -> _Rows:
    """Return the checked rows that are right; the others go to `problems` with all that is wrong."""
    right: list[int] = []
    parsed: list[dict[str, Any]] = []
    for place, row in zip(places, rows, strict=True):
        found: list[Problem] = []
        values = _parse(event, row, prefix.format(place), found)
        if found:
            problems[place] = found
        else:
            right.append(place)
            parsed.append(values)

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([values.get(name) for values in parsed], kind)

    schema = part_schema(event)
    columns = {name: column(name, schema.field(name).type) for name in schema.names[_STANDARD_COLUMNS:]}
    personal = {n: [v.get(n) for v in parsed] for one in event.fields.values() if one.personal for n in _keys(one)}
    kinds = [values["kind"] for values in parsed]
    return _Rows(
        places=right,
        event_id=column("event_id", pa.string()),
        event_time=column("event_time", pa.int64()),
        kind=kinds,
        target=[values["target"] for values in parsed] if any(kinds) else None,
        columns=columns,
        personal=_personal(event, personal, len(right)) if personal else None,
    )


def _parse(event: type[Event], row: Mapping[str, Any], path: str, problems: list[Problem]) -> dict[str, Any]:
    """Return the stored values of one record; appends all that is wrong to `problems`."""
    values: dict[str, Any] = {"kind": ORIGINAL, "target": None}
    for name in row:
        if not isinstance(name, str) or (name not in _ENVELOPE and name not in event.fields):
            problems.append(Problem(f"{path}.{name!s:.80}", _unknown(event, str(name))))
    event_id = _identifier(row, "event_id", path, problems)
    corrects = _identifier(row, "corrects", path, problems) if row.get("corrects") is not None else None
    retracts = _identifier(row, "retracts", path, problems) if row.get("retracts") is not None else None
    if row.get("corrects") is not None and row.get("retracts") is not None:
        problems.append(Problem(f"{path}.retracts", "expected either corrects or retracts, got both"))
    for link, target, kind in (("corrects", corrects, CORRECTION), ("retracts", retracts, RETRACTION)):
        if target is not None:
            values["kind"], values["target"] = kind, target
            if target == event_id:
                problems.append(Problem(f"{path}.{link}", f"expected the id of another event, got its own {target!r}"))
    values["event_id"] = event_id
    retraction = row.get("retracts") is not None
    if row.get("event_time") is not None:
        _guard(path, "event_time", problems, lambda: values.update(event_time=_parse_timestamp(row["event_time"])))
    elif not retraction:
        problems.append(Problem(f"{path}.event_time", "missing; expected an RFC 3339 timestamp with a zone"))
    for name, one in event.fields.items():
        if retraction and name in row:
            problems.append(Problem(f"{path}.{name}", "a retraction carries no fields; a correction does"))
        elif not retraction:
            _parse_field(one, row.get(name), path, values, problems)
    return values


def _parse_field(one: Field, value: object, path: str, values: dict[str, Any], problems: list[Problem]) -> None:
    if value is None:
        if not one.optional:
            problems.append(Problem(f"{path}.{one.name}", f"missing; expected {_expected(one)}"))
    elif isinstance(one, Money):
        money = one

        def read() -> None:
            amount, currency = money.parse_with_currency(value)
            values.update({money.name: amount, f"{money.name}.currency": currency})

        _guard(path, one.name, problems, read)
    else:
        _guard(path, one.name, problems, lambda: values.update({one.name: one.parse(value)}))


def _guard(path: str, name: str, problems: list[Problem], read: Any) -> None:
    try:
        read()
    except ValueError as error:
        problems.append(Problem(f"{path}.{name}", str(error)))


def _identifier(row: Mapping[str, Any], name: str, path: str, problems: list[Problem]) -> str | None:
    value = row.get(name)
    expected = f"an id of 1 to {ID_LENGTH_MAX} characters"
    if value is None:
        problems.append(Problem(f"{path}.{name}", f"missing; expected {expected}"))
    elif not isinstance(value, str) or not 1 <= len(value) <= ID_LENGTH_MAX or not _encodable(value):
        problems.append(Problem(f"{path}.{name}", f"expected {expected}, got {value!r:.80}"))
    else:
        return value
    return None


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unknown(event: type[Event], name: str) -> str:
    if name in ("known_time", "position"):
        return f"{name} is assigned by the platform and cannot be sent"
    return f"unknown field; {did_you_mean(name[:80], [*event.fields, *sorted(_ENVELOPE)])}"


def _expected(one: Field) -> str:
    article = "an" if one.kind[0] in "aei" else "a"
    return f"{article} {one.kind}" if one.kind != "money" else "an amount in minor units"


# ---- from checked rows to a part of the batch -----------------------------------------------------------------------

_STANDARD_COLUMNS: Final = 8


def _keys(one: Field) -> list[str]:
    """Return the names under which a personal field's stored values are kept."""
    return [one.name, f"{one.name}.currency"] if isinstance(one, Money) else [one.name]


def _personal(event: type[Event], columns: Mapping[str, list[Any]], size: int) -> list[bytes | None]:
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


def _table(event: type[Event], rows: _Rows, bad: Any, key: bytes) -> pa.Table:
    """Return the part of the batch: dense places, content hashes, and the columns in their declared order."""
    places = np.array(rows.places, np.int64)
    kind = np.array(rows.kind, np.int8)
    size = len(places)
    target = pa.array(rows.target, pa.string()) if rows.target is not None else None
    sealed = [None if p is None else commitment(key, p) for p in rows.personal] if rows.personal is not None else None
    content = content_hashes(event, rows.columns, rows.event_time, kind, target, sealed)
    schema = part_schema(event)
    standard = [
        pa.array(places - np.searchsorted(bad, places) if len(bad) else places),
        rows.event_id,
        rows.event_time,
        pa.nulls(size, pa.int64()),
        pa.array(kind),
        target if target is not None else pa.nulls(size, pa.string()),
        content,
        pa.array(rows.personal, pa.binary()) if rows.personal is not None else pa.nulls(size, pa.binary()),
    ]
    fields = [rows.columns[name] for name in schema.names[_STANDARD_COLUMNS:]]
    return pa.Table.from_arrays([*standard, *fields], schema=schema)
