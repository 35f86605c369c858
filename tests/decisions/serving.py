"""Serves an application on a loopback port from a thread, as `obligor serve` does, and gives a client for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette

SECONDS_MAX = 120.0


@contextmanager
def serving(app: Starlette, headers: dict[str, str] | None = None, *, ready: bool = True) -> Iterator[httpx.Client]:
    """Serve `app`, wait until it is ready if so asked, and yield a client."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, ws="none", log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            port = listener.getsockname()[1]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=SECONDS_MAX) as client:
                while not server.started:
                    assert thread.is_alive(), "the server did not start"
                    time.sleep(0.005)
                if ready:
                    wait_ready(client)
                yield client
        finally:
            server.should_exit = True
            thread.join()


def wait_ready(client: httpx.Client) -> None:
    """Wait until the service takes requests."""
    deadline = time.monotonic() + SECONDS_MAX
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline, "the service did not become ready"
        time.sleep(0.01)
