from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pyarrow as pa
import pytest
from tests.events.batches import append, application, new_log, repayment, unsynced

from obligor.errors import IntegrityError
from obligor.events import block as blocks
from obligor.events.block import BLOCK_EVENTS_MAX, Block, BlockReader, StoredSchema, encode
from obligor.events.log import EventLog


def table(rows: int, amounts: int = 1) -> pa.Table:
    return pa.table(
        {
            "offset": pa.array(range(rows), pa.int32()),
            "event_id": [f"e-{i}" for i in range(rows)],
            "amount": [i * amounts for i in range(rows)],
        }
    )


def stored(schemas: dict[bytes, bytes], digest: bytes) -> StoredSchema:
    return StoredSchema(pa.ipc.read_schema(pa.py_buffer(schemas[digest])), schemas[digest])


@pytest.mark.parametrize("rows", [1, 63, 64, 2048])
def test_a_block_gives_back_what_was_put_in(rows: int) -> None:
    """Below and above the size from which parts are compressed."""
    body, schemas = encode(5, 2 * rows, [(("a", 1), table(rows)), (("b", 1), table(rows, amounts=3))])
    block = Block.open(body)
    assert (block.first, block.count, [p.type for p in block.parts]) == (5, 2 * rows, ["a", "b"])
    for part, amounts in zip(block.parts, (1, 3), strict=True):
        schema = stored(schemas, part.schema)
        assert block.table(part, schema).equals(table(rows, amounts))
        assert block.table(part, schema, ["amount", "absent"]).equals(table(rows, amounts).select(["amount"]))


def test_a_schema_is_stored_under_its_digest() -> None:
    _, schemas = encode(1, 2, [(("a", 1), table(1)), (("b", 1), table(1))])
    [(digest, message)] = schemas.items()
    assert digest == hashlib.sha256(message).digest()[:16]


def test_the_same_events_have_the_same_bytes() -> None:
    split = pa.concat_tables([table(100).slice(0, 30), table(100).slice(30)])
    assert encode(1, 100, [(("a", 1), table(100))]) == encode(1, 100, [(("a", 1), split)])


@pytest.mark.parametrize("damage", [b"", b"OBL2", b"OBL1\xff\xff\xff\xff", b"OBL1\x02\x00\x00\x00{}"])
def test_bytes_that_are_no_block_are_refused(damage: bytes) -> None:
    with pytest.raises(IntegrityError, match="cannot be read"):
        Block.open(damage)


@pytest.mark.parametrize("rows", [10, 1000])
def test_every_cut_short_block_is_refused(rows: int) -> None:
    body, _ = encode(1, rows, [(("a", 1), table(rows))])
    for length in range(0, len(body), max(1, len(body) // 50)):
        with pytest.raises(IntegrityError):
            Block.open(body[:length])


def test_a_part_whose_bytes_are_damaged_is_named() -> None:
    body, schemas = encode(1, 1000, [(("a", 1), table(1000))])
    block = Block.open(body)
    [part] = block.parts
    damaged = Block(block.first, block.count, block.parts, body[: part.start] + bytes(part.stop - part.start))
    with pytest.raises(IntegrityError, match="the a events of block 1"):
        damaged.table(part, stored(schemas, part.schema))
    wrong = part._replace(rows=999)
    with pytest.raises(IntegrityError, match="expected 999 a events, got 1000"):
        block.table(wrong, stored(schemas, part.schema))


@pytest.mark.parametrize("rows", [10, 1000])
def test_no_flipped_byte_does_worse_than_a_named_error(rows: int) -> None:
    """What the chain reports can still be read as far as it goes; damaged offsets must not lead outside the buffers."""
    body, schemas = encode(1, rows, [(("a", 1), table(rows))])
    [part] = Block.open(body).parts
    chance = random.Random(3)
    refused = 0
    for _ in range(300):
        damaged = bytearray(body)
        damaged[chance.randrange(part.start, part.stop)] ^= 1 << chance.randrange(8)
        try:
            found = Block.open(bytes(damaged)).table(part, stored(schemas, part.schema))
            assert len(found.to_pylist()) == rows
        except IntegrityError:
            refused += 1
    assert refused > 0


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """Three blocks of two types: 1 to 4, 5 to 5, 6 to 9."""
    log = new_log(tmp_path, store=unsynced)
    append(log, *[repayment(f"r-{i}") for i in range(3)], application("a-1"))
    append(log, application("a-2"))
    append(log, application("a-3"), *[repayment(f"s-{i}") for i in range(3)])
    return log


def test_rows_are_found_by_sequence(log: EventLog) -> None:
    rows = BlockReader(log.store).rows([9, 4, 2, 5, 2], ["event_id"])
    found = {
        name: dict(zip(*(t[c].to_pylist() for c in ("position", "event_id")), strict=True)) for name, t in rows.items()
    }
    assert found == {("repayment", 1): {2: "r-1", 9: "s-2"}, ("loan_application", 1): {4: "a-1", 5: "a-2"}}
    assert BlockReader(log.store).rows([]) == {}
    with pytest.raises(IntegrityError, match="position 10 is missing"):
        BlockReader(log.store).rows([10])


def test_few_blocks_are_kept(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CACHED_BLOCKS_MAX", 2)
    reader = BlockReader(log.store)
    for sequence in (1, 5, 6, 1, 9):
        reader.rows([sequence])
    assert list(reader._kept) == [1, 6]


def test_a_large_transaction_is_several_blocks(tmp_path: Path) -> None:
    with new_log(tmp_path, store=unsynced) as log:
        append(log, repayment("first"))
        append(log, *[repayment(f"r-{i}") for i in range(BLOCK_EVENTS_MAX + 5)])
        assert list(log.store.bounds()) == [
            (1, 1),
            (2, BLOCK_EVENTS_MAX + 1),
            (BLOCK_EVENTS_MAX + 2, BLOCK_EVENTS_MAX + 6),
        ]
        assert log.verify(deep=True) == []
        assert log.chain(BLOCK_EVENTS_MAX + 1) != log.chain()
