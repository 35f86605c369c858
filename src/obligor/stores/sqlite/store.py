"""The log's store in one SQLite file: one connection writes, every reading thread has its own.

A commit is one SQLite transaction in WAL mode with synchronous=FULL. The file lock `writer.lock` keeps a second writer
out, also one in another process. Ids are kept as rows of an integer-keyed B-tree in hash order: for random ids this
keeps inserts at about a microsecond each with ten million rows in the tree.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import numpy.typing as npt

from obligor.errors import IntegrityError, NotFound, ObligorError
from obligor.events.store import (
    BlockRow,
    Commit,
    Head,
    LedgerRow,
    Mode,
    OffsetRow,
    OffsetStep,
    PendingRow,
    StaleOffset,
    StoreBusy,
    VersionRow,
)
from obligor.stores.sqlite.checkpoints import Checkpointer
from obligor.stores.sqlite.tables import ADDED, APPLICATION_ID, FORMAT, SCHEMA, check_version, settings

__all__ = ["DATABASE", "SQLiteStore"]

DATABASE = "log.sqlite3"
LOCK = "writer.lock"
WRITER_CACHE_BYTES = 256 << 20
READER_CACHE_BYTES = 8 << 20
_PAGE_ROWS = 1000
_IDS_AT_ONCE = 50
_BLOCK = "SELECT first, last, known_time, chain, body FROM blocks"
_HEAD = """
SELECT b.last, b.known_time, b.chain, l.sequence, l.chain FROM (SELECT 1)
LEFT JOIN (SELECT last, known_time, chain FROM blocks ORDER BY first DESC LIMIT 1) AS b
LEFT JOIN (SELECT sequence, chain FROM ledger ORDER BY sequence DESC LIMIT 1) AS l
"""  # one statement, so that both ends are of one moment
_VERSION = "SELECT sequence, root, type, kind, known_time, visible_sequence, visible_known FROM versions"
_PENDING = "SELECT sequence, event_id, target, type, kind, known_time, void FROM pending"
_OFFSETS = "SELECT source, topic, partition, topic_id, following FROM offsets"
_PARTITION = "WHERE source = ? AND topic = ? AND partition = ?"
_LEDGER = "SELECT sequence, decision_id, application_position, record, chain FROM ledger"


class SQLiteStore:
    """A `LogStore`; `synchronous` and `vfs` are arguments only so that tests can show what a sync is worth."""

    def __init__(self, path: str, mode: Mode, *, synchronous: str = "FULL", vfs: str | None = None) -> None:
        check_version()
        self._path, self._mode, self._synchronous, self._vfs = Path(path), mode, synchronous, vfs
        self._lock_file: int | None = None
        self._threads = threading.local()
        self._readers: list[apsw.Connection] = []
        self._readers_guard = threading.Lock()
        self._checkpointer: Checkpointer | None = None
        database = self._path / DATABASE
        if mode == "create":
            self._path.mkdir(parents=True, exist_ok=True)
            _create(database)
        elif not database.exists():
            raise NotFound(f"{self._path}: no log here; create one with `obligor init` or `obligor ingest`")
        self._writer = None if mode == "read" else self._open_writer()

    # -- opening and closing

    def _open_writer(self) -> apsw.Connection:
        self._lock_file = _lock(self._path / LOCK)
        try:
            connection = self._connect(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, WRITER_CACHE_BYTES)
            if self._mode == "create":
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT")
            _check_format(connection, self._path)
            connection.execute(ADDED)
            connect = partial(self._connect, apsw.SQLITE_OPEN_READWRITE, READER_CACHE_BYTES)
            self._checkpointer = Checkpointer(connection, connect)
        except BaseException:
            os.close(self._lock_file)
            raise
        return connection

    def _connect(self, flags: int, cache_bytes: int) -> apsw.Connection:
        try:
            connection = apsw.Connection(str(self._path / DATABASE), flags=flags, vfs=self._vfs)
            settings(connection, cache_bytes, self._synchronous)
        except (apsw.NotADBError, apsw.CorruptError) as error:
            raise IntegrityError(f"{self._path}: its database cannot be read: {error}") from None
        return connection

    def _reader(self) -> apsw.Connection:
        connection: apsw.Connection | None = getattr(self._threads, "connection", None)
        if connection is None:
            # Read-write, because a reader of a WAL file may have to recover it; it never writes a row.
            connection = self._connect(apsw.SQLITE_OPEN_READWRITE, READER_CACHE_BYTES)
            connection.execute("PRAGMA query_only = 1")
            _check_format(connection, self._path)
            self._threads.connection = connection
            with self._readers_guard:
                self._readers.append(connection)
        return connection

    def close(self) -> None:
        """Release files and locks."""
        if self._checkpointer is not None:
            self._checkpointer.close()
        with self._readers_guard:
            for connection in self._readers:
                connection.close()
            self._readers.clear()
        if self._writer is not None:
            self._writer.close()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    # -- the writer

    def write(self, commit: Commit) -> None:
        """Write one transaction, atomically and durably."""
        assert self._writer is not None, "a log opened for reading does not write"
        assert self._checkpointer is not None, "a writer has its checkpointer"
        self._checkpointer.before_commit()
        with _Transaction(self._writer) as connection:
            _insert(connection, commit)
        self._checkpointer.after_commit()

    def set_meta(self, values: dict[str, bytes]) -> None:
        """Set named values, durably."""
        assert self._writer is not None, "a log opened for reading does not write"
        with _Transaction(self._writer) as connection:
            connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def erase(self, sequences: Sequence[int]) -> int:
        """Delete the sealed personal fields of these events so that no trace stays in the files; return how many.

        StoreBusy where a reader keeps the WAL from being cut: what was deleted stays in it until this is run again.
        """
        assert self._writer is not None, "a log opened for reading does not write"
        self._writer.execute("PRAGMA secure_delete = ON")  # overwritten, not only freed
        erased = 0
        if sequences:
            with _Transaction(self._writer) as connection:
                wanted = apsw.carray(np.array(sorted(sequences), np.int64))
                connection.execute("DELETE FROM personal WHERE sequence IN (SELECT value FROM carray(?))", (wanted,))
                erased = connection.changes()
        try:
            self._writer.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            raise StoreBusy(f"{self._path}: erased, but a reader holds the old pages; run it again later") from None
        return erased

    def find(self, slots: npt.NDArray[np.int64]) -> dict[int, int]:
        """Return the sequence of each slot (sorted ascending) that the id index holds."""
        assert self._writer is not None, "only the writer looks up many ids"
        if len(slots) <= 4:
            return {slot: found for slot in slots.tolist() if (found := _sequence(self._writer, slot)) is not None}
        rows = self._writer.execute(
            "SELECT ids.slot, ids.sequence FROM carray(?) AS wanted JOIN ids ON ids.slot = wanted.value",
            (apsw.carray(np.ascontiguousarray(slots)),),
        )
        return dict(rows)

    # -- readers

    def offset(self, source: str, topic: str, partition: int) -> OffsetRow | None:
        """Return how far a partition is, None where nothing was ever written of it."""
        if self._mode == "read" and self._one("SELECT 1 FROM sqlite_schema WHERE name = 'offsets'", ()) is None:
            return None
        row = self._one(f"{_OFFSETS} {_PARTITION}", (source, topic, partition))
        return None if row is None else OffsetRow(*row)

    def offsets(self) -> list[OffsetRow]:
        """Return how far all partitions are."""
        if self._mode == "read" and self._one("SELECT 1 FROM sqlite_schema WHERE name = 'offsets'", ()) is None:
            return []
        return [OffsetRow(*row) for row in self._reader().execute(f"{_OFFSETS} ORDER BY source, topic, partition")]

    def meta(self) -> dict[str, bytes]:
        """Return the named values of the log."""
        return dict(self._reader().execute("SELECT name, value FROM meta"))

    def head(self) -> Head | None:
        """Return where the log ends."""
        last, known_time, chain, sequence, ledger_chain = self._one(_HEAD, ())
        if last is None and sequence is None:
            return None
        return Head(last or 0, known_time or 0, chain or b"", sequence or 0, ledger_chain or b"")

    def lookup(self, slot: int) -> int | None:
        """Return the sequence at one slot of the id index."""
        return _sequence(self._reader(), slot)

    def slots(self) -> Iterator[tuple[int, int]]:
        """Yield the whole id index as (slot, sequence), slots ascending."""
        yield from self._reader().execute("SELECT slot, sequence FROM ids ORDER BY slot")

    def blocks(self, after: int, upto: int) -> Iterator[BlockRow]:
        """Yield the blocks that hold any sequence in (after, upto], in order."""
        while after < upto:
            row = self.block_at(after + 1)
            if row is None:
                raise IntegrityError(f"the block that holds sequence {after + 1} is missing")
            yield row
            after = row.last

    def block_at(self, sequence: int) -> BlockRow | None:
        """Return the block that holds the sequence."""
        row = self._one(f"{_BLOCK} WHERE first <= ? ORDER BY first DESC LIMIT 1", (sequence,))
        return BlockRow(*row) if row is not None and row[1] >= sequence else None

    def bounds(self) -> Sequence[tuple[int, int]]:
        """Return (first, last) of all blocks, in order."""
        return self._all("SELECT first, last FROM blocks ORDER BY first")

    def last_block_upto(self, sequence: int) -> tuple[int, bytes] | None:
        """Return (last sequence, link) of the last block that ends at or before the sequence."""
        sql = "SELECT last, chain FROM blocks WHERE first <= ? AND last <= ? ORDER BY first DESC LIMIT 1"
        row = self._one(sql, (sequence, sequence))
        return None if row is None else (row[0], row[1])

    def schema(self, digest: bytes) -> bytes | None:
        """Return a stored Arrow schema by its digest."""
        row = self._one("SELECT arrow FROM schemas WHERE digest = ?", (digest,))
        return None if row is None else row[0]

    def version(self, sequence: int) -> VersionRow | None:
        """Return the effective version at a sequence."""
        row = self._one(f"{_VERSION} WHERE sequence = ?", (sequence,))
        return None if row is None else VersionRow(*row)

    def versions_of(self, roots: Iterable[int]) -> list[VersionRow]:
        """Return all effective versions of these facts."""
        wanted = np.array(sorted(roots), np.int64)
        if not len(wanted):
            return []
        sql = f"{_VERSION} WHERE root IN (SELECT value FROM carray(?)) ORDER BY sequence"
        return [VersionRow(*row) for row in self._reader().execute(sql, (apsw.carray(wanted),))]

    def versions_visible(self, after: int, upto: int, type_name: str | None = None) -> list[VersionRow]:
        """Return the versions, of one type or all, whose visible_sequence is in (after, upto]."""
        sql = f"{_VERSION} WHERE visible_sequence > ? AND visible_sequence <= ? AND type = coalesce(?, type)"
        return [VersionRow(*row) for row in self._all(sql, (after, upto, type_name))]

    def pending_row(self, sequence: int) -> PendingRow | None:
        """Return the pending version at a sequence."""
        row = self._one(f"{_PENDING} WHERE sequence = ?", (sequence,))
        return None if row is None else _pending(row)

    def pending_on(self, target: str) -> list[PendingRow]:
        """Return the versions that wait for this event_id, in order."""
        rows = self._reader().execute(f"{_PENDING} WHERE target = ? ORDER BY sequence", (target,))
        return [_pending(row) for row in rows]

    def pending(self) -> list[PendingRow]:
        """Return all versions that are not effective, in order."""
        return [_pending(row) for row in self._reader().execute(f"{_PENDING} ORDER BY sequence")]

    def ledger(self, after: int) -> Iterator[LedgerRow]:
        """Yield the ledger rows after a ledger sequence, in order."""
        page = f"{_LEDGER} WHERE sequence > ? ORDER BY sequence LIMIT {_PAGE_ROWS}"
        while rows := [LedgerRow(*row) for row in self._all(page, (after,))]:
            yield from rows
            after = rows[-1].sequence

    def decision(self, decision_id: str) -> LedgerRow | None:
        """Return a decision's ledger row."""
        row = self._one(f"{_LEDGER} WHERE decision_id = ?", (decision_id,))
        return None if row is None else LedgerRow(*row)

    def decision_for(self, application_position: int) -> LedgerRow | None:
        """Return the ledger row of the decision on an application."""
        row = self._one(f"{_LEDGER} WHERE application_position = ? ORDER BY sequence LIMIT 1", (application_position,))
        return None if row is None else LedgerRow(*row)

    def personal(self, sequence: int) -> bytes | None:
        """Return the sealed personal fields of an event."""
        row = self._one("SELECT sealed FROM personal WHERE sequence = ?", (sequence,))
        return None if row is None else row[0]

    def sealed(self) -> Iterator[tuple[int, bytes]]:
        """Yield all sealed personal fields as (sequence, sealed), in order."""
        after = -1
        page = f"SELECT sequence, sealed FROM personal WHERE sequence > ? ORDER BY sequence LIMIT {_PAGE_ROWS}"
        while rows := self._all(page, (after,)):
            yield from rows
            after = rows[-1][0]

    def _all(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        return self._reader().execute(sql, values).fetchall()

    def _one(self, sql: str, values: tuple[Any, ...]) -> Any:
        return self._reader().execute(sql, values).fetchone()


class _Transaction:
    """BEGIN IMMEDIATE to COMMIT; anything raised inside, or by the commit itself, rolls back."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> apsw.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


def _insert(connection: apsw.Connection, commit: Commit) -> None:
    if commit.schemas:
        connection.executemany("INSERT OR IGNORE INTO schemas VALUES (?, ?)", commit.schemas.items())
    connection.executemany("INSERT INTO blocks VALUES (?, ?, ?, ?, ?)", commit.blocks)
    _insert_ids(connection, np.stack([commit.slots, commit.sequences], axis=1))
    if commit.resolved:
        connection.executemany("DELETE FROM pending WHERE sequence = ?", [(one,) for one in commit.resolved])
    connection.executemany("INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?, ?, ?)", commit.pending)
    connection.executemany("INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?)", commit.versions)
    connection.executemany("INSERT INTO ledger VALUES (?, ?, ?, ?, ?)", commit.ledger)
    connection.executemany("INSERT INTO personal VALUES (?, ?)", commit.personal)
    for step in commit.offsets:
        _advance(connection, step)


def _advance(connection: apsw.Connection, step: OffsetStep) -> None:
    found = connection.execute(f"{_OFFSETS} {_PARTITION}", step.row[:3]).fetchone()
    if (None if found is None else found[4]) != step.before:
        raise StaleOffset(f"expected the partition at offset {step.before}, got {found}; nothing was written")
    connection.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?, ?)", step.row)


def _insert_ids(connection: apsw.Connection, pairs: npt.NDArray[np.int64]) -> None:
    """Insert ids, `_IDS_AT_ONCE` a statement: it takes 40% off the time of one by one."""
    together = len(pairs) - len(pairs) % _IDS_AT_ONCE
    rows = pairs[:together].reshape(-1, 2 * _IDS_AT_ONCE).tolist()
    connection.executemany("INSERT INTO ids VALUES " + ", ".join(["(?, ?)"] * _IDS_AT_ONCE), rows)
    connection.executemany("INSERT INTO ids VALUES (?, ?)", pairs[together:].tolist())


def _sequence(connection: apsw.Connection, slot: int) -> int | None:
    row = connection.execute("SELECT sequence FROM ids WHERE slot = ?", (slot,)).fetchone()
    return None if row is None else row[0]


def _pending(row: tuple[Any, ...]) -> PendingRow:
    return PendingRow._make(row)._replace(void=bool(row[6]))


def _check_format(connection: apsw.Connection, path: Path) -> None:
    application = connection.pragma("application_id")
    if application == 0 and not connection.pragma("page_count"):
        raise IntegrityError(f"{path}: the making of this log was cut short and nothing is in it; delete the folder")
    if application != APPLICATION_ID:
        raise ObligorError(f"{path / DATABASE}: expected a log of Obligor, got another SQLite file")
    found = connection.pragma("user_version")
    if found != FORMAT:
        raise ObligorError(
            f"{path / DATABASE}: expected log format {FORMAT}, got {found}; use the release that wrote it"
        )


def _create(database: Path) -> None:
    """Make the database file, for its owner only; SQLite gives its WAL the same mode."""
    try:
        os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise ObligorError(
            f"{database.parent}: there is a log here already; open it or choose an empty folder"
        ) from None


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StoreBusy(
            f"{path.parent}: another process is writing this log; stop it, or open the log for reading"
        ) from None
    return descriptor
