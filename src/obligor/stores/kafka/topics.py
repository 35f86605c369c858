"""Topics are made where a deployment in a box has its broker; elsewhere whoever runs the broker makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from obligor.decisions.intake import Unavailable
from obligor.stores.kafka.client import LOGGER, made, redacted
from obligor.stores.kafka.settings import KafkaSettings

__all__ = ["make_topics"]

SECONDS_MAX: Final = 10.0


def make_topics(settings: KafkaSettings, names: Sequence[str], partitions: int) -> None:
    """Make topics, on one broker; those that are there stay. Unavailable where that fails."""
    client = made(settings, lambda: AdminClient(settings.client(logger=LOGGER)))
    asked = client.create_topics([NewTopic(name, num_partitions=partitions, replication_factor=1) for name in names])
    for name, future in asked.items():
        try:
            future.result(SECONDS_MAX)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise Unavailable(f"topic {name!r} was not made: {redacted(settings, error)}") from error
