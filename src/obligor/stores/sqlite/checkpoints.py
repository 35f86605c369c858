"""When the WAL goes back into the database: beside the writer, not in a commit that somebody waits for.

SQLite's own auto-checkpoint runs inside the commit that crosses its threshold, which puts a write and a sync of many
pages into one request in a few hundred. Here a thread with its own connection checkpoints once the WAL passes
`SOFT_PAGES`; only past `HARD_PAGES`, when commits outrun that thread (a bulk load), the commit does it itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import apsw

__all__ = ["HARD_PAGES", "SOFT_PAGES", "Checkpointer"]

SOFT_PAGES = 4096  # 16 MiB
HARD_PAGES = 65_536  # 256 MiB


class Checkpointer:
    """Checkpoints a writer's WAL from a thread of its own."""

    def __init__(self, connect: Callable[[], apsw.Connection]) -> None:
        self._connect = connect
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def attach(self, writer: apsw.Connection) -> None:
        """Replace the writer's own auto-checkpoint."""
        writer.set_wal_hook(self._committed)

    def _committed(self, writer: apsw.Connection, database: str, pages: int) -> int:
        if pages >= HARD_PAGES:
            writer.wal_checkpoint(database, apsw.SQLITE_CHECKPOINT_PASSIVE)
        elif pages >= SOFT_PAGES:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="obligor-checkpoint", daemon=True)
                self._thread.start()
            self._wake.set()
        return apsw.SQLITE_OK

    def _run(self) -> None:
        connection = self._connect()
        try:
            while True:
                self._wake.wait()
                self._wake.clear()
                if self._closing:
                    return
                connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_PASSIVE)
        finally:
            connection.close()

    def close(self) -> None:
        """Stop the thread."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
