"""When the WAL goes back into the database: beside the writer, not in a commit that somebody waits for.

SQLite's own auto-checkpoint runs inside the commit that crosses its threshold, which puts a write and a sync of many
pages into one request in a few hundred. Here a thread with its own connection checkpoints once the WAL passes
`SOFT_PAGES`; past `HARD_PAGES`, when commits outrun that thread (a bulk load), the writer does it after its commit. A
checkpoint that fails never fails the commit before it, which is durable; it is tried again after the next one, until
the WAL reaches `LIMIT_PAGES`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import apsw

from obligor.errors import LimitError

__all__ = ["HARD_PAGES", "LIMIT_PAGES", "SOFT_PAGES", "Checkpointer"]

SOFT_PAGES = 4096  # 16 MiB
HARD_PAGES = 262_144  # 1 GiB
LIMIT_PAGES = 4_194_304  # 16 GiB


class Checkpointer:
    """Checkpoints a writer's WAL; `connect` opens the connection of its thread."""

    def __init__(self, writer: apsw.Connection, connect: Callable[[], apsw.Connection]) -> None:
        self._writer, self._connect = writer, connect
        self._wake = threading.Event()
        self._closing = False
        self._pages = 0
        self._failure = ""
        self._thread: threading.Thread | None = None
        writer.set_wal_hook(self._committed)

    def _committed(self, _writer: apsw.Connection, _database: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    def before_commit(self) -> None:
        """Raise LimitError where the WAL has grown past its limit, because checkpoints fail or a reader never ends."""
        if self._pages >= LIMIT_PAGES:
            self._checkpoint(self._writer)
        if self._pages >= LIMIT_PAGES:
            raise LimitError(f"the log's WAL has {self._pages} pages and cannot be checkpointed: {self._failure}")

    def after_commit(self) -> None:
        """Checkpoint, or have it done, if the last commit made it due."""
        if self._pages >= HARD_PAGES:
            self._checkpoint(self._writer)
        elif self._pages >= SOFT_PAGES:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="obligor-checkpoint", daemon=True)
                self._thread.start()
            self._wake.set()

    def _checkpoint(self, connection: apsw.Connection) -> None:
        try:
            pages, done = connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)
            self._failure = "a reader holds on to it"
            if connection is self._writer and done >= pages:
                self._pages = 0  # the next commit begins the WAL anew
        except apsw.Error as error:  # busy: another one is at it; anything else: the next commit tries again
            self._failure = str(error)

    def _run(self) -> None:
        connection = self._connect()
        try:
            while True:
                self._wake.wait()
                self._wake.clear()
                if self._closing:
                    return
                self._checkpoint(connection)
        finally:
            connection.close()

    def close(self) -> None:
        """Stop the thread."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
