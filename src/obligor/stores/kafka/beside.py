"""What works beside the service when `[kafka]` is configured: a thread that reads topics, and one that publishes.

Each ends for good only where a person is needed (`obligor_stream_halted`): then HTTP goes on, nothing more is read,
and the reason is in the log at level ERROR.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from obligor.decisions.inlet import Inlet, Letter
from obligor.decisions.inlet_metrics import InletMetrics
from obligor.decisions.intake import Unavailable
from obligor.decisions.outbox import Outbox, Outgoing
from obligor.decisions.service import Service
from obligor.errors import ObligorError
from obligor.events.mapping import load_mappings
from obligor.events.messages import Decoder, Stream, json_payloads
from obligor.stores.kafka.client import LOGGER
from obligor.stores.kafka.consumer import RETRY_S, TopicConsumer
from obligor.stores.kafka.registry import AvroPayloads, RegistryClient, json_schema_payloads
from obligor.stores.kafka.sender import Sender
from obligor.stores.kafka.settings import KafkaSettings, TopicSettings, plain

__all__ = ["KafkaBeside", "dead_letter", "streams_of"]

IDLE_S: Final = 0.01  # between two looks at the ledger
JOIN_S: Final = 60.0


class KafkaBeside:
    """Reads and publishes for one service; a `Companion` of its HTTP application."""

    def __init__(
        self, settings: KafkaSettings, service: Service, root: Path, metrics: InletMetrics | None = None
    ) -> None:
        """`root` is the project's folder, which mapping files are relative to. Raises where the settings are wrong.

        `metrics` are those of the service's registry where they are there already.
        """
        settings.check()
        self._settings, self._service = settings, service
        self.metrics = metrics or InletMetrics(service.metrics.registry)
        self._stopping = threading.Event()
        self._consumer: TopicConsumer | None = None
        self._threads: list[threading.Thread] = []
        self._streams = streams_of(settings, service, root)
        self._outbox: Outbox | None = None
        if settings.topics:
            self._consumer = self._new_consumer()
            self._threads.append(threading.Thread(target=self._read, name="obligor-kafka-inlet", daemon=True))
        if settings.outbox is not None:
            self._outbox = Outbox(
                service,
                Sender(settings).send,
                application=service.application,
                topic=settings.outbox.topic,
                key=settings.outbox.key,
                metrics=self.metrics,
            )
            self._threads.append(threading.Thread(target=self._publish, name="obligor-kafka-outbox", daemon=True))

    def start(self) -> None:
        """Begin; nothing is read before the service is ready."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish what is on its way, leave the group."""
        self._stopping.set()
        if self._consumer is not None:
            self._consumer.stop()
        for thread in self._threads:
            thread.join(JOIN_S)

    # -- in

    def _new_consumer(self) -> TopicConsumer:
        topic = self._settings.dead_letters
        assert topic is not None, "the settings are checked"
        sender = Sender(self._settings)

        def put_aside(letters: Sequence[Letter]) -> None:
            sender.send([dead_letter(topic, letter) for letter in letters])

        inlet = Inlet(
            self._service, self._streams, source=self._settings.group, put_aside=put_aside, metrics=self.metrics
        )
        return TopicConsumer(self._settings, inlet, self.metrics, ready=self._taking)

    def _taking(self) -> bool:
        return self._service.ready

    def _read(self) -> None:
        """Read until stopped; a consumer that could not go on for a passing reason is followed by another."""
        consumer = self._consumer
        assert consumer is not None
        while True:
            try:
                consumer.run()
                return
            except Unavailable as error:
                if self._stopping.wait(RETRY_S):
                    return
                if self._service.failed:
                    self._halt("inlet", error)
                    return
                LOGGER.warning("reading begins again: %s", error)
                self._consumer = consumer = self._new_consumer()
            except BaseException as error:
                self._halt("inlet", error)
                if isinstance(error, ObligorError):
                    return
                raise

    def _halt(self, part: str, error: BaseException) -> None:
        self.metrics.halted(part)
        LOGGER.error("the %s stands still until a person has looked: %s", part, error)

    # -- out

    def _publish(self) -> None:
        outbox = self._outbox
        assert outbox is not None
        try:
            while not self._stopping.is_set():
                self._attempt(outbox.step, IDLE_S)
            self._attempt(outbox.step, 0.0)  # what was decided while stopping, once
            self._attempt(outbox.save, 0.0)
        except BaseException as error:
            self._halt("outbox", error)
            raise

    def _attempt(self, step: Callable[[], bool | None], idle_s: float) -> None:
        """Do one step; what could not be done now is done again later, from where the ledger is published to."""
        try:
            if step() is False:
                self._stopping.wait(idle_s)
        except Unavailable as error:
            LOGGER.warning("decisions wait to be published: %s", error)
            self._stopping.wait(RETRY_S)


def dead_letter(topic: str, letter: Letter) -> Outgoing:
    """Return a message as a dead letter: its own key and bytes, why, and where it was, which is its identity."""
    message = letter.message
    reasons = msgspec.json.encode([{"path": one.path, "message": one.message} for one in letter.problems])
    headers = [
        ("obligor-reasons", reasons),
        ("obligor-topic", message.topic.encode()),
        ("obligor-partition", str(message.partition).encode()),
        ("obligor-offset", str(message.offset).encode()),
    ]
    return Outgoing(topic, message.key, message.value, [*message.headers, *headers])


def streams_of(settings: KafkaSettings, service: Service, root: Path) -> Mapping[str, Stream]:
    """Return how each topic is read."""
    avro: Decoder | None = None
    if settings.registry is not None:
        user, password = settings.registry_user, settings.registry_password
        auth = None
        if user is not None and password is not None:
            auth = (str(plain(user, "$.kafka.registry_user")), str(plain(password, "$.kafka.registry_password")))
        avro = AvroPayloads(RegistryClient(settings.registry, auth))
    return {topic.name: _stream(topic, avro, service, root) for topic in settings.topics}


def _stream(topic: TopicSettings, avro: Decoder | None, service: Service, root: Path) -> Stream:
    decode: Decoder = json_payloads if topic.format == "json" else json_schema_payloads
    if topic.format == "avro":
        assert avro is not None, "the settings are checked"
        decode = avro
    mappings = load_mappings(root / topic.mapping, service.registry) if topic.mapping else []
    own = [one for one in mappings if one.takes(topic.name)]
    return Stream(topic=topic.name, decode=decode, mappings=own, type=topic.type)
