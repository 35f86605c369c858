"""LMDB as a state store: no trust in pages of a boot that is over, snapshots for readers. See also test_states."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from obligor.errors import BadInput, NotFound
from obligor.features.state_store import StateBusy, StateStore
from obligor.stores.lmdb import LmdbStateReader, LmdbStateStore, StateFolder
from obligor.stores.lmdb import lock as lock_module
from obligor.stores.lmdb.lock import FolderLock, is_held
from obligor.stores.lmdb.state import _BEGUN_A_CHECK, remove_state


def _filled(path: Path, boot: str) -> LmdbStateStore:
    store = LmdbStateStore(path, boot=boot)
    staged = store.begin()
    staged.put_many([(b"a", b"1")])
    staged.commit()
    return store


def _abandon(store: LmdbStateStore) -> None:
    """Leave the folder as a killed process does: no closing mark, and the lock is gone with it."""
    store._environment.close()
    store._lock.release()


def _holds(path: Path, boot: str) -> bool:
    store = LmdbStateStore(path, boot=boot)
    staged = store.begin()
    held = staged.get(b"a") is not None
    staged.abort()
    _abandon(store)
    return held


def test_a_store_is_trusted_within_its_boot_and_not_after(tmp_path: Path) -> None:
    store = _filled(tmp_path / "state", "boot-1")
    _abandon(store)
    assert _holds(tmp_path / "state", "boot-1")
    assert not _holds(tmp_path / "state", "boot-2")


def test_a_cleanly_closed_store_is_trusted_by_any_boot(tmp_path: Path) -> None:
    _filled(tmp_path / "state", "boot-1").close()
    assert _holds(tmp_path / "state", "boot-2")
    assert not _holds(tmp_path / "state", "boot-3"), "opening takes the closing mark away"


def test_a_system_without_boot_ids_trusts_nothing(tmp_path: Path) -> None:
    _abandon(_filled(tmp_path / "state", ""))
    assert not _holds(tmp_path / "state", "")


def test_a_full_store_is_an_error_of_the_disk(tmp_path: Path) -> None:
    store = LmdbStateStore(tmp_path / "state", size_bytes_max=2**20)
    staged = store.begin()
    with pytest.raises(OSError, match="raise size_bytes_max") as caught:
        staged.put_many((i.to_bytes(4, "big"), bytes(4000)) for i in range(1000))
    assert caught.value.errno == errno.ENOSPC
    staged.abort()


_WRITER = """
import sys
from pathlib import Path
from obligor.stores.lmdb import LmdbStateStore
store = LmdbStateStore(Path(sys.argv[1]))
for number in range(10**9):
    staged = store.begin()
    staged.put_many([(bytes([key]), number.to_bytes(8, "big") * 300) for key in range(50)])
    staged.commit()
    print(number, flush=True)
"""


def test_a_killed_process_leaves_whole_transactions(tmp_path: Path) -> None:
    for kill in range(5):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path / "state")], stdout=subprocess.PIPE)
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(3 + 11 * kill)][-1]
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        store = LmdbStateStore(tmp_path / "state")
        staged = store.begin()
        values = {bytes(value) for _, value in staged.scan(b"", b"\xff")}
        staged.abort()
        _abandon(store)
        assert len(values) == 1, "a transaction is whole or not there"
        assert int.from_bytes(values.pop()[:8], "big") >= acknowledged


# ---- one writer ------------------------------------------------------------------------------------------------------

HOLDING = """
import sys
from pathlib import Path
from obligor.stores.lmdb import LmdbStateStore

store = LmdbStateStore(Path(sys.argv[1]), boot="one")
print("open", flush=True)
sys.stdin.readline()
store.clear()
print("cleared", flush=True)
sys.stdin.readline()
"""


@contextmanager
def _holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the state in `path` open, clears it at the first line and ends at the second."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def _tell(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def test_a_second_opener_is_refused_and_takes_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "state"
    _filled(path, "one").close()
    with _holder(path) as process:
        for boot in ("one", "another"):  # one that would trust the pages, and one that would remove them
            with pytest.raises(StateBusy, match=rf"{path}: process {process.pid} is writing .* wait until it is done"):
                LmdbStateStore(path, boot=boot)
        with pytest.raises(StateBusy):
            remove_state(path)
        reader = LmdbStateReader(path, boot="one")
        snapshot = reader.begin()
        assert bytes(snapshot.get(b"a") or b"") == b"1", "it is all there, and a reader needs no lock"
        snapshot.abort()
        reader.close()
        assert _tell(process) == "cleared\n"
        with pytest.raises(StateBusy):  # clearing keeps the lock
            LmdbStateStore(path, boot="one")
        process.kill()
        process.wait()
        assert not _holds(path, "one"), "death releases it"


def test_a_state_has_one_opener_in_a_process_too_until_it_is_closed(tmp_path: Path) -> None:
    store = LmdbStateStore(tmp_path / "state", boot="one")
    with pytest.raises(StateBusy):
        LmdbStateStore(tmp_path / "state", boot="one")
    store.close()
    LmdbStateStore(tmp_path / "state", boot="one").close()


def test_whoever_looks_whether_it_is_held_is_in_nobody_s_way(tmp_path: Path) -> None:
    LmdbStateStore(tmp_path / "state", boot="one").close()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            is_held(tmp_path / "state")

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(200):
            lock = FolderLock(tmp_path / "state")
            lock.release()
    except StateBusy:
        pytest.fail("somebody who looks kept the writer out")
    finally:
        stop.set()
        looking.join()


def test_a_lock_on_a_file_that_was_removed_keeps_nobody_out_and_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder removes the folder just before another, who has its file open, locks it."""
    path = tmp_path / "state"
    holders, locked = [FolderLock(path)], lock_module._locked

    def late(descriptor: int, kind: int) -> bool:
        if holders:
            holders.pop().remove_folder()
        return locked(descriptor, kind)

    with monkeypatch.context() as patch:
        patch.setattr(lock_module, "_locked", late)
        lock = FolderLock(path)
    assert is_held(path), "the lock is on the file that is there"
    with pytest.raises(StateBusy):
        FolderLock(path)
    lock.release()
    assert not is_held(path)


