"""`obligor up`: front end, two shard writers, PostgreSQL, Redis and a broker, as processes of this machine."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from obligor.cli.options import InProject
from obligor.cli.output import Output
from obligor.errors import ObligorError

__all__ = ["up"]


def up(
    port: Annotated[int | None, typer.Option(help="Port of the front end.", show_default="obligor.toml's")] = None,
    no_keys: Annotated[bool, typer.Option("--no-keys", help="Take requests without an API key.")] = False,
    project: InProject = Path(),
) -> None:
    """Run a project as it runs on several machines, all on this one's loopback, until Ctrl-C. For trying and for tests.

    Whatever ends is started again. The first time the project's log is copied into the box, .up in the project's
    folder, which is a project too: `obligor replay --project .up` and all other commands work on it beside this one.
    """
    import obligor
    from obligor.cli.box import FOLDER, TOPICS, Box
    from obligor.cli.local_servers import missing

    out = Output(as_json=False)
    absent = missing()
    if absent:
        raise ObligorError(f"not installed: {', '.join(absent)}; pip install 'obligor[box]'")
    opened = obligor.open(project)
    opened.bundle()  # where there is none, it is said before anything is started
    box = Box(opened, port or opened.settings.server.port, no_keys=no_keys, told=out.say)
    stopping = threading.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda number, frame: stopping.set())
    try:
        box.start()
        assert box.front is not None, "it was started"
        out.say(f"\nDecisions at [bold]{box.front.address}/v1/decisions[/], pages at {box.front.address}/docs")
        out.say(f"Topics at {box.broker.address}: {', '.join(TOPICS)}; the log at {box.postgres.url('box')}")
        out.say(f"All commands work on it: [bold]obligor replay --project {opened.root / FOLDER}[/]. Ctrl-C ends it.")
        stopping.wait()
    finally:
        out.say("It is stopped: what the log holds stays")
        box.stop()
