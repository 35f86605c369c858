"""A desk on several shards: its writers and its front end are processes, forked ready to go, that a test can kill.

Run as a program with a bundle it reads one command a line, forks a process for it and prints the process's id:
`writer <fault> <url> <keys> <state> <shard> <port>` or `front <fault> <url> <port> <address of each writer>`. A fault
is `none`, or `anyone`: applications go by their ids, and no writer minds.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import uvicorn
from tests.decisions.desk import REGISTRY, Desk, open_state
from tests.events.sharded import create_shards
from tests.postgres_server import Server

from obligor.decisions.front import create_front
from obligor.decisions.http import create_app
from obligor.decisions.routes import ROUTING, Routes, ShardMap
from obligor.decisions.service import Service
from obligor.events.log import EventLog
from obligor.models.bundle import Bundle
from obligor.stores.postgres import PostgresStore

__all__ = ["Cluster", "Nursery", "read_log"]

SECONDS_MAX = 60.0


def shard_map(count: int) -> ShardMap:
    """Return the map of a log that was put on so many shards one by one."""
    found = ShardMap.first("consumer")
    for _ in range(1, count):
        found = found.widened()
    return found


def clock() -> int:
    """Return the time."""
    return time.time_ns() // 1000


def read_log(url: str, keys: Path | None = None) -> EventLog:
    """Open a desk's log for reading."""
    return EventLog.open(url, REGISTRY, read_only=True, store=PostgresStore, keys=keys or Path("/nowhere"))


def _routes(log: EventLog, fault: str) -> Routes | None:
    found = Routes.of(ShardMap.read(log.routing), REGISTRY)
    if fault == "anyone":
        return Routes(found.map, dict.fromkeys(found.fields, ()))
    return found


def serve_writer(bundle: Bundle, fault: str, url: str, keys: str, state: str, shard: str, port: str) -> None:
    """Be the writer of a shard until killed."""
    store = partial(PostgresStore, shard=int(shard))
    log = EventLog.open(url, REGISTRY, store=store, keys=Path(keys))
    routes = None if fault == "anyone" else _routes(log, fault)
    service = Service(log, open_state(Path(state), bundle.plan), bundle, clock=clock, parity=None, routes=routes)
    uvicorn.run(create_app(service, None), port=int(port), log_config=None, access_log=False, ws="none")


def serve_front(fault: str, url: str, port: str, *writers: str) -> None:
    """Be the front end until killed."""
    with read_log(url) as log:
        routes = _routes(log, fault)
        assert routes is not None
    front = create_front(REGISTRY, "loan_application", routes, writers, None)
    uvicorn.run(front, port=int(port), log_config=None, access_log=False, ws="none")


class Nursery:
    """The program that forks processes ready to go."""

    def __init__(self, bundle: Path) -> None:
        program = [sys.executable, "-m", "tests.decisions.sharding", str(bundle)]
        self._program = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def fork(self, *words: object) -> int:
        """Fork a process and return its id."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(" ".join(map(str, words)) + "\n")
        self._program.stdin.flush()
        return int(self._program.stdout.readline())

    def close(self) -> None:
        """End the program."""
        self._program.communicate()


class Cluster:
    """A log of several shards, the processes of its writers, and the one in front of them."""

    def __init__(
        self, server: Server, name: str, folder: Path, nursery: Nursery, count: int, fault: str = "none"
    ) -> None:
        self.folder, self.count = folder, count
        self._nursery, self._fault = nursery, fault
        self.map = shard_map(count)
        self.url = create_shards(server, name, folder, count, REGISTRY, self.map.recorded())
        self.writers: dict[int, tuple[int, str]] = {}  # by shard: process id and address
        self.front = ""
        self._front_process = 0
        self.start()

    def start(self) -> None:
        """Start all writers and the front end."""
        for shard in range(self.count):
            self.start_writer(shard)
        port = _free_port()
        writers = [self.writers[shard][1] for shard in range(self.count)]
        self._front_process = self._nursery.fork("front", self._fault, self.url, port, *writers)
        self.front = f"http://127.0.0.1:{port}"
        _wait_ready(self.front)

    def start_writer(self, shard: int) -> None:
        """Start the writer of a shard, at the address that it had."""
        port = self.writers[shard][1].rpartition(":")[2] if shard in self.writers else str(_free_port())
        state = self.folder / f"state-{shard}"
        process = self._nursery.fork("writer", self._fault, self.url, self.folder, state, shard, port)
        self.writers[shard] = process, f"http://127.0.0.1:{port}"
        _wait_ready(self.writers[shard][1])

    def kill(self, shard: int) -> None:
        """Kill a writer and wait until it is gone."""
        _kill(self.writers[shard][0])

    def stop(self) -> None:
        """Kill all."""
        for process in [self._front_process, *(process for process, _ in self.writers.values())]:
            _kill(process)
        self.writers.clear()

    def widen(self) -> None:
        """Stop all, put the log on one shard more, and start again."""
        self.stop()
        self.map, self.count = self.map.widened(), self.count + 1
        with EventLog.open(self.url, REGISTRY, store=PostgresStore, keys=self.folder) as log:
            log.store.add_shard({ROUTING: self.map.recorded()})
        self.start()

    def log(self) -> EventLog:
        """Open the log for reading."""
        return read_log(self.url, self.folder)

    def consumers(self, shard: int, count: int, prefix: str = "c") -> list[str]:
        """Return the names of some consumers of a shard."""
        routes = Routes(self.map, {})
        names = (f"{prefix}-{i}" for i in range(10_000))
        found = (name for name in names if routes.of_entity(name) == shard)
        return [next(found) for _ in range(count)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return
    while Path(f"/proc/{process}").exists():
        time.sleep(0.002)


def _wait_ready(address: str) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        try:
            if httpx.get(f"{address}/readyz").json()["status"] == "ready":
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"{address} did not become ready"
        time.sleep(0.01)


def main() -> None:
    """Fork a process for each line; children that ended are reaped by the system."""
    bundle = Bundle.load(Path(sys.argv[1]))
    with TemporaryDirectory() as folder:
        desk = Desk(Path(folder), bundle)
        desk.writer.warm_up()
        desk.close()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        what, *words = line.split()
        child = os.fork()
        if not child:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if what == "writer":
                serve_writer(bundle, *words)
            else:
                serve_front(*words)
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    main()
