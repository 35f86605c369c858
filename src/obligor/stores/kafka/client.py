"""Clients of librdkafka, made so that an error in their configuration names the option and never a value."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from obligor.errors import BadInput, ObligorError, Problem
from obligor.stores.kafka.settings import KafkaSettings

try:
    from confluent_kafka import KafkaException
except ImportError as error:  # pragma: no cover - the extra is installed where this is tested
    raise ObligorError("[kafka] in obligor.toml needs the extra `kafka`: pip install 'obligor[kafka]'") from error

__all__ = ["LOGGER", "made", "redacted"]

LOGGER = logging.getLogger("obligor.kafka")
T = TypeVar("T")


def made(settings: KafkaSettings, make: Callable[[], T]) -> T:
    """Return what `make` makes; BadInput where librdkafka refuses its configuration."""
    try:
        return make()
    except KafkaException as error:
        raise BadInput(Problem("$.kafka.options", redacted(settings, error))) from None


def redacted(settings: KafkaSettings, error: Exception) -> str:
    """Return an error's text with every value of an option taken out."""
    text = error.args[0].str() if isinstance(error, KafkaException) else str(error)
    for secret in sorted(settings.secrets(), key=len, reverse=True):
        if secret:
            text = text.replace(secret, "***")
    return text
