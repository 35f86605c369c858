"""The key-value store that online state lives in: what an adapter in `stores/` implements.

Keys are bytes in lexicographic order. There is one writer and its transaction is the only reader, because features are
computed on the state that includes what is staged and not yet durable. A store need not survive a crash of the
operating system, only that of the process: state is derived, and a store that cannot be trusted opens empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from obligor.errors import Conflict

__all__ = ["Entry", "StateBusy", "StateStore", "StateTransaction"]

Entry = bytes | memoryview


class StateBusy(Conflict):
    """Somebody else has this state open for writing."""


class StateTransaction(Protocol):
    """One write transaction; reads see its own writes. A buffer that was read is valid until the next write."""

    def get(self, key: bytes) -> Entry | None:
        """Return the value of `key`, or None."""
        ...

    def get_many(self, keys: Sequence[bytes]) -> list[Entry | None]:
        """Return the values of `keys`, in their order, None for those that are absent."""
        ...

    def put_many(self, items: Iterable[tuple[bytes, Entry]]) -> None:
        """Store all of `items`; OSError (ENOSPC) when the store's declared size is reached."""
        ...

    def delete(self, key: bytes) -> None:
        """Remove `key`; it may be absent."""
        ...

    def scan(self, start: bytes, stop: bytes, limit: int | None = None) -> list[tuple[bytes, Entry]]:
        """Return the entries with start <= key < stop in the order of their keys, the first `limit` of them."""
        ...

    def commit(self) -> None:
        """Make the writes visible and end the transaction."""
        ...

    def abort(self) -> None:
        """Drop the writes and end the transaction; nothing happens when it has ended."""
        ...


class StateStore(Protocol):
    """A place for the state of one plan."""

    def begin(self) -> StateTransaction:
        """Start the one write transaction."""
        ...

    def clear(self) -> None:
        """Remove everything, for a rebuild."""
        ...

    def close(self) -> None:
        """Make everything durable and mark the store as closed cleanly."""
        ...
