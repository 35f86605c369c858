"""Files that the machines of a run share: small, named, written whole or not at all."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

__all__ = ["Files", "digest", "write_named"]


class Files(Protocol):
    """A folder of files, on a disk that all machines see or in object storage."""

    @property
    def address(self) -> str:
        """Where it is: a path, or an address such as s3://bucket/folder."""

    def read(self, name: str) -> Any:
        """Return a file's content as a buffer; NotFound where there is none."""

    def write(self, name: str, content: Any) -> None:
        """Write a file, whole or not at all; one that is there is replaced."""

    def names(self, folder: str) -> frozenset[str]:
        """Return the names of a folder's files, as `read` takes them."""

    def clear(self) -> None:
        """Delete all files."""


def digest(*contents: Any) -> str:
    """Return what content is named by.

    >>> digest(b"a", b"bc") == digest(b"a", b"bc") != digest(b"ab", b"c")
    True
    """
    state = hashlib.blake2b(digest_size=20)
    for content in contents:
        view = memoryview(content)
        state.update(view.nbytes.to_bytes(8, "little"))
        state.update(view)
    return state.hexdigest()


def write_named(files: Files, folder: str, content: Any, suffix: str) -> str:
    """Write content under a name by itself, where it is not there; return the name."""
    name = f"{folder}/{digest(content)}{suffix}"
    if name not in files.names(folder):
        files.write(name, content)
    return name
