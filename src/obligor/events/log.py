"""The event log: an append-only, hash-chained sequence of facts with one writer, and its ledger of decisions.

Everything else (features, outcomes, state, training sets) is computed from it. A log is a store, which is a file in the
log's own folder or tables in a database, and the key of its personal fields, which never lies in a database. `begin`
gives the one writer's transaction; everything that reads takes a cut, and gives the same answer for the same cut for
ever.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from obligor.errors import BadInput, Conflict, IntegrityError, NotFound
from obligor.events import chain
from obligor.events.batch import TypeVersion
from obligor.events.block import STANDARD_COLUMNS, BlockReader
from obligor.events.chain import BrokenLink
from obligor.events.changes import CHUNK_EVENTS, Changes, changes_between
from obligor.events.facts import Facts, read_facts
from obligor.events.ids import SlotHash, probe, slot_hash
from obligor.events.lineage import version_of
from obligor.events.personal import KEY_FILE, LogKey
from obligor.events.positions import Cut, pack, sequence_of, shard_of
from obligor.events.reading import read_rows
from obligor.events.recorded_types import merge_types
from obligor.events.rendering import record_of
from obligor.events.schema import Registry
from obligor.events.store import Head, LedgerRow, LogStore, Mode, OffsetRow, PendingRow, StoreOpener
from obligor.events.transaction import Transaction
from obligor.events.verification import verify
from obligor.events.versions import Identity

__all__ = ["EventLog"]

_ID_BYTES = 16


class EventLog:
    """One shard of the log; thread-safe for reading, one transaction at a time for writing.

    Make one with `create` or `open`, and `close` it (or use it as a context manager).
    """

    def __init__(self, store: LogStore, registry: Registry, key: LogKey | None, *, read_only: bool) -> None:
        self.store, self.registry, self.read_only = store, registry, read_only
        self.reader = BlockReader(store)
        self.shard = 0
        meta = store.meta()
        if "id" not in meta:
            raise IntegrityError("the making of this log was cut short and nothing is in it; delete it")
        self.id: bytes = meta["id"]
        self.slot_hash: SlotHash = slot_hash(meta["slot_key"])
        if key is not None and meta.get("key", mark := key.mark(self.id)) != mark:
            raise IntegrityError("the key file that was found is another log's; put the log's own in its place")
        self._key = key
        self._writing = threading.Lock()
        self._head, self.waiting, self.pending_count = self._stored_head(), set[str](), 0
        types = merge_types(meta["types"], registry, self.reader, self._head.sequence)
        if not read_only:
            self._reload()
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
        """Where the log and its ledger end; a read-only log looks it up each time."""
        return self._stored_head() if self.read_only else self._head

    def _stored_head(self) -> Head:
        head = self.store.head() or Head(0, 0, b"", 0, b"")
        return head._replace(
            chain=head.chain or chain.genesis(self.id, "log"),
            ledger_chain=head.ledger_chain or chain.genesis(self.id, "ledger"),
        )

    def cut(self) -> Cut:
        """Return the cut that shows everything committed."""
        return {self.shard: self.head.sequence}

    def chain(self, upto: int | None = None) -> bytes:
        """Return the link of the last committed block, or of the last block that ends at or before a position."""
        if upto is None:
            return self.head.chain
        found = self.store.last_block_upto(sequence_of(upto))
        return chain.genesis(self.id, "log") if found is None else found[1]

    @property
    def last_known_time(self) -> int:
        """The greatest known_time in the log; 0 if it is empty."""
        return self.head.known_time

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
        self._head = self._stored_head()
        pending = self.store.pending()
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
        finally:
            self._writing.release()

    def identities(self, sequences: Collection[int]) -> dict[int, Identity]:
        """Return id, type, content, kind and known_time of committed events by sequence."""
        found = {}
        for (name, _), table in self.reader.rows(sequences, ("event_id", "content", "kind", "known_time")).items():
            columns = (table[n].to_pylist() for n in ("sequence", "event_id", "content", "kind", "known_time"))
            for sequence, event_id, content, kind, known in zip(*columns, strict=True):
                found[sequence] = Identity(sequence, event_id, name, content, kind, known)
        return found

    # -- reading

    def find(self, event_id: str) -> int | None:
        """Return the position of an event by its id."""
        for slot in probe(int(self.slot_hash([event_id])[0])):
            sequence = self.store.lookup(slot)
            if sequence is None:
                break
            if self.identities([sequence])[sequence].event_id == event_id:
                return pack(self.shard, sequence)
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
        """Return the event at a position as a table of one row: `sequence`, standard columns, and the fields.

        The fields are there by every name that a version of the type has, as in `facts`.
        """
        (name, version), table = self._row(position)
        standard = {column: table[column] for column in ("sequence", *STANDARD_COLUMNS[1:])}
        return pa.table({**standard, **read_rows(table, self.registry[name], version)})

    def type_at(self, position: int) -> str:
        """Return the type of the event at a position."""
        return self._row(position)[0][0]

    def _row(self, position: int) -> tuple[TypeVersion, pa.Table]:
        if not 0 < sequence_of(position) <= self.head.sequence or shard_of(position) != self.shard:
            raise NotFound(f"no event at position {position}")
        [found] = self.reader.rows([sequence_of(position)]).items()
        return found

    def personal(self, position: int) -> dict[str, Any] | None:
        """Return the decrypted personal fields of an event, None if it has none."""
        sealed = self.store.personal(sequence_of(position))
        if sealed is None:
            return None
        fields: dict[str, Any] = json.loads(self.key.unseal(sealed, self.id, position))
        return fields

    def facts(self, type_name: str, cut: Cut | None = None, columns: Iterable[str] | None = None) -> Facts:
        """Return all versions of a type's facts that a cut shows (default: all); see `Facts`.

        `columns`: the fields wanted, by any name that a version of the type has, and `event_id` if it is; default all.
        Rows of other versions answer to a name as `obligor.events.lineage` says.
        """
        upto = self.head.sequence if cut is None else min(cut.get(self.shard, 0), self.head.sequence)
        return read_facts(self.store, self.reader, self.registry[type_name], self.shard, upto, columns)

    def changes(self, after: int = 0, upto: int | None = None, *, step_events: int = CHUNK_EVENTS) -> Iterator[Changes]:
        """Yield which winners changed after a position, in steps; what a state applies to catch up or to be rebuilt."""
        last = self.head.sequence if upto is None else sequence_of(upto)
        start = sequence_of(after)
        return changes_between(self.store, self.reader, self.registry, self.shard, start, last, step_events)

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

    def decisions(self, after: int = 0) -> Iterator[LedgerRow]:
        """Yield the ledger rows after a ledger sequence, in order."""
        return self.store.ledger(after)

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
