"""The kinds of stores that a log may be in: one suite of checks takes each of them, a new one is a class here."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import psycopg
from tests.events.batches import REGISTRY
from tests.postgres_server import Server

from obligor.events.log import EventLog
from obligor.events.schema import Registry
from obligor.events.store import LogStore, Mode
from obligor.stores.postgres import PostgresStore
from obligor.stores.sqlite import SQLiteStore
from obligor.stores.sqlite.store import DATABASE

__all__ = ["Kind", "PostgresKind", "SQLiteKind"]

_numbers = itertools.count()


class Kind:
    """One kind of store and a place for one log; `close` closes what was opened through it."""

    name: str
    path: str  # of the log, as its store takes it
    clash: type[Exception]  # what a commit raises that breaks a constraint
    readonly: type[Exception]  # what a reader's session raises that is told to write

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = folder / "log"
        self._opened: list[LogStore] = []

    def opened(self, mode: Mode, *, durable: bool = True) -> LogStore:
        """Open the store; `durable`: a commit waits for the disk."""
        raise NotImplementedError

    def run(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run SQL on the store behind the log's back, with `?` for values and `''` for no bytes."""
        raise NotImplementedError

    def open(self, mode: Mode, *, durable: bool = True) -> LogStore:
        """Open the store; it is closed at the test's end."""
        store = self.opened(mode, durable=durable)
        self._opened.append(store)
        return store

    def opener(self, path: str, mode: Mode) -> LogStore:
        """Open the store, as a log does."""
        assert path == self.path
        return self.open(mode)

    def create_log(self) -> EventLog:
        """Create a log with fixed keys."""
        return EventLog.create(self.path, REGISTRY, store=self.opener, keys=self.keys, random=lambda n: bytes(range(n)))

    def open_log(
        self, *, read_only: bool = False, registry: Registry = REGISTRY, store: Callable[..., LogStore] | None = None
    ) -> EventLog:
        """Open the log."""
        return EventLog.open(self.path, registry, read_only=read_only, store=store or self.opener, keys=self.keys)

    def close(self) -> None:
        """Close every store that was opened."""
        for store in self._opened:
            store.close()


class SQLiteKind(Kind):
    """A folder with a database file."""

    name = "sqlite"
    clash = apsw.ConstraintError
    readonly = apsw.ReadOnlyError

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = str(folder / "log")

    def opened(self, mode: Mode, *, durable: bool = True) -> LogStore:
        return SQLiteStore(self.path, mode, synchronous="FULL" if durable else "OFF")

    def run(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with closing(apsw.Connection(f"{self.path}/{DATABASE}")) as connection:
            return list(connection.execute(sql, values))


class PostgresKind(Kind):
    """A schema of a database."""

    name = "postgres"
    clash = psycopg.errors.UniqueViolation
    readonly = psycopg.errors.ReadOnlySqlTransaction

    def __init__(self, folder: Path, server: Server) -> None:
        super().__init__(folder)
        self.server = server
        self.schema = f"log_{next(_numbers)}"
        self.path = server.url(self.schema)

    def opened(self, mode: Mode, *, durable: bool = True) -> LogStore:
        return PostgresStore(self.path, mode, synchronous="on" if durable else "off")

    def run(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.server.url(), autocommit=True) as session:
            session.execute(f"SET search_path TO obligor_{self.schema}".encode())
            cursor = session.execute(sql.replace("?", "%s").encode(), values)
            return list(cursor) if cursor.description else []
