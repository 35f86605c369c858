"""A disk that forgets what was not synced: a SQLite VFS for showing what a sync is worth.

Files live on the real disk, and beside them the shim keeps, for each, the bytes as of its last sync and the writes
since. `crash_into` writes what a machine could find after a loss of power: the synced bytes and, of the later writes,
none or any part in any order.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apsw

__all__ = ["VolatileDisk"]


class VolatileDisk(apsw.VFS):
    """Registers itself under `name`; `unregister` takes it back. `before_sync` is called before every sync."""

    def __init__(self, name: str) -> None:
        self.syncs = 0
        self.before_sync: Callable[[], object] = lambda: None
        self._synced: dict[str, bytes] = {}
        self._since: dict[str, list[tuple[int, bytes | None]]] = {}
        self._guard = threading.RLock()
        super().__init__(name, base="")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        path = name if isinstance(name, str) or name is None else name.filename()
        return _File(self, path, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self._synced.pop(filename, None)
        self._since.pop(filename, None)

    def sync(self, path: str, real_sync: Callable[[], object]) -> None:
        """Sync a file and note that what was written to it before is safe; another thread may go on writing."""
        self.before_sync()
        with self._guard:
            content, written = Path(path).read_bytes(), len(self._since.get(path, []))
        real_sync()
        with self._guard:
            self.syncs += 1
            self._synced[path] = content
            self._since[path] = self._since.get(path, [])[written:]

    def write(self, path: str, offset: int, data: bytes | None, real_write: Callable[[], object]) -> None:
        """Write, or with None truncate to `offset`, and note it."""
        with self._guard:
            real_write()
            self._since.setdefault(path, []).append((offset, data))

    def crash_into(self, folder: Path, chance: random.Random | None = None) -> None:
        """Write into a folder what is left: what was synced and, with `chance`, some of what was not."""
        folder.mkdir(parents=True)
        with self._guard:
            for path in sorted(self._synced.keys() | self._since.keys()):
                content = bytearray(self._synced.get(path, b""))
                if chance is not None:
                    _write_some(content, self._since.get(path, []), chance)
                if content:
                    (folder / Path(path).name).write_bytes(content)


def _write_some(content: bytearray, writes: list[tuple[int, bytes | None]], chance: random.Random) -> None:
    some = [one for one in writes if chance.random() < 0.5]
    chance.shuffle(some)
    for offset, data in some:
        if data is None:
            del content[offset:]
        else:
            content.extend(bytes(max(0, offset + len(data) - len(content))))
            content[offset : offset + len(data)] = data


class _File(apsw.VFSFile):
    def __init__(self, disk: VolatileDisk, path: str | None, name: Any, flags: list[int]) -> None:
        self._disk, self._path = disk, path
        super().__init__("", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:
        write = partial(super().xWrite, data, offset)
        if self._path is None:
            write()
        else:
            self._disk.write(self._path, offset, bytes(data), write)

    def xTruncate(self, size: int) -> None:
        truncate = partial(super().xTruncate, size)
        if self._path is None:
            truncate()
        else:
            self._disk.write(self._path, size, None, truncate)

    def xSync(self, flags: int) -> None:
        sync = partial(super().xSync, flags)
        if self._path is None:
            sync()
        else:
            self._disk.sync(self._path, sync)
