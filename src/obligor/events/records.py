"""Records: JSON objects from outside, checked and turned into a `Batch`, with every problem of every record named.

Two readings, one result (a test holds them together). `record_columns` reads the records of one type column by column
and gives up at the first doubt; only then that type's records are read here one by one, and all that is wrong with
each is said. Records that pass go on, the others are returned as problems: nothing is coerced, filled or dropped.

A record is of its type's newest version unless it says another, `"version": 1`, as producers do that have not followed
yet; it is then held to the fields of that version, and stays in its form.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from obligor.errors import BadInput, LimitError, Problem, did_you_mean
from obligor.events.assembly import Rows, part_table, personal_json, personal_names
from obligor.events.batch import CORRECTION, ORIGINAL, RETRACTION, STANDARD, Batch, TypeVersion, part_schema
from obligor.events.fields import CONTROL, WITHOUT_CONTROL, Field, Money, parse_timestamp
from obligor.events.lineage import limits
from obligor.events.record_columns import ENVELOPE, ID_LENGTH_MAX, read_columns
from obligor.events.schema import Event, Registry

__all__ = ["ID_LENGTH_MAX", "RECORDS_MAX", "decode_json", "maybe_duplicate_keys", "parse_records"]

RECORDS_MAX: Final = 100_000
_DECODER: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder()


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
    checked: dict[TypeVersion, tuple[Rows, list[int]]] = {}
    for form, places in groups.items():
        newest, rows = registry[form[0]], [many[i] for i in places]
        event, most = newest.lineage[form[1]], limits(newest, form[1])
        right = read_columns(event, rows, most)
        checked[form] = (
            (right, places) if right is not None else _one_by_one(event, rows, places, prefix, most, problems)
        )
    bad = np.array(sorted(problems), np.int64)
    parts: dict[TypeVersion, pa.Table] = {}
    for form, (right, places) in checked.items():
        if places:
            event, index = registry[form[0]].lineage[form[1]], np.array(places, np.int64)
            parts[form] = part_table(event, right, index - np.searchsorted(bad, index), commitment_key)
    return Batch(parts, len(many) - len(problems)), {i: problems[i] for i in bad.tolist()}


def decode_json(text: bytes, decoder: msgspec.json.Decoder[Any] = _DECODER) -> Any:
    """Return the decoded JSON; BadInput where it is none, or where an object names a key twice.

    >>> decode_json(b'{"amount": 1, "amount": 2}')
    Traceback (most recent call last):
    obligor.errors.BadInput: not valid JSON: the key 'amount' appears twice in one object
    """
    try:
        value = decoder.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadInput(f"not valid JSON (NaN and Infinity are not part of it): {error}") from None
    if maybe_duplicate_keys(text, value):
        try:
            json.loads(text, object_pairs_hook=_refuse_duplicates)
        except (json.JSONDecodeError, RecursionError, UnicodeDecodeError) as error:
            raise BadInput(f"not valid JSON: {error}") from None
    return value


def maybe_duplicate_keys(text: bytes, value: object) -> bool:
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
) -> dict[TypeVersion, list[int]]:
    """Return the places of each version's records of each known type; records without one go to `problems`."""
    groups: dict[TypeVersion, list[int]] = {}
    newest: dict[str, list[int]] = {}
    for i, record in enumerate(many):
        name = record.get("type") if type(record) is dict and "version" not in record else None
        if type(name) is str and name in newest:
            newest[name].append(i)
            continue
        refused = _refusal(registry, record, prefix.format(i), platform)
        if refused is not None:
            problems[i] = [refused]
            continue
        form = _form(registry, record)
        places = groups.setdefault(form, [])
        places.append(i)
        if form[1] == registry[form[0]].version:
            newest[form[0]] = places
    return groups


def _form(registry: Registry, record: Any) -> TypeVersion:
    """Return the type of a record that is not refused, and the version that it is held to."""
    name: str = record["type"]
    return name, record.get("version", registry[name].version)


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
    versions, (_, number) = registry[name].lineage, _form(registry, record)
    if type(number) is not int or number not in versions:
        return Problem(f"{path}.version", f"expected {' or '.join(map(str, versions))}, got {number!r:.80}")
    return None


def _one_by_one(
    event: type[Event],
    rows: Sequence[Any],
    places: list[int],
    prefix: str,
    most: Mapping[str, int],
    problems: dict[int, list[Problem]],
) -> tuple[Rows, list[int]]:
    """Return the rows that are right and their places; the others go to `problems` with all that is wrong.

    `most`: the greatest numbers of fields whose scale later versions raise.
    """
    right: list[int] = []
    parsed: list[dict[str, Any]] = []
    for place, row in zip(places, rows, strict=True):
        found: list[Problem] = []
        path = prefix.format(place)
        values = _parse(event, row, path, found)
        for name, bound in most.items():
            if abs(values.get(name) or 0) > bound:
                found.append(
                    Problem(f"{path}.{name}", f"is beyond 64 bits at the scale of later versions: {row[name]!r}")
                )
        if found:
            problems[place] = found
        else:
            right.append(place)
            parsed.append(values)

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([values.get(name) for values in parsed], kind)

    schema = part_schema(event)
    columns = {name: column(name, schema.field(name).type) for name in schema.names[len(STANDARD) :]}
    personal = {
        n: [v.get(n) for v in parsed] for one in event.fields.values() if one.personal for n in personal_names(one)
    }
    kind = np.array([values["kind"] for values in parsed], np.int8)
    rows_right = Rows(
        event_id=column("event_id", pa.string()),
        event_time=column("event_time", pa.int64()),
        kind=kind,
        target=column("target", pa.string()) if kind.any() else None,
        columns=columns,
        personal=personal_json(event, personal, len(right)) if personal else None,
    )
    return rows_right, right


def _parse(event: type[Event], row: Mapping[str, Any], path: str, problems: list[Problem]) -> dict[str, Any]:
    """Return the stored values of one record; appends all that is wrong to `problems`."""
    values: dict[str, Any] = {"kind": ORIGINAL, "target": None}
    for name in row:
        if not isinstance(name, str) or (name not in ENVELOPE and name not in event.fields):
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
        _guard(path, "event_time", problems, lambda: values.update(event_time=parse_timestamp(row["event_time"])))
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


def _guard(path: str, name: str, problems: list[Problem], read: Callable[[], None]) -> None:
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
    elif CONTROL.search(value):
        problems.append(Problem(f"{path}.{name}", f"expected {WITHOUT_CONTROL}, got {value!r:.80}"))
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
    return f"unknown field; {did_you_mean(name[:80], [*event.fields, *sorted(ENVELOPE)])}"


def _expected(one: Field) -> str:
    article = "an" if one.kind[0] in "aei" else "a"
    return f"{article} {one.kind}" if one.kind != "money" else "an amount in minor units"
