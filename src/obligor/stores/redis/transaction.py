"""A transaction on a state in Redis: what it read and what it staged, until one script carries it out.

Reads go to Redis with the fence that the transaction began on, so that all of them together are of one moment, or fail.
What was read is remembered, and what is staged lies over it; `fetch` asks for many things in one round trip, and
whoever needs one of them first waits for the answer, so that what needs none of them is done meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

from obligor.features.state_store import Entry, Range

__all__ = ["Fetched", "Page", "RedisTransaction"]

PAGE = 256  # entries of a range in one answer
KEYS_MAX = 2_000  # values that are brought in one round trip
_FRESH_MAX = 256  # staged keys that are searched one by one before they are sorted in

Entries = list[tuple[bytes, Entry]]
Fetched = tuple[list[bytes | None], list[Entries]]  # the values of keys, the entries of ranges
Page = tuple[bytes, bytes, int]  # of a range: start, stop, the first so many
Fetch = Callable[[Sequence[bytes], Sequence[Page]], Callable[[], Fetched]]  # asks, and then waits
Names = Callable[[bytes, bytes, int], list[bytes]]
Commit = Callable[[list[tuple[bytes, bytes]], list[bytes]], None]


class RedisTransaction:
    """See `StateTransaction`; `fetch`, `names` and `commit` are the store's, for the fence it began on."""

    far = True

    def __init__(self, fetch: Fetch, names: Names, commit: Commit) -> None:
        self._fetch, self._names, self._commit = fetch, names, commit
        self._read: dict[bytes, bytes | None] = {}
        self._scanned: dict[tuple[bytes, bytes], tuple[Entries, int | None]] = {}  # entries, and the limit they met
        self._staged = _Staged()
        self._coming: tuple[list[bytes], list[Range], Callable[[], Fetched]] | None = None

    def fetch(self, keys: Sequence[bytes], ranges: Sequence[Range] = ()) -> None:
        """Ask for what is about to be read, in one round trip; what is there already is not brought again."""
        self._arrive()
        read, staged = self._read, self._staged.values
        keys = [key for key in dict.fromkeys(keys) if key not in read and key not in staged]
        ranges = [one for one in dict.fromkeys(ranges) if self._known(*one) is None]
        if not keys and not ranges:
            return
        while len(keys) > KEYS_MAX:  # in one step of Redis, in which everybody else waits
            read.update(zip(keys[:KEYS_MAX], self._fetch(keys[:KEYS_MAX], ())()[0], strict=True))
            keys = keys[KEYS_MAX:]
        self._coming = keys, ranges, self._fetch(keys, [_page(*one) for one in ranges])

    def _arrive(self) -> None:
        """Take in what `fetch` asked for."""
        if self._coming is None:
            return
        (keys, ranges, answer), self._coming = self._coming, None
        values, found = answer()
        self._read.update(zip(keys, values, strict=True))
        for (start, stop, limit), entries in zip(ranges, found, strict=True):
            if len(entries) == PAGE:
                self._rest(stop, limit, entries)
            self._scanned[start, stop] = entries, limit if len(entries) == limit else None

    @property
    def size_bytes(self) -> int:
        """How many bytes of values were read."""
        self._arrive()
        scanned = (value for entries, _ in self._scanned.values() for _, value in entries)
        return sum(map(len, scanned)) + sum(len(value) for value in self._read.values() if value is not None)

    def _known(self, start: bytes, stop: bytes, limit: int | None) -> Entries | None:
        """Return what an earlier scan found, where it went as far."""
        scanned = self._scanned.get((start, stop))
        if scanned is None:
            return None
        entries, met = scanned
        return entries if met is None or (limit is not None and limit <= met) else None

    def _rest(self, stop: bytes, limit: int | None, entries: Entries) -> None:
        """Add what is behind the first page of a range."""
        page = entries
        while len(page) == PAGE and (limit is None or len(entries) < limit):
            left = None if limit is None else limit - len(entries)
            _, (page,) = self._fetch([], [_page(page[-1][0] + b"\x00", stop, left)])()
            entries += page

    def get(self, key: bytes) -> Entry | None:
        """Return the value of `key`, or None."""
        self._arrive()
        if key in self._read and key not in self._staged.values:
            return self._read[key]
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[Entry | None]:
        """Return the values of `keys`, in their order, None for those that are absent."""
        self.fetch(keys)
        self._arrive()
        staged, read = self._staged.values, self._read
        return [staged[key] if key in staged else read[key] for key in keys]

    def put_many(self, items: Iterable[tuple[bytes, Entry]]) -> None:
        """Stage all of `items`."""
        for key, value in items:
            self._staged.set(key, bytes(value))

    def delete(self, key: bytes) -> None:
        """Stage that `key` is to go; it may be absent."""
        self._staged.set(key, None)

    def scan(self, start: bytes, stop: bytes, limit: int | None = None) -> list[tuple[bytes, Entry]]:
        """Return the entries with start <= key < stop in the order of their keys, the first `limit` of them."""
        if not self._staged.values:
            return self._found(start, stop, limit)
        own = self._staged.between(start, stop)
        gone = sum(self._staged.values[key] is None for key in own)
        entries: dict[bytes, Entry | None] = dict(self._found(start, stop, None if limit is None else limit + gone))
        entries.update((key, self._staged.values[key]) for key in own)
        entries = dict(sorted(entries.items())) if own else entries
        return [(key, value) for key, value in entries.items() if value is not None][:limit]

    def _found(self, start: bytes, stop: bytes, limit: int | None) -> Entries:
        """Return the entries of a range as Redis holds them."""
        self._arrive()
        found = self._known(start, stop, limit)
        if found is None:
            self.fetch((), (Range(start, stop, limit),))
            self._arrive()
            found = self._known(start, stop, limit)
            assert found is not None, "it was fetched"
        return found[:limit]

    def names(self, start: bytes, stop: bytes, limit: int) -> list[bytes]:
        """Return the keys of a scan without their values."""
        self._arrive()
        own = self._staged.between(start, stop)
        gone = {key for key in own if self._staged.values[key] is None}
        found = self._names(start, stop, limit + len(gone))
        return sorted({*found, *own} - gone)[:limit]

    def commit(self) -> None:
        """Have everything that is staged carried out in one step; StateGone where the fence has moved."""
        self._arrive()
        staged = self._staged.values
        puts = [(key, value) for key, value in staged.items() if value is not None]
        self._commit(puts, [key for key, value in staged.items() if value is None])
        self.abort()

    def abort(self) -> None:
        """Forget what was read and staged; Redis has heard nothing of it."""
        self._coming = None
        self._read.clear()
        self._scanned.clear()
        if self._staged.values:
            self._staged = _Staged()


def _page(start: bytes, stop: bytes, limit: int | None) -> Page:
    return start, stop, PAGE if limit is None or limit > PAGE else limit


class _Staged:
    """Staged values (None: deleted), and their keys in order as far as somebody asks for it."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self._sorted: list[bytes] = []
        self._fresh: list[bytes] = []

    def set(self, key: bytes, value: bytes | None) -> None:
        if key not in self.values:
            self._fresh.append(key)
        self.values[key] = value

    def between(self, start: bytes, stop: bytes) -> list[bytes]:
        """Return the staged keys with start <= key < stop."""
        if len(self._fresh) > _FRESH_MAX:
            self._sorted = sorted(self._sorted + self._fresh)
            self._fresh = []
        first = bisect_left(self._sorted, start)
        return [*self._sorted[first : bisect_left(self._sorted, stop, lo=first)], *self._within(start, stop)]

    def _within(self, start: bytes, stop: bytes) -> Iterator[bytes]:
        return (key for key in self._fresh if start <= key < stop)
