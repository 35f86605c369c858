"""The tables of a log in SQLite, and the settings that make a commit durable.

WAL with synchronous=FULL: a commit returns after its WAL frames are synced. SQLite before 3.51.3 can corrupt a database
when a WAL reset races with another connection (https://sqlite.org/wal.html, "the WAL-reset bug"), hence the bound.
"""

from __future__ import annotations

import apsw

from obligor.errors import ObligorError

__all__ = ["ADDED", "APPLICATION_ID", "FORMAT", "SCHEMA", "SQLITE_MINIMUM", "check_version", "settings"]

SQLITE_MINIMUM = 3_051_003
WAL_BYTES_KEPT = 64 << 20  # what a bulk load leaves of its WAL on the disk
APPLICATION_ID = 0x4F42_4C47  # "OBLG"
FORMAT = 1

SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE schemas (digest BLOB PRIMARY KEY, arrow BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE blocks (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, known_time INTEGER NOT NULL,
    chain BLOB NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE TABLE ids (slot INTEGER PRIMARY KEY, sequence INTEGER NOT NULL) STRICT;
CREATE TABLE versions (
    sequence INTEGER PRIMARY KEY, root INTEGER NOT NULL, type TEXT NOT NULL, kind INTEGER NOT NULL,
    known_time INTEGER NOT NULL, visible_sequence INTEGER NOT NULL, visible_known INTEGER NOT NULL
) STRICT;
CREATE INDEX versions_root ON versions (root);
CREATE INDEX versions_visible ON versions (visible_sequence);
CREATE TABLE pending (
    sequence INTEGER PRIMARY KEY, event_id TEXT NOT NULL, target TEXT NOT NULL, type TEXT NOT NULL,
    kind INTEGER NOT NULL, known_time INTEGER NOT NULL, void INTEGER NOT NULL
) STRICT;
CREATE INDEX pending_target ON pending (target);
CREATE TABLE ledger (
    sequence INTEGER PRIMARY KEY, decision_id TEXT NOT NULL UNIQUE, application_position INTEGER NOT NULL,
    record BLOB NOT NULL, chain BLOB NOT NULL
) STRICT;
CREATE INDEX ledger_application ON ledger (application_position);
CREATE TABLE personal (sequence INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
"""

# Tables that a log of this format may lack, because it was made before there was use for them; a writer adds them.
ADDED = """
CREATE TABLE IF NOT EXISTS offsets (
    source TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL,
    topic_id TEXT NOT NULL, following INTEGER NOT NULL,
    PRIMARY KEY (source, topic, partition)
) STRICT, WITHOUT ROWID;
"""


def check_version() -> None:
    """Raise if the linked SQLite has the WAL-reset bug."""
    if apsw.SQLITE_VERSION_NUMBER < SQLITE_MINIMUM:
        raise ObligorError(f"SQLite {apsw.sqlite_lib_version()} has the WAL-reset bug; install apsw 3.51.3 or newer")


def settings(connection: apsw.Connection, cache_bytes: int, synchronous: str) -> None:
    """Apply what every connection needs; the journal mode is stored in the file and set at creation."""
    connection.set_busy_timeout(10_000)
    connection.execute(f"PRAGMA cache_size = -{cache_bytes // 1024}")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA temp_store = memory")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
