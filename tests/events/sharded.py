"""Logs of several shards, in a real PostgreSQL, and their meaning in plain Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.events.batches import REGISTRY, Row
from tests.postgres_server import Server

from obligor.events.batch import ORIGINAL, RETRACTION
from obligor.events.log import EventLog
from obligor.events.positions import Cut, pack, shard_of, shows
from obligor.events.schema import Registry
from obligor.stores.postgres import PostgresStore

__all__ = ["Entry", "NaiveShards", "create_shards", "open_shard", "open_shards"]


def create_shards(
    server: Server, name: str, keys: Path, count: int, registry: Registry = REGISTRY, routing: bytes = b""
) -> str:
    """Create a log of so many shards; return its URL."""
    url = server.url(name)
    with EventLog.create(url, registry, store=PostgresStore, keys=keys, random=lambda n: bytes(range(n))) as log:
        for _ in range(1, count):
            log.store.add_shard({"routing": routing} if routing else {})
    return url


def open_shard(url: str, keys: Path, shard: int, registry: Registry = REGISTRY) -> EventLog:
    """Open a shard for writing; a commit does not wait for the disk."""
    store = partial(PostgresStore, shard=shard, synchronous="off")
    return EventLog.open(url, registry, store=store, keys=keys)


@contextmanager
def open_shards(url: str, keys: Path, count: int, registry: Registry = REGISTRY) -> Iterator[list[EventLog]]:
    """Open all shards for writing, in this process."""
    with ExitStack() as stack:
        yield [stack.enter_context(open_shard(url, keys, shard, registry)) for shard in range(count)]


@dataclass(frozen=True)
class Entry:
    """One event of the log."""

    position: int
    known: int
    row: Row


@dataclass
class NaiveShards:
    """Lists of events and the rules of a log of several shards, one row at a time."""

    entries: list[Entry] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)  # by shard: its last sequence
    known: dict[int, int] = field(default_factory=dict)  # by shard: its greatest known_time
    seen: dict[int, dict[int, tuple[int, int]]] = field(default_factory=dict)  # by shard: (sequence, known) of others
    begun: dict[int, list[tuple[int, Cut]]] = field(default_factory=dict)  # by shard: where a transaction began

    def follow(self, shard: int) -> None:
        """Let a shard's writer see what there is."""
        others = {other: (self.ends[other], self.known[other]) for other in self.ends if other != shard}
        self.seen[shard] = others

    def cut(self, shard: int) -> Cut:
        """Return what a shard's writer has seen."""
        return {shard: self.ends[shard], **{other: end for other, (end, _) in self.seen[shard].items()}}

    def append(self, shard: int, rows: Sequence[Row], clock: int) -> list[str]:
        """Append in one transaction; return accepted, duplicate, conflict or rejected of each row."""
        before, seen = {e.position for e in self.entries if self._effect(e) is None}, self.cut(shard)
        self.begun.setdefault(shard, []).append((pack(shard, self.ends[shard] + 1), seen))
        released = [e for e in self.entries if e.position in before and self._effect(e) is not None]
        if self._arrived(shard, seen):
            self.ends[shard] += 1  # a position that holds no event
        else:
            assert not released, "what takes effect has a position"
        return [self._one(shard, row, clock) for row in rows]

    def _arrived(self, shard: int, seen: Cut) -> bool:
        """Whether what a correction of this shard waits for is newly seen in another shard."""
        before = self.begun[shard][-2][1] if len(self.begun[shard]) > 1 else {}
        wanted = {
            e.row.target
            for e in self.entries
            if shard_of(e.position) == shard and e.row.kind != ORIGINAL and self._awaiting(e, before)
        }
        for e in self.entries:
            if e.row.id in wanted and shard_of(e.position) != shard:
                at = self._effect(e)
                fresh = [p for p in (e.position, at) if p is not None and shows(seen, p) and not shows(before, p)]
                if fresh:
                    return True
        return False

    def _awaiting(self, entry: Entry, before: Cut) -> bool:
        begun, self.begun = self.begun, {**self.begun}
        shard = shard_of(entry.position)
        self.begun[shard] = begun[shard][:-1]
        try:
            return self._effect(entry) is None
        finally:
            self.begun = begun

    def _one(self, shard: int, row: Row, clock: int) -> str:
        same = next((e for e in self.entries if e.row.id == row.id), None)
        if same is not None:
            return "duplicate" if same.row.content == row.content else "conflict"
        cut = self.cut(shard)
        target = next((e for e in self.entries if e.row.id == row.target and shows(cut, e.position)), None)
        if (row.known is not None and row.known > clock) or row.target == row.id:
            return "rejected"
        if target is not None and target.row.type != row.type:
            return "rejected"
        floor = max(known for _, known in self.seen[shard].values())
        known = max(clock, self.known[shard] + 1, floor + 1) if row.known is None else row.known
        self.ends[shard] += 1
        self.entries.append(Entry(pack(shard, self.ends[shard]), known, row))
        self.known[shard] = max(self.known[shard], known)
        return "accepted"

    def _target(self, entry: Entry) -> Entry | None:
        found = next((e for e in self.entries if e.row.id == entry.row.target), None)
        return found if found is not None and found.row.type == entry.row.type else None

    def _effect(self, entry: Entry, under: frozenset[str] = frozenset()) -> int | None:
        """Return the position of its own shard from which on an entry shows, None while its chain is not whole there.

        A target in another shard counts from the first transaction on that had seen it in effect.
        """
        if entry.row.kind == ORIGINAL:
            return entry.position
        target = self._target(entry)
        if target is None or entry.row.id in under:
            return None
        at = self._effect(target, under | {entry.row.id})
        if at is None or shard_of(at) == shard_of(entry.position):
            return None if at is None else max(at, entry.position)
        begun = [first for first, seen in self.begun[shard_of(entry.position)] if shows(seen, at)]
        return max(begun[0], entry.position) if begun else None

    def _chain(self, entry: Entry) -> list[Entry]:
        chain = [entry]
        while chain[-1].row.kind != ORIGINAL:
            target = self._target(chain[-1])
            assert target is not None, "it is in effect"
            chain.append(target)
        return chain

    def facts(self, type_name: str, cut: Cut, as_of: int) -> dict[int, Entry]:
        """Return the winner of each fact in the view at (cut, as_of), by its root's position."""
        versions: dict[int, list[Entry]] = {}
        for entry in self.entries:
            at = self._effect(entry)
            if at is not None and shows(cut, at) and entry.row.type == type_name:
                chain = self._chain(entry)
                if max(e.known for e in chain) <= as_of:
                    versions.setdefault(chain[-1].position, []).append(entry)
        winners = {
            root: max(own, key=lambda e: (e.row.kind != ORIGINAL, e.known, e.position))
            for root, own in versions.items()
        }
        return {r: w for r, w in winners.items() if w.row.kind != RETRACTION and (w.row.time or 0) < as_of}


def _rank(entry: Entry) -> tuple[bool, int, int]:
    return (entry.row.kind != ORIGINAL, entry.known, entry.position)
