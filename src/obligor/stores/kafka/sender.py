"""Messages to a broker, in order, each acknowledged: dead letters and decisions.

An idempotent producer with acks=all keeps the order of a partition through its retries. `send` returns when all of
them are acknowledged or raises, and then nothing of them is left behind that could arrive later and out of order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Delivered

from obligor.decisions.intake import Unavailable
from obligor.decisions.outbox import Outgoing
from obligor.errors import LimitError
from obligor.events.messages import MESSAGE_BYTES_MAX
from obligor.stores.kafka.client import LOGGER, made, redacted
from obligor.stores.kafka.settings import KafkaSettings

__all__ = ["Sender"]

SECONDS_MAX = 30.0  # that a broker may take to acknowledge; beyond, the caller sends again
_HEADERS_BYTES = 1_000_000


class Sender:
    """One producer; used by one thread."""

    def __init__(self, settings: KafkaSettings, *, seconds_max: float = SECONDS_MAX) -> None:
        self._settings, self._seconds_max = settings, seconds_max
        configuration = settings.client(
            **{
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "message.max.bytes": MESSAGE_BYTES_MAX + _HEADERS_BYTES,
                "delivery.timeout.ms": int(seconds_max * 1000),
                "logger": LOGGER,
            }
        )
        self._make: Callable[[], Producer] = lambda: made(settings, lambda: Producer(configuration))
        self._producer = self._make()

    def send(self, messages: Sequence[Outgoing]) -> None:
        """Return once the broker has acknowledged all of them; Unavailable where it did not, or not all, in time.

        LimitError where the broker will never take one, because of its length.
        """
        failed: list[str] = []
        acknowledged = 0
        long = False

        def delivered(error: KafkaError | None, message: Delivered) -> None:
            nonlocal acknowledged, long
            if error is None:
                acknowledged += 1
            else:
                long |= error.code() == KafkaError.MSG_SIZE_TOO_LARGE
                failed.append(error.str())

        try:
            for one in messages:
                headers: list[tuple[str, str | bytes | None]] = list(one.headers)
                self._producer.produce(one.topic, one.value, one.key, headers=headers, on_delivery=delivered)
            self._producer.flush(self._seconds_max)
        except (KafkaException, BufferError) as error:
            failed.append(redacted(self._settings, error))
        if failed or acknowledged < len(messages):
            self._renew()
            if long:
                raise LimitError(
                    f"the broker refuses a message for its length; raise max.message.bytes of its topic: {failed[0]}"
                )
            why = failed[0] if failed else f"not acknowledged within {self._seconds_max} s"
            raise Unavailable(f"{len(messages) - acknowledged} of {len(messages)} messages were not taken: {why}")

    def _renew(self) -> None:
        """Forget what was not delivered, with the producer itself: a fatal error of an idempotent one is for good."""
        self._producer.purge()
        self._producer.flush(1.0)
        self._producer = self._make()
