"""The service's interface as OpenAPI 3.1, generated from the project's event classes.

What `/openapi.json` serves and the `/docs` page shows. It describes exactly what the edge accepts: a test parses each
generated example, and one checks every route of the application against the paths here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from obligor.events.fields import Boolean, Category, Decimal, Entity, Field, Integer, Money, Text, Timestamp
from obligor.events.records import ID_LENGTH_MAX
from obligor.events.schema import OUTCOMES, Event, Registry

__all__ = ["describe", "example"]

Schema = dict[str, Any]

_MOMENT = "2026-01-31T09:30:00Z"
_WITHOUT_CONTROL = r"^[^\u0000-\u001f]*$"  # by ECMA-262, where $ is the very end, as JSON Schema has it
_ERRORS = {
    400: "The body is not JSON, or not what the path expects",
    401: "The API key is missing or unknown",
    404: "No such thing",
    408: "The body took too long to arrive",
    409: "The id is known with other content",
    413: "The body is too long",
    422: "A record is wrong; every problem is listed with its path",
    503: "Not ready, or too busy: nothing was written; try again later",
}


def describe(registry: Registry, application: str, *, title: str = "Obligor", version: str = "1") -> Schema:
    """Return the OpenAPI document; `application` is the event type that asks for a decision."""
    events = [event for event in registry if not registry.is_platform_type(event.event_name)]
    schemas = {_name(one, event): _event_schema(one, event) for event in events for one in event.lineage.values()}
    schemas |= {"Retraction": _retraction(), "Errors": _errors(), "EventResult": _event_result()}
    schemas |= {"EventResults": _event_results(), "Decision": _decision(), "Verdict": _verdict()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "description": "Events in, explained and replayable credit decisions out.",
        },
        "security": [{"bearer": []}, {"header": []}],
        "paths": _paths(events, registry[application]),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def example(event: type[Event]) -> dict[str, Any]:
    """Return a record of this type that the edge accepts."""
    record: dict[str, Any] = {"type": event.event_name, "event_id": f"{event.event_name}-1", "event_time": _MOMENT}
    return record | {name: _example(field) for name, field in event.fields.items() if not field.optional}


def _paths(events: list[type[Event]], application: type[Event]) -> Schema:
    one: Schema = {"oneOf": [*(form for event in events for form in _forms(event)), _reference("Retraction")]}
    asked = _forms(application)
    many = [example(event) for event in events[:3]]
    identifier = {"name": "decision_id", "in": "path", "required": True, "schema": {"type": "string"}}
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The application's event_id; it may be given here instead of in the body.",
        "schema": _key(ID_LENGTH_MAX),
    }
    text = {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
    text_field: Schema = {"type": "string"}
    state = {"type": "object", "properties": {"status": text_field}}
    move = {"type": ["object", "null"], "properties": dict.fromkeys(("bundle", "status", "error"), text_field)}
    ready = {"type": "object", "properties": {"status": text_field, "bundle": text_field, "move": move}}
    return {
        "/v1/events": _operation(
            "post",
            "Append events: one, or an array of them",
            "Every event has its own result. An event sent again with the same content is a `duplicate`, which is "
            "as good as `accepted`; with other content it is a `conflict`. 200 when all are accepted or duplicates, "
            "207 when some of many are not.",
            {200: _json("EventResults"), 207: _json("EventResults")},
            (400, 401, 408, 409, 413, 422, 503),
            body={"oneOf": [one, {"type": "array", "items": one}]},
            sample=many if len(many) > 1 else many[0],
        ),
        "/v1/decisions": _operation(
            "post",
            f"Decide on a {application.event_name}",
            "The application and its decision are on disk before the answer is sent. The application's event_id is "
            "its idempotency key: sent again, the recorded decision is answered.",
            {200: _json("Decision")},
            (400, 401, 408, 409, 413, 422, 503),
            body=asked[0] if len(asked) == 1 else {"oneOf": asked},
            sample=example(application),
            parameters=[key],
        ),
        "/v1/decisions/{decision_id}": _operation(
            "get",
            "Read a decision with its full record",
            "The record holds everything that replay needs: features, cut, bundle, seed, trace.",
            {200: _json("Decision")},
            (401, 404, 503),
            parameters=[identifier],
        ),
        "/v1/decisions/{decision_id}/replay": _operation(
            "post",
            "Compute a decision again from the log",
            "Through the offline path, without online state; the verdict says whether the bytes are identical.",
            {200: _json("Verdict")},
            (401, 404, 503),
            parameters=[identifier],
        ),
        "/healthz": _operation("get", "Whether the process can go on", "", {200: _json(state)}, (503,)),
        "/readyz": _operation(
            "get", "Whether decisions are served, by which bundle, and how it moved", "", {200: _json(ready)}, (503,)
        ),
        "/metrics": _operation("get", "Metrics", "", {200: text}, (401,)),
    }


def _operation(
    method: str,
    summary: str,
    description: str,
    answers: Mapping[int, Schema],
    errors: tuple[int, ...],
    *,
    body: Schema | None = None,
    sample: object = None,
    parameters: list[Schema] | None = None,
) -> Schema:
    responses = {str(status): answer for status, answer in answers.items()}
    responses |= {str(status): {**_json("Errors"), "description": _ERRORS[status]} for status in errors}
    operation: Schema = {"summary": summary, "description": description, "responses": responses}
    if 401 not in errors:
        operation["security"] = []
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        content = {"application/json": {"schema": body, "example": sample}}
        operation["requestBody"] = {"required": True, "content": content}
    return {method: operation}


def _json(schema: str | Schema) -> Schema:
    content = _reference(schema) if isinstance(schema, str) else schema
    return {"description": "Done", "content": {"application/json": {"schema": content}}}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _identifier(description: str) -> Schema:
    return {**_key(ID_LENGTH_MAX), "description": description}


def _key(longest: int) -> Schema:
    """Return the schema of an id or an entity's key."""
    return {"type": "string", "minLength": 1, "maxLength": longest, "pattern": _WITHOUT_CONTROL}


