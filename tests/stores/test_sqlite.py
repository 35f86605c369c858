"""The SQLite store by itself: what only it promises. What every log promises is tested through the log."""

from __future__ import annotations

import threading
from pathlib import Path

import apsw
import numpy as np
import pytest

from obligor.errors import IntegrityError, LimitError, ObligorError
from obligor.events.store import BlockRow, Commit, LogStore, OffsetRow, OffsetStep
from obligor.stores.sqlite import SQLiteStore, checkpoints, tables
from obligor.stores.sqlite.store import DATABASE


@pytest.fixture
def store(tmp_path: Path) -> SQLiteStore:
    return SQLiteStore(str(tmp_path / "log"), "create", synchronous="OFF")


def block(first: int, last: int, size: int = 10) -> BlockRow:
    return BlockRow(first, last, 1_000 + last, bytes([first % 256]) * 32, b"x" * size)


def ids(*pairs: tuple[int, int]) -> Commit:
    return Commit(slots=np.array([p[0] for p in pairs], np.int64), sequences=np.array([p[1] for p in pairs], np.int64))


def test_it_is_a_log_store(store: SQLiteStore) -> None:
    as_protocol: LogStore = store
    assert as_protocol.head() is None
    assert as_protocol.meta() == {}


def test_a_lock_is_released_when_opening_fails(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / DATABASE).write_bytes(b"not a database" * 100)
    for _ in range(2):
        with pytest.raises(IntegrityError, match="cannot be read"):
            SQLiteStore(str(folder), "write")


@pytest.mark.parametrize(
    ("pragma", "message"),
    [("application_id = 1", "another SQLite file"), ("user_version = 2", "expected log format 1, got 2")],
)
@pytest.mark.parametrize("mode", ["read", "write"])
def test_other_files_and_formats_are_refused(
    tmp_path: Path, store: SQLiteStore, pragma: str, message: str, mode: str
) -> None:
    store.close()
    with apsw.Connection(str(tmp_path / "log" / DATABASE)) as connection:
        connection.execute(f"PRAGMA {pragma}")
    with pytest.raises(ObligorError, match=message):
        SQLiteStore(str(tmp_path / "log"), mode).meta()  # type: ignore[arg-type]


def test_the_settings_that_durability_rests_on(tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path / "log"), "create")
    assert store._writer is not None
    assert store._writer.pragma("synchronous") == 2, "FULL"
    assert store._writer.pragma("journal_mode") == "wal"
    assert store._reader().pragma("query_only") == 1
    store.close()


def test_a_sqlite_with_the_wal_reset_bug_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SQLITE_MINIMUM", apsw.SQLITE_VERSION_NUMBER + 1)
    with pytest.raises(ObligorError, match="WAL-reset bug"):
        SQLiteStore(str(tmp_path / "log"), "create")
    assert not (tmp_path / "log").exists()


class TestCheckpoints:
    """The WAL goes back into the database without failing a commit, and does not grow for ever."""

    def pages(self, store: SQLiteStore) -> int:
        return (store._path / f"{DATABASE}-wal").stat().st_size // 4096

    def write(self, store: SQLiteStore, transactions: int) -> None:
        for _ in range(transactions):
            first = (store.bounds() or [(0, 0)])[-1][1] + 1
            store.write(
                Commit(
                    blocks=[block(first, first, size=40_000)],
                    slots=np.array([first], np.int64),
                    sequences=np.array([first], np.int64),
                )
            )

    def test_a_thread_keeps_the_wal_short(self, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checkpoints, "SOFT_PAGES", 20)
        monkeypatch.setattr(checkpoints, "HARD_PAGES", 1_000_000)
        self.write(store, 20)
        assert "obligor-checkpoint" in {thread.name for thread in threading.enumerate()}
        longest = self.pages(store)
        for _ in range(50):  # however late the thread is, the file ceases to grow, since it begins anew
            self.write(store, 20)
            if self.pages(store) <= longest:
                break
            longest = self.pages(store)
        else:
            pytest.fail(f"the WAL has grown to {longest} pages")
        store.close()
        assert "obligor-checkpoint" not in {thread.name for thread in threading.enumerate()}

    def test_the_writer_does_it_when_the_thread_is_outrun(
        self, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoints, "SOFT_PAGES", 50)
        monkeypatch.setattr(checkpoints, "HARD_PAGES", 50)
        self.write(store, 100)
        assert self.pages(store) < 120
        assert "obligor-checkpoint" not in {thread.name for thread in threading.enumerate()}

    def test_a_checkpoint_that_fails_fails_no_commit(self, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """A reader holds the WAL; commits go on until the limit, and then say why."""
        monkeypatch.setattr(checkpoints, "HARD_PAGES", 20)
        monkeypatch.setattr(checkpoints, "LIMIT_PAGES", 300)
        self.write(store, 2)
        reader = store._connect(apsw.SQLITE_OPEN_READWRITE, 1 << 20)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM blocks").get  # noqa: B018 - starts the read transaction
        with pytest.raises(LimitError, match="cannot be checkpointed: a reader holds on to it"):
            self.write(store, 100)
        written = store.bounds()[-1][1]
        assert written > 20
        reader.execute("COMMIT")
        reader.close()
        self.write(store, 20)
        assert store.bounds()[-1][1] == written + 20, "with the reader gone it goes on"


def test_a_log_made_before_there_were_offsets_gets_their_table_from_a_writer(
    tmp_path: Path, store: SQLiteStore
) -> None:
    row = OffsetRow("group", "payments", 0, "id-1", 3)
    store.close()
    connection = apsw.Connection(str(tmp_path / "log" / DATABASE))
    connection.execute("DROP TABLE offsets")
    connection.close()
    reader = SQLiteStore(str(tmp_path / "log"), "read")
    assert (reader.offset("group", "payments", 0), reader.offsets()) == (None, [])
    again = SQLiteStore(str(tmp_path / "log"), "write", synchronous="OFF")
    again.write(Commit(offsets=[OffsetStep(row, None)]))
    assert reader.offset("group", "payments", 0) == row
    reader.close()
    again.close()
