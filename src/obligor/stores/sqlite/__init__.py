"""SQLite through apsw: the embedded store of the log and its ledger."""

from obligor.stores.sqlite.store import SQLiteStore

__all__ = ["SQLiteStore"]
