"""Columns read as they lie in a file: what pyarrow decodes, or nothing where they lie otherwise or are damaged."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obligor.stores.delta.files import ParquetReader, ParquetWriter
from obligor.stores.delta.pages import Coded, Plain, Sparse, located, page_at, read_coded, read_plain, read_sparse
from obligor.stores.delta.places import DiskPlace

INT64 = st.integers(-(2**63), 2**63 - 1)
READ: dict[type, Callable[[Any, Any], pa.Array | None]] = {
    Plain: lambda file, where: read_plain(file, [where]),
    Sparse: lambda file, where: read_sparse(file, [where]),
    Coded: read_coded,
}


def column_of(values: pa.Array, **more: Any) -> tuple[pa.BufferReader, Any, int]:
    """Return a file of one group of one column, the group's metadata, and its rows."""
    sink = io.BytesIO()
    settings = {"compression": "LZ4", "max_rows_per_page": 1 << 20, "use_dictionary": False} | more
    field = pa.field("x", values.type, nullable=values.null_count > 0)
    pq.write_table(pa.table([values], pa.schema([field])), sink, row_group_size=len(values), **settings)
    file = pa.BufferReader(sink.getvalue())
    return file, pq.read_metadata(file).row_group(0).column(0), len(values)


def straight(values: pa.Array, **more: Any) -> tuple[type, pa.Array | None]:
    """Return how a column is found to lie, and what is read."""
    file, chunk, rows = column_of(values, **more)
    where = located(file, chunk, rows)
    return type(where), None if where is None else READ[type(where)](file, where)


SPARSE = {"column_encoding": {"x": "BYTE_STREAM_SPLIT"}}
CODED = {"use_dictionary": ["x"]}


@settings(deadline=None)
@given(st.lists(INT64, min_size=1, max_size=50), st.booleans())
def test_plain_numbers_are_what_was_written(numbers: list[int], nullable: bool) -> None:
    values = pa.array(numbers, pa.int64())
    assert straight(values, compression="NONE", column_encoding={"x": "PLAIN"}) == (Plain, values)


def test_plain_numbers_of_a_column_that_may_hold_nulls() -> None:
    sink, values = io.BytesIO(), pa.array(np.arange(1000))
    pq.write_table(pa.table({"x": values}), sink, compression="NONE", use_dictionary=False)
    file = pa.BufferReader(sink.getvalue())
    where = located(file, pq.read_metadata(file).row_group(0).column(0), 1000)
    assert isinstance(where, Plain)
    assert read_plain(file, [where]) == values


RUNS = st.lists(st.tuples(st.integers(1, 70), st.one_of(st.none(), INT64)), min_size=1, max_size=30)


@settings(deadline=None)
@given(RUNS)
def test_numbers_that_few_rows_have_are_what_was_written(runs: list[tuple[int, int | None]]) -> None:
    values = pa.array([value for count, value in runs for _ in range(count)], pa.int64())
    kind, found = straight(values, **SPARSE)
    if values.null_count > 0:
        assert (kind, found) == (Sparse, values)
        assert found is not None
        assert found.null_count == values.null_count
        found.validate(full=True)
    else:
        assert kind is type(None)


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=9), st.integers(1, 70)), min_size=1, max_size=40, unique_by=lambda r: r[0]))
def test_sorted_keys_come_by_their_runs(runs: list[tuple[str, int]]) -> None:
    keys, counts = [key for key, _ in runs], np.array([count for _, count in runs])
    kind, found = straight(pa.array(np.repeat(np.array(keys, object), counts), pa.string()), **CODED)
    assert kind is Coded
    assert found is not None
    found.validate(full=True)
    assert found.values.to_pylist() == keys
    assert found.run_ends.to_pylist() == np.cumsum(counts).tolist()


def test_many_keys_and_long_runs_come_by_their_runs() -> None:
    counts = np.random.default_rng(3).integers(1, 40, 5000)
    counts[17] = 100_000
    names = np.array([f"{'é' * (i % 5)}{i}" for i in range(5000)], object)
    _, found = straight(pa.array(np.repeat(names, counts), pa.string()), **CODED)
    assert found is not None
    assert found.values.to_pylist() == names.tolist()
    assert found.run_ends.to_pylist() == np.cumsum(counts).tolist()


def test_a_key_that_comes_again_is_not_read_by_its_runs() -> None:
    assert straight(pa.array(["a", "b", "a"]), **CODED) == (Coded, None)