def _name(version: type[Event], newest: type[Event]) -> str:
    """Return the name of a version's schema: an older one's with its number."""
    return newest.event_name if version is newest else f"{newest.event_name}.v{version.version}"


def _forms(event: type[Event]) -> list[Schema]:
    """Return the schemas that a record of a type may have, the newest version's first."""
    return [_reference(_name(one, event)) for one in [*event.lineage.values()][::-1]]


def _event_schema(event: type[Event], newest: type[Event]) -> Schema:
    properties: Schema = {
        "type": {"const": event.event_name},
        "version": {"const": event.version, "description": "Of the type that the record is written in"},
        "event_id": _identifier("Unique across the log; the same event may be sent again"),
        "event_time": {"type": "string", "format": "date-time", "description": "When it happened; with a zone"},
        "corrects": _identifier("The id of the event that this one replaces; it carries the whole new fact"),
    }
    properties |= {name: _field_schema(field) for name, field in event.fields.items()}
    required = [name for name, field in event.fields.items() if not field.optional]
    return {
        "type": "object",
        "description": (event.__doc__ or "").strip(),
        "properties": properties,
        "required": ["type", *([] if event is newest else ["version"]), "event_id", "event_time", *required],
        "additionalProperties": False,
    }


def _field_schema(field: Field) -> Schema:
    schema = _value_schema(field)
    notes = [field.doc, *(["Personal: stored encrypted, never a feature."] if field.personal else [])]
    notes += ["Protected: stored, never a feature."] if field.protected else []
    text = " ".join(note for note in notes if note)
    return {**schema, **({"description": text} if text else {})}


def _value_schema(field: Field) -> Schema:
    match field:
        case Entity():
            return _key(Entity.LENGTH_MAX)
        case Money():
            return _money_schema(field)
        case Decimal():
            return {"type": ["string", "integer"], "description": f"At most {field.scale} places after the point"}
        case Integer():
            bounds = {"minimum": field.minimum, "maximum": field.maximum}
            return {"type": "integer", **{name: bound for name, bound in bounds.items() if bound is not None}}
        case Boolean():
            return {"type": "boolean"}
        case Category():
            closed = {"enum": list(field.values)} if field.values else {"minLength": 1}
            return {"type": "string", "maxLength": Category.LENGTH_MAX, **closed}
        case Timestamp():
            return {"type": "string", "format": "date-time"}
        case Text():
            return {"type": "string", "maxLength": field.length_max}
    raise AssertionError(f"a field of unknown kind: {field!r}")


