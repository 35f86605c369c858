"""Commands in processes of their own: how they are started, and how those that a service started end with it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from tempfile import TemporaryFile

from obligor.errors import ObligorError

__all__ = ["Rounds", "attend", "carry_out"]

NICENESS = 10  # of what a service has started: decisions come first
POLL_S = 0.05
WORDS_MAX = 2_000  # of what a process that failed said, from the end


def carry_out(arguments: Sequence[str], stopping: Callable[[], bool]) -> bytes | None:
    """Run an `obligor` command to its end and return what it printed; None soon after `stopping` says so.

    ObligorError with what it said where it fails. With `--attended` among its arguments, which those commands take that
    call `attend`, it gives way to this process, and ends with it at the latest.
    """
    with (
        TemporaryFile() as printed,
        TemporaryFile() as said,
        subprocess.Popen(
            [sys.executable, "-m", "obligor", *arguments],
            stdin=subprocess.PIPE,  # its end says that this process is gone
            stdout=printed,
            stderr=said,
            start_new_session=True,  # signals to the service's group are not for it
        ) as process,
    ):
        while process.poll() is None:
            if stopping():
                process.kill()
                process.wait()
                return None
            try:
                process.wait(POLL_S)
            except subprocess.TimeoutExpired:
                continue
        if process.returncode:
            said.seek(0)
            words = said.read().decode(errors="replace").strip()[-WORDS_MAX:]
            how = f"was killed by signal {-process.returncode}" if process.returncode < 0 else "failed"
            raise ObligorError(f"`obligor {' '.join(arguments[:2])}` {how}: {words or 'it said nothing'}")
        printed.seek(0)
        return printed.read()


class Rounds:
    """Work for a service in rounds, on a thread of its own; a `Companion` of its HTTP application."""

    def __init__(self, name: str) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Give up the round under way, which loses nothing, and end the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        """Go from round to round until `_stopping` is set."""
        raise NotImplementedError


def attend() -> None:
    """Give way to the service that started this process, and end with it: standard input ends when that is gone."""

    def end() -> None:
        while os.read(0, 1):  # not through sys.stdin, whose lock a thread must not hold when the process ends
            pass
        os._exit(1)  # as if killed, which all that is attended survives

    os.nice(NICENESS)
    threading.Thread(target=end, daemon=True).start()
