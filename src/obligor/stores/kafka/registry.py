"""The schema registry's wire format: a zero byte, the schema's id (4 bytes, big-endian), then the payload.

Avro payloads are read with the schema that wrote them, which the registry knows by that id and never changes; so a
producer on an older or a newer schema is read exactly, and what then fits the event type is for the same checks to say
that HTTP's records pass. Source: docs.confluent.io, "Wire format"; Apache Avro 1.11, "Logical Types".
"""

from __future__ import annotations

import datetime
import decimal
import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import httpx
import msgspec

from obligor.decisions.answers import moment
from obligor.decisions.intake import Unavailable
from obligor.errors import BadInput
from obligor.events.messages import Decoded, json_payloads

__all__ = ["AvroPayloads", "RegistryClient", "json_schema_payloads"]

_HEADER: Final = struct.Struct(">bI")
_SECONDS_MAX = 10.0
_SCHEMAS_MAX = 10_000
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


class Schemas(Protocol):
    """Where schemas come from."""

    def schema(self, number: int) -> Any:
        """Return the parsed schema with this id; BadInput where there is none, Unavailable where nobody answers."""


class RegistryClient:
    """Asks a schema registry for Avro schemas, each once."""

    def __init__(self, url: str, auth: tuple[str, str] | None = None) -> None:
        self._client = httpx.Client(base_url=url, auth=auth, timeout=_SECONDS_MAX)
        self._known: dict[int, Any] = {}

    def schema(self, number: int) -> Any:
        """Return the parsed schema with this id; BadInput where there is none, Unavailable where nobody answers."""
        if number not in self._known:
            if len(self._known) >= _SCHEMAS_MAX:
                self._known.clear()
            self._known[number] = self._fetched(number)
        return self._known[number]

    def _fetched(self, number: int) -> Any:
        from fastavro import parse_schema
        from fastavro.schema import SchemaParseException, UnknownType

        try:
            answer = self._client.get(f"/schemas/ids/{number}")
        except httpx.HTTPError as error:
            raise Unavailable(f"the schema registry does not answer: {type(error).__name__}") from None
        if answer.status_code == 404:
            raise BadInput(f"the schema registry has no schema {number}")
        if answer.status_code != 200:
            raise Unavailable(f"the schema registry answers {answer.status_code} to the question for schema {number}")
        try:
            found = answer.json()
            if found.get("schemaType", "AVRO") != "AVRO":
                raise BadInput(f"expected an Avro schema, and schema {number} is of type {found['schemaType']!r:.80}")
            return parse_schema(msgspec.json.decode(found["schema"]))
        except (ValueError, KeyError, TypeError, SchemaParseException, UnknownType) as error:
            raise BadInput(f"schema {number} of the registry cannot be used: {error}") from None


def _framed(value: bytes) -> tuple[int, bytes]:
    """Return schema id and payload of a message in wire format."""
    if len(value) < _HEADER.size or value[0]:
        raise BadInput(f"expected the registry's wire format (a zero byte and a schema id), got {value[:5]!r}")
    return _HEADER.unpack_from(value)[1], value[_HEADER.size :]


def json_schema_payloads(values: Sequence[tuple[int, bytes]], text_floats: bool) -> Decoded:
    """Decode payloads of one JSON object each, in wire format; the event type says what is right, not the schema."""
    unframed, broken = [], {}
    for place, value in values:
        try:
            unframed.append((place, _framed(value)[1]))
        except BadInput as error:
            broken[place] = str(error)
    found = json_payloads(unframed, text_floats)
    return found._replace(broken=found.broken | broken)


class AvroPayloads:
    """Decodes Avro records in wire format into objects as JSON has them."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas

    def __call__(self, values: Sequence[tuple[int, bytes]], text_floats: bool) -> Decoded:
        """Decode; Unavailable where a schema cannot be had now, so that nothing is taken for wrong that is not."""
        records, places, broken = [], [], {}
        for place, value in values:
            try:
                records.append(self._record(value))
                places.append(place)
            except BadInput as error:
                broken[place] = str(error)
        return Decoded(records, places, broken)

    def _record(self, value: bytes) -> dict[str, Any]:
        from fastavro import schemaless_reader

        number, payload = _framed(value)
        stream = io.BytesIO(payload)
        try:
            record = schemaless_reader(stream, self._schemas.schema(number), None)
        except (EOFError, ValueError, LookupError, TypeError, OverflowError, UnicodeDecodeError) as error:
            raise BadInput(f"not a record of schema {number}: {type(error).__name__}: {error}") from None
        if stream.read(1):
            raise BadInput(f"not a record of schema {number}: bytes are left over")
        if not isinstance(record, dict):
            raise BadInput(f"expected a record, and schema {number} is of {type(record).__name__}")
        return {name: _json(one, name) for name, one in record.items() if one is not None or name != "version"}


def _json(value: Any, name: str) -> Any:
    """Return a value of Avro as JSON has it: moments as RFC 3339, decimals as text."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            raise BadInput(f"{name}: expected a moment in UTC, got a local time, whose zone nobody says")
        return moment((value - _EPOCH) // _MICROSECOND)
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {key: _json(one, f"{name}.{key}") for key, one in value.items()}
    if isinstance(value, list):
        return [_json(one, name) for one in value]
    raise BadInput(f"{name}: expected text, a number, true or false, a moment or a decimal, got {type(value).__name__}")
