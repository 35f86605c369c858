"""The event log: append-only, hash-chained sequences of facts, a writer for each, and their ledgers of decisions.

A log has one such sequence, or several, its shards. Who writes a shard follows the others (`follow`): what it writes
rests on what it had seen of them then, and says so. Everything else (features, outcomes, state, training sets) is
computed from it. A log is a store, which is a file in the log's own folder or tables in a database, and the key of its
personal fields, which never lies in a database. `begin` gives the one writer's transaction; everything that reads takes
a cut, and gives the same answer for the same cut for ever.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obligor.errors import BadInput, Conflict, IntegrityError, NotFound, ObligorError
from obligor.events import chain
from obligor.events.batch import TypeVersion
from obligor.events.block import STANDARD_COLUMNS, BlockReader
from obligor.events.chain import BrokenLink
from obligor.events.changes import CHUNK_EVENTS, Changes, changes_between
from obligor.events.facts import Facts, read_facts
from obligor.events.ids import SlotHash, probe, slot_hash
from obligor.events.lineage import version_of
from obligor.events.personal import KEY_FILE, LogKey
from obligor.events.positions import Cut, pack, sequence_of, shard_of, shows, stretches
from obligor.events.reading import read_rows
from obligor.events.recorded_types import merge_types
from obligor.events.rendering import record_of
from obligor.events.schema import Registry
from obligor.events.store import Head, LedgerRow, LogStore, Mode, OffsetRow, PendingRow, StoreOpener
from obligor.events.transaction import Transaction
from obligor.events.verification import verify
from obligor.events.versions import Identity

__all__ = ["SKEW_SECONDS_MAX", "ClockSkew", "EventLog"]

SKEW_SECONDS_MAX = 10  # by which another shard's clock may be ahead; known times then run ahead of this one's
_ID_BYTES = 16


class ClockSkew(ObligorError):
    """Another shard's clock is too far ahead for this one to write what is known after it."""


