"""What a broker and its topics must be like, and are like, for what comes in and goes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import httpx
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource

from obligor.findings import Finding, fine, problem, warning
from obligor.stores.kafka.client import LOGGER, made, redacted
from obligor.stores.kafka.settings import KafkaSettings

__all__ = ["checkup"]

SUBJECT: Final = "Kafka"
SECONDS_MAX: Final = 5.0
_LENGTH: Final = "max.message.bytes"


def checkup(settings: KafkaSettings) -> Iterator[Finding]:
    """Yield what is found; BadInput where the settings alone are wrong."""
    settings.check()
    configuration = settings.client(logger=LOGGER)
    client = made(settings, lambda: AdminClient(configuration))
    try:
        topics = client.list_topics(timeout=SECONDS_MAX).topics
    except KafkaException as error:
        yield problem(SUBJECT, f"no broker answers at {settings.brokers}: {redacted(settings, error)}", "start it")
        return
    yield fine(SUBJECT, f"{settings.brokers} answers, {len(topics)} topics")
    yield from _topics(settings, topics)
    yield from _lengths(settings, client, topics)
    yield from _registry(settings)


def _topics(settings: KafkaSettings, topics: dict[str, Any]) -> Iterator[Finding]:
    wanted = [(f"topic {one.name!r}, which comes in,", one.name) for one in settings.topics]
    wanted += [("the topic of dead letters", settings.dead_letters)] if settings.dead_letters else []
    wanted += [("the topic of decisions", settings.outbox.topic)] if settings.outbox else []
    wanted += [("the topic of outcomes", settings.outcomes.topic)] if settings.outcomes else []
    for what, name in wanted:
        if name not in topics:
            yield problem(
                SUBJECT, f"{what} is not there: {name!r}", "make it: what a broker makes by itself has its defaults"
            )


def _lengths(settings: KafkaSettings, client: AdminClient, topics: dict[str, Any]) -> Iterator[Finding]:
    """Compare what dead letters may measure with what comes in, where the broker says it."""
    names = [name for name in (settings.dead_letters, *(one.name for one in settings.topics)) if name in topics]
    asked = client.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name) for name in names if name])
    lengths = {}
    for resource, future in asked.items():
        try:
            found = future.result(timeout=SECONDS_MAX)
        except (KafkaException, TimeoutError):
            return
        if _LENGTH in found:
            lengths[resource.name] = int(found[_LENGTH].value)
    most = max((lengths.get(one.name, 0) for one in settings.topics), default=0)
    letters = lengths.get(settings.dead_letters or "", most)
    if letters < most:
        yield warning(
            SUBJECT,
            f"dead letters may have {letters:,} bytes, messages that come in {most:,}: a long one would stop reading",
            f"raise {_LENGTH} of {settings.dead_letters!r}",
        )


def _registry(settings: KafkaSettings) -> Iterator[Finding]:
    if settings.registry is None:
        return
    try:
        httpx.get(settings.registry, timeout=SECONDS_MAX)
        yield fine("schema registry", "it answers")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        yield problem("schema registry", f"it does not answer: {type(error).__name__}", "see $.kafka.registry")
