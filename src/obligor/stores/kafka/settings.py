"""`[kafka]` in obligor.toml: which topics come in, how they are read, and where dead letters and decisions go.

    [kafka]
    brokers = "broker-1:9093,broker-2:9093"
    group = "obligor"
    dead_letters = "obligor.dead-letters"
    registry = "https://registry:8081"

    [kafka.options]                     # of librdkafka, passed on as they are
    "security.protocol" = "SASL_SSL"
    "sasl.mechanisms" = "SCRAM-SHA-512"
    "sasl.username" = "obligor"
    "sasl.password" = { env = "KAFKA_PASSWORD" }

    [[kafka.topics]]
    name = "payments"
    format = "avro"
    mapping = "mapping.toml"            # or type = "repayment", or neither: records say their type

    [kafka.outbox]
    topic = "decisions"
    key = "consumer"

    [kafka.outcomes]
    topic = "outcomes"
    key = "consumer"

A secret is better named than written: `{ env = "NAME" }` takes it from the environment. Neither is ever printed.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Final, Literal

import msgspec

from obligor.errors import BadInput, Problem

__all__ = ["OWNED", "KafkaSettings", "OutboxSettings", "OutcomeSettings", "TopicSettings", "Value", "plain"]

# Options that correctness rests on, and what they are in this file.
OWNED: Final = {
    "bootstrap.servers": "kafka.brokers",
    "metadata.broker.list": "kafka.brokers",
    "group.id": "kafka.group",
    "auto.offset.reset": "kafka.start",
    "enable.auto.commit": "nothing: the log holds the offsets",
    "enable.auto.offset.store": "nothing: the log holds the offsets",
    "enable.idempotence": "nothing: it is always on",
    "acks": "nothing: it is always all",
    "partition.assignment.strategy": "nothing: it is always range",
    "group.protocol": "nothing: it is always classic",
}


class FromEnvironment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value that the environment holds."""

    env: str


Value = str | int | bool | FromEnvironment


class TopicSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[[kafka.topics]]`: one topic that comes in."""

    name: str
    format: Literal["json", "json-schema", "avro"] = "json"  # the last two in the schema registry's wire format
    type: str | None = None  # of records that do not say their type
    mapping: str | None = None  # a file of mappings, relative to the project; without one a message is a record


class OutboxSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[kafka.outbox]`: where decisions are published."""

    topic: str
    key: str = "consumer"  # the application's entity whose decisions stay in order


class OutcomeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[kafka.outcomes]`: where outcomes are published once they are settled."""

    topic: str
    key: str = "consumer"  # the application's entity whose outcomes stay in order
    every_s: Annotated[float, msgspec.Meta(gt=0)] = 3600.0  # between two rounds


class KafkaSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[kafka]`; see the module. Its text names no value of an option."""

    brokers: str
    group: str = "obligor"  # also names the offsets in the log
    start: Literal["earliest", "latest"] = "earliest"  # where a partition begins that the log knows nothing of
    topics: list[TopicSettings] = []
    dead_letters: str | None = None  # topic; needed with topics
    registry: str | None = None  # URL of the schema registry
    registry_user: Value | None = None
    registry_password: Value | None = None
    options: dict[str, Value] = {}
    outbox: OutboxSettings | None = None
    outcomes: OutcomeSettings | None = None

    def __repr__(self) -> str:
        return f"KafkaSettings(brokers={self.brokers!r}, group={self.group!r}, options={sorted(self.options)})"

    def check(self) -> None:
        """Raise BadInput with all that is wrong and can be seen without a broker."""
        problems = [
            Problem(f"$.kafka.options.{name}", f"this option is set by {OWNED[name]}")
            for name in self.options
            if name in OWNED
        ]
        names = [topic.name for topic in self.topics]
        problems += [
            Problem(f"$.kafka.topics[{i}].name", f"topic {name!r} is here twice")
            for i, name in enumerate(names)
            if name in names[:i]
        ]
        if self.topics and self.dead_letters is None:
            problems.append(
                Problem("$.kafka.dead_letters", "missing; expected a topic for messages that give no event")
            )
        going = [("dead_letters", self.dead_letters)]
        going += [
            (f"{what}.topic", one.topic) for what, one in (("outbox", self.outbox), ("outcomes", self.outcomes)) if one
        ]
        for what, name in going:
            if name is not None and name in names:
                problems.append(Problem(f"$.kafka.{what}", f"topic {name!r} comes in as well: it would feed itself"))
        if self.outbox and self.outcomes and self.outbox.topic == self.outcomes.topic:
            problems.append(Problem("$.kafka.outcomes.topic", "expected another topic than the decisions'"))
        for i, topic in enumerate(self.topics):
            if topic.format != "json" and self.registry is None:
                problems.append(
                    Problem("$.kafka.registry", f"missing; topic {topic.name!r} has format {topic.format!r}")
                )
            if topic.type is not None and topic.mapping is not None:
                problems.append(Problem(f"$.kafka.topics[{i}].type", "a mapping says the type; give one of the two"))
        if not self.topics and self.outbox is None and self.outcomes is None:
            expected = "expected [[kafka.topics]], [kafka.outbox] or [kafka.outcomes], got none"
            problems.append(Problem("$.kafka", expected))
        if problems:
            raise BadInput(problems)

    def client(self, **owned: Any) -> dict[str, Any]:
        """Return the configuration of a client of librdkafka."""
        options = {name: plain(value, f"$.kafka.options.{name}") for name, value in self.options.items()}
        return {**options, "bootstrap.servers": self.brokers, **owned}

    def secrets(self) -> list[str]:
        """Return what must never be printed."""
        values = [*self.options.values(), self.registry_user, self.registry_password]
        return [str(plain(value, "$")) for value in values if isinstance(value, str | FromEnvironment)]


def plain(value: Value, path: str) -> str | int | bool:
    """Return a value, from the environment where it says so; BadInput where the variable is not set."""
    if not isinstance(value, FromEnvironment):
        return value
    found = os.environ.get(value.env)
    if found is None:
        raise BadInput(Problem(path, f"expected the environment variable {value.env}, which is not set"))
    return found
