"""A state store that fits on a screen: a dict, copied when a transaction begins. What LMDB is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from obligor.features.state_store import Entry, Range


class MemoryTransaction:
    far = False

    def __init__(self, store: MemoryStateStore) -> None:
        self._store, self._entries = store, dict(store.entries)

    def fetch(self, keys: Sequence[bytes], ranges: Sequence[Range] = ()) -> None:
        pass

    def get(self, key: bytes) -> Entry | None:
        return self._entries.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[Entry | None]:
        return [self._entries.get(key) for key in keys]

    def put_many(self, items: Iterable[tuple[bytes, Entry]]) -> None:
        self._entries.update((key, bytes(value)) for key, value in items)

    def delete(self, key: bytes) -> None:
        self._entries.pop(key, None)

    def scan(self, start: bytes, stop: bytes, limit: int | None = None) -> list[tuple[bytes, Entry]]:
        return [(key, self._entries[key]) for key in sorted(self._entries) if start <= key < stop][:limit]

    def names(self, start: bytes, stop: bytes, limit: int) -> list[bytes]:
        return [key for key, _ in self.scan(start, stop, limit)]

    def commit(self) -> None:
        self._store.entries = self._entries

    def abort(self) -> None:
        pass


class MemoryStateStore:
    def __init__(self) -> None:
        self.entries: dict[bytes, bytes | memoryview] = {}

    def begin(self) -> MemoryTransaction:
        return MemoryTransaction(self)

    def clear(self) -> None:
        self.entries = {}

    def close(self) -> None:
        pass
