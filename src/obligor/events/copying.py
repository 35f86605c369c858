"""A log from one store to another, bit for bit: the same id, positions, chains, ledger and sealed fields.

The source has no writer meanwhile, in no shard: what is copied holds for one moment. The target is new, and is no log
before the last step, which gives it its id once everything has been read back and compared; a copy that was cut short
therefore can neither be opened nor mistaken for one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, zip_longest
from typing import Any, TypeVar

import numpy as np

from obligor.errors import IntegrityError
from obligor.events.block import Block
from obligor.events.positions import pack, stretches
from obligor.events.store import BlockRow, Commit, LogStore, OffsetStep, VersionRow

__all__ = ["copy", "differences"]

T = TypeVar("T")
_ROWS_AT_ONCE = 10_000
_IDS_AT_ONCE = 100_000
_BYTES_AT_ONCE = 16 << 20


def copy(source: LogStore, target: LogStore, progress: Callable[[int], None] = lambda events: None) -> None:
    """Copy everything into a store that is empty; `progress` is told how many events are copied so far.

    IntegrityError where what is read back is not what was written; the target is then no log.
    """
    heads = source.heads()
    assert not target.meta(), "the target is empty"
    assert not any(head.sequence for head in target.heads().values()), "the target is empty"
    for _ in range(len(target.heads()), len(heads)):
        target.add_shard({})
    known: set[bytes] = set()
    events = 0
    for begin, end in _stretches(source):
        for blocks in _parts(source.blocks(begin, end)):
            used = {part.schema for row in blocks for part in Block.open(row.body).parts} - known
            target.write(Commit(blocks=blocks, schemas={digest: _schema(source, digest) for digest in used}))
            known |= used
            events += blocks[-1].last - blocks[0].first + 1
            progress(events)
    for ids in _some(source.slots(), _IDS_AT_ONCE):
        pairs = np.array(ids, np.int64)
        target.write(Commit(slots=pairs[:, 0], positions=pairs[:, 1]))
    for versions in _some(_versions(source)):
        target.write(Commit(versions=versions))
    for pending in _some(source.pending()):
        target.write(Commit(pending=pending))
    for shard in heads:
        for rows in _some(source.ledger(pack(shard, 0))):
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
    heads = one.heads()
    if heads != other.heads():
        yield f"the heads: {heads} and {other.heads()}"
    read: dict[str, Callable[[LogStore], Iterable[Any]]] = {
        "blocks": _with_schemas,
        "ids": lambda store: store.slots(),
        "versions": lambda store: sorted(_versions(store)),
        "pending": lambda store: store.pending(),
        "ledger": lambda store: (row for shard in heads for row in store.ledger(pack(shard, 0))),
        "personal": lambda store: store.sealed(),
        "offsets": lambda store: store.offsets(),
    }
    for name, rows in read.items():
        for number, (a, b) in enumerate(zip_longest(rows(one), rows(other))):
            if a != b:
                yield f"row {number} of {name}: {a!r:.200} and {b!r:.200}"
                break


def _stretches(store: LogStore) -> Iterator[tuple[int, int]]:
    return stretches({}, {shard: head.sequence for shard, head in store.heads().items()})


def _versions(store: LogStore) -> Iterator[VersionRow]:
    return (version for part in _stretches(store) for version in store.versions_visible(*part))


def _with_schemas(store: LogStore) -> Iterator[tuple[BlockRow, list[bytes | None]]]:
    """Yield each block with those schemas of its parts that no block before it has."""
    seen: set[bytes] = set()
    for row in chain.from_iterable(store.blocks(*part) for part in _stretches(store)):
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
