"""LMDB as the store of online state.

LMDB runs without syncing: a killed process loses nothing, because the operating system holds the written pages, but a
crash of the operating system may leave torn ones. So the folder names the boot it was written in (`boot`, replaced by
the word `closed` after a synced close), and a store from another boot is emptied before LMDB reads a byte of it.
One opener writes at a time (`lock`); readers need no lock.
The memory map is read-only (no WRITEMAP): a full disk is an error here, not a SIGBUS. Measured on two cores, 2 KB
values at random keys: 1.6 us a get, 6.9 us a put with its share of the commit.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import lmdb

from obligor.errors import BadInput, NotFound
from obligor.features.state_store import Entry, Range
from obligor.stores.lmdb.lock import FolderLock

__all__ = ["LmdbStateReader", "LmdbStateStore", "boot_id", "remove_state"]

SIZE_BYTES_MAX = 64 * 2**30
READERS_MAX = 16  # snapshots that may be open at once
_BEGUN_A_CHECK = 1024  # how often it is looked whether a reader's process is gone, whose snapshot would keep space
_CLOSED = "closed"
_MARKER, _MARKER_DRAFT = "boot", "boot.new"
_PAGES = ("data.mdb", "lock.mdb")


def boot_id() -> str:
    """Return the id of the running boot of the operating system; empty where it has none, and nothing is trusted."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _full() -> OSError:
    return OSError(errno.ENOSPC, "the online state has reached its declared size; raise size_bytes_max")


def _failed(error: lmdb.Error) -> OSError:
    return OSError(errno.EIO, f"the online state could not be written: {error}")


class LmdbTransaction:
    """A write transaction, or one that only reads; see `StateTransaction`."""

    far = False

    def __init__(self, environment: lmdb.Environment, *, write: bool = True) -> None:
        self._transaction = environment.begin(write=write, buffers=True)

    def fetch(self, keys: Sequence[bytes], ranges: Sequence[Range] = ()) -> None:
        """Nothing is far in a memory map."""

    def get(self, key: bytes) -> Entry | None:
        """Return the value of `key`, or None."""
        value: memoryview | None = self._transaction.get(key)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[Entry | None]:
        """Return the values of `keys`, in their order, None for those that are absent."""
        return list(map(self._transaction.get, keys))

    def put_many(self, items: Iterable[tuple[bytes, Entry]]) -> None:
        """Store all of `items`; OSError (ENOSPC) when the store is full."""
        try:
            with self._transaction.cursor() as cursor:
                cursor.putmulti(items)
        except lmdb.MapFullError:
            raise _full() from None
        except lmdb.Error as error:
            raise _failed(error) from error

    def delete(self, key: bytes) -> None:
        """Remove `key`; it may be absent."""
        self._transaction.delete(key)

    def scan(self, start: bytes, stop: bytes, limit: int | None = None) -> list[tuple[bytes, Entry]]:
        """Return the entries with start <= key < stop in the order of their keys, the first `limit` of them."""
        entries: list[tuple[bytes, Entry]] = []
        with self._transaction.cursor() as cursor:
            if not cursor.set_range(start):
                return entries
            for key, value in cursor:
                name = bytes(key)
                if name >= stop or len(entries) == limit:
                    break
                entries.append((name, value))
        return entries

    def names(self, start: bytes, stop: bytes, limit: int) -> list[bytes]:
        """Return the keys of a scan without their values."""
        return [name for name, _ in self.scan(start, stop, limit)]

    def commit(self) -> None:
        """Make the writes visible and end the transaction."""
        try:
            self._transaction.commit()
        except lmdb.MapFullError:
            raise _full() from None
        except lmdb.Error as error:
            raise _failed(error) from error

    def abort(self) -> None:
        """Drop the writes and end the transaction; nothing happens when it has ended."""
        self._transaction.abort()