class EventLog:
    """A log, of which one shard is written; thread-safe for reading, one transaction at a time for writing.

    Make one with `create` or `open`, and `close` it (or use it as a context manager).
    """

    def __init__(self, store: LogStore, registry: Registry, key: LogKey | None, *, read_only: bool) -> None:
        self.store, self.registry, self.read_only = store, registry, read_only
        self.reader = BlockReader(store)
        self.shard = store.shard
        meta = store.meta()
        if "id" not in meta:
            raise IntegrityError("the making of this log was cut short and nothing is in it; delete it")
        self.id: bytes = meta["id"]
        self.slot_hash: SlotHash = slot_hash(meta["slot_key"])
        if key is not None and meta.get("key", mark := key.mark(self.id)) != mark:
            raise IntegrityError("the key file that was found is another log's; put the log's own in its place")
        self._key = key
        self._writing = threading.Lock()
        self.routing = meta.get("routing", b"")  # the map of the shards, as whoever routes reads it
        self.waiting, self.pending_count, self.arrived = set[str](), 0, list[Identity]()
        heads = self._stored_heads()
        self.shards = len(heads)
        self._head = heads.pop(self.shard)
        self.others: dict[int, Head] = heads  # as they were when this writer last followed them
        types = merge_types(meta["types"], registry, self.reader, self.cut())
        if not read_only:
            self._reload()
            self.arrived = self._held_elsewhere()
            if types != meta["types"]:
                store.set_meta({"types": types})

    @classmethod
    def create(
        cls,
        path: str | Path,
        registry: Registry,
        *,
        store: StoreOpener,
        keys: Path | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> EventLog:
        """Create a log in an empty or new folder, or at a URL, and open it for writing.

        `keys` is the folder of its key file, where that is not the log's own.
        """
        if keys is not None and (keys / KEY_FILE).exists():
            raise Conflict(f"{keys / KEY_FILE}: the key of another log is here; a new log needs a folder without one")
        opened = store(str(path), "create")
        try:
            folder = Path(path) if keys is None else keys
            folder.mkdir(parents=True, exist_ok=True)
            key = LogKey.create(folder, random)
            log_id, slot_key = random(_ID_BYTES), random(_ID_BYTES)
            opened.set_meta({"id": log_id, "slot_key": slot_key, "types": b"{}", "key": key.mark(log_id)})
            return cls(opened, registry, key, read_only=False)
        except BaseException:
            opened.close()
            raise

    @classmethod
    def open(
        cls,
        path: str | Path,
        registry: Registry,
        *,
        read_only: bool = False,
        store: StoreOpener,
        keys: Path | None = None,
    ) -> EventLog:
        """Open a log; for writing there is one at a time (StoreBusy otherwise). Reading needs no key file."""
        mode: Mode = "read" if read_only else "write"
        opened = store(str(path), mode)
        try:
            key = _key_of(Path(path) if keys is None else keys, read_only)
            return cls(opened, registry, key, read_only=read_only)
        except BaseException:
            opened.close()
            raise

    def close(self) -> None:
        """Release files and the writer's lock."""
        self.store.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    # -- where it ends

    @property
    def key(self) -> LogKey:
        """The log's key; NotFound where its file is not."""
        if self._key is None:
            raise NotFound("the log's key file is not here; copy it beside the log to append or to decrypt")
        return self._key

    @property
    def commitment_key(self) -> bytes:
        """What keys the content hash of personal fields."""
        return self.key.commitment

    @property
    def head(self) -> Head:
        """Where the shard and its ledger end that is written; of a read-only log shard 0, looked up each time."""
        return self._stored_heads()[0] if self.read_only else self._head

    def heads(self) -> dict[int, Head]:
        """Return where each shard and its ledger end, all as of one moment."""
        if not self.read_only and self.shards == 1:
            return {self.shard: self._head}
        return self._stored_heads()

    def _stored_heads(self) -> dict[int, Head]:
        return {
            shard: head._replace(
                chain=head.chain or chain.genesis(self.id, "log", shard),
                ledger_chain=head.ledger_chain or chain.genesis(self.id, "ledger", shard),
            )
            for shard, head in self.store.heads().items()
        }

    def ends(self) -> Cut:
        """Return the cut that shows everything committed."""
        return {shard: head.sequence for shard, head in self.heads().items()}

    def ledger_ends(self) -> Cut:
        """Return how many rows each shard's ledger has."""
        return {shard: head.ledger_sequence for shard, head in self.heads().items()}

    def cut(self) -> Cut:
        """Return what there is to work on: of a reader everything committed, of a writer what it has seen of it."""
        if self.read_only:
            return self.ends()
        return {self.shard: self._head.sequence, **{shard: head.sequence for shard, head in self.others.items()}}

    def chain(self, upto: int | None = None) -> bytes:
        """Return the link of the shard's last committed block, or of the last that ends at or before a position."""
        if upto is None:
            return self.head.chain
        found = self.store.last_block_upto(upto)
        return chain.genesis(self.id, "log", shard_of(upto)) if found is None else found[1]

    def chains(self, cut: Cut) -> dict[int, bytes]:
        """Return the link of each shard at a cut."""
        return {shard: self.chain(pack(shard, sequence)) for shard, sequence in cut.items()}

    def links(self) -> dict[int, bytes]:
        """Return the link of each shard at `cut()`."""
        if self.read_only:
            return {shard: head.chain for shard, head in self.heads().items()}
        return {self.shard: self._head.chain, **{shard: head.chain for shard, head in self.others.items()}}

    @property
    def last_known_time(self) -> int:
        """The greatest known_time in the log; 0 if it is empty."""
        return max(head.known_time for head in self.heads().values())

    @property
    def last_seen_us(self) -> int:
        """The greatest known_time that `cut()` shows, a writer's."""
        return max([self._head.known_time, *(head.known_time for head in self.others.values())])

    def refuse_open(self, cut: Cut) -> None:
        """Raise BadInput where a cut shows an event without what its writer had seen of other shards."""
        for shard, sequence in cut.items() if self.shards > 1 else ():
            after = self.reader.block(pack(shard, sequence)).after if sequence else {}
            for other, (seen, _) in after.items():
                if seen > cut.get(other, 0):
                    raise BadInput(
                        f"a cut shows what its events rest on: {sequence} of shard {shard} had seen {seen} of shard "
                        f"{other}, and the cut {cut} does not show that; take a cut that was recorded"
                    )

    # -- other shards

    def follow(self, clock_us: int) -> bool:
        """Look how far the other shards are; return whether anything is new. The writer's, between its transactions.

        ClockSkew where another shard's clock is more than `SKEW_SECONDS_MAX` ahead of `clock_us`.
        """
        heads = self._stored_heads()
        heads.pop(self.shard)
        for shard, head in heads.items():
            if head.known_time > clock_us + SKEW_SECONDS_MAX * 1_000_000:
                raise ClockSkew(
                    f"the clock of shard {shard} is {(head.known_time - clock_us) / 1e6:.1f} s ahead of that of shard "
                    f"{self.shard}, more than {SKEW_SECONDS_MAX} s; set the clocks right"
                )
        before, self.others = self.cut(), heads
        if heads and self.waiting:
            self.arrived += self._arrived(before)
        return before != self.cut()

    def _held_elsewhere(self) -> list[Identity]:
        """Return the events of other shards that this shard waits for."""
        slots = dict(zip(self.slot_hash(self.waiting).tolist(), self.waiting, strict=True)) if self.others else {}
        hits = self.store.find(np.sort(np.fromiter(slots, np.int64, len(slots)))) if slots else {}
        found = [self.find(slots[slot]) for slot in hits]
        foreign = [one for one in found if one is not None and shard_of(one) != self.shard]
        return list(self.identities([one for one in foreign if shows(self.cut(), one)]).values())

    def _arrived(self, before: Cut) -> list[Identity]:
        """Return the events that this shard waits for and that other shards hold, or made effective, since a cut."""
        found: dict[int, Identity] = {}
        for after, upto in stretches(before, self.cut() | {self.shard: 0}) if self.waiting else ():
            fresh = [one.position for one in self.store.versions_visible(after, upto)]
            for _, block in self.reader.blocks(after, upto):
                for part in block.parts:
                    table = self.reader.part(block, part, ("event_id",))
                    awaited = pc.is_in(table["event_id"], value_set=pa.array(sorted(self.waiting), pa.string()))
                    fresh += table["position"].filter(awaited).to_pylist()
            found |= self.identities(fresh)
        return [one for one in found.values() if one.event_id in self.waiting]

    # -- writing

    def begin(self, clock_us: int) -> Transaction:
        """Begin the writer's transaction; `clock_us` is its reading of the clock, microseconds UTC."""
        if self.read_only:
            raise BadInput("this log is open for reading only")
        if not self._writing.acquire(blocking=False):
            raise BadInput("a transaction of this log is open already; commit it or leave it first")
        return Transaction(self, clock_us, self._finish)

    def _reload(self) -> None:
        """Read where the log ends and what is pending, as the store has it."""
        self._head = self._stored_heads()[self.shard]
        pending = [row for row in self.store.pending() if shard_of(row.position) == self.shard]
        self.waiting = {row.target for row in pending if not row.void}
        self.pending_count = len(pending)

    def _finish(self, committed: Transaction | None, failed: bool) -> None:
        """End a transaction; after a write that failed, look what the store has: a commit may have failed late."""
        try:
            if failed:
                self._reload()
            if committed is not None:
                self._head = committed.head
                self.pending_count = committed.versions.pending_count
                committed.versions.settle()
                self.arrived = []
        finally:
            self._writing.release()

    def identities(self, positions: Collection[int]) -> dict[int, Identity]:
        """Return id, type, content, kind and known_time of committed events by position."""
        found = {}
        for (name, _), table in self.reader.rows(positions, ("event_id", "content", "kind", "known_time")).items():
            columns = (table[n].to_pylist() for n in ("position", "event_id", "content", "kind", "known_time"))
            for position, event_id, content, kind, known in zip(*columns, strict=True):
                found[position] = Identity(position, event_id, name, content, kind, known)
        return found

    # -- reading

    def find(self, event_id: str) -> int | None:
        """Return the position of an event by its id."""
        for slot in probe(int(self.slot_hash([event_id])[0])):
            position = self.store.lookup(slot)
            if position is None:
                break
            if self.identities([position])[position].event_id == event_id:
                return position
        return None

    def event(self, event_id: str, *, personal: bool = False) -> dict[str, Any]:
        """Return an event as the record that it was, of its version, with `position` and `known_time`.

        NotFound if there is none.
        """
        position = self.find(event_id)
        if position is None:
            raise NotFound(f"no event {event_id!r} in the log")
        (name, version), table = self._row(position)
        plain = self.personal(position) if personal else None
        return record_of(version_of(self.registry[name], version), table, plain) | {"position": position}

    def application(self, position: int) -> pa.Table:
        """Return the event at a position as a table of one row: `position`, standard columns, and the fields.

        The fields are there by every name that a version of the type has, as in `facts`.
        """
        (name, version), table = self._row(position)
        standard = {column: table[column] for column in ("position", *STANDARD_COLUMNS[1:])}
        return pa.table({**standard, **read_rows(table, self.registry[name], version)})

    def type_at(self, position: int) -> str:
        """Return the type of the event at a position."""
        return self._row(position)[0][0]

    def _row(self, position: int) -> tuple[TypeVersion, pa.Table]:
        rows = self.reader.rows([position]) if sequence_of(position) > 0 and shows(self.ends(), position) else {}
        if not rows:
            raise NotFound(f"no event at position {position}")
        [found] = rows.items()
        return found

    def personal(self, position: int) -> dict[str, Any] | None:
        """Return the decrypted personal fields of an event, None if it has none."""
        sealed = self.store.personal(position)
        if sealed is None:
            return None
        fields: dict[str, Any] = json.loads(self.key.unseal(sealed, self.id, position))
        return fields

    def facts(self, type_name: str, cut: Cut | None = None, columns: Iterable[str] | None = None) -> Facts:
        """Return all versions of a type's facts that a cut shows (default: all); see `Facts`.

        `columns`: the fields wanted, by any name that a version of the type has, and `event_id` if it is; default all.
        Rows of other versions answer to a name as `obligor.events.lineage` says.
        """
        upto = self.ends()
        if cut is not None:
            upto = {shard: min(last, cut.get(shard, 0)) for shard, last in upto.items()}
            self.refuse_open(upto)
        return read_facts(self.store, self.reader, self.registry[type_name], upto, columns)

    def changes(
        self, after: Cut | None = None, upto: Cut | None = None, *, step_events: int = CHUNK_EVENTS
    ) -> Iterator[Changes]:
        """Yield which winners changed after a cut (up to `cut()` unless given), in steps: what a state applies.

        Both cuts are closed, as recorded ones are.
        """
        begin, end = {} if after is None else after, self.cut() if upto is None else upto
        links = self.chains({**end, **begin})
        return changes_between(self.store, self.reader, self.registry, begin, end, links, step_events)

    def pending(self) -> list[PendingRow]:
        """Return the corrections and retractions that are not effective, in order."""
        return self.store.pending()

    def offset(self, source: str, topic: str, partition: int) -> OffsetRow | None:
        """Return how far a partition of a stream is in the log, None where nothing is known of it."""
        return self.store.offset(source, topic, partition)

    def decision(self, decision_id: str) -> LedgerRow:
        """Return a decision's ledger row; NotFound if there is none."""
        row = self.store.decision(decision_id)
        if row is None:
            raise NotFound(f"no decision {decision_id!r} in the ledger")
        return row

    def decision_for(self, application_position: int) -> LedgerRow | None:
        """Return the ledger row of the decision on an application."""
        return self.store.decision_for(application_position)

    def decisions(self, after: int | None = None) -> Iterator[LedgerRow]:
        """Yield all ledger rows, shard by shard, or those of one shard after a place in its ledger."""
        if after is not None:
            return self.store.ledger(after)
        return (row for shard in sorted(self.heads()) for row in self.store.ledger(pack(shard, 0)))

    def verify(self, *, deep: bool = False) -> list[BrokenLink]:
        """Return every place where what is stored does not fit its hash; goes on after each.

        `deep`: also recompute the id index and the versions from the blocks.
        """
        return verify(self, deep=deep)


def _key_of(path: Path, optional: bool) -> LogKey | None:
    try:
        return LogKey.load(path)
    except NotFound:
        if optional:
            return None
        raise
