"""The tables of one log in PostgreSQL, in a schema of its own, and what a server must be for a commit to be durable.

Ids and targets of events are kept as UTF-8 bytes: they may hold any character, and `text` cannot hold U+0000. Bodies of
blocks are compressed already, so they lie outside the rows as they are. `store` has one row: the format, the token of
the writer that last opened the log, and how many transactions it has committed (`obligor.stores.postgres.writer`).
"""

from __future__ import annotations

from typing import Any

import psycopg

from obligor.errors import NotFound, ObligorError
from obligor.stores.postgres.address import Address

__all__ = ["COLUMNS", "FORMAT", "SCHEMA", "check_format", "check_server"]

FORMAT = 1
SERVER_MINIMUM = 14_00_00

SCHEMA = f"""
CREATE TABLE store (format integer NOT NULL, token uuid NOT NULL, commits bigint NOT NULL) WITH (fillfactor = 10);
INSERT INTO store VALUES ({FORMAT}, gen_random_uuid(), 0);
CREATE TABLE meta (name text PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE schemas (digest bytea PRIMARY KEY, arrow bytea NOT NULL);
CREATE TABLE blocks (
    first bigint PRIMARY KEY, last bigint NOT NULL, known_time bigint NOT NULL, chain bytea NOT NULL,
    body bytea NOT NULL
);
ALTER TABLE blocks ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE ids (slot bigint PRIMARY KEY, sequence bigint NOT NULL);
CREATE TABLE versions (
    sequence bigint PRIMARY KEY, root bigint NOT NULL, type text NOT NULL, kind integer NOT NULL,
    known_time bigint NOT NULL, visible_sequence bigint NOT NULL, visible_known bigint NOT NULL
);
CREATE INDEX versions_root ON versions (root);
CREATE INDEX versions_visible ON versions (visible_sequence);
CREATE TABLE pending (
    sequence bigint PRIMARY KEY, event_id bytea NOT NULL, target bytea NOT NULL, type text NOT NULL,
    kind integer NOT NULL, known_time bigint NOT NULL, void boolean NOT NULL
);
CREATE INDEX pending_target ON pending (target);
CREATE TABLE ledger (
    sequence bigint PRIMARY KEY, decision_id text NOT NULL UNIQUE, application_position bigint NOT NULL,
    record bytea NOT NULL, chain bytea NOT NULL
);
CREATE INDEX ledger_application ON ledger (application_position);
CREATE TABLE personal (sequence bigint PRIMARY KEY, sealed bytea NOT NULL);
CREATE TABLE offsets (
    source text NOT NULL, topic text NOT NULL, partition integer NOT NULL, topic_id text NOT NULL,
    following bigint NOT NULL, PRIMARY KEY (source, topic, partition)
);
"""

# The types of the columns of each table that a commit inserts into, in their order.
COLUMNS = {
    "schemas": ("bytea", "bytea"),
    "blocks": ("bigint", "bigint", "bigint", "bytea", "bytea"),
    "ids": ("bigint", "bigint"),
    "versions": ("bigint", "bigint", "text", "integer", "bigint", "bigint", "bigint"),
    "pending": ("bigint", "bytea", "bytea", "text", "integer", "bigint", "boolean"),
    "ledger": ("bigint", "text", "bigint", "bytea", "bytea"),
    "personal": ("bigint", "bytea"),
}


def check_server(connection: psycopg.Connection[Any]) -> None:
    """Raise if the server is too old, or if it does not sync what it has committed."""
    if connection.info.server_version < SERVER_MINIMUM:
        found = connection.info.server_version
        raise ObligorError(f"expected PostgreSQL {SERVER_MINIMUM // 10_000} or newer, got version number {found}")
    row = connection.execute("SELECT current_setting('fsync')").fetchone()
    if row != ("on",):
        raise ObligorError("the PostgreSQL server runs with fsync = off: what is acknowledged would not be on its disk")


def check_format(connection: psycopg.Connection[Any], address: Address) -> None:
    """Raise if there is no log of this format in the schema."""
    row = connection.execute(
        "SELECT to_regnamespace(%s) IS NULL, to_regclass(%s) IS NULL", (address.schema, f"{address.schema}.store")
    ).fetchone()
    assert row is not None, "a SELECT without FROM has a row"
    if row[0]:
        raise NotFound(f"{address}: no log here; create one with `obligor init` or `obligor ingest`")
    if row[1]:
        raise ObligorError(f"{address}: expected a log of Obligor in the schema {address.schema}, got something else")
    formats = connection.execute("SELECT format FROM store").fetchall()
    if formats != [(FORMAT,)]:
        raise ObligorError(f"{address}: expected log format {FORMAT}, got {formats}; use the release that wrote it")
