"""The states of a project in Redis: what `store.state = "redis://..."` stands for."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import parse_qsl, urlencode

from obligor.errors import NotFound
from obligor.features.folds import Fold
from obligor.features.plan import Plan
from obligor.features.state import Head, read_head
from obligor.features.state_store import StateGone, StateMoved
from obligor.features.states import STATE_NAME, StoredState, state_name
from obligor.stores.redis.link import Link
from obligor.stores.redis.store import RedisStateReader, RedisStateStore, size_and_use

__all__ = ["RedisStates"]

PREFIX = "default"
_STATE = re.compile(r"obligor:\{(.*):([0-9a-f]{16})\}:(entries|order)")
_SCANNED_AT_ONCE = b"1000"
_LOOKS_MAX = 100  # at the head of a state whose writer goes on meanwhile


class RedisStates:
    """States in Redis: see `States`.

    The address is redis-py's, with `prefix` of our own: projects that share a database have different ones. What is
    left for redis-py is `address`.
    """

    def __init__(self, address: str, shard: int = 0) -> None:
        """`shard`: whose writer's states they are, where the log has several."""
        base, _, options = address.partition("?")
        query = dict(parse_qsl(options))
        self.prefix = query.pop("prefix", PREFIX) + (f".shard-{shard}" if shard else "")
        self.address = f"{base}?{urlencode(query)}" if query else base

    def _within(self, name: str) -> str:
        """Return what a state of this project is called in Redis."""
        return f"{self.prefix}:{name}"

    def open(self, plan: Plan, fold: Fold | None = None) -> RedisStateStore:
        """Open the state of a plan for writing, made where there is none; StateBusy while another writer has it.

        Where Redis is gone it is opened all the same, and is reached for when it is used.
        """
        store = RedisStateStore(self.address, self._within(state_name(plan, fold)))
        with suppress(StateGone):
            store.begin().abort()
        return store

    def read(self, plan: Plan, fold: Fold | None = None) -> RedisStateReader:
        """Open the state of a plan for reading; NotFound where there is none."""
        return RedisStateReader(self.address, self._within(state_name(plan, fold)))

    def all(self) -> list[StoredState]:
        """Return the states of this prefix; StateGone where Redis cannot be reached."""
        link = Link(self.address, "obligor-states")
        try:
            return [
                StoredState(name, self._head(name), *size_and_use(link, self._within(name)))
                for name in self._names(link)
            ]
        finally:
            link.close()

    def _names(self, link: Link) -> list[str]:
        names: set[str] = set()
        cursor = b"0"
        while True:
            cursor, keys = link.ask(b"SCAN", cursor, b"MATCH", b"obligor:{*}:*", b"COUNT", _SCANNED_AT_ONCE)
            matches = (_STATE.fullmatch(key.decode(errors="replace")) for key in keys)
            names |= {match[2] for match in matches if match and match[1] == self.prefix}
            if cursor == b"0":
                return sorted(names)

    def _head(self, name: str) -> Head | None:
        try:
            reader = RedisStateReader(self.address, self._within(name))
        except NotFound:
            return None
        try:
            for _ in range(_LOOKS_MAX):
                with suppress(StateMoved):
                    return read_head(reader)
        finally:
            reader.close()
        raise StateMoved(f"the online state {name} was changed at each of {_LOOKS_MAX} looks at it")

    def remove(self, name: str) -> None:
        """Remove a state; NotFound where there is none, StateBusy while somebody writes it."""
        link = Link(self.address, "obligor-states")
        try:
            held = self._names(link)
        finally:
            link.close()
        if not STATE_NAME.fullmatch(name) or name not in held:
            raise NotFound(
                f"no state {name!r} of the prefix {self.prefix!r} in Redis; there: {', '.join(held) or 'none'}"
            )
        store = RedisStateStore(self.address, self._within(name))
        try:
            store.remove()
        finally:
            store.close()
