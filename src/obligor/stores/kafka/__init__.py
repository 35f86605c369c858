"""Streams of a Kafka-protocol broker as an inlet and an outlet of the service.

`obligor.stores.kafka.beside` does the work and needs the extra `kafka`; the settings need no library.
"""

from obligor.stores.kafka.settings import KafkaSettings

__all__ = ["KafkaSettings"]
