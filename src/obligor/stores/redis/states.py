"""The states of a project in Redis, by plan: what `store.state = "redis://..."` stands for."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from obligor.features.plan import Plan
from obligor.stores.redis.store import RedisStateReader, RedisStateStore

__all__ = ["SCHEMES", "RedisStates"]

SCHEMES = ("redis://", "rediss://", "unix://")
PREFIX = "default"


class RedisStates:
    """States by the plans that they are of; plans with equal timelines have one.

    The address is redis-py's, with `prefix` of our own: projects that share a database have different ones.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        query = dict(parse_qsl(parts.query))
        self.prefix = query.pop("prefix", PREFIX)
        self._address = urlunsplit(parts._replace(query=urlencode(query)))

    def name(self, plan: Plan) -> str:
        """Return what the state of a plan is called."""
        return f"{self.prefix}:{plan.timelines_hash[:16]}"

    def open(self, plan: Plan) -> RedisStateStore:
        """Open the state of a plan for writing, made where there is none."""
        return RedisStateStore(self._address, self.name(plan))

    def read(self, plan: Plan) -> RedisStateReader:
        """Open the state of a plan for reading; NotFound where there is none."""
        return RedisStateReader(self._address, self.name(plan))
