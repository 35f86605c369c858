"""What the log needs of a store: a narrow protocol with one atomic, durable write.

The log keeps a transaction in memory until its commit and then hands the store everything at once, so that a store
needs no partial writes, no savepoints and no locks beyond one writer. Reading methods may be called from any thread and
see the last commit; `find` and `write` belong to the writer.
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
    """Another process or thread is the writer of this log."""


class StaleOffset(ObligorError):
    """A partition does not stand where the step begins: somebody else has gone on from there, or has gone back."""


class BlockRow(NamedTuple):
    """One block: sequences `first` to `last`, the greatest known_time up to its end, its link, its bytes."""

    first: int
    last: int
    known_time: int
    chain: bytes
    body: bytes


class VersionRow(NamedTuple):
    """A correction or retraction whose root has arrived; visible once its whole chain up to the root is."""

    sequence: int
    root: int
    type: str
    kind: int
    known_time: int
    visible_sequence: int
    visible_known: int


class PendingRow(NamedTuple):
    """A correction or retraction that is not effective; `void`: its target is of another type, so it never will be."""

    sequence: int
    event_id: str
    target: str
    type: str
    kind: int
    known_time: int
    void: bool


class LedgerRow(NamedTuple):
    """One decision as recorded; `chain` is the link over this row and all before it."""

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
    """Where the log and its ledger end."""

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
    sequences: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
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

    def meta(self) -> dict[str, bytes]:
        """Return the named values of the log (its id, its types, ...)."""

    def set_meta(self, values: dict[str, bytes]) -> None:
        """Set named values, durably."""

    def head(self) -> Head | None:
        """Return where the log ends; its chains are empty bytes where nothing is written yet."""

    def write(self, commit: Commit) -> None:
        """Write one transaction, atomically and durably.

        StaleOffset, with nothing written, where a partition of `commit.offsets` is not at its step's `before`.
        """

    def offset(self, source: str, topic: str, partition: int) -> OffsetRow | None:
        """Return how far a partition is, None where nothing was ever written of it."""

    def offsets(self) -> list[OffsetRow]:
        """Return how far all partitions are, in order."""

    def find(self, slots: npt.NDArray[np.int64]) -> dict[int, int]:
        """Return the sequence of each slot (sorted ascending) that the id index holds."""

    def lookup(self, slot: int) -> int | None:
        """Return the sequence at one slot of the id index; for readers."""

    def slots(self) -> Iterator[tuple[int, int]]:
        """Yield the whole id index as (slot, sequence), slots ascending."""

    def blocks(self, after: int, upto: int) -> Iterator[BlockRow]:
        """Yield the blocks that hold any sequence in (after, upto], in order."""

    def block_at(self, sequence: int) -> BlockRow | None:
        """Return the block that holds the sequence."""

    def bounds(self) -> Sequence[tuple[int, int]]:
        """Return (first, last) of all blocks, in order."""

    def last_block_upto(self, sequence: int) -> tuple[int, bytes] | None:
        """Return (last sequence, link) of the last block that ends at or before the sequence."""

    def schema(self, digest: bytes) -> bytes | None:
        """Return a stored Arrow schema by its digest."""

    def version(self, sequence: int) -> VersionRow | None:
        """Return the effective version at a sequence."""

    def versions_of(self, roots: Iterable[int]) -> list[VersionRow]:
        """Return all effective versions of these facts."""

    def versions_visible(self, after: int, upto: int, type_name: str | None = None) -> list[VersionRow]:
        """Return the versions, of one type or all, whose visible_sequence is in (after, upto]."""

    def pending_row(self, sequence: int) -> PendingRow | None:
        """Return the pending version at a sequence."""

    def pending_on(self, target: str) -> list[PendingRow]:
        """Return the versions that wait for this event_id, in order."""

    def pending(self) -> list[PendingRow]:
        """Return all versions that are not effective, in order."""

    def ledger(self, after: int) -> Iterator[LedgerRow]:
        """Yield the ledger rows after a ledger sequence, in order."""

    def decision(self, decision_id: str) -> LedgerRow | None:
        """Return a decision's ledger row."""

    def decision_for(self, application_position: int) -> LedgerRow | None:
        """Return the ledger row of the decision on an application."""

    def personal(self, sequence: int) -> bytes | None:
        """Return the sealed personal fields of an event."""

    def sealed(self) -> Iterator[tuple[int, bytes]]:
        """Yield all sealed personal fields as (sequence, sealed), in order."""

    def erase(self, sequences: Sequence[int]) -> int:
        """Delete the sealed personal fields of these events so that nothing reads them again; return how many."""

    def close(self) -> None:
        """Release files and locks."""


class StoreOpener(Protocol):
    """How a log gets its store: the adapter's class or a function around it."""

    def __call__(self, path: str, mode: Mode) -> LogStore:
        """Open the store in the folder, or at the URL, `path`."""
