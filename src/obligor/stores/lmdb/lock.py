"""The lock of a state's folder: two processes must never write one state.

LMDB lets two processes write in turn, but each would hold the other's rows for damage, and one may empty the folder
under the other. So whoever opens a state for writing holds an advisory lock on a file in its folder, from before
anything is looked at or removed until it is closed; the system releases it with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from obligor.features.state_store import StateBusy

__all__ = ["LOCK", "FolderLock", "is_held"]

LOCK = "writer.lock"
PATIENCE_S = 0.5  # so that somebody who only looks whether the lock is held is in nobody's way
_PAUSE_S = 0.01


class FolderLock:
    """The right to write in a folder, which is made where there is none; StateBusy while another opener has it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        deadline_s = time.monotonic() + PATIENCE_S
        while (descriptor := self._try()) is None:
            if time.monotonic() > deadline_s:
                raise StateBusy(
                    f"{folder}: process {_owner(self._path)} is writing this online state, and one may; wait until it "
                    "is done, or stop it (`obligor state list` shows the states in use)"
                )
            time.sleep(_PAUSE_S)
        self._descriptor: int | None = descriptor
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except OSError:
            self.release()
            raise

    def _try(self) -> int | None:
        """Return the locked file's descriptor; None where another has it, or where the folder went meanwhile."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            return None
        if _locked(descriptor, fcntl.LOCK_EX) and _is_at(descriptor, self._path):
            return descriptor
        os.close(descriptor)
        return None

    def remove_folder(self) -> None:
        """Delete the lock's file and the folder, which has nothing else of the state's, and release the lock."""
        try:
            self._path.unlink()
            with suppress(OSError):  # the next opener is there already, or something that is not ours
                self._path.parent.rmdir()
        finally:
            self.release()

    def release(self) -> None:
        """Let others have it; nothing happens the second time."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether somebody writes the state in this folder now."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _locked(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the file is still the one of that name: a lock on one that was deleted keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(path: Path) -> str:
    try:
        return path.read_text() or "?"
    except OSError:
        return "?"
