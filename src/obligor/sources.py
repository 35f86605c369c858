"""Obligor's own source code as one content: its hash, and the archive that takes it to another machine."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

__all__ = ["PACKAGE", "hasher", "source_archive", "source_hash"]

PACKAGE = Path(__file__).parent
_SUFFIXES = (".py", ".toml", ".html", ".css", ".js", ".tmpl", ".typed")


def hasher() -> Callable[[Path], str]:
    """Return what hashes a package's folder: SHA-256 of each file's name's and content's SHA-256 in turn.

    It is a function within a function, because workers are sent it before they have this module.
    """
    suffixes = _SUFFIXES

    def hash_of(package: Path) -> str:
        import hashlib

        state = hashlib.sha256()
        for path in sorted(package.rglob("*")):
            if path.suffix in suffixes and "__pycache__" not in path.parts:
                name = path.relative_to(package.parent).as_posix().encode()
                state.update(hashlib.sha256(name).digest() + hashlib.sha256(path.read_bytes()).digest())
        return state.hexdigest()

    return hash_of


@cache
def source_hash() -> str:
    """Return the hash of this package."""
    return hasher()(PACKAGE)


def source_archive() -> bytes:
    """Return this package as a ZIP archive: the same bytes for the same files."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in _files():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return sink.getvalue()


def _files() -> Iterator[tuple[str, bytes]]:
    """Yield the package's files by name, in one order."""
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in _SUFFIXES and "__pycache__" not in path.parts:
            yield path.relative_to(PACKAGE.parent).as_posix(), path.read_bytes()