@pytest.mark.parametrize(
    ("values", "more"),
    [
        (pa.array([1, 2, 3]), {"compression": "NONE", "max_rows_per_page": 2}),
        (pa.array([1, 2, 3]), {"compression": "SNAPPY"}),
        (pa.array([1, 2, None]), {"compression": "NONE"}),
        (pa.array([1, 1, 1]), {"compression": "NONE", "use_dictionary": True}),
        (pa.array([1, 2, 3]), {"compression": "NONE", "data_page_version": "2.0", "max_rows_per_page": 2}),
        (pa.array([1, 2, 3]), {"compression": "NONE", "column_encoding": {"x": "DELTA_BINARY_PACKED"}}),
        (pa.array([1, None] * 9), SPARSE | {"max_rows_per_page": 4}),
        (pa.array([1, None] * 9), SPARSE | {"compression": "ZSTD"}),
        (pa.array([1.0, None]), SPARSE),
        (pa.array(["a", "b"]), {"compression": "LZ4"}),
        (pa.array(["a", "b"]), CODED | {"compression": "GZIP"}),
        (pa.array(["a", None]), CODED),
        (pa.array(["a", "b", "c"]), CODED | {"max_rows_per_page": 2}),
    ],
)
def test_what_lies_otherwise_is_left_to_pyarrow(values: pa.Array, more: dict[str, Any]) -> None:
    file, chunk, rows = column_of(values, **more)
    assert located(file, chunk, rows) is None


def test_bytes_that_are_no_header_are_none() -> None:
    assert page_at(b"", 0) is None
    assert page_at(b"\x00", 0) is None
    assert page_at(b"\x05\x05\x05", 0) is None
    chance = np.random.default_rng(8)
    for _ in range(2000):
        page = page_at(chance.integers(0, 256, 40, np.uint8).tobytes(), 0)
        assert page is None or page.begin > 0


@pytest.mark.parametrize(("kind", "more"), [(Sparse, SPARSE), (Coded, CODED)])
def test_a_damaged_page_is_not_read(kind: type, more: dict[str, Any]) -> None:
    """Whatever the bits are: what is read is a column of as many rows, or nothing, and no other memory is touched."""
    chance, given_up = np.random.default_rng(4), 0
    numbers = pa.array([i if i % 7 == 0 else None for i in range(300)], pa.int64())
    texts = pa.array([f"k-{i // 11:03}" for i in range(300)])
    file, chunk, rows = column_of(numbers if kind is Sparse else texts, **more)
    where, content = located(file, chunk, rows), file.getvalue() if hasattr(file, "getvalue") else None
    file.seek(0)
    content = bytearray(file.read())
    assert isinstance(where, (Sparse, Coded))
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[int(chance.integers(where.page.begin, where.page.end))] ^= 1 << int(chance.integers(8))
        try:
            found = READ[kind](pa.BufferReader(bytes(damaged)), where)
        except OSError:  # that is no LZ4 any more
            found = None
        given_up += found is None
        assert found is None or len(found) == rows
    assert given_up > 100


SCHEMA = pa.schema(
    [
        pa.field("bucket", pa.int16(), nullable=False),
        pa.field("entity", pa.string(), nullable=False),
        pa.field("known", pa.int64(), nullable=False),
        pa.field("replaced_known", pa.int64()),
        pa.field("sale.amount", pa.int64()),
    ]
)


def test_a_file_reads_the_same_straight_and_decoded(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(6)
    groups = []
    for group in range(4):
        n = 1000 + group
        names = np.sort(np.array([f"c-{group}-{i:03}" for i in chance.integers(0, 40, n)], object))
        replaced = pa.array(chance.integers(0, 99, n), mask=chance.random(n) < (0.9, 1.1, 0.5, -1)[group])
        amounts = pa.array(chance.integers(0, 99, n), mask=chance.random(n) < (-1, 0.1, -1, 1.1)[group])
        columns = [np.full(n, group, np.int16), names, chance.integers(0, 9, n), replaced, amounts]
        groups.append(pa.table(columns, SCHEMA))
    writer = ParquetWriter(DiskPlace(tmp_path), "a.parquet", SCHEMA, {})
    for rows in groups:
        writer.write(rows)
    writer.close()
    reader = ParquetReader(DiskPlace(tmp_path), "a.parquet")
    for own in ([0], [1], [2], [3], [0, 1], [1, 2, 3], [0, 1, 2, 3]):
        monkeypatch.setattr(DiskPlace, "read_ahead", False)
        found = reader.read(own, SCHEMA.names)
        monkeypatch.setattr(DiskPlace, "read_ahead", True)
        decoded = ParquetReader(DiskPlace(tmp_path), "a.parquet").read(own, SCHEMA.names)
        assert found.to_pydict() == decoded.to_pydict() == pa.concat_tables([groups[g] for g in own]).to_pydict()
    where = {key: type(one).__name__ for key, one in reader._where.items()}
    assert where[0, "entity"] == "Coded"
    assert where[0, "known"] == where[0, "sale.amount"] == "Plain"
    assert where[0, "replaced_known"] == "Sparse"
    assert where[1, "sale.amount"] == "NoneType"
