"""Requests bucket by bucket: none lost, in their own order, with their own keys, however the work is cut."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obligor.features.buckets import BUCKETS, bucket_of
from obligor.features.lake_routing import route
from obligor.features.requests import Requests

ENTITIES = ("consumer",)
KEYS = st.none() | st.text(max_size=12) | st.sampled_from([f"c-{i}" for i in range(9)])


def requests_of(keys: list[str | None], skipped: int = 0, own: bool = True) -> tuple[Requests, pa.StringArray]:
    n = len(keys)
    array = pa.array([*["skipped"] * skipped, *keys], pa.string())[skipped:]
    numbers = np.arange(n) * 7
    roots = numbers + 1 if own else np.full(n, -1)
    return Requests(numbers + 5, np.array([[9]]), roots, {"consumer": array}, pa.table({})), array


@settings(deadline=None)
@given(
    st.lists(KEYS, max_size=40), st.sets(st.integers(1, BUCKETS - 1), max_size=6), st.integers(1, 4), st.integers(0, 2)
)
def test_each_range_has_its_requests_in_their_order(
    keys: list[str | None], edges: set[int], parts: int, skipped: int
) -> None:
    starts = [0, *sorted(edges)]
    ranges = [(first, end - 1) for first, end in zip(starts, [*starts[1:], BUCKETS], strict=True)]
    requests, array = requests_of(keys, skipped)
    routed = route(requests, array, ENTITIES, parts, map)
    buckets = [0 if key is None else bucket_of(ENTITIES, key) for key in keys]
    seen = []
    for first, last in ranges:
        own = routed.of((first, last))
        rows = routed.row[own].tolist()
        expected = [i for i in range(len(keys)) if first <= buckets[i] <= last]
        assert rows == sorted(expected, key=lambda i: buckets[i])
        assert pc.run_end_decode(routed.keys[own]).to_pylist() == [keys[i] for i in rows]
        assert routed.as_of[own].tolist() == [i * 7 + 5 for i in rows]
        assert routed.self_root[own].tolist() == [i * 7 + 1 for i in rows]
        if rows:
            narrow = routed.narrowed((first, last))
            assert first <= narrow[0] <= min(buckets[i] for i in rows)
            assert last >= narrow[1] >= max(buckets[i] for i in rows)
        seen += rows
    assert sorted(seen) == list(range(len(keys)))


def test_few_requests_need_no_more_than_their_buckets() -> None:
    requests, array = requests_of(["c-1", "c-1", "c-7"])
    routed = route(requests, array, ENTITIES, 1, map)
    low, high = sorted((bucket_of(ENTITIES, "c-1"), bucket_of(ENTITIES, "c-7")))
    assert routed.narrowed((0, BUCKETS - 1)) == (low, high)
    assert routed.narrowed((0, low)) == (low, low)
    assert routed.narrowed((low, low)) == (low, low)


@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one(n: int) -> None:
    requests, array = requests_of(["c-1"] * n, own=False)
    routed = route(requests, array, ENTITIES, 3, map)
    assert routed.self_root.tolist() == [-1] * n, "nobody asks about an application"
    assert routed.of((0, BUCKETS - 1)) == slice(0, n)
    assert len(routed.keys) == n
