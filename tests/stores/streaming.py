"""A real broker that speaks Kafka's protocol, what producers send to it, and a desk that reads from it."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from prometheus_client import CollectorRegistry, generate_latest
from tests.decisions.streamed import SECONDS_MAX, wait_until

from obligor.cli.local_servers import LocalBroker, free_port
from obligor.decisions.inlet import Inlet, Letter
from obligor.decisions.inlet_metrics import InletMetrics
from obligor.decisions.service import Service
from obligor.errors import ObligorError
from obligor.events.messages import Message, Stream
from obligor.stores.kafka.beside import KafkaBeside
from obligor.stores.kafka.consumer import TopicConsumer
from obligor.stores.kafka.settings import KafkaSettings

SESSION_MS = 6_000  # the shortest that the broker grants
LETTERS = "dead-letters"


class Broker(LocalBroker):
    """A broker in memory on a port of its own; `stop` loses all that it holds."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="broker-"))
        super().__init__(self._folder, free_port())
        self.start()

    def start(self) -> None:
        """Start with nothing in it."""
        self._folder.mkdir(exist_ok=True)
        super().start()

    def stop(self) -> None:
        """Kill it."""
        self.kill()
        shutil.rmtree(self._folder)

    def create(self, topic: str, partitions: int = 1) -> None:
        """Make a topic."""
        admin = AdminClient({"bootstrap.servers": self.address})
        admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])[topic].result(10)

    def delete(self, topic: str) -> None:
        """Delete a topic."""
        admin = AdminClient({"bootstrap.servers": self.address})
        admin.delete_topics([topic])[topic].result(10)

    def produce(
        self,
        topic: str,
        values: Sequence[Any],
        *,
        partition: int = 0,
        key: bytes | None = b"k",
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Send values, JSON unless they are bytes or None; returns when all are acknowledged."""
        producer = Producer({"bootstrap.servers": self.address, "message.max.bytes": 20_000_000, "linger.ms": 0})
        for value in values:
            body = value if value is None or isinstance(value, bytes) else msgspec.json.encode(value)
            producer.produce(topic, body, key, partition, headers=list(headers))
            producer.poll(0)
        assert producer.flush(SECONDS_MAX) == 0

    def read(self, topic: str, count: int, *, partitions: int = 1, seconds: float = SECONDS_MAX) -> list[Message]:
        """Return the first `count` messages of a topic, fewer where no more come in time."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": f"look-{time.monotonic_ns()}"})
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        found: list[Message] = []
        deadline = time.monotonic() + seconds
        while len(found) < count and time.monotonic() < deadline:
            one = consumer.poll(0.1)
            if one is not None and one.error() is None:
                headers: Any = one.headers() or []
                found.append(Message(topic, one.partition() or 0, one.offset() or 0, one.key(), one.value(), headers))
        consumer.close()
        return found


@contextmanager
def running() -> Iterator[Broker]:
    """Run a broker."""
    broker = Broker()
    try:
        yield broker
    finally:
        broker.stop()


def settings(broker: Broker, *topics: str, **more: Any) -> KafkaSettings:
    """Return settings for these topics of records; the group has the first one's name, so that tests share none."""
    table = {
        "brokers": broker.address,
        "group": topics[0] if topics else "obligor",
        "topics": [{"name": topic} for topic in topics],
        "dead_letters": LETTERS,
        "options": {"session.timeout.ms": SESSION_MS, "allow.auto.create.topics": False},
    }
    return msgspec.convert({**table, **more}, KafkaSettings)


@contextmanager
def reading(service: Service, configured: KafkaSettings, root: Path = Path()) -> Iterator[KafkaBeside]:
    """Read topics into a service."""
    beside = KafkaBeside(configured, service, root)
    beside.start()
    try:
        yield beside
    finally:
        beside.stop()


class Member:
    """One consumer of the group on a thread of its own, with what it put aside and how it ended."""

    def __init__(self, service: Service, configured: KafkaSettings, streams: dict[str, Stream] | None = None) -> None:
        self.letters: list[Letter] = []
        self._registry = CollectorRegistry()
        self.metrics = InletMetrics(self._registry)
        self.inlet = Inlet(
            service,
            streams or {topic.name: Stream(topic=topic.name) for topic in configured.topics},
            source=configured.group,
            put_aside=self.letters.extend,
            metrics=self.metrics,
        )
        self.consumer = TopicConsumer(configured, self.inlet, self.metrics, batch_messages_max=50)
        self.error: ObligorError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.consumer.run()
        except ObligorError as error:
            self.error = error

    def __enter__(self) -> Member:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.consumer.stop()
        self._thread.join(SECONDS_MAX)
        assert not self._thread.is_alive()

    def joined(self) -> None:
        """Wait until partitions are assigned."""
        wait_until(lambda: self.consumer.reading)

    def shows(self, line: str) -> bool:
        """Return whether the metrics hold a line that begins so."""
        return f"\n{line}" in generate_latest(self._registry).decode()
