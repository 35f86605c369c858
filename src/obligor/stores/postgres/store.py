"""The log's store in a schema of a PostgreSQL database: one session writes, reading threads share a few others.

A commit is one transaction with synchronous_commit on, sent in one go; many ids go in by binary COPY. The writer is the
only one by a lock and a token, and finds out what became of a commit whose answer was lost
(`obligor.stores.postgres.writer`). Reads are single statements, and page through what is long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from obligor.errors import IntegrityError
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
    VersionRow,
)
from obligor.stores.postgres.address import Address
from obligor.stores.postgres.sessions import Readers, Session, connect
from obligor.stores.postgres.tables import COLUMNS, check_format
from obligor.stores.postgres.writer import Writer

__all__ = ["PostgresStore", "has_log"]

COPIED_IDS_MIN = 2_000
PAGE_BYTES = 8 << 20
_PAGE_BLOCKS = 500
_PAGE_ROWS = 1_000
_PAGE_IDS = 50_000
_BLOCK = "SELECT first, last, known_time, chain, body FROM blocks"
# As many blocks from one on as have a page's bytes together, one at least; `octet_length` does not fetch a body.
_BLOCKS = f"""
SELECT first, last, known_time, chain, body FROM (
    SELECT *, sum(octet_length(body)) OVER (ORDER BY first) - octet_length(body) AS before FROM (
        {_BLOCK} WHERE first >= (SELECT max(first) FROM blocks WHERE first <= %s) AND first <= %s
        ORDER BY first LIMIT {_PAGE_BLOCKS}
    ) AS listed
) AS measured WHERE before < {PAGE_BYTES} ORDER BY first
"""
_HEAD = """
SELECT b.last, b.known_time, b.chain, l.sequence, l.chain FROM (SELECT) AS one
LEFT JOIN (SELECT last, known_time, chain FROM blocks ORDER BY first DESC LIMIT 1) AS b ON true
LEFT JOIN (SELECT sequence, chain FROM ledger ORDER BY sequence DESC LIMIT 1) AS l ON true
"""
_VERSION = "SELECT sequence, root, type, kind, known_time, visible_sequence, visible_known FROM versions"
_PENDING = "SELECT sequence, event_id, target, type, kind, known_time, void FROM pending"
_OFFSETS = "SELECT source, topic, partition, topic_id, following FROM offsets"
_PARTITION = "WHERE source = %s AND topic = %s AND partition = %s"
_LEDGER = "SELECT sequence, decision_id, application_position, record, chain FROM ledger"


class PostgresStore:
    """A `LogStore`; `synchronous` is an argument only so that tests can show what it is worth."""

    def __init__(self, url: str, mode: Mode, *, synchronous: str = "on") -> None:
        address = Address.parse(url)
        self._address = address
        self._readers = Readers(address)
        self._writer: Writer | None = None
        if mode != "read":
            self._writer = Writer(address, create=mode == "create", synchronous=synchronous)
        else:
            with closing(connect(address, "reader")) as session:
                check_format(session, address)

    def close(self) -> None:
        """End all sessions, and with the writer's its lock."""
        self._readers.close()
        if self._writer is not None:
            self._writer.close()

    # -- the writer

    def write(self, commit: Commit) -> None:
        """Write one transaction, atomically and durably; StaleOffset where a partition is elsewhere."""
        assert self._writer is not None, "a log opened for reading does not write"
        many = len(commit.slots) >= COPIED_IDS_MIN  # COPY and pipelines do not go together
        pipelined = not many and not commit.offsets  # an offset is looked at before it goes on
        self._writer.transact(partial(_insert, commit=commit, many=many), pipelined=pipelined)

    def set_meta(self, values: dict[str, bytes]) -> None:
        """Set named values, durably."""
        assert self._writer is not None, "a log opened for reading does not write"
        sql = "INSERT INTO meta VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        self._writer.transact(lambda session: [session.execute(sql, pair) for pair in values.items()])

    def erase(self, sequences: Sequence[int]) -> int:
        """Delete the sealed personal fields of these events so that no query finds them; return how many.

        The space that they took is free for what is written next; docs/operations.md says what the files still hold.
        """
        assert self._writer is not None, "a log opened for reading does not write"
        wanted = np.array(sorted(sequences), np.int64)
        [(erased,)] = self._readers.rows("SELECT count(*) FROM personal WHERE sequence = ANY(%b)", (wanted,))
        delete = "DELETE FROM personal WHERE sequence = ANY(%b)"
        self._writer.transact(lambda session: session.execute(delete, (wanted,)))
        with closing(connect(self._address, "writer")) as session:
            session.execute("VACUUM personal")
        return int(erased)

    def find(self, slots: npt.NDArray[np.int64]) -> dict[int, int]:
        """Return the sequence of each slot (sorted ascending) that the id index holds."""
        assert self._writer is not None, "only the writer looks up many ids"
        return dict(self._readers.rows("SELECT slot, sequence FROM ids WHERE slot = ANY(%b)", (slots,)))

    # -- readers

    def offset(self, source: str, topic: str, partition: int) -> OffsetRow | None:
        """Return how far a partition is, None where nothing was ever written of it."""
        row = self._one(f"{_OFFSETS} {_PARTITION}", source, topic, partition)
        return None if row is None else OffsetRow(*row)

    def offsets(self) -> list[OffsetRow]:
        """Return how far all partitions are."""
        return [OffsetRow(*row) for row in self._readers.rows(f"{_OFFSETS} ORDER BY source, topic, partition")]

    def meta(self) -> dict[str, bytes]:
        """Return the named values of the log."""
        return dict(self._readers.rows("SELECT name, value FROM meta"))

    def head(self) -> Head | None:
        """Return where the log ends."""
        [(last, known_time, chain, sequence, ledger_chain)] = self._readers.rows(_HEAD)
        if last is None and sequence is None:
            return None
        return Head(last or 0, known_time or 0, chain or b"", sequence or 0, ledger_chain or b"")

    def lookup(self, slot: int) -> int | None:
        """Return the sequence at one slot of the id index."""
        row = self._one("SELECT sequence FROM ids WHERE slot = %s", slot)
        return None if row is None else row[0]

    def slots(self) -> Iterator[tuple[int, int]]:
        """Yield the whole id index as (slot, sequence), slots ascending."""
        page = "SELECT slot, sequence FROM ids{} ORDER BY slot LIMIT %s"
        rows = self._readers.rows(page.format(""), (_PAGE_IDS,))
        while rows:
            yield from rows
            rows = self._readers.rows(page.format(" WHERE slot > %s"), (rows[-1][0], _PAGE_IDS))

    def blocks(self, after: int, upto: int) -> Iterator[BlockRow]:
        """Yield the blocks that hold any sequence in (after, upto], in order."""
        while after < upto:
            rows = self._readers.rows(_BLOCKS, (after + 1, upto))
            for row in map(BlockRow._make, rows or [(0, 0, 0, b"", b"")]):
                if not row.first <= after + 1 <= row.last:
                    raise IntegrityError(f"the block that holds sequence {after + 1} is missing")
                yield row
                after = row.last

    def block_at(self, sequence: int) -> BlockRow | None:
        """Return the block that holds the sequence."""
        row = self._one(f"{_BLOCK} WHERE first <= %s ORDER BY first DESC LIMIT 1", sequence)
        return BlockRow(*row) if row is not None and row[1] >= sequence else None

    def bounds(self) -> Sequence[tuple[int, int]]:
        """Return (first, last) of all blocks, in order."""
        return self._readers.rows("SELECT first, last FROM blocks ORDER BY first")

    def last_block_upto(self, sequence: int) -> tuple[int, bytes] | None:
        """Return (last sequence, link) of the last block that ends at or before the sequence."""
        sql = "SELECT last, chain FROM blocks WHERE first <= %s AND last <= %s ORDER BY first DESC LIMIT 1"
        row = self._one(sql, sequence, sequence)
        return None if row is None else (row[0], row[1])

    def schema(self, digest: bytes) -> bytes | None:
        """Return a stored Arrow schema by its digest."""
        row = self._one("SELECT arrow FROM schemas WHERE digest = %s", digest)
        return None if row is None else row[0]

    def version(self, sequence: int) -> VersionRow | None:
        """Return the effective version at a sequence."""
        row = self._one(f"{_VERSION} WHERE sequence = %s", sequence)
        return None if row is None else VersionRow(*row)

    def versions_of(self, roots: Iterable[int]) -> list[VersionRow]:
        """Return all effective versions of these facts."""
        wanted = np.array(sorted(roots), np.int64)
        rows = (
            self._readers.rows(f"{_VERSION} WHERE root = ANY(%b) ORDER BY sequence", (wanted,)) if len(wanted) else ()
        )
        return [VersionRow(*row) for row in rows]

    def versions_visible(self, after: int, upto: int, type_name: str | None = None) -> list[VersionRow]:
        """Return the versions, of one type or all, whose visible_sequence is in (after, upto]."""
        sql = f"{_VERSION} WHERE visible_sequence > %s AND visible_sequence <= %s AND type = coalesce(%s::text, type)"
        return [VersionRow(*row) for row in self._readers.rows(sql, (after, upto, type_name))]

    def pending_row(self, sequence: int) -> PendingRow | None:
        """Return the pending version at a sequence."""
        row = self._one(f"{_PENDING} WHERE sequence = %s", sequence)
        return None if row is None else _pending(row)

    def pending_on(self, target: str) -> list[PendingRow]:
        """Return the versions that wait for this event_id, in order."""
        rows = self._readers.rows(f"{_PENDING} WHERE target = %s ORDER BY sequence", (target.encode(),))
        return [_pending(row) for row in rows]

    def pending(self) -> list[PendingRow]:
        """Return all versions that are not effective, in order."""
        return [_pending(row) for row in self._readers.rows(f"{_PENDING} ORDER BY sequence")]

    def ledger(self, after: int) -> Iterator[LedgerRow]:
        """Yield the ledger rows after a ledger sequence, in order."""
        page = f"{_LEDGER} WHERE sequence > %s ORDER BY sequence LIMIT {_PAGE_ROWS}"
        while rows := [LedgerRow(*row) for row in self._readers.rows(page, (after,))]:
            yield from rows
            after = rows[-1].sequence

    def decision(self, decision_id: str) -> LedgerRow | None:
        """Return a decision's ledger row."""
        if "\0" in decision_id:  # which no text in PostgreSQL holds
            return None
        row = self._one(f"{_LEDGER} WHERE decision_id = %s", decision_id)
        return None if row is None else LedgerRow(*row)

    def decision_for(self, application_position: int) -> LedgerRow | None:
        """Return the ledger row of the decision on an application."""
        row = self._one(f"{_LEDGER} WHERE application_position = %s ORDER BY sequence LIMIT 1", application_position)
        return None if row is None else LedgerRow(*row)

    def personal(self, sequence: int) -> bytes | None:
        """Return the sealed personal fields of an event."""
        row = self._one("SELECT sealed FROM personal WHERE sequence = %s", sequence)
        return None if row is None else row[0]

    def sealed(self) -> Iterator[tuple[int, bytes]]:
        """Yield all sealed personal fields as (sequence, sealed), in order."""
        after = -1
        page = f"SELECT sequence, sealed FROM personal WHERE sequence > %s ORDER BY sequence LIMIT {_PAGE_ROWS}"
        while rows := self._readers.rows(page, (after,)):
            yield from rows
            after = rows[-1][0]

    def _one(self, sql: str, *values: Any) -> Any:
        rows = self._readers.rows(sql, values)
        return rows[0] if rows else None


