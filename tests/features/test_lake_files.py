"""Which rows lie together: groups of whole buckets, files that share none, ranges that cover all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obligor.errors import IntegrityError
from obligor.features import lake_files
from obligor.features.buckets import BUCKETS
from obligor.features.lake_files import SortedWriter, chains, ranges, spread, versions_noted
from obligor.features.lake_store import DataFile, Group
from obligor.stores.delta import DeltaTableStore, place_of

SCHEMA = pa.schema([pa.field("bucket", pa.int16(), nullable=False), pa.field("known", pa.int64(), nullable=False)])


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_files, "GROUP_ROWS", 10)
    monkeypatch.setattr(lake_files, "FILE_ROWS", 25)


def written(folder: Path, *parts: Sequence[int]) -> list[list[tuple[int, int, int]]]:
    """Write rows of these buckets; return the groups of each file as (rows, first, last)."""
    folder.mkdir(exist_ok=True)
    store = DeltaTableStore(place_of(folder))
    writer = SortedWriter(store, SCHEMA, {})
    for buckets in parts:
        writer.write(pa.table([pa.array(buckets, pa.int16()), pa.array(range(len(buckets)), pa.int64())], SCHEMA))
    return [[(g.rows, g.first, g.last) for g in store.reader(file).groups] for file in writer.close()]


@pytest.mark.usefixtures("small")
def test_groups_are_whole_buckets(tmp_path: Path) -> None:
    assert written(tmp_path, [0] * 4 + [1] * 5 + [2] * 3 + [7] * 2) == [[(9, 0, 1), (5, 2, 7)]]
    assert written(tmp_path, []) == []
    assert written(tmp_path, [3] * 10, [4]) == [[(10, 3, 3), (1, 4, 4)]]


@pytest.mark.usefixtures("small")
def test_a_large_bucket_has_groups_of_its_own_in_one_file(tmp_path: Path) -> None:
    groups = [(2, 1, 1), (10, 2, 2), (10, 2, 2), (10, 2, 2), (3, 2, 3)]
    assert written(tmp_path, [1, 1, *[2] * 32, 3]) == [groups]


@pytest.mark.usefixtures("small")
@given(st.lists(st.integers(0, 12), max_size=120))
def test_no_two_files_share_a_bucket_and_nothing_is_lost(
    tmp_path_factory: pytest.TempPathFactory, buckets: list[int]
) -> None:
    files = written(tmp_path_factory.mktemp("files"), sorted(buckets))
    spans = [(groups[0][1], groups[-1][2]) for groups in files]
    assert all(one[1] < other[0] for one, other in pairwise(spans))
    assert sum(rows for groups in files for rows, _, _ in groups) == len(buckets)
    assert all(rows <= 10 for groups in files for rows, _, _ in groups)


def file(name: str, rows: int, first: int, last: int) -> DataFile:
    return DataFile(name, rows, 0, first, last)


def test_files_that_share_no_bucket_are_one_sequence() -> None:
    base = [file("a", 9, 0, 99), file("b", 9, 100, 4000), file("c", 9, 4001, 4095)]
    recent = [file("x", 3, 0, 4095), file("y", 2, 5, 4090)]
    assert chains([*recent, *base]) == [base, [recent[0]], [recent[1]]]
    assert chains([]) == []


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=20),
    st.integers(1, 60),
    st.integers(0, 20),
)
def test_ranges_cover_every_bucket_once(parts: list[tuple[int, int, int]], rows: int, at: int) -> None:
    first, groups = 0, []
    for count, gap, length in parts:
        groups.append(Group(count, first + gap, first + gap + length))
        first += gap + length
    files = [groups[:at], groups[at:]]
    for found in (ranges(files, rows), list(spread(groups, rows))):
        assert [first for first, _ in found] == [0, *(last + 1 for _, last in found[:-1])]
        assert found[-1][1] == BUCKETS - 1
        assert all(first <= last for first, last in found)
    starts = {group.first for group in groups}
    assert {first for first, _ in ranges(files, rows)} <= {0, *starts}
    if groups[at:] and groups[:at] and groups[at].first > groups[at - 1].last:
        assert groups[at].first in {first for first, _ in ranges(files, rows)}, "no range needs two files"


def test_a_file_that_somebody_else_wrote_is_refused() -> None:
    assert versions_noted({"types": '{"sale": 2}'}) == {"sale": 2}
    with pytest.raises(IntegrityError, match="another program"):
        versions_noted({})


def test_ranges_end_where_enough_rows_are_held() -> None:
    groups = [Group(100, bucket, bucket) for bucket in range(0, BUCKETS, 2)]
    sizes = [
        sum(group.rows for group in groups if first <= group.first <= last) for first, last in ranges([groups], 1_000)
    ]
    assert set(sizes[:-1]) == {1_000}
    assert np.ptp([last - first for first, last in list(spread(groups, 1_000))[:-1]]) <= 1
