"""A log from one store to another, bit for bit: the same id, positions, chains, ledger and sealed fields.

The source has no writer meanwhile: what is copied holds for one moment. The target is new, and is no log before the
last step, which gives it its id once everything has been read back and compared; a copy that was cut short therefore
can neither be opened nor mistaken for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, zip_longest
from typing import Any, TypeVar

import numpy as np

from obligor.errors import IntegrityError
from obligor.events.block import Block
from obligor.events.store import BlockRow, Commit, LogStore, OffsetStep

__all__ = ["copy", "differences"]

T = TypeVar("T")
_ROWS_AT_ONCE = 10_000
_IDS_AT_ONCE = 100_000
_BYTES_AT_ONCE = 16 << 20


def copy(source: LogStore, target: LogStore, progress: Callable[[int], None] = lambda sequence: None) -> None:
    """Copy everything into a store that is empty; `progress` is told the sequence that the blocks have come to.

    IntegrityError where what is read back is not what was written; the target is then no log.
    """
    assert target.head() is None, "the target is empty"
    assert not target.meta(), "the target is empty"
    head = source.head()
    known: set[bytes] = set()
    for blocks in _parts(source.blocks(0, head.sequence if head else 0)):
        used = {part.schema for row in blocks for part in Block.open(row.body).parts} - known
        target.write(Commit(blocks=blocks, schemas={digest: _schema(source, digest) for digest in used}))
        known |= used
        progress(blocks[-1].last)
    for ids in _some(source.slots(), _IDS_AT_ONCE):
        pairs = np.array(ids, np.int64)
        target.write(Commit(slots=pairs[:, 0], sequences=pairs[:, 1]))
    for versions in _some(source.versions_visible(0, head.sequence if head else 0)):
        target.write(Commit(versions=versions))
    for pending in _some(source.pending()):
        target.write(Commit(pending=pending))
    for rows in _some(source.ledger(0)):
        target.write(Commit(ledger=rows))
    for sealed in _some(source.sealed()):
        target.write(Commit(personal=sealed))
    target.write(Commit(offsets=[OffsetStep(row, None) for row in source.offsets()]))
    found = list(islice(differences(source, target), 10))
    if found:
        raise IntegrityError(f"what was copied differs from what is read back: {'; '.join(found)}")
    target.set_meta(source.meta())


def differences(one: LogStore, other: LogStore) -> Iterator[str]:
    """Yield what two stores differ in, their named values aside: for each table the first row that is not alike."""
    head = one.head()
    if head != other.head():
        yield f"the head: {head} and {other.head()}"
    last = head.sequence if head else 0
    read: dict[str, Callable[[LogStore], Iterable[Any]]] = {
        "blocks": lambda store: _with_schemas(store, last),
        "ids": lambda store: store.slots(),
        "versions": lambda store: sorted(store.versions_visible(0, last)),
        "pending": lambda store: store.pending(),
        "ledger": lambda store: store.ledger(0),
        "personal": lambda store: store.sealed(),
        "offsets": lambda store: store.offsets(),
    }
    for name, rows in read.items():
        for number, (a, b) in enumerate(zip_longest(rows(one), rows(other))):
            if a != b:
                yield f"row {number} of {name}: {a!r:.200} and {b!r:.200}"
                break


def _with_schemas(store: LogStore, last: int) -> Iterator[tuple[BlockRow, list[bytes | None]]]:
    """Yield each block with those schemas of its parts that no block before it has."""
    seen: set[bytes] = set()
    for row in store.blocks(0, last):
        new = {part.schema for part in Block.open(row.body).parts} - seen
        yield row, [store.schema(digest) for digest in sorted(new)]
        seen |= new


def _schema(source: LogStore, digest: bytes) -> bytes:
    found = source.schema(digest)
    if found is None:
        raise IntegrityError(f"the Arrow schema {digest.hex()} is missing in the log that is to be copied")
    return found


def _parts(rows: Iterator[BlockRow]) -> Iterator[list[BlockRow]]:
    """Yield the blocks in parts of so many bytes, or a little more."""
    part: list[BlockRow] = []
    size = 0
    for row in rows:
        part.append(row)
        size += len(row.body)
        if size >= _BYTES_AT_ONCE or len(part) >= _ROWS_AT_ONCE:
            yield part
            part, size = [], 0
    if part:
        yield part


def _some(rows: Iterable[T], many: int = _ROWS_AT_ONCE) -> Iterator[list[T]]:
    """Yield the rows, `many` at a time."""
    iterator = iter(rows)
    while part := list(islice(iterator, many)):
        yield part
