"""A block: up to 2,048 events as one value, columnar by type, that the log's chain is computed over.

    "OBL1" | length of the header (32 bits) | header (JSON) | one Arrow IPC record batch for each part, in header order

The header names the first position, the number of positions and for each part its type, the version of the type that
its rows are written in (1 where it names none), rows, bytes and the digest of its Arrow schema; schemas are stored once
beside the blocks, because one would be larger than a block of one event. In a log of several shards it also names how
far the writer had seen the others when it wrote the block, and their links there: `after`. A position may hold no
event: it is where corrections became effective whose originals are in other shards. A part holds `offset` (position -
first) and the batch's standard columns, with known_time filled; `measured` says by whom. Personal fields are not in it:
the content hash covers a keyed commitment to them. LZ4, because a correction decodes the block of what it corrects:
Zstandard makes blocks of random ids a third smaller and takes three times as long to decode.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obligor.errors import IntegrityError
from obligor.events.batch import TypeVersion
from obligor.events.store import BlockRow, LogStore

__all__ = ["BLOCK_EVENTS_MAX", "STANDARD_COLUMNS", "Block", "BlockReader", "Ends", "Part", "encode"]

BLOCK_EVENTS_MAX = 2048
STANDARD_COLUMNS = ("offset", "event_id", "event_time", "known_time", "measured", "kind", "target", "content")
CACHED_BLOCKS_MAX = 64
_MAGIC = b"OBL1"
_LENGTH = struct.Struct("<I")
_COMPRESS_ROWS_MIN = 64  # below, the frames of a compressor cost more than they save
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_END_OF_STREAM_BYTES = 8

Positions = npt.NDArray[np.int64]
Ends = Mapping[int, tuple[int, bytes]]  # of other shards: the last sequence seen, and the link there


class Part(NamedTuple):
    """Where the rows of one version of a type are in a block's bytes."""

    type: str
    version: int
    rows: int
    start: int
    stop: int
    schema: bytes


@dataclass(frozen=True)
class Block:
    """A block's header and bytes; tables are decoded on demand, only the columns asked for."""

    first: int
    count: int
    parts: tuple[Part, ...]
    body: bytes
    after: Ends = field(default_factory=dict)

    @property
    def last(self) -> int:
        """The position of its end."""
        return self.first + self.count - 1

    @classmethod
    def open(cls, body: bytes) -> Block:
        """Read the header; IntegrityError if these are not a block's bytes."""
        try:
            if body[:4] != _MAGIC:
                raise ValueError("no magic number")
            start = 8 + _LENGTH.unpack_from(body, 4)[0]
            header = json.loads(body[8:start])
            parts = []
            for one in header["parts"]:
                stop, schema = start + one["bytes"], bytes.fromhex(one["schema"])
                parts.append(Part(one["type"], one.get("version", 1), one["rows"], start, stop, schema))
                start = stop
            if start != len(body):
                raise ValueError(f"expected {start} bytes, got {len(body)}")
            after = {int(shard): (last, bytes.fromhex(link)) for shard, (last, link) in header.get("after", {}).items()}
            return cls(header["first"], header["count"], tuple(parts), body, after)
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise IntegrityError(f"a block of the log cannot be read: {error}") from None

    def table(self, part: Part, schema: StoredSchema, columns: Iterable[str] | None = None) -> pa.Table:
        """Return one part's rows, with only `columns` where given (those that its schema has)."""
        message = memoryview(self.body)[part.start : part.stop]
        try:
            if columns is None:
                batch = pa.ipc.read_record_batch(pa.py_buffer(message), schema.arrow)
            else:
                fields = sorted({schema.arrow.get_field_index(name) for name in columns} - {-1})
                stream = pa.py_buffer(b"".join((schema.message, message)))
                options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
                batch = pa.ipc.open_stream(stream, options=options).read_next_batch()
            batch.validate(full=True)  # so that damaged offsets cannot lead outside the buffers
        except (pa.ArrowException, OSError, EOFError, StopIteration) as error:
            raise IntegrityError(f"the {part.type} events of block {self.first} cannot be read: {error}") from None
        if batch.num_rows != part.rows:
            raise IntegrityError(f"block {self.first}: expected {part.rows} {part.type} events, got {batch.num_rows}")
        return pa.Table.from_batches([batch])


class StoredSchema(NamedTuple):
    """An Arrow schema and the message it is stored as."""

    arrow: pa.Schema
    message: bytes


def encode(
    first: int, count: int, parts: Sequence[tuple[TypeVersion, pa.Table]], after: Ends | None = None
) -> tuple[bytes, dict[bytes, bytes]]:
    """Return a block's bytes and the Arrow schemas it refers to, by digest.

    `after`: what its writer had seen of other shards.
    """
    schemas: dict[bytes, bytes] = {}
    header, messages = [], []
    for (name, version), table in parts:
        schema = table.schema.serialize().to_pybytes()
        digest = hashlib.sha256(schema).digest()[:16]
        schemas[digest] = schema
        message = _message(table, schema)
        size = {"rows": table.num_rows, "bytes": len(message)}
        header.append({"type": name, "version": version, **size, "schema": digest.hex()})
        messages.append(message)
    whole: dict[str, object] = {"first": first, "count": count, "parts": header}
    if after:
        whole["after"] = {str(shard): (last, link.hex()) for shard, (last, link) in after.items()}
    text = json.dumps(whole, separators=(",", ":")).encode()
    return b"".join([_MAGIC, _LENGTH.pack(len(text)), text, *messages]), schemas


