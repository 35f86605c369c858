"""LMDB as a state store: no trust in pages of a boot that is over, snapshots for readers. See also test_states."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from obligor.errors import BadInput, NotFound
from obligor.features.state_store import StateStore
from obligor.stores.lmdb import LmdbStateReader, LmdbStateStore
from obligor.stores.lmdb.state import _BEGUN_A_CHECK


def _filled(path: Path, boot: str) -> LmdbStateStore:
    store = LmdbStateStore(path, boot=boot)
    staged = store.begin()
    staged.put_many([(b"a", b"1")])
    staged.commit()
    return store


def _holds(path: Path, boot: str) -> bool:
    store = LmdbStateStore(path, boot=boot)
    staged = store.begin()
    held = staged.get(b"a") is not None
    staged.abort()
    store._environment.close()
    return held


def test_a_store_is_trusted_within_its_boot_and_not_after(tmp_path: Path) -> None:
    store = _filled(tmp_path / "state", "boot-1")
    store._environment.close()  # as a killed process leaves it: no closing mark
    assert _holds(tmp_path / "state", "boot-1")
    assert not _holds(tmp_path / "state", "boot-2")


def test_a_cleanly_closed_store_is_trusted_by_any_boot(tmp_path: Path) -> None:
    _filled(tmp_path / "state", "boot-1").close()
    assert _holds(tmp_path / "state", "boot-2")
    assert not _holds(tmp_path / "state", "boot-3"), "opening takes the closing mark away"


def test_a_system_without_boot_ids_trusts_nothing(tmp_path: Path) -> None:
    _filled(tmp_path / "state", "")._environment.close()
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
        store._environment.close()
        assert len(values) == 1, "a transaction is whole or not there"
        assert int.from_bytes(values.pop()[:8], "big") >= acknowledged


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
    store._environment.close()  # as after a kill
    with pytest.raises(NotFound, match="no online state"):
        LmdbStateReader(tmp_path / "state", boot="two")
    reader = LmdbStateReader(tmp_path / "state", boot="one")
    snapshot = reader.begin()
    assert bytes(snapshot.get(b"a") or b"") == b"1"
    with pytest.raises(lmdb.ReadonlyError):
        snapshot.put_many([(b"a", b"2")])
    snapshot.abort()
    with pytest.raises(BadInput, match="for reading only"):
        reader.clear()
    reader.close()
    (tmp_path / "state" / "data.mdb").unlink()
    with pytest.raises(NotFound, match="cannot be read"):
        LmdbStateReader(tmp_path / "state", boot="one")
