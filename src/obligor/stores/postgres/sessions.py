"""Sessions on the server: how each is set up, and the few that all reading threads share.

A read is one statement, and read again on a new session where its own was lost: a server that is started again is
noticed by a pause. A server that stays away longer than `PATIENCE_S` is StoreLost.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

from obligor.errors import StoreLost
from obligor.stores.postgres.address import Address

__all__ = ["PATIENCE_S", "PAUSE_S", "Readers", "Session", "connect"]

Session = psycopg.Connection[Any]
PATIENCE_S = 30.0  # for a server that is away
PAUSE_S = 0.05  # between two tries
READERS_MAX = 8
_INT8_OID, _INT8_ARRAY_OID = 20, 1016

# So that neither side holds on for hours to one that vanished without a word; the URL may say otherwise.
_LIBPQ: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "client_encoding": "utf8",
}
_SERVER: Final = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "idle_in_transaction_session_timeout": "60000",
    "jit": "off",
}


class _Int64sDumper(Dumper):
    """A one-dimensional array of int64 as PostgreSQL's bigint[], without a Python object for each number."""

    format = Format.BINARY
    oid = _INT8_ARRAY_OID

    def dump(self, obj: Any) -> bytes:
        items = np.empty(len(obj), np.dtype([("bytes", ">i4"), ("value", ">i8")]))
        items["bytes"], items["value"] = 8, obj
        dimensions = [len(obj), 1] if len(obj) else []
        return np.array([len(dimensions) // 2, 0, _INT8_OID, *dimensions], ">i4").tobytes() + items.tobytes()


def connect(address: Address, role: Literal["writer", "reader"], synchronous: str = "on") -> Session:
    """Open a session on the log's schema, committing each statement by itself; StoreLost without secrets if it fails.

    A writer's `synchronous_commit` is at least `synchronous`; a reader cannot write.
    """
    name = f"obligor {role}, process {os.getpid()} on {socket.gethostname()}"[:63]
    parameters = {**_LIBPQ, "application_name": name, **address.parameters}
    own = {**_SERVER, "search_path": address.schema}
    if role == "reader":
        own["default_transaction_read_only"] = "on"
    try:
        session: Session = psycopg.connect(autocommit=True, **parameters)  # type: ignore[arg-type]
        try:
            session.adapters.register_dumper(np.ndarray, _Int64sDumper)
            settings = ", ".join(["set_config(%s, %s, false)"] * len(own))
            session.execute(f"SELECT {settings}", [text for pair in own.items() for text in pair])
            if role == "writer":
                session.execute(
                    "SELECT set_config('synchronous_commit', %s, false) "
                    "WHERE current_setting('synchronous_commit') <> 'remote_apply'",
                    (synchronous,),
                )
        except BaseException:
            session.close()
            raise
    except psycopg.Error as error:
        raise StoreLost(f"{address}: {address.without_secrets(str(error))}") from None
    return session


class Readers:
    """Reads for any thread, with at most `READERS_MAX` sessions, each made when it is first needed."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._idle: list[Session] = []
        self._made = 0
        self._changed = threading.Condition()
        self._closed = False

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of one statement as of the last commit."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._rows(sql, values)
            except StoreLost:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(PAUSE_S)

    def _rows(self, sql: str, values: Sequence[Any]) -> list[Any]:
        session = self._take()
        try:
            return session.execute(sql, values, binary=True).fetchall()
        except psycopg.OperationalError as error:
            if not session.closed:
                raise
            raise StoreLost(f"{self._address}: {self._address.without_secrets(str(error))}") from None
        except BaseException:
            session.close()
            raise
        finally:
            self._give_back(session)

    def _take(self) -> Session:
        with self._changed:
            while not self._idle and self._made >= READERS_MAX and not self._closed:
                self._changed.wait()
            assert not self._closed, "a log that is closed does not read"
            if self._idle:
                return self._idle.pop()
            self._made += 1
        try:
            return connect(self._address, "reader")
        except BaseException:
            self._drop()
            raise

    def _give_back(self, session: Session) -> None:
        with self._changed:
            if not session.closed and not self._closed:
                self._idle.append(session)
                self._changed.notify()
                return
        session.close()
        self._drop()

    def _drop(self) -> None:
        with self._changed:
            self._made -= 1
            self._changed.notify()

    def close(self) -> None:
        """Close the sessions that are idle now, and the others when they are given back."""
        with self._changed:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for session in idle:
            session.close()
