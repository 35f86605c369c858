"""Online state in Redis: one server that several processes reach; the extra `redis`."""

from obligor.stores.redis.states import RedisStates
from obligor.stores.redis.store import RedisStateReader, RedisStateStore

__all__ = ["RedisStateReader", "RedisStateStore", "RedisStates"]
