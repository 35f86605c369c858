"""The log's one writer in PostgreSQL: a lock keeps others out, a token proves that none has been there.

The writer's session holds an advisory lock, which the server releases when the session ends: by the writer's death at
once, by the loss of its machine once keep-alives fail. A session can also be lost while its process lives on, and
another writer may then rightly take over. So whoever opens the log for writing puts a new token into `store` and begins
to count its transactions there; each transaction counts itself up, which fails in the server unless token and count
are what this writer left. The same count answers what became of a commit whose answer was lost: nobody else could have
changed it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg

from obligor.errors import ObligorError, StoreLost
from obligor.events.store import StaleOffset, StoreBusy
from obligor.stores.postgres.address import Address
from obligor.stores.postgres.sessions import PATIENCE_S, PAUSE_S, Session, connect
from obligor.stores.postgres.tables import SCHEMA, check_format, check_server

__all__ = ["Writer"]

LOCK_PATIENCE_S = 2.0  # for the session of a writer that has just been killed
TRIES_MAX = 3
# Where token or count is another's, the new count is null, which the table refuses, and with it the transaction.
_COUNT_UP = "UPDATE store SET commits = CASE WHEN token = %s AND commits = %s THEN commits + 1 END"
_HOLDER = """
SELECT a.application_name FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND (l.classid::bigint << 32 | l.objid::bigint) = %s
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_END_SESSION = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = %s AND backend_start = %s AND pid <> pg_backend_pid()
"""


class Writer:
    """Carries out transactions, each once; StoreBusy where another writer has the log."""

    def __init__(self, address: Address, *, create: bool, synchronous: str) -> None:
        self._address, self._synchronous = address, synchronous
        self._lost = ""
        self._session = connect(address, "writer", synchronous)
        try:
            check_server(self._session)
            self._lock()
            if create:
                self._create()
            check_format(self._session, address)
            self._began = self._backend()
            row = self._one("UPDATE store SET token = gen_random_uuid(), commits = 0 RETURNING token")
            self._token, self._commits = row[0], 0
        except BaseException:
            self._session.close()
            raise

    def _one(self, sql: str, values: tuple[Any, ...] = ()) -> Any:
        row = self._session.execute(sql, values).fetchone()
        assert row is not None, "a statement that always has a row"
        return row

    def _backend(self) -> tuple[Any, ...]:
        """Return what names the session on the server, also once its process number is another's."""
        found: tuple[Any, ...] = self._one(
            "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        )
        return found

    def _locked(self) -> bool:
        return bool(self._one("SELECT pg_try_advisory_lock(%s)", (self._address.lock,))[0])

    def _lock(self) -> None:
        deadline_s = time.monotonic() + LOCK_PATIENCE_S
        while not self._locked():
            if time.monotonic() > deadline_s:
                holder = self._session.execute(_HOLDER, (self._address.lock,)).fetchone() or ("unknown",)
                raise StoreBusy(
                    f"{self._address}: another process is writing this log ({holder[0]}); stop it, or open the log for "
                    "reading"
                )
            time.sleep(PAUSE_S)

    def _create(self) -> None:
        try:
            with self._session.transaction():
                self._session.execute(f"CREATE SCHEMA {self._address.schema}".encode())
                self._session.execute(SCHEMA.encode())
        except psycopg.errors.DuplicateSchema:
            raise ObligorError(
                f"{self._address}: there is a log here already; open it or choose another name"
            ) from None

    # -- transactions

    def transact(self, work: Callable[[Session], object], *, pipelined: bool = True) -> None:
        """Carry out `work` in one durable transaction, or raise, and nothing of it was written.

        `pipelined`: the statements of `work` go out together, and it looks at none of their results. StoreLost where
        what became of it cannot be known, or where this is the writer no longer; it carries out nothing more then.
        """
        if self._lost:
            raise StoreLost(self._lost)
        for tried in range(TRIES_MAX):
            if self._session.closed and self._recovered(doubt=tried > 0):
                return
            try:
                self._attempt(work, pipelined)
            except psycopg.errors.NotNullViolation as error:
                if error.diag.table_name != "store":
                    raise
                self._lose("another process has taken over the writing of this log; open it again")
            except StaleOffset:
                raise  # rolled back
            except psycopg.Error:
                if not self._session.closed:
                    raise
            except BaseException:
                self._session.close()
                self._recovered(doubt=True)
                raise
            else:
                self._commits += 1
                return
        self._lose(f"the connection was lost {TRIES_MAX} times in one transaction")

    def _attempt(self, work: Callable[[Session], object], pipelined: bool) -> None:
        session = self._session
        try:
            with ExitStack() as stack:
                if pipelined:
                    stack.enter_context(session.pipeline())
                stack.enter_context(session.transaction())
                session.execute(_COUNT_UP, (self._token, self._commits))
                work(session)
        finally:
            if not session.closed and session.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                session.rollback()

    def _recovered(self, *, doubt: bool) -> bool:
        """Get a new session with the lock; return whether the transaction that is in doubt has been committed."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                self._session = connect(self._address, "writer", self._synchronous)
                if (committed := self._found(doubt)) is not None:
                    return committed
                self._session.close()
                why = "the server still holds the lock of another session"
            except (psycopg.OperationalError, StoreLost) as error:
                if self._lost:
                    raise
                why = self._address.without_secrets(str(error))
            if time.monotonic() > deadline_s:
                self._lose(f"the connection was lost and there is no new one: {why}")
            time.sleep(PAUSE_S)

    def _found(self, doubt: bool) -> bool | None:
        """Look what the store says on a new session; None while the old one may still be at it."""
        self._session.execute(_END_SESSION, self._began)
        token, _ = self._one("SELECT token, commits FROM store")
        if token != self._token:
            self._lose("another process has taken over the writing of this log; open it again")
        if not self._locked():
            return None
        token, commits = self._one("SELECT token, commits FROM store")  # now that nobody can change them
        if token != self._token or commits not in (self._commits, self._commits + doubt):
            self._lose("the database is not the one that was written: restored, or another writer's; open it again")
        self._began = self._backend()
        committed = bool(commits > self._commits)
        self._commits = commits
        return committed

    def _lose(self, why: str) -> None:
        self._lost = f"{self._address}: {why}"
        self._session.close()
        raise StoreLost(self._lost)

    def close(self) -> None:
        """End the session and with it the lock."""
        self._session.close()
