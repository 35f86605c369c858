"""The key-value store that online state lives in: what an adapter in `stores/` implements.

Keys are bytes in lexicographic order. There is one writer, and decisions read in its transaction, because features are
computed on the state that includes what is staged and not yet durable. A store need not survive a crash of the
operating system, only that of the process: state is derived, and a store that cannot be trusted opens empty.

A store may be far away: then every call is a round trip unless `fetch` has asked for what it needs, and any call may
find that the store is gone, or that it is no longer what the transaction began on (StateGone). Nothing that was read or
staged in such a transaction may be used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from obligor.errors import Conflict, ObligorError, StoreLost

__all__ = ["Entry", "Range", "StateBusy", "StateGone", "StateMoved", "StateStore", "StateTaken", "StateTransaction"]

Entry = bytes | memoryview


class StateBusy(Conflict):
    """Somebody else has this state open for writing."""


class StateGone(StoreLost):
    """The store cannot be reached, is too slow, or lost what it held; state is to be done without until it is back."""


class StateTaken(StateGone):
    """Another writer has taken the state over; this one does not get it back."""


class StateMoved(ObligorError):
    """The writer went on while a reader that has no snapshot was reading: begin and ask again."""


class Range(NamedTuple):
    """Entries with start <= key < stop, the first `limit` of them."""

    start: bytes
    stop: bytes
    limit: int | None = None


class StateTransaction(Protocol):
    """One write transaction; reads see its own writes. A buffer that was read is valid until the next write."""

    @property
    def far(self) -> bool:
        """Whether reading is a round trip, so that it is worth saying beforehand what will be read."""
        ...

    def fetch(self, keys: Sequence[bytes], ranges: Sequence[Range] = ()) -> None:
        """Ask for what is about to be read by `get`, `get_many` and `scan`, all of it together.

        It need not be there yet: whoever reads any of it first waits, and learns then where the store is gone.
        """
        ...

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

    def names(self, start: bytes, stop: bytes, limit: int) -> list[bytes]:
        """Return the keys of a scan without their values."""
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
        """Start the one write transaction; StateBusy where another writer has the store open."""
        ...

    def clear(self) -> None:
        """Remove everything, for a rebuild."""
        ...

    def close(self) -> None:
        """Make everything durable and mark the store as closed cleanly."""
        ...
