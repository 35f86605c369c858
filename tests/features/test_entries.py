"""Keys of the state's store sort as entities and time do."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from obligor.features.entries import (
    KEY_BYTES_MAX,
    Row,
    after_all,
    bound,
    chunk_key,
    chunks_start,
    entity_of,
    prefix,
    tail_key,
    unbound,
)

WORDS = st.integers(-(2**63), 2**63 - 2)
ROWS = st.tuples(WORDS, WORDS)
KEYS = st.binary(max_size=6) | st.binary(min_size=KEY_BYTES_MAX - 1, max_size=KEY_BYTES_MAX + 2)


@settings(derandomize=True, deadline=None)
@given(one=ROWS, other=ROWS)
def test_bounds_sort_as_rows(one: Row, other: Row) -> None:
    assert (bound(one) < bound(other)) == (one < other)
    assert unbound(chunk_key(b"x", one)) == one


@settings(derandomize=True, deadline=None)
@given(row=ROWS, upper=ROWS)
def test_a_scan_meets_exactly_the_chunks_above_a_row(row: Row, upper: Row) -> None:
    start = prefix(1, b"c")
    assert (chunk_key(start, upper) >= chunks_start(start, row)) == (upper > row)
    assert chunks_start(start) <= chunk_key(start, upper) < tail_key(start)


@settings(derandomize=True, deadline=None)
@given(one=KEYS, other=KEYS, row=ROWS)
def test_entities_do_not_meet(one: bytes, other: bytes, row: Row) -> None:
    first, second = prefix(1, one), prefix(1, other)
    if one != other:
        assert not first <= chunk_key(second, row) <= tail_key(first)
    assert len(chunk_key(first, row)) < 511
    assert prefix(2, one) != first


@settings(derandomize=True, deadline=None)
@given(key=KEYS, row=ROWS)
def test_an_entity_is_read_from_the_keys_of_its_entries(key: bytes, row: Row) -> None:
    start = prefix(3, key)
    named = key if len(key) <= KEY_BYTES_MAX else None
    assert entity_of(tail_key(start)) == entity_of(chunk_key(start, row)) == (start, named)
    assert chunk_key(start, row) < tail_key(start) < after_all(start)
