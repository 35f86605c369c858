"""The SQLite store by itself: what only it promises. What every log promises is tested through the log."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import apsw
import numpy as np
import pytest

from obligor.errors import IntegrityError, LimitError, NotFound, ObligorError
from obligor.events.store import BlockRow, Commit, LedgerRow, LogStore, OffsetRow, OffsetStep, StaleOffset, StoreBusy
from obligor.stores.sqlite import SQLiteStore, checkpoints, tables
from obligor.stores.sqlite.store import DATABASE, LOCK


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


def test_a_commit_is_all_or_nothing(store: SQLiteStore) -> None:
    store.write(Commit(blocks=[block(1, 3)], slots=np.array([5, 9], np.int64), sequences=np.array([1, 2], np.int64)))
    row = LedgerRow(1, "d-1", 1, b"", b"")
    clash = Commit(
        blocks=[block(4, 4)], slots=np.array([7, 9], np.int64), sequences=np.array([3, 4], np.int64), ledger=[row]
    )
    with pytest.raises(apsw.ConstraintError):
        store.write(clash)
    assert store.bounds() == [(1, 3)]
    assert (store.lookup(7), store.lookup(9), store.decision("d-1")) == (None, 2, None)
    store.write(Commit(blocks=[block(4, 4)]))
    assert store.bounds() == [(1, 3), (4, 4)]


@pytest.mark.parametrize("count", [1, 4, 5, 3000])
def test_slots_are_found_few_or_many(store: SQLiteStore, count: int) -> None:
    ends = [(-(2**63), 1), (2**63 - 1, 2)]
    store.write(ids(*ends, *[(7 * i, i + 3) for i in range(count)]))
    wanted = np.array(sorted({-(2**63), 2**63 - 1, *range(0, 7 * count, 1 if count < 10 else 7)}), np.int64)
    assert store.find(wanted) == dict(ends) | {7 * i: i + 3 for i in range(count)}
    assert store.find(wanted[:1]) == {-(2**63): 1}
    assert sorted(store.slots()) == sorted([*ends, *[(7 * i, i + 3) for i in range(count)]])


def test_blocks_are_found_by_the_sequences_in_them(store: SQLiteStore) -> None:
    store.write(Commit(blocks=[block(1, 3), block(4, 4), block(5, 20, size=100_000)]))
    found = {s: b.first for s in range(25) if (b := store.block_at(s)) is not None}
    assert found == {1: 1, 2: 1, 3: 1, 4: 4} | dict.fromkeys(range(5, 21), 5)
    assert [b.first for b in store.blocks(0, 20)] == [1, 4, 5]
    assert [b.first for b in store.blocks(2, 4)] == [1, 4]
    assert [b.first for b in store.blocks(4, 5)] == [5]
    assert list(store.blocks(4, 4)) == []
    assert [store.last_block_upto(s) for s in (0, 2)] == [None, None]
    assert [store.last_block_upto(s) for s in (3, 4, 19, 20, 99)] == [
        (3, block(1, 3).chain),
        (4, block(4, 4).chain),
        (4, block(4, 4).chain),
        (20, block(5, 20).chain),
        (20, block(5, 20).chain),
    ]


def test_a_missing_block_is_an_error_and_not_an_end(store: SQLiteStore) -> None:
    store.write(Commit(blocks=[block(1, 3), block(5, 6)]))
    with pytest.raises(IntegrityError, match="sequence 4 is missing"):
        list(store.blocks(0, 6))


def test_a_long_ledger_is_read_in_pages(store: SQLiteStore) -> None:
    rows = [LedgerRow(i, f"d-{i}", i, b"r", b"c") for i in range(1, 2501)]
    store.write(Commit(ledger=rows))
    assert list(store.ledger(0)) == rows
    assert list(store.ledger(2499)) == rows[2499:]
    assert store.decision("d-7") == rows[6]
    assert store.decision_for(2500) == rows[2499]


def step(following: int, before: int | None, partition: int = 0, topic_id: str = "id-1") -> OffsetStep:
    return OffsetStep(OffsetRow("group", "payments", partition, topic_id, following), before)


def test_offsets_go_on_from_where_they_are_and_with_what_was_read(store: SQLiteStore) -> None:
    assert store.offset("group", "payments", 0) is None
    store.write(Commit(blocks=[block(1, 3)], offsets=[step(3, None), step(9, None, partition=1)]))
    store.write(Commit(blocks=[block(4, 4)], offsets=[step(5, 3)]))
    assert store.offset("group", "payments", 0) == OffsetRow("group", "payments", 0, "id-1", 5)
    assert store.offset("group", "payments", 1) == OffsetRow("group", "payments", 1, "id-1", 9)
    assert [store.offset(*key) for key in (("other", "payments", 0), ("group", "other", 0))] == [None, None]


@pytest.mark.parametrize("before", [None, 2, 4])
def test_a_step_from_elsewhere_writes_nothing_at_all(store: SQLiteStore, before: int | None) -> None:
    store.write(Commit(blocks=[block(1, 3)], offsets=[step(3, None)]))
    with pytest.raises(StaleOffset, match=f"at offset {before}"):
        store.write(Commit(blocks=[block(4, 4)], offsets=[step(7, None, partition=1), step(5, before)]))
    assert store.bounds() == [(1, 3)]
    assert [store.offset("group", "payments", n) for n in (0, 1)] == [step(3, None).row, None]


def test_a_log_made_before_there_were_offsets_gets_their_table_from_a_writer(
    tmp_path: Path, store: SQLiteStore
) -> None:
    store.close()
    with apsw.Connection(str(tmp_path / "log" / DATABASE)) as connection:
        connection.execute("DROP TABLE offsets")
    connection.close()
    reader = SQLiteStore(str(tmp_path / "log"), "read")
    assert reader.offset("group", "payments", 0) is None
    again = SQLiteStore(str(tmp_path / "log"), "write", synchronous="OFF")
    again.write(Commit(offsets=[step(3, None)]))
    assert reader.offset("group", "payments", 0) == step(3, None).row
    reader.close()
    again.close()


def test_the_lock_holds_against_other_processes(tmp_path: Path, store: SQLiteStore) -> None:
    code = "import sys; from obligor.stores.sqlite import SQLiteStore; SQLiteStore(sys.argv[1], 'write')"
    command = [sys.executable, "-c", code, str(tmp_path / "log")]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "StoreBusy" in refused.stderr
    store.close()
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    assert (tmp_path / "log" / LOCK).exists()


def test_a_lock_is_released_when_opening_fails(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / DATABASE).write_bytes(b"not a database" * 100)
    for _ in range(2):
        with pytest.raises(apsw.NotADBError):
            SQLiteStore(str(folder), "write")


def test_a_second_writer_in_this_process_is_refused(tmp_path: Path, store: SQLiteStore) -> None:
    with pytest.raises(StoreBusy, match="open the log for reading"):
        SQLiteStore(str(tmp_path / "log"), "write")


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


def test_readers_cannot_write(tmp_path: Path, store: SQLiteStore) -> None:
    reader = SQLiteStore(str(tmp_path / "log"), "read")
    for call in (
        lambda: reader.write(Commit()),
        lambda: reader.set_meta({}),
        lambda: reader.find(np.zeros(1, np.int64)),
    ):
        with pytest.raises(AssertionError):
            call()
    with pytest.raises(apsw.ReadOnlyError):
        store._reader().execute("DELETE FROM ids")
    with pytest.raises(NotFound):
        SQLiteStore(str(tmp_path / "absent"), "read")


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
