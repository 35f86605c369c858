"""Serves a desk from processes that are forked ready to go, so that a test can kill many of them quickly.

Run as a program with a bundle (and `late` for a planted fault) it reads one command a line, `<folder> <port>`, forks a
server for each and prints its process id. Code is loaded before the fork and no thread is left running, so that a
server is up in a fraction of a second; it is a process of its own and dies of SIGKILL like any other.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn
from tests.decisions.desk import Desk, open_log, open_state

from obligor.decisions.http import create_app
from obligor.decisions.service import Service
from obligor.events.log import EventLog
from obligor.events.store import Commit
from obligor.models.bundle import Bundle


def write_late(log: EventLog) -> None:
    """Plant a fault: each commit is written when the next one comes, so that the newest is acknowledged unwritten."""
    write = log.store.write
    waiting: list[Commit] = []

    def late(commit: Commit) -> None:
        waiting.append(commit)
        if len(waiting) > 1:
            write(waiting.pop(0))

    log.store.write = late  # type: ignore[method-assign]


def serve(folder: Path, bundle: Path, port: int, *, fault: bool) -> None:
    """Serve until killed."""
    loaded = Bundle.load(bundle)
    log = open_log(folder / "log")
    if fault:
        write_late(log)
    service = Service(
        log,
        open_state(folder / "state", loaded.plan, loaded.fold),
        loaded,
        clock=lambda: time.time_ns() // 1000,
    )
    uvicorn.run(create_app(service, None), port=port, log_config=None, access_log=False, ws="none")


def main() -> None:
    """Fork a server for each line; children that ended are reaped by the system."""
    bundle = Path(sys.argv[1])
    with TemporaryDirectory() as folder:
        desk = Desk(Path(folder), Bundle.load(bundle))
        desk.writer.warm_up()
        desk.close()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        folder, port = line.split()
        child = os.fork()
        if not child:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            serve(Path(folder), bundle, int(port), fault=sys.argv[2:] == ["late"])
            os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    main()
