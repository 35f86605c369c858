"""PostgreSQL through psycopg 3 (extra `postgres`): the store of the log and its ledger when users outgrow one file."""

from obligor.stores.postgres.address import Address
from obligor.stores.postgres.store import PostgresStore, has_log

__all__ = ["Address", "PostgresStore", "has_log"]
