"""The consumer: partitions of a group, read into an `Inlet` from where the log says.

The group only says which partitions are this consumer's. Offsets are committed to the broker as well, for those who
watch lag there, and never read back. While the writer is busy the partitions are paused and the group is still
answered. Whatever goes wrong on the way ends in one thing: drop what is not durable and read again from the log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka import Message as Received
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from obligor.decisions.inlet import Available, Inlet, Place, TopicReset, check
from obligor.decisions.inlet_metrics import InletMetrics
from obligor.decisions.intake import Unavailable
from obligor.errors import ObligorError
from obligor.events.messages import Message
from obligor.stores.kafka.client import LOGGER, made, redacted
from obligor.stores.kafka.settings import KafkaSettings

__all__ = ["TopicConsumer"]

BATCH_MESSAGES_MAX: Final = 2_000
WAIT_S: Final = 0.05  # for a message, or for a batch to be durable
LOOK_S: Final = 2.0  # between two looks at lag and at what the broker holds
RETRY_S: Final = 1.0
REQUEST_S: Final = 5.0  # that the broker may take to say what it holds
_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # what brokers before 2.8 say
_PASSING = (KafkaError._PARTITION_EOF, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT)
_QUEUED_KILOBYTES = 65_536


class TopicConsumer:
    """One member of the group; `run` reads until `stop` or until a person is needed."""

    def __init__(
        self,
        settings: KafkaSettings,
        inlet: Inlet,
        metrics: InletMetrics,
        *,
        ready: Callable[[], bool] = lambda: True,
        batch_messages_max: int = BATCH_MESSAGES_MAX,
    ) -> None:
        """`ready`: whether the service takes events; until then the group is not joined."""
        self._settings, self._inlet, self._metrics, self._ready = settings, inlet, metrics, ready
        self._topics = [topic.name for topic in settings.topics]
        self._batch_messages_max = batch_messages_max
        self._stopping = threading.Event()
        self._broken: ObligorError | None = None  # raised in a callback of librdkafka, for `run` to raise
        self._paused = self._again = False
        self._held: list[Message] = []
        self._committed: dict[Place, int] = {}
        self._look_s = 0.0
        self.reading = False  # whether partitions are assigned
        owned = {
            "group.id": settings.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "partition.assignment.strategy": "range",
            "logger": LOGGER,
        }
        limits = {"queued.max.messages.kbytes": _QUEUED_KILOBYTES}
        self._consumer = made(settings, lambda: Consumer({**limits, **settings.client(**owned)}))
        self._admin = made(settings, lambda: AdminClient(settings.client(logger=LOGGER)))

    def stop(self) -> None:
        """Have `run` end soon; may be called from any thread."""
        self._stopping.set()

    def run(self) -> None:
        """Read until stopped. TopicReset where a person has to say how to go on.

        Unavailable when the writer failed, or where this member cannot go on and another one can.
        """
        try:
            while not self._ready() and not self._stopping.wait(WAIT_S):
                pass
            self._consumer.subscribe(
                self._topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
            )
            while not self._stopping.is_set():
                self._step()
            self._inlet.restart()  # what is on its way is durable or dropped
            self._commit()
        except KafkaException as error:
            raise Unavailable(redacted(self._settings, error)) from None
        finally:
            self._consumer.close()

    # -- the loop

    def _step(self) -> None:
        if self._again:
            self._read_again()
        try:
            self._read()
        except TopicReset:
            raise
        except Unavailable as error:
            if self._inlet.failed:
                raise
            LOGGER.warning("reading begins again from the log: %s", error)
            self._stopping.wait(RETRY_S)
            self._again = True
        if self._broken is not None:
            raise self._broken
        self._look()

    def _read(self) -> None:
        """Take what has come where there is room for it; else wait for the writer, the partitions paused."""
        if not self._inlet.settle(0.0 if self._inlet.room else WAIT_S):
            LOGGER.warning("somebody else has gone on with these partitions, or the broker repeats itself")
            self._again = True
            return
        self._pause(not self._inlet.room)
        if self._paused:
            self._held += self._received(0.0)  # answers the group; what was under way is kept for later
            return
        messages = self._held + self._received(0.002 if not self._inlet.idle else WAIT_S)
        self._held = []
        if messages and not self._again:
            self._inlet.take(messages)

    def _received(self, seconds: float) -> list[Message]:
        """Return what has come, waiting for the first message only."""
        first = self._consumer.poll(seconds)
        if first is None:
            return []
        came = [first, *self._consumer.consume(self._batch_messages_max - 1, 0.0)]
        return [_message(one) for one in came if self._right(one)]

    def _right(self, message: Received) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise TopicReset(f"{message.topic()}[{message.partition()}]: {redacted(self._settings, _raised(error))}")
        if error.fatal():
            raise _raised(error)
        if error.code() not in _PASSING:
            LOGGER.warning("the broker says: %s", redacted(self._settings, _raised(error)))
        return False

    def _pause(self, paused: bool) -> None:
        if paused == self._paused:
            return
        partitions = self._consumer.assignment()
        (self._consumer.pause if paused else self._consumer.resume)(partitions)
        self._paused = paused
        self._metrics.paused(paused)

    def _read_again(self) -> None:
        """Drop what is not durable and read every partition from the log's offset."""
        self._again, self._held = False, []
        offsets = self._inlet.restart()
        self._metrics.restart()
        self._paused = False
        mine = {(one.topic, one.partition) for one in self._consumer.assignment()}
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in offsets.items() if place in mine])

    # -- the group

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Read the partitions from where the log says; none of them where one cannot be read on."""
        self._metrics.rebalance("assigned", len(partitions))
        self._held, self._paused = [], False
        try:
            self._inlet.restart()
            held = self._available(partitions)
            start = self._settings.start == "earliest"
            for one in partitions:
                one.offset = self._begin((one.topic, one.partition), held, start)
        except ObligorError as error:
            self._broken = error
            consumer.unassign()
            return
        except KafkaException as error:
            LOGGER.warning("what the broker holds cannot be told: %s", redacted(self._settings, error))
            self._broken = Unavailable("the broker does not say what it holds")
            consumer.unassign()
            return
        consumer.assign(partitions)
        self.reading = bool(partitions)
        self._look_s = 0.0

    def _begin(self, place: Place, held: Mapping[Place, Available], from_start: bool) -> int:
        while True:
            try:
                return self._inlet.begin(place, held[place], from_start=from_start)
            except Unavailable:
                if self._inlet.failed or self._stopping.wait(WAIT_S):
                    raise

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Finish what is at the writer, so that whoever reads on finds it in the log."""
        self._metrics.rebalance("revoked", len(partitions))
        self._held, self.reading = [], False
        self._inlet.restart()
        self._inlet.forget([(one.topic, one.partition) for one in partitions])
        self._committed.clear()

    # -- what the broker holds

    def _available(self, partitions: Sequence[TopicPartition]) -> dict[Place, Available]:
        ids = self._topic_ids()
        held = {}
        for one in partitions:
            low, high = self._consumer.get_watermark_offsets(one, timeout=REQUEST_S)
            held[one.topic, one.partition] = Available(ids.get(one.topic, ""), low, high)
        return held

    def _topic_ids(self) -> dict[str, str]:
        """Return the id of each topic that is there; a topic that is made anew has another one."""
        ids = {}
        for name, future in self._admin.describe_topics(
            TopicCollection(self._topics), request_timeout=REQUEST_S
        ).items():
            try:
                found = str(future.result().topic_id)
            except KafkaException as error:
                LOGGER.warning("topic %s: %s", name, redacted(self._settings, error))
                continue
            ids[name] = "" if found == _NO_ID else found
        return ids

    def _look(self) -> None:
        """Measure the lag, tell the broker how far the log is, and see that its topics are those that were read."""
        now_s = time.monotonic()
        if now_s < self._look_s or not self.reading:
            return
        self._look_s = now_s + LOOK_S
        rows = self._inlet.durable()
        ids, ends = self._topic_ids(), self._ends(list(rows))
        for place, row in rows.items():
            _, fetched = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
            if fetched >= 0:
                check(row, ids.get(place[0], ""), high=fetched)
            high = max(fetched, ends.get(place, fetched))
            if high >= 0:
                self._metrics.lag(*place, max(high - row.following, 0))
        self._commit()

    def _ends(self, places: Sequence[Place]) -> dict[Place, int]:
        """Return where partitions end; with a new leader for a moment too low, so that only lag may rest on it.

        What the consumer itself knows of a paused partition grows old, just when its lag matters.
        """
        asked = {TopicPartition(*place): OffsetSpec.latest() for place in places}  # type: ignore[no-untyped-call]
        ends = {}
        for one, future in self._admin.list_offsets(asked, request_timeout=REQUEST_S).items() if asked else ():
            try:
                ends[one.topic, one.partition] = int(future.result().offset)
            except KafkaException as error:
                LOGGER.info("%s[%d]: %s", one.topic, one.partition, redacted(self._settings, error))
        return ends

    def _commit(self) -> None:
        """Tell the broker how far the log is; nothing rests on it."""
        rows = {place: row.following for place, row in self._inlet.durable().items()}
        changed = {place: at for place, at in rows.items() if self._committed.get(place) != at}
        if changed:
            self._committed |= changed
            try:
                self._consumer.commit(
                    offsets=[TopicPartition(*place, at) for place, at in changed.items()], asynchronous=True
                )
            except KafkaException as error:
                LOGGER.info("the broker was not told how far the log is: %s", redacted(self._settings, error))


def _raised(error: KafkaError) -> KafkaException:
    return KafkaException(error)


def _message(one: Received) -> Message:
    topic, partition, offset = one.topic(), one.partition(), one.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None, "a message without an error has its place"
    return Message(topic, partition, offset, one.key(), one.value(), _headers(one))


def _headers(one: Received) -> list[tuple[str, bytes | None]]:
    found = one.headers() or []
    pairs = found.items() if isinstance(found, dict) else found
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in pairs]
