"""Commands that a service runs in processes of their own: how it starts them, and how they end with it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from tempfile import TemporaryFile

from obligor.errors import ObligorError

__all__ = ["attend", "carry_out"]

NICENESS = 10  # of what a service has started: decisions come first
POLL_S = 0.05
WORDS_MAX = 2_000  # of what a process that failed said, from the end


def carry_out(arguments: Sequence[str], stopping: Callable[[], bool]) -> bytes | None:
    """Run an `obligor` command to its end and return what it printed; None soon after `stopping` says so.

    ObligorError with what it said where it fails. It ends with this process at the latest.
    """
    with (
        TemporaryFile() as printed,
        TemporaryFile() as said,
        subprocess.Popen(
            [sys.executable, "-m", "obligor", *arguments, "--attended"],
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


def attend() -> None:
    """Give way to the service that started this process, and end with it: standard input ends when that is gone."""

    def end() -> None:
        while os.read(0, 1):  # not through sys.stdin, whose lock a thread must not hold when the process ends
            pass
        os._exit(1)  # as if killed, which all that is attended survives

    os.nice(NICENESS)
    threading.Thread(target=end, daemon=True).start()
