"""The description of the interface says what the edge accepts."""

from __future__ import annotations

import json
import re

import pytest
from tests.decisions.desk import REGISTRY

from obligor.decisions.openapi import describe, example
from obligor.events.fields import Boolean, Category, Decimal, Entity, Integer, Money, Text, Timestamp
from obligor.events.records import parse_records
from obligor.events.schema import Event, Registry


class Everything(Event):
    """One field of each kind."""

    who = Entity("consumer", doc="whom it is about")
    price = Money("NGN")
    paid = Money("NGN", "KES", negative=True)
    rate = Decimal(2)
    whole = Decimal(0)
    count = Integer(3, 9)
    below = Integer(maximum=-4)
    sure = Boolean()
    colour = Category("red", "blue")
    open = Category()
    at = Timestamp(protected=True)
    note = Text(3, personal=True)
    maybe = Text(optional=True)


EVERYTHING = Registry([Everything, *[event for event in REGISTRY if event.application]])


@pytest.mark.parametrize("event", [Everything, *[e for e in REGISTRY if not REGISTRY.is_platform_type(e.event_name)]])
def test_every_example_is_accepted(event: type[Event]) -> None:
    registry = EVERYTHING if event is Everything else REGISTRY
    batch, problems = parse_records(registry, example(event), commitment_key=b"k" * 32)
    assert (batch.size, problems) == (1, {})


def test_fields_are_described_with_their_bounds() -> None:
    schema = describe(EVERYTHING, "loan_application")["components"]["schemas"]["everything"]
    fields = schema["properties"]
    assert (fields["who"]["minLength"], fields["who"]["maxLength"]) == (1, 200)
    assert fields["who"]["description"] == "whom it is about"
    assert fields["price"]["oneOf"][0] == {"type": "integer", "minimum": 0, "description": "Minor units of NGN"}
    assert fields["paid"]["properties"]["currency"] == {"enum": ["NGN", "KES"]}
    assert "minimum" not in fields["paid"]["properties"]["amount"]
    assert (fields["count"]["minimum"], fields["count"]["maximum"]) == (3, 9)
    assert fields["colour"]["enum"] == ["red", "blue"]
    assert fields["at"] == {
        "type": "string",
        "format": "date-time",
        "description": "Protected: stored, never a feature.",
    }
    assert fields["note"]["description"] == "Personal: stored encrypted, never a feature."
    assert "maybe" not in schema["required"]
    assert "who" in schema["required"]
    assert schema["description"] == "One field of each kind."


@pytest.mark.parametrize("name", ["who", "event_id", "corrects"])
@pytest.mark.parametrize("key", ["c-1", "ключ 1", "c\x7f1", "c\x001", "c\x1f1", "\tc", "c\n"])
def test_a_key_without_control_characters_is_said_as_it_is_held(name: str, key: str) -> None:
    schema = describe(EVERYTHING, "loan_application")["components"]["schemas"]["everything"]
    said = re.compile(schema["properties"][name]["pattern"].replace("$", r"\Z"))  # Python's $ lets a line break follow
    record = {**example(Everything), name: key}
    _, problems = parse_records(EVERYTHING, record, commitment_key=b"k" * 32)
    assert (said.search(key) is not None) == (problems == {})


def test_older_versions_of_a_type_are_described_beside_it() -> None:
    class AskV1(Event, name="ask", application=True):
        """As it was."""

        who = Entity("consumer")

    class Ask(Event, application=True, version=2, previous=AskV1):
        """As it is."""

        who = Entity("consumer")
        note = Text(optional=True)

    registry = Registry([Ask])
    document = describe(registry, "ask")
    newest, older = (document["components"]["schemas"][name] for name in ("ask", "ask.v1"))
    assert (newest["properties"]["version"]["const"], older["properties"]["version"]["const"]) == (2, 1)
    assert ("version" in newest["required"], "version" in older["required"]) == (False, True)
    assert ("note" in newest["properties"], "note" in older["properties"]) == (True, False)
    body = document["paths"]["/v1/decisions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("ask", "ask.v1")]}
    for record in (example(Ask), {**example(AskV1), "version": 1}):
        assert parse_records(registry, record, commitment_key=b"k" * 32)[1] == {}


def test_platform_types_are_not_offered_and_references_resolve() -> None:
    document = describe(REGISTRY, "loan_application")
    schemas = document["components"]["schemas"]
    assert "loan_application_decided" not in schemas
    text = json.dumps(document)
    used = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert used <= set(schemas)
    assert {"Errors", "Decision", "Verdict", "EventResults", "Retraction", "repayment"} <= used
