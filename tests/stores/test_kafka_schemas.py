"""Payloads and their schemas: older and newer, unknown fields, wrong types, long messages: said, and nothing lost."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest
from tests.decisions.desk import desk_bundle, repayment
from tests.decisions.streamed import at, ids_of, open_service, wait_until
from tests.events.edge import KEY
from tests.events.edge import REGISTRY as EDGE
from tests.stores.registry_server import Registry, serving_schemas
from tests.stores.streaming import LETTERS, Broker, reading, running, settings

from obligor.decisions.intake import Unavailable
from obligor.decisions.service import Service
from obligor.events.messages import Message, Stream, read_messages
from obligor.models.bundle import Bundle
from obligor.stores.kafka.registry import AvroPayloads, RegistryClient, json_schema_payloads

MOMENT = datetime.datetime(2026, 1, 1, 1, 2, 3, 4_000, datetime.UTC)
FIELDS: list[dict[str, Any]] = [
    {"name": "type", "type": "string", "default": "repayment"},
    {"name": "event_id", "type": "string"},
    {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "consumer", "type": "string"},
    {"name": "loan", "type": "string"},
    {"name": "amount", "type": "long"},
]
CHANNEL = {"name": "channel", "type": ["null", {"type": "enum", "name": "Channel", "symbols": ["app", "web"]}]}


def record_schema(*more: dict[str, Any], without: str = "") -> dict[str, Any]:
    fields = [one for one in FIELDS if one["name"] != without]
    return {"type": "record", "name": "Repayment", "fields": [*fields, *more]}


def avro(schema: Any, number: int, record: Any) -> bytes:
    """Return a record in wire format."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), record)
    return struct.pack(">bI", 0, number) + body.getvalue()


def paid(name: str, **more: Any) -> dict[str, Any]:
    moment = datetime.datetime(2025, 12, 31, tzinfo=datetime.UTC)
    record = repayment(name) | {"event_time": moment}
    return record | more


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with serving_schemas() as registry:
        yield registry


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return desk_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with running() as broker:
        broker.create(LETTERS)
        yield broker


@pytest.fixture
def service(tmp_path: Path, bundle: Bundle) -> Iterator[Service]:
    service = open_service(tmp_path, bundle)
    yield service
    service.stop()


def test_older_and_newer_producers_and_every_kind_of_wrong_message(
    broker: Broker, service: Service, registry: Registry
) -> None:
    """The documented outcome of each: docs/operations.md, Kafka."""
    older, newer = record_schema(), record_schema(CHANNEL)
    unknown, lacking = record_schema({"name": "colour", "type": "string"}), record_schema(without="loan")
    wrong = record_schema({"name": "amount", "type": "string"}, without="amount")
    ids = {name: registry.register(one) for name, one in [
        ("older", older), ("newer", newer), ("unknown", unknown), ("lacking", lacking), ("wrong", wrong)
    ]}  # fmt: skip
    taken = [
        avro(older, ids["older"], paid("older")),
        avro(newer, ids["newer"], paid("newer", channel="app")),
        avro(newer, ids["newer"], paid("null", channel=None)),
    ]
    refused = {
        "$.colour: unknown field": avro(unknown, ids["unknown"], paid("unknown", colour="red")),
        "$.loan: missing": avro(lacking, ids["lacking"], paid("lacking")),
        "$.amount: expected": avro(wrong, ids["wrong"], paid("wrong", amount="12")),
        "wire format": json.dumps(repayment("json")).encode(),
        "no schema 999": avro(older, 999, paid("nobody")),
        "not a record of schema": avro(older, ids["older"], paid("cut"))[:-3],
        "left over": avro(older, ids["older"], paid("long")) + b"more",
    }
    broker.create("avro")
    broker.produce("avro", [*taken, *refused.values()], key=None)
    configured = settings(broker, topics=[{"name": "avro", "format": "avro"}], registry=registry.url)
    with reading(service, configured):
        wait_until(lambda: at(service, 0, "avro", "obligor") == len(taken) + len(refused))
        letters = broker.read(LETTERS, len(refused))
    assert ids_of(service) == ["r-older", "r-newer", "r-null"]
    assert [one.value for one in letters] == list(refused.values()), "the original bytes"
    for expected, letter in zip(refused, letters, strict=True):
        (reason,) = json.loads(dict(letter.headers)["obligor-reasons"] or b"")[:1]
        assert expected in f"{reason['path']}: {reason['message']}"
    same = service.log.facts("repayment").rows
    assert same.column("event_time").to_pylist() == [1_767_139_200_000_000] * 3, "as HTTP's 2025-12-31T00:00:00Z"
    assert same.column("channel").to_pylist() == [None, "app", None]