def has_log(url: str) -> bool:
    """Whether there is a log, or what is left of the making of one, at a URL."""
    address = Address.parse(url)
    with closing(connect(address, "reader")) as session:
        return session.execute("SELECT to_regnamespace(%s)", (address.schema,)).fetchone() != (None,)


def _insert(session: Session, commit: Commit, many: bool) -> None:
    for step in commit.offsets:
        _advance(session, step)
    _insert_rows(session, "schemas", list(commit.schemas.items()), "ON CONFLICT DO NOTHING")
    _insert_rows(session, "blocks", commit.blocks)
    if many:
        _copy_ids(session, commit.slots, commit.sequences)
    elif len(commit.slots):
        session.execute("INSERT INTO ids SELECT * FROM unnest(%b, %b)", (commit.slots, commit.sequences))
    if commit.resolved:
        session.execute("DELETE FROM pending WHERE sequence = ANY(%b)", (np.array(commit.resolved, np.int64),))
    pending = [(row[0], row.event_id.encode(), row.target.encode(), *row[3:]) for row in commit.pending]
    _insert_rows(session, "pending", pending, "ON CONFLICT (sequence) DO UPDATE SET void = excluded.void")
    _insert_rows(session, "versions", commit.versions)
    _insert_rows(session, "ledger", commit.ledger)
    _insert_rows(session, "personal", commit.personal)


