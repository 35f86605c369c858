"""A proxy before a PostgreSQL server that cuts a connection around a commit, so that its answer is lost."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import Literal

__all__ = ["Cut", "CuttingProxy"]

# Where the connection is cut: the commit does not arrive; half of it does; it arrives and nobody hears of it.
Cut = Literal["before", "half", "after"]
SOCKET = ".s.PGSQL.5432"
FLUSH = b"H\x00\x00\x00\x04"  # else the server keeps its answers until the client says that there is no more
ANSWER_S = 30.0
BYTES_MAX = 1 << 20


class CuttingProxy:
    """Passes everything on between clients and the server in `target` until `cut` is set, and then cuts once.

    `folder` is the host to connect to. `cuts` counts.
    """

    def __init__(self, target: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="obligor-cut-"))
        self.cut: Cut | None = None
        self.cuts = 0
        self._target = str(target / SOCKET)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / SOCKET))
        self._listener.listen()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                self._open += [client, server]
                swallowing, done = threading.Event(), threading.Event()
                threading.Thread(target=self._requests, args=(client, server, swallowing, done), daemon=True).start()
                threading.Thread(target=self._answers, args=(client, server, swallowing, done), daemon=True).start()

    def _requests(
        self, client: socket.socket, server: socket.socket, swallowing: threading.Event, done: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(BYTES_MAX):
                if self.cut is not None and b"COMMIT" in data:
                    cut, self.cut = self.cut, None
                    self.cuts += 1
                    if cut == "after":  # the server has committed, and nobody hears of it
                        swallowing.set()
                        server.sendall(data + FLUSH)
                        assert done.wait(ANSWER_S), "the server answered"
                        client.shutdown(socket.SHUT_RDWR)
                    else:
                        client.shutdown(socket.SHUT_RDWR)
                        server.sendall(data[: len(data) // 2] if cut == "half" else b"")
                    break
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _answers(
        self, client: socket.socket, server: socket.socket, swallowing: threading.Event, done: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(BYTES_MAX):
                if not swallowing.is_set():
                    client.sendall(data)
                elif b"COMMIT" in data:
                    done.set()
        for one in (client, server):
            one.close()

    def close(self) -> None:
        """Stop listening and close what is open."""
        self._listener.close()
        for one in self._open:
            one.close()
        shutil.rmtree(self.folder)