def _money_schema(field: Money) -> Schema:
    amount = {"type": "integer", **({} if field.negative else {"minimum": 0})}
    tagged = {
        "type": "object",
        "properties": {"amount": amount, "currency": {"enum": list(field.currencies)}},
        "required": ["amount", "currency"],
        "additionalProperties": False,
    }
    if len(field.currencies) > 1:
        return tagged
    return {"oneOf": [{**amount, "description": f"Minor units of {field.currencies[0]}"}, tagged]}


def _example(field: Field) -> object:
    match field:
        case Money():
            return {"amount": 1200, "currency": field.currencies[0]} if len(field.currencies) > 1 else 1200
        case Integer():
            return field.minimum if field.minimum is not None else min(1, field.maximum or 1)
        case Category():
            return field.values[0] if field.values else "web"
        case Decimal():
            return "12.5" if field.scale else "12"
        case Boolean():
            return True
        case Timestamp():
            return _MOMENT
        case Text():
            return "text"[: field.length_max]
    return f"{field.name}-1"


def _retraction() -> Schema:
    return {
        "type": "object",
        "description": "Takes a fact back as a whole.",
        "properties": {
            "type": {"type": "string", "description": "The fact's own type"},
            "version": {"type": "integer"},
            "event_id": _identifier("Of this retraction"),
            "event_time": {"type": "string", "format": "date-time"},
            "retracts": _identifier("The id of the event that is taken back"),
        },
        "required": ["type", "event_id", "retracts"],
        "additionalProperties": False,
    }


def _errors() -> Schema:
    problem = {
        "type": "object",
        "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
        "required": ["path", "message"],
    }
    return {"type": "object", "properties": {"errors": {"type": "array", "items": problem}}, "required": ["errors"]}


def _event_result() -> Schema:
    statuses = ["accepted", "duplicate", "conflict", "rejected", "invalid"]
    return {
        "type": "object",
        "properties": {
            "event_id": {"type": ["string", "null"]},
            "status": {"enum": statuses},
            "position": {"type": "integer", "description": "Its place in the log; of a duplicate, the first one's"},
            "errors": _errors()["properties"]["errors"],
        },
        "required": ["event_id", "status"],
    }


def _event_results() -> Schema:
    results = {"type": "array", "items": _reference("EventResult")}
    return {"type": "object", "properties": {"events": results}, "required": ["events"]}


def _decision() -> Schema:
    moment = {"type": "string", "format": "date-time"}
    reason = {"type": "object", "properties": {"code": {"type": "string"}, "text": {"type": "string"}}}
    offer = {
        "type": ["object", "null"],
        "properties": {
            "amount": {"type": "integer", "description": "Minor units"},
            "currency": {"type": "string"},
            "expires_at": moment,
        },
    }
    return {
        "type": "object",
        "properties": {
            "decision_id": {"type": "string"},
            "application_id": {"type": "string"},
            "as_of": moment,
            "outcome": {"enum": list(OUTCOMES)},
            "offer": offer,
            "reasons": {"type": "array", "items": reason},
            "pd": {"type": ["number", "null"], "description": "Probability of default"},
            "rung": {"type": "string"},
            "bundle": {"type": "string"},
            "record": {"type": "object", "description": "The whole record; with GET only"},
        },
        "required": ["decision_id", "application_id", "as_of", "outcome", "offer", "reasons"],
    }


def _verdict() -> Schema:
    return {
        "type": "object",
        "properties": {
            "decision_id": {"type": "string"},
            "verdict": {"enum": ["identical", "differs", "not replayable"]},
            "fields": {"type": "array", "items": {"type": "string"}},
            "why": {"type": "string"},
        },
        "required": ["decision_id", "verdict"],
    }
