"""A deployment in a box: a project's service as it runs on several machines, as processes of this one.

PostgreSQL for the log, Redis for the online state of each writer, a broker for topics in and out, a writer for each of
two shards, and the front end. Each that ends is started again. What the box keeps lies in a folder of its own, which is
a project too: its files are links to the project's, its settings name the servers. So every command works on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from obligor.cli.attended import carry_out
from obligor.cli.local_servers import LocalBroker, LocalPostgres, LocalRedis, LocalServer, free_port
from obligor.errors import ObligorError
from obligor.events.personal import KEY_FILE
from obligor.project import Project, open_project

__all__ = ["FOLDER", "SHARDS", "TOPICS", "Box", "LocalService"]

FOLDER: Final = ".up"  # in the project's
SHARDS: Final = 2
TOPICS: Final = ("events", "dead-letters", "decisions", "outcomes")
PARTITIONS: Final = 4
WATCH_S: Final = 0.1  # between two looks at a process
NOT_LINKED: Final = {"obligor.toml", "store", "bundles", "reports"}
ANSWER_S: Final = 2.0


class LocalService(LocalServer):
    """`obligor serve` as a process."""

    def __init__(self, name: str, folder: Path, port: int, arguments: Sequence[str]) -> None:
        self.name, self.port, self.address = name, port, f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "obligor", "serve", "--project", str(folder), "--port", str(port), *arguments]
        super().__init__(command, folder / "messages" / f"{name.replace(' ', '-')}.messages")

    def answers(self) -> bool:
        """Whether it takes requests."""
        try:
            with urllib.request.urlopen(f"{self.address}/readyz", timeout=ANSWER_S) as found:  # of this machine
                return bool(found.status == 200)
        except (urllib.error.URLError, OSError):
            return False


class Box:
    """The processes of one project, from `start` to `stop`."""

    def __init__(self, project: Project, port: int, *, no_keys: bool, told: Callable[[str], None]) -> None:
        """`told` is given what happens, line by line."""
        self._project, self._told, self._keys = project, told, ["--no-keys"] if no_keys else []
        self.folder = project.root / FOLDER
        (self.folder / "messages").mkdir(parents=True, exist_ok=True)
        self.postgres = LocalPostgres(_postgres_folder(self.folder))
        self.redis = LocalRedis(self.folder / "messages", free_port())
        self.broker = LocalBroker(self.folder / "messages", free_port())
        self._ports = [free_port() for _ in range(SHARDS)]
        self._front_port = port
        self._group = f"box-{time.time_ns()}"  # the broker keeps nothing, so that its topics are others each time
        self.writers: list[LocalService] = []
        self.front: LocalService | None = None
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start everything, from the servers to the front end."""
        for server in (self.postgres, self.redis, self.broker):
            server.start()
            self._told(f"{server.name} runs, process {server.pid}")
        self._link()
        self._write_settings()
        self._make_log()
        self._make_topics()
        self.writers = [
            LocalService(f"writer {shard}", self.folder, port, ["--shard", str(shard), *self._keys])
            for shard, port in enumerate(self._ports)
        ]
        self.front = LocalService("front end", self.folder, self._front_port, self._keys)
        for service in (*self.writers, self.front):
            service.start()
            self._told(f"{service.name} answers at {service.address}, process {service.pid}")
        for one in self.servers():
            thread = threading.Thread(target=self._watch, args=(one,), name=f"obligor-{one.name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def servers(self) -> Iterator[LocalServer]:
        """Yield all processes."""
        yield from (self.postgres, self.redis, self.broker, *self.writers)
        if self.front is not None:
            yield self.front

    def stop(self) -> None:
        """End everything, from the front end to the servers."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        for server in reversed(list(self.servers())):
            server.end()

    def _watch(self, server: LocalServer) -> None:
        """Start a process again whenever it has ended."""
        while not self._stopping.wait(WATCH_S):
            if server.running:
                continue
            try:
                server.start()
                self._told(f"{server.name} had ended and runs again, process {server.pid}")
                if server is self.broker:
                    self._after_broker()
            except ObligorError as error:
                self._told(f"{server.name} had ended and could not be started: {error}")

    def _after_broker(self) -> None:
        """Read the topics, which are others now, under another group, as a person would once it is noticed."""
        self._make_topics()
        self._group = f"box-{time.time_ns()}"
        self._write_settings()
        self._told("the broker keeps nothing: the writers are started again to read its new topics")
        for writer in self.writers:
            writer.end()  # whoever watches it starts it again

    # -- what it is made of

    def _link(self) -> None:
        for path in self._project.root.iterdir():
            link = self.folder / path.name
            if path.name not in NOT_LINKED and not path.name.startswith((".", "__")) and not link.exists():
                link.symlink_to(path)

    def _write_settings(self) -> None:
        settings, project = self._project.settings, self._project
        tables: dict[str, dict[str, object]] = {
            "store": {
                "log": self.postgres.url("box"),
                "key": self._key_folder(),
                "state": f"{self.redis.address}?prefix=box",
                "lake": "lake",
                "bundles": str(project.bundles),
                "reports": str(project.path(settings.store.reports)),
            },
            "server": {"port": self._front_port},
            "server.keys": dict(settings.server.keys),
            "shards": {"writers": [f"http://127.0.0.1:{port}" for port in self._ports]},
            "kafka": {"brokers": self.broker.address, "group": self._group, "dead_letters": "dead-letters"},
            # A writer that was killed is missed soon, and its partitions go to the others.
            "kafka.options": {"session.timeout.ms": 6_000, "max.poll.interval.ms": 10_000},
            "kafka.outbox": {"topic": "decisions", "key": self._key_entity()},
            "kafka.outcomes": {"topic": "outcomes", "key": self._key_entity()},
        }
        lines = [f"zone = {json.dumps(settings.zone)}"]
        for table, values in tables.items():
            lines += [
                "",
                f"[{table}]",
                *(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in values.items()),
            ]
        lines += ["", "[[kafka.topics]]", 'name = "events"', ""]
        draft = self.folder / ".obligor.toml"
        draft.write_text("\n".join(lines))
        draft.replace(self.folder / "obligor.toml")

    def _key_folder(self) -> str:
        """Return where the box's log has its key: that of the project's log, which it is a copy of, or its own."""
        copied = self._project.log_place().keys
        own = (self.folder / "key" / KEY_FILE).exists() or not (copied / KEY_FILE).exists()
        return "key" if own else str(copied.resolve())

    def _key_entity(self) -> str:
        return next(iter(self._project.application.entities()))

    def _make_topics(self) -> None:
        from obligor.stores.kafka.topics import make_topics

        kafka = open_project(self.folder).settings.kafka
        assert kafka is not None, "they were just written"
        make_topics(kafka, TOPICS, PARTITIONS)

    def _make_log(self) -> None:
        """Have a log of two shards; the first time it is a copy of the project's own, where there is one."""
        boxed = open_project(self.folder)
        if not boxed.log_place().exists():
            if self._project.log_place().exists():
                self._told("the project's log is copied into the box, once")
                self._command("log", "copy", "--to", boxed.settings.store.log, "--project", str(self._project.root))
            else:
                boxed.log().close()
        with boxed.log(read_only=True) as log:
            missing = SHARDS - log.shards
        for _ in range(missing):
            self._command("log", "shards", "--add", "--project", str(self.folder))

    def _command(self, *arguments: str) -> None:
        carry_out(arguments, self._stopping.is_set)


def _postgres_folder(folder: Path) -> Path:
    """Return where the database lies: in the box; as root where the server's own user can reach it."""
    if os.geteuid() != 0:
        return folder / "postgres"
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"obligor-up-{name}"