def test_a_long_message_goes_in_or_is_put_aside_whole(broker: Broker, service: Service) -> None:
    padded = json.dumps(repayment("padded")).encode() + b" " * 5_000_000
    wrong = json.dumps(repayment("long", loan="l" * 5_000_000)).encode()
    broker.create("long")
    broker.produce("long", [padded, wrong, repayment("next")], key=None)
    with reading(service, settings(broker, "long")):
        wait_until(lambda: at(service, 0, "long", "long") == 3)
        letters = [
            one for one in broker.read(LETTERS, 100, seconds=3.0) if dict(one.headers)["obligor-topic"] == b"long"
        ]
    assert ids_of(service) == ["r-padded", "r-next"]
    assert [one.value for one in letters] == [wrong]


def test_a_registry_that_does_not_answer_is_waited_for_and_nothing_is_put_aside(
    broker: Broker, service: Service, registry: Registry
) -> None:
    schema = record_schema()
    number = registry.register(schema)
    broker.create("waiting")
    broker.produce("waiting", [avro(schema, number, paid("waiting"))])
    registry.status = 500
    configured = settings(broker, topics=[{"name": "waiting", "format": "avro"}], registry=registry.url)
    with reading(service, configured):
        wait_until(lambda: registry.asked > 0)
        asked = registry.asked
        wait_until(lambda: registry.asked > asked + 1)
        assert at(service, 0, "waiting", "obligor") == 0
        registry.status = 200
        wait_until(lambda: at(service, 0, "waiting", "obligor") == 1)
    assert ids_of(service) == ["r-waiting"]
    assert "dead_letters_total{" not in service.metrics.render().decode()


# ---- without a broker


def decoded(registry: Registry, schema: Any, record: Any) -> Any:
    number = registry.register(schema)
    found = AvroPayloads(RegistryClient(registry.url))([(0, avro(schema, number, record))], False)
    return found.records[0] if found.records else found.broken[0]


def one_field(kind: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": "f", "type": kind}]}


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("long", 2**40, 2**40),
        ("boolean", True, True),
        ("double", 2.5, 2.5),
        (["null", "string"], None, None),
        ({"type": "long", "logicalType": "timestamp-millis"}, MOMENT, "2026-01-01T01:02:03.004000Z"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, decimal.Decimal("12.50"), "12.50"),
        ({"type": "int", "logicalType": "date"}, datetime.date(2026, 1, 31), "2026-01-31"),
        ({"type": "map", "values": "long"}, {"amount": 5}, {"amount": 5}),
        ({"type": "array", "items": "string"}, ["a"], ["a"]),
    ],
)  # fmt: skip
def test_values_become_what_json_has(registry: Registry, kind: Any, value: Any, expected: Any) -> None:
    assert decoded(registry, one_field(kind), {"f": value}) == {"f": expected}


def test_values_that_json_has_not_are_named(registry: Registry) -> None:
    assert "got bytes" in decoded(registry, one_field("bytes"), {"f": b"x"})
    local = {"type": "long", "logicalType": "local-timestamp-micros"}
    assert "whose zone nobody says" in decoded(registry, one_field(local), {"f": datetime.datetime(2026, 1, 1)})
    assert "expected a record" in decoded(registry, {"type": "string"}, "x")


def test_a_schema_is_asked_for_once_and_with_the_password(registry: Registry) -> None:
    schema = record_schema()
    number = registry.register(schema)
    client = RegistryClient(registry.url, ("obligor", "hunter2"))
    before = registry.asked
    values = [(i, avro(schema, number, paid(str(i)))) for i in range(5)]
    assert len(AvroPayloads(client)(values, False).records) == 5
    assert registry.asked == before + 1
    assert (registry.authorization or "").startswith("Basic ")


def test_what_the_registry_holds_may_be_unusable(registry: Registry) -> None:
    client = RegistryClient(registry.url)
    for held, kind, said in (('{"type": "wat"}', "AVRO", "cannot be used"), ("{}", "JSON", "expected an Avro schema")):
        number = registry.register(held, kind)
        found = AvroPayloads(client)([(0, struct.pack(">bI", 0, number) + b"x")], False)
        assert said in found.broken[0]
    registry.status = 503
    with pytest.raises(Unavailable, match="answers 503"):
        client.schema(10_000)
    registry.status = 200
    with pytest.raises(Unavailable, match="does not answer"):
        RegistryClient("http://127.0.0.1:1").schema(1)


def test_json_in_wire_format_is_read_like_json() -> None:
    record = {"type": "repayment", "event_id": "r-1", "event_time": "2026-01-01T00:00:00Z", "consumer": "c",
              "loan": "l", "amount": 5}  # fmt: skip
    body = json.dumps(record).encode()
    streams = {"t": Stream(topic="t", decode=json_schema_payloads)}
    values = [b"\0\0\0\0\7" + body, body, b"\0\0"]
    found = read_messages(streams, [Message("t", 0, i, None, one) for i, one in enumerate(values)], EDGE, KEY)
    assert (found.batch.size, sorted(found.problems)) == (1, [1, 2])
    assert "wire format" in str(found.problems[1][0])
