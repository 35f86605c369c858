"""What the log needs of a store: a narrow protocol with one atomic, durable write.

The log keeps a transaction in memory until its commit and then hands the store everything at once, so that a store
needs no partial writes, no savepoints and no locks beyond one writer a shard. Events are known by their positions, and
rows of the ledger by places of the same form, so that a number says its shard too. Of what the shards have in common,
the id index and the offsets of streams, the store itself sees to it that two writers never both take one.
Reading methods may be called from any thread and see the last commit of every shard; `find` and `write` belong to the
writer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from obligor.errors import ObligorError

__all__ = [
    "BlockRow",
    "Commit",
    "Head",
    "IdTaken",
    "LedgerRow",
    "LogStore",
    "Mode",
    "OffsetRow",
    "OffsetStep",
    "PendingRow",
    "StaleOffset",
    "StoreBusy",
    "StoreOpener",
    "VersionRow",
]

Mode = Literal["create", "write", "read"]


class StoreBusy(ObligorError):
    """Another process or thread is the writer of this log, or of this shard of it."""


class IdTaken(ObligorError):
    """Another shard has taken an id of this transaction since it was looked up; nothing was written, look again."""


class StaleOffset(ObligorError):
    """A partition does not stand where the step begins: somebody else has gone on from there, or has gone back."""


class BlockRow(NamedTuple):
    """One block: positions `first` to `last`, its shard's greatest known_time up to its end, its link, its bytes."""

    first: int
    last: int
    known_time: int
    chain: bytes
    body: bytes


class VersionRow(NamedTuple):
    """A correction or retraction whose root has arrived; visible once its whole chain up to the root is.

    `visible_position` is in its own shard: where that shard had seen the whole chain.
    """

    position: int
    root: int
    type: str
    kind: int
    known_time: int
    visible_position: int
    visible_known: int


class PendingRow(NamedTuple):
    """A correction or retraction that is not effective; `void`: its target is of another type, so it never will be."""

    position: int
    event_id: str
    target: str
    type: str
    kind: int
    known_time: int
    void: bool


class LedgerRow(NamedTuple):
    """One decision as recorded; `chain` is the link over this row and all before it in its shard's ledger.

    `sequence` is its place in the ledger: of shard 0 a sequence, of others with the shard, as positions have it.
    """

    sequence: int
    decision_id: str
    application_position: int
    record: bytes
    chain: bytes


class OffsetRow(NamedTuple):
    """How far one partition of a stream is in the log: the offset of the message to come next.

    `source`: who reads (or writes) the stream, such as a consumer group. `topic_id`: which topic of that name it is,
    because one that was made anew counts from 0 again; "" where the broker does not say.
    """

    source: str
    topic: str
    partition: int
    topic_id: str
    following: int


class OffsetStep(NamedTuple):
    """A partition goes on to `row`, from the offset `before`; None: the log knows nothing of it yet."""

    row: OffsetRow
    before: int | None


class Head(NamedTuple):
    """Where a shard of the log and its ledger end, in sequences; a chain is empty bytes where nothing is written."""

    sequence: int
    known_time: int
    chain: bytes
    ledger_sequence: int
    ledger_chain: bytes


@dataclass
class Commit:
    """Everything one transaction writes; `slots` is sorted, because an index in random order is slow to grow."""

    blocks: list[BlockRow] = field(default_factory=list)
    schemas: dict[bytes, bytes] = field(default_factory=dict)
    slots: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    positions: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    versions: list[VersionRow] = field(default_factory=list)
    pending: list[PendingRow] = field(default_factory=list)
    resolved: list[int] = field(default_factory=list)
    ledger: list[LedgerRow] = field(default_factory=list)
    personal: list[tuple[int, bytes]] = field(default_factory=list)
    offsets: list[OffsetStep] = field(default_factory=list)  # one a partition


