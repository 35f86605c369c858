"""A stream without a broker: messages made by hand, and an inlet over a desk's service that reads them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tests.decisions.desk import REGISTRY, Clock, open_log, open_state
from tests.events.sharded import open_shard

from obligor.decisions.inlet import Available, Inlet, Letter
from obligor.decisions.inlet_metrics import InletMetrics
from obligor.decisions.service import Service
from obligor.events.messages import Message, Stream
from obligor.models.bundle import Bundle

SECONDS_MAX = 60.0
HELD = Available("id-1", 0, 1_000)


def make_service(
    path: Path, bundle: Bundle, clock: Callable[[], int] | None = None, ready: Callable[[], None] = lambda: None
) -> Service:
    """Return a service of the desk that is not started."""
    log, state = open_log(path / "log"), open_state(path / "state", bundle.plan)
    return Service(log, state, bundle, clock=clock or Clock(), ready=ready, parity=None)


def open_service(path: Path, bundle: Bundle, clock: Callable[[], int] | None = None) -> Service:
    """Return a service of the desk that is ready."""
    ready = threading.Event()
    return started(make_service(path, bundle, clock, ready.set), ready)


def started(service: Service, ready: threading.Event) -> Service:
    """Start a service and wait until it is ready."""
    service.start()
    assert ready.wait(SECONDS_MAX)
    wait_until(lambda: service.ready)
    return service


def open_shards(url: str, path: Path, bundle: Bundle, count: int) -> list[Service]:
    """Return the services of a log's shards, ready."""
    services = []
    for shard in range(count):
        ready = threading.Event()
        log, state = open_shard(url, path, shard, REGISTRY), open_state(path / f"state-{shard}", bundle.plan)
        service = Service(log, state, bundle, clock=Clock(), ready=ready.set, parity=None)
        services.append(started(service, ready))
    return services


def wait_until(true: Callable[[], bool], seconds: float = SECONDS_MAX) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def message(offset: int, value: Any, partition: int = 0, topic: str = "payments") -> Message:
    """Return a message; a value that is not bytes or None is JSON."""
    body = value if value is None or isinstance(value, bytes) else msgspec.json.encode(value)
    return Message(topic, partition, offset, b"k", body)


class Reader:
    """An inlet with what it put aside."""

    def __init__(self, service: Service, put_aside: Callable[[Sequence[Letter]], None] | None = None) -> None:
        self.letters: list[Letter] = []
        self.metrics = InletMetrics(service.metrics.registry) if not hasattr(service, "_read") else service._read
        service._read = self.metrics  # type: ignore[attr-defined]  # one registry takes each name once
        self.inlet = Inlet(
            service,
            {"payments": Stream(topic="payments")},
            source="group",
            put_aside=put_aside or self.letters.extend,
            metrics=self.metrics,
        )

    def begin(self, partition: int = 0, available: Available = HELD) -> int:
        """Begin a partition."""
        return self.inlet.begin(("payments", partition), available)

    def through(self, *messages: Message) -> bool:
        """Take messages and wait until nothing is on its way; return whether they went through."""
        self.inlet.take(messages)
        return self.settled()

    def settled(self) -> bool:
        """Wait until nothing is on its way."""
        deadline = time.monotonic() + SECONDS_MAX
        while not self.inlet.idle:
            assert time.monotonic() < deadline
            if not self.inlet.settle(1.0):
                return False
        return True

    def aside(self) -> list[tuple[int, int]]:
        """Return the places of what was put aside, in order."""
        return [(one.message.partition, one.message.offset) for one in self.letters]


def at(service: Service, partition: int = 0, topic: str = "payments", group: str = "group") -> int | None:
    """Return how far a partition is in the log."""
    row = service.log.offset(group, topic, partition)
    return None if row is None else row.following


def ids_of(service: Service, type_name: str = "repayment") -> list[str]:
    """Return the ids of the facts of a type, in the log's order."""
    found: list[str] = service.log.facts(type_name, columns=["event_id"]).rows.column("event_id").to_pylist()
    return found
