"""The states of a project in Redis, by plan: what `store.state = "redis://..."` stands for."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import parse_qsl, urlencode

from obligor.features.plan import Plan
from obligor.features.state_store import StateGone
from obligor.stores.redis.store import RedisStateReader, RedisStateStore

__all__ = ["RedisStates"]

PREFIX = "default"


class RedisStates:
    """States by the plans that they are of; plans with equal timelines have one.

    The address is redis-py's, with `prefix` of our own: projects that share a database have different ones.
    """

    def __init__(self, address: str) -> None:
        base, _, options = address.partition("?")
        query = dict(parse_qsl(options))
        self.prefix = query.pop("prefix", PREFIX)
        self._address = f"{base}?{urlencode(query)}" if query else base

    def name(self, plan: Plan) -> str:
        """Return what the state of a plan is called."""
        return f"{self.prefix}:{plan.timelines_hash[:16]}"

    def open(self, plan: Plan) -> RedisStateStore:
        """Open the state of a plan for writing, made where there is none; StateBusy while another writer has it.

        Where Redis is gone it is opened all the same, and is reached for when it is used.
        """
        store = RedisStateStore(self._address, self.name(plan))
        with suppress(StateGone):
            store.begin().abort()
        return store

    def read(self, plan: Plan) -> RedisStateReader:
        """Open the state of a plan for reading; NotFound where there is none."""
        return RedisStateReader(self._address, self.name(plan))