def _remove(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _is_trusted(marker: Path, boot: str) -> bool:
    """Whether the pages in a marked folder are those that were written."""
    word = marker.read_text() if marker.exists() else ""
    return bool(word) and word in (boot, _CLOSED)


class LmdbStateStore:
    """The state of one plan in the folder `path`; emptied on opening when its last writer's boot is over.

    StateBusy while another opener has it, in this process or another.
    """

    def __init__(self, path: Path, *, size_bytes_max: int = SIZE_BYTES_MAX, boot: str | None = None) -> None:
        self._path, self._size_bytes_max = path, size_bytes_max
        self._boot = boot_id() if boot is None else boot
        self._marker = path / _MARKER
        self._begun = 0
        self._last: LmdbTransaction | None = None
        self._lock = FolderLock(path)  # before anything in the folder is believed or removed
        try:
            if not _is_trusted(self._marker, self._boot):
                _remove(path, _PAGES)
            self._mark(self._boot)
            self._environment = self._open()
        except BaseException:
            self._lock.release()
            raise

    def _mark(self, word: str) -> None:
        """Replace the marker durably: it must be on disk before LMDB writes the first page under it."""
        draft = self._path / _MARKER_DRAFT
        with draft.open("w") as file:
            file.write(word)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._marker)
        folder = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _open(self) -> lmdb.Environment:
        try:
            return lmdb.open(
                str(self._path),
                map_size=self._size_bytes_max,
                sync=False,
                metasync=False,
                meminit=False,
                readahead=False,
                max_readers=READERS_MAX,
            )
        except lmdb.Error as error:
            raise _failed(error) from error

    def begin(self) -> LmdbTransaction:
        """Start the one write transaction."""
        self._begun += 1
        if self._begun % _BEGUN_A_CHECK == 0:
            self._environment.reader_check()
        self._last = LmdbTransaction(self._environment)
        return self._last

    def clear(self) -> None:
        """Remove everything, for a rebuild: the files go, so that their space is free at once."""
        self._release()
        _remove(self._path, _PAGES)
        self._environment = self._open()

    def close(self) -> None:
        """Sync, then mark the folder as closed cleanly, so that another boot may trust it; OSError where that fails."""
        try:
            try:
                self._environment.sync(True)
            finally:
                self._release()
            self._mark(_CLOSED)
        except lmdb.Error as error:
            raise _failed(error) from error
        finally:
            self._lock.release()

    def _release(self) -> None:
        """Close the environment, and first what was begun: its lock would lie in memory that is no longer mapped."""
        if self._last is not None:
            self._last.abort()
        self._environment.close()


def remove_state(path: Path) -> None:
    """Remove a state and its folder; StateBusy while somebody writes it."""
    lock = FolderLock(path)
    try:
        _remove(path, (_MARKER, _MARKER_DRAFT, *_PAGES))  # the marker first: half a state is not to be trusted
    except OSError:
        lock.release()
        raise
    lock.remove_folder()


class LmdbStateReader:
    """The state in the folder `path` as another process writes it: every transaction is one snapshot, and only reads.

    LMDB's readers hold up nobody, but what they see keeps its space in the file until they end. NotFound where there is
    no state, or one of another boot that nobody has opened since.
    """

    def __init__(self, path: Path, *, boot: str | None = None) -> None:
        if not _is_trusted(path / _MARKER, boot_id() if boot is None else boot):
            raise NotFound(f"no online state in {path} that can be read; a service builds it when it starts")
        try:
            self._environment = lmdb.open(
                str(path),
                readonly=True,
                create=False,
                map_size=SIZE_BYTES_MAX,  # as the writer may let it grow
                readahead=False,
                max_readers=READERS_MAX,
            )
        except lmdb.Error as error:
            raise NotFound(f"the online state in {path} cannot be read: {error}") from None

    def begin(self) -> LmdbTransaction:
        """Take a snapshot."""
        return LmdbTransaction(self._environment, write=False)

    def clear(self) -> None:
        """Refuse: only the writer may."""
        raise BadInput("this state is open for reading only")

    def close(self) -> None:
        """Release it."""
        self._environment.close()