class LogStore(Protocol):
    """One log's tables. `write` returns after everything is durable, or raises and nothing was written.

    Only where it raises StoreLost is it unknown what became of the transaction; the store writes nothing after that.
    """

    @property
    def shard(self) -> int:
        """The shard that is written; 0 of a reader, who sees all."""

    def meta(self) -> dict[str, bytes]:
        """Return the named values of the log (its id, its types, ...)."""

    def set_meta(self, values: dict[str, bytes]) -> None:
        """Set named values, durably."""

    def heads(self) -> dict[int, Head]:
        """Return where each shard ends, all as of one moment."""

    def add_shard(self, values: dict[str, bytes]) -> None:
        """Add a shard after the last, and set named values, in one transaction; BadInput where there is only one.

        The caller sees to it that no other shard has a writer.
        """

    def write(self, commit: Commit) -> None:
        """Write one transaction, atomically and durably.

        With nothing written StaleOffset where a partition of `commit.offsets` is not at its step's `before`, IdTaken
        where another shard has a slot.
        """

    def offset(self, source: str, topic: str, partition: int) -> OffsetRow | None:
        """Return how far a partition is, None where nothing was ever written of it."""

    def offsets(self) -> list[OffsetRow]:
        """Return how far all partitions are, in order."""

    def find(self, slots: npt.NDArray[np.int64]) -> dict[int, int]:
        """Return the position of each slot (sorted ascending) that the id index holds."""

    def lookup(self, slot: int) -> int | None:
        """Return the position at one slot of the id index; for readers."""

    def slots(self) -> Iterator[tuple[int, int]]:
        """Yield the whole id index as (slot, position), slots ascending."""

    def blocks(self, after: int, upto: int) -> Iterator[BlockRow]:
        """Yield the blocks that hold any position in (after, upto] of one shard, in order."""

    def block_at(self, position: int) -> BlockRow | None:
        """Return the block that holds the position."""

    def bounds(self) -> Sequence[tuple[int, int]]:
        """Return (first, last) of all blocks, in order."""

    def last_block_upto(self, position: int) -> tuple[int, bytes] | None:
        """Return (last position, link) of the last block of the position's shard that ends at or before it."""

    def schema(self, digest: bytes) -> bytes | None:
        """Return a stored Arrow schema by its digest."""

    def version(self, position: int) -> VersionRow | None:
        """Return the effective version at a position."""

    def versions_of(self, roots: Iterable[int]) -> list[VersionRow]:
        """Return all effective versions of these facts."""

    def versions_visible(self, after: int, upto: int, type_name: str | None = None) -> list[VersionRow]:
        """Return the versions, of one type or all, whose visible_position is in (after, upto] of one shard."""

    def pending_row(self, position: int) -> PendingRow | None:
        """Return the pending version at a position."""

    def pending_on(self, target: str) -> list[PendingRow]:
        """Return the versions that wait for this event_id, in order."""

    def pending(self) -> list[PendingRow]:
        """Return all versions that are not effective, in order."""

    def ledger(self, after: int) -> Iterator[LedgerRow]:
        """Yield the ledger rows of a shard after a place in it, in order."""

    def decision(self, decision_id: str) -> LedgerRow | None:
        """Return a decision's ledger row."""

    def decision_for(self, application_position: int) -> LedgerRow | None:
        """Return the ledger row of the decision on an application."""

    def personal(self, position: int) -> bytes | None:
        """Return the sealed personal fields of an event."""

    def sealed(self) -> Iterator[tuple[int, bytes]]:
        """Yield all sealed personal fields as (position, sealed), in order."""

    def erase(self, positions: Sequence[int]) -> int:
        """Delete the sealed personal fields of these events so that nothing reads them again; return how many."""

    def close(self) -> None:
        """Release files and locks."""


class StoreOpener(Protocol):
    """How a log gets its store: the adapter's class or a function around it."""

    def __call__(self, path: str, mode: Mode, /) -> LogStore:
        """Open the store in the folder, or at the URL, `path`."""
