"""What a PostgreSQL server must be like, and is like, for a log in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from obligor.findings import Finding, fine, problem, warning
from obligor.stores.postgres.address import Address
from obligor.stores.postgres.sessions import Session, connect

__all__ = ["checkup"]

VERSION_MIN: Final = 14
SUBJECT: Final = "PostgreSQL"
# Settings without which an acknowledged transaction can be lost or a page torn.
_DURABLE: Final = ("fsync", "full_page_writes")


def checkup(url: str) -> Iterator[Finding]:
    """Yield what is found; StoreLost where nobody answers."""
    address = Address.parse(url)
    session = connect(address, "reader")
    try:
        version = session.info.server_version // 10_000
        if version < VERSION_MIN:
            yield problem(SUBJECT, f"the server at {address} is version {version}", f"run {VERSION_MIN} or newer")
        else:
            yield fine(SUBJECT, f"version {version} answers at {address}")
        yield from _settings(session)
    finally:
        session.close()


def _settings(session: Session) -> Iterator[Finding]:
    for name in _DURABLE:
        if _shown(session, name) != "on":
            yield problem(SUBJECT, f"{name} is off: what was acknowledged can be lost", f"set {name} = on")
    if _shown(session, "in_hot_standby") == "on":
        yield problem(SUBJECT, "the server is a standby, which takes no writes", "point [store] log at the primary")
    if _shown(session, "server_encoding") != "UTF8":
        encoding = _shown(session, "server_encoding")
        yield problem(SUBJECT, f"the database is in {encoding}", "make it with ENCODING 'UTF8'")
    if _shown(session, "data_checksums") != "on":
        yield warning(
            SUBJECT, "data checksums are off: a damaged page is found late", "pg_checksums --enable, server stopped"
        )
    if _shown(session, "archive_mode") == "off":
        yield warning(
            SUBJECT,
            "archive_mode is off: a backup gives the log as of the backup only",
            "archive the WAL, or keep a standby (docs/operations.md)",
        )


def _shown(session: Session, name: str) -> str:
    row = session.execute("SELECT current_setting(%s, true)", [name]).fetchone()
    return "" if row is None or row[0] is None else str(row[0])