def test_a_folder_tells_its_states_and_removes_one(tmp_path: Path) -> None:
    names = ["0" * 16, "1" * 16]
    for name in names:
        _put(store := LmdbStateStore(tmp_path / name), [(b"a", bytes(100_000))])
        store.close()
    (tmp_path / "something else").mkdir()
    states = StateFolder(tmp_path)
    assert [(one.name, one.head, one.in_use) for one in states.all()] == [(name, None, False) for name in names]
    assert all(100_000 < one.size_bytes < 1_000_000 for one in states.all())
    store = LmdbStateStore(tmp_path / names[0])
    assert is_held(tmp_path / names[0])
    with pytest.raises(StateBusy):
        states.remove(names[0])
    store.close()
    states.remove(names[0])
    assert [one.name for one in states.all()] == names[1:]
    assert not (tmp_path / names[0]).exists()
    for wrong in (names[0], "something else", ".."):
        with pytest.raises(NotFound, match=names[1]):
            states.remove(wrong)
    assert StateFolder(tmp_path / "none").all() == []


def test_a_close_that_fails_lets_the_next_one_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LmdbStateStore(tmp_path / "state", boot="one")

    def full(self: LmdbStateStore, word: str) -> None:
        raise OSError(errno.ENOSPC, "a planted full disk")

    with monkeypatch.context() as patch:
        patch.setattr(LmdbStateStore, "_mark", full)
        with pytest.raises(OSError, match="planted"):
            store.close()
        with pytest.raises(OSError, match="planted"):
            LmdbStateStore(tmp_path / "state", boot="one")
    LmdbStateStore(tmp_path / "state", boot="one").close()


# ---- another process reads -------------------------------------------------------------------------------------------

READING = """
import sys
from pathlib import Path
from obligor.stores.lmdb import LmdbStateReader

reader = LmdbStateReader(Path(sys.argv[1]))
snapshot = reader.begin()
print(bytes(snapshot.get(b"a")).decode(), flush=True)
sys.stdin.readline()
print(bytes(snapshot.get(b"a")).decode(), [bytes(k).decode() for k, _ in snapshot.scan(b"a", b"z")], flush=True)
snapshot.abort()
later = reader.begin()
print(bytes(later.get(b"a")).decode(), flush=True)
sys.stdin.readline()
"""


def _put(store: StateStore, items: list[tuple[bytes, bytes]]) -> None:
    staged = store.begin()
    staged.put_many(items)
    staged.commit()


def test_a_reader_beside_the_writer_sees_one_moment_and_then_the_next(tmp_path: Path) -> None:
    store = LmdbStateStore(tmp_path)
    _put(store, [(b"a", b"1")])
    with subprocess.Popen(
        [sys.executable, "-c", READING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        assert reader.stdout.readline() == "1\n"
        for number in range(50):
            _put(store, [(b"a", b"2"), (b"b%d" % number, bytes(3000))])
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "1 ['a']\n", "a snapshot stays what it was"
        assert reader.stdout.readline() == "2\n"
        reader.kill()  # with a snapshot open
    for _ in range(_BEGUN_A_CHECK):
        store.begin().abort()
    assert store._environment.reader_check() == 0, "whoever was killed has been taken off the list of readers"
    store.close()


def test_a_reader_trusts_no_pages_of_another_boot_and_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no online state"):
        LmdbStateReader(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    store = LmdbStateStore(tmp_path / "state", boot="one")
    _put(store, [(b"a", b"1")])
    _abandon(store)
    with pytest.raises(NotFound, match="no online state"):
        LmdbStateReader(tmp_path / "state", boot="two")
    reader = LmdbStateReader(tmp_path / "state", boot="one")
    snapshot = reader.begin()
    assert bytes(snapshot.get(b"a") or b"") == b"1"
    with pytest.raises(OSError, match="Permission denied"):
        snapshot.put_many([(b"a", b"2")])
    snapshot.abort()
    with pytest.raises(BadInput, match="for reading only"):
        reader.clear()
    reader.close()
    (tmp_path / "state" / "data.mdb").unlink()
    with pytest.raises(NotFound, match="cannot be read"):
        LmdbStateReader(tmp_path / "state", boot="one")