def _advance(session: Session, step: OffsetStep) -> None:
    found = session.execute(f"{_OFFSETS} {_PARTITION}".encode(), step.row[:3]).fetchone()
    if (None if found is None else found[4]) != step.before:
        raise StaleOffset(f"expected the partition at offset {step.before}, got {found}; nothing was written")
    session.execute(
        "INSERT INTO offsets VALUES (%s, %s, %s, %s, %s) ON CONFLICT (source, topic, partition) "
        "DO UPDATE SET topic_id = excluded.topic_id, following = excluded.following",
        step.row,
    )


def _insert_rows(session: Session, table: str, rows: Sequence[tuple[Any, ...]], conflict: str = "") -> None:
    if rows:
        columns = ", ".join(f"%b::{name}[]" for name in COLUMNS[table])
        sql = f"INSERT INTO {table} SELECT * FROM unnest({columns}) {conflict}"
        session.execute(sql.encode(), [list(column) for column in zip(*rows, strict=True)])


def _copy_ids(session: Session, slots: npt.NDArray[np.int64], sequences: npt.NDArray[np.int64]) -> None:
    """Insert ids as a binary COPY: a count of fields, and each with its length before it."""
    row = np.dtype([("fields", ">i2"), ("a", ">i4"), ("slot", ">i8"), ("b", ">i4"), ("sequence", ">i8")])
    rows = np.empty(len(slots), row)
    rows["fields"], rows["a"], rows["b"] = 2, 8, 8
    rows["slot"], rows["sequence"] = slots, sequences
    with session.cursor().copy("COPY ids FROM STDIN (FORMAT binary)") as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows.tobytes() + b"\xff\xff")


def _pending(row: tuple[Any, ...]) -> PendingRow:
    found = PendingRow._make(row)
    return found._replace(event_id=bytes(row[1]).decode(), target=bytes(row[2]).decode())
