"""Where a log is, and by that in which kind of store: a folder (SQLite) or a URL (PostgreSQL)."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path

from obligor.errors import BadInput, ObligorError
from obligor.events.store import LogStore, Mode
from obligor.stores.sqlite import SQLiteStore

__all__ = ["LogPlace"]

POSTGRES = ("postgresql://", "postgres://")


@dataclass(frozen=True)
class LogPlace:
    """A place of a log: `path` as the store takes it, `keys` the folder of its key file.

    As a text it shows no credentials.
    """

    path: str = field(repr=False)
    keys: Path

    @classmethod
    def of(cls, text: str, root: Path, keys: Path) -> LogPlace:
        """Read a setting: a URL, or a path relative to `root`; `keys` is for logs that have no folder."""
        if text.startswith(POSTGRES):
            return cls(text, keys)
        scheme, found, _ = text.partition("://")
        if found:
            raise BadInput(f"expected a folder or a URL that begins with postgresql://, got one with {scheme!r:.20}")
        return cls(str(root / text), root / text)

    @property
    def in_database(self) -> bool:
        """Whether the log is in a database, its key file apart from it."""
        return self.path.startswith(POSTGRES)

    def exists(self) -> bool:
        """Whether there is a log, or what is left of the making of one."""
        if not self.in_database:
            return Path(self.path).exists()
        _needs_psycopg()
        from obligor.stores.postgres import has_log

        return has_log(self.path)

    def open(self, path: str, mode: Mode) -> LogStore:
        """Open the store at `path`, which is this place's; a `StoreOpener`."""
        if not self.in_database:
            return SQLiteStore(path, mode)
        _needs_psycopg()
        from obligor.stores.postgres import PostgresStore

        return PostgresStore(path, mode)

    def __str__(self) -> str:
        if not self.in_database:
            return self.path
        _needs_psycopg()
        from obligor.stores.postgres import Address

        return str(Address.parse(self.path))


def _needs_psycopg() -> None:
    if importlib.util.find_spec("psycopg") is None:
        raise ObligorError("a log in PostgreSQL needs psycopg; install it with: pip install 'obligor[postgres]'")