def _message(table: pa.Table, schema: bytes) -> memoryview:
    """Return the rows as one IPC record batch without its schema."""
    batches = table.combine_chunks().to_batches()
    assert len(batches) == 1, "a part has rows, and they are one batch"
    if table.num_rows < _COMPRESS_ROWS_MIN:
        return memoryview(batches[0].serialize())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_COMPRESSED) as writer:
        writer.write_batch(batches[0])
    stream = memoryview(sink.getvalue())
    return stream[len(schema) : -_END_OF_STREAM_BYTES]


class _Kept:
    """A block in the cache, with what has been decoded of it so far."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.offsets: dict[int, npt.NDArray[np.int32]] = {}
        self.tables: dict[int, pa.Table] = {}


class BlockReader:
    """Reads a store's blocks, in order or by position; keeps the last `CACHED_BLOCKS_MAX` it decoded. Thread-safe."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._schemas: dict[bytes, StoredSchema] = {}
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._guard = threading.Lock()

    def blocks(self, after: int, upto: int) -> Iterator[tuple[BlockRow, Block]]:
        """Yield the blocks that hold any position in (after, upto] of one shard, in order."""
        for row in self._store.blocks(after, upto):
            yield row, Block.open(row.body)

    def block(self, position: int) -> Block:
        """Return the block that holds a position; IntegrityError where none does."""
        return self._keep(position).block

    def part(self, block: Block, part: Part, columns: Iterable[str] | None = None) -> pa.Table:
        """Return one type's rows of a block, with `position` (int64) as the first column in place of `offset`."""
        wanted = None if columns is None else {"offset", *columns}
        table = block.table(part, self._schema(part.schema), wanted)
        position = table["offset"].to_numpy().astype(np.int64) + block.first
        return table.set_column(table.schema.get_field_index("offset"), "position", pa.array(position))

    def rows(self, positions: Collection[int], columns: Sequence[str] | None = None) -> dict[TypeVersion, pa.Table]:
        """Return the events at these positions by type and version, each table in ascending order of position."""
        found: dict[TypeVersion, list[pa.Table]] = {}
        if not positions:
            return {}
        for kept, wanted in self._grouped(np.unique(np.fromiter(positions, np.int64, len(positions)))):
            for number, part in enumerate(kept.block.parts):
                places = self._places(kept, number, wanted - kept.block.first)
                if len(places):
                    table = self._table(kept, number)
                    table = table if columns is None else table.select(["position", *columns])
                    found.setdefault((part.type, part.version), []).append(table.take(places))
        return {name: pa.concat_tables(tables, promote_options="default") for name, tables in found.items()}

    def _grouped(self, positions: Positions) -> Iterator[tuple[_Kept, Positions]]:
        start = 0
        while start < len(positions):
            kept = self._keep(int(positions[start]))
            stop = int(np.searchsorted(positions, kept.block.first + kept.block.count))
            yield kept, positions[start:stop]
            start = stop

    def _places(self, kept: _Kept, number: int, offsets: Positions) -> Positions:
        """Return the rows of a part that have one of these offsets (ascending)."""
        part = kept.block.parts[number]
        if part.rows == kept.block.count:
            return offsets  # the only part: every offset is a row
        if number not in kept.offsets:
            table = kept.block.table(part, self._schema(part.schema), ("offset",))
            kept.offsets[number] = table["offset"].to_numpy()
        own = kept.offsets[number]
        places: Positions = np.searchsorted(own, offsets)
        there = places < len(own)
        found: Positions = places[there][own[places[there]] == offsets[there]]
        return found

    def _table(self, kept: _Kept, number: int) -> pa.Table:
        if number not in kept.tables:
            kept.tables[number] = self.part(kept.block, kept.block.parts[number])
        return kept.tables[number]

    def _keep(self, position: int) -> _Kept:
        with self._guard:
            for first in reversed(self._kept):
                kept = self._kept[first]
                if first <= position < first + kept.block.count:
                    self._kept.move_to_end(first)
                    return kept
        row = self._store.block_at(position)
        if row is None:
            raise IntegrityError(f"the block that holds position {position} is missing")
        kept = _Kept(Block.open(row.body))
        if not row.first == kept.block.first <= position < row.first + kept.block.count:
            raise IntegrityError(f"the block at {row.first} holds {kept.block.count} events from {kept.block.first} on")
        with self._guard:
            self._kept[row.first] = kept
            while len(self._kept) > CACHED_BLOCKS_MAX:
                self._kept.popitem(last=False)
        return kept

    def _schema(self, digest: bytes) -> StoredSchema:
        if digest not in self._schemas:
            message = self._store.schema(digest)
            if message is None or hashlib.sha256(message).digest()[:16] != digest:
                raise IntegrityError(f"the Arrow schema {digest.hex()} is missing or was changed")
            self._schemas[digest] = StoredSchema(pa.ipc.read_schema(pa.py_buffer(message)), message)
        return self._schemas[digest]
