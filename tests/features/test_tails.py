"""The merge kernel equals Python's own sort, and refuses what does not fit."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from obligor.features.tails import (
    FENCE_LOWEST,
    HEADER_WORDS,
    MERGED,
    MISSING,
    PRESENT,
    UNDER_FENCE,
    decode_chunk,
    decode_tail,
    encode_chunk,
    encode_tail,
    merge_rows,
    merge_tails,
)

Words = NDArray[np.int64]

ENDS = st.integers(-(2**63) + 1, 2**63 - 1)
ROWS = st.dictionaries(st.tuples(st.integers(0, 3) | ENDS, st.integers(1, 4) | ENDS), ENDS, max_size=12)


def _words(rows: dict[tuple[int, int], int]) -> Words:
    made = [(time, root, 1, value) for (time, root), value in sorted(rows.items())]
    return np.array(made, dtype=np.int64).reshape(-1, 4)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(old=ROWS, inserted=ROWS, chosen=st.randoms(use_true_random=False))
def test_merging_equals_sorting(
    old: dict[tuple[int, int], int], inserted: dict[tuple[int, int], int], chosen: random.Random
) -> None:
    removed = {key: value for key, value in old.items() if chosen.random() < 0.4}
    inserted = {key: value for key, value in inserted.items() if key not in old or key in removed}
    status, merged = merge_rows(_words(old), np.ascontiguousarray(_words(removed)[:, :2]), _words(inserted))
    kept = {key: value for key, value in old.items() if key not in removed}
    assert status == MERGED
    np.testing.assert_array_equal(merged, _words({**kept, **inserted}))


@settings(derandomize=True, deadline=None, max_examples=100)
@given(tails=st.lists(st.tuples(ROWS, ROWS), min_size=1, max_size=5))
def test_many_tails_are_merged_as_one_after_the_other(
    tails: list[tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]],
) -> None:
    olds = [_words(old) for old, _ in tails]
    news = [_words({k: v for k, v in new.items() if k not in old}) for old, new in tails]
    entries = [encode_tail(old, (FENCE_LOWEST, FENCE_LOWEST)) if len(old) else b"" for old in olds]
    none = np.zeros(len(tails) + 1, np.int64)
    out, offsets, status = merge_tails(
        np.frombuffer(b"".join(entries), dtype=np.int64), _offsets([len(entry) // 8 for entry in entries]), 4,
        np.empty((0, 2), np.int64), none, np.concatenate(news), _offsets([len(new) for new in news]),
    )  # fmt: skip
    assert status.tolist() == [MERGED] * len(tails)
    for i, (old, new) in enumerate(zip(olds, news, strict=True)):
        merged = decode_tail(out[offsets[i] : offsets[i + 1]].tobytes(), 4)
        np.testing.assert_array_equal(merged, merge_rows(old, np.empty((0, 2), np.int64), new)[1])


def _offsets(sizes: list[int]) -> Words:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


@pytest.mark.parametrize(
    ("removed", "inserted", "status"),
    [
        ([(4, 5)], [], MISSING),
        ([(5, 5)], [], MISSING),
        ([(9, 9)], [], MISSING),
        ([], [(5, 6)], PRESENT),
        ([], [(8, 8), (8, 8)], PRESENT),
        ([(5, 6), (5, 6)], [], MISSING),
        ([(5, 6)], [(5, 6)], MERGED),
        ([(3, 9)], [], UNDER_FENCE),
        ([], [(3, 9)], UNDER_FENCE),
        ([], [(4, 0)], MERGED),
    ],
)
def test_what_does_not_fit_is_said(
    removed: list[tuple[int, int]], inserted: list[tuple[int, int]], status: int
) -> None:
    tail = encode_tail(_words({(5, 6): 1, (7, 8): 2}), (4, 0))
    gone = np.array(removed, dtype=np.int64).reshape(-1, 2)
    new = np.array([(*row, 1, 1) for row in inserted], dtype=np.int64).reshape(-1, 4)
    old = np.frombuffer(tail, dtype=np.int64)
    found = merge_tails(old, _offsets([len(old)]), 4, gone, _offsets([len(gone)]), new, _offsets([len(new)]))[2]
    assert found.tolist() == [status]


def test_bytes_and_back() -> None:
    rows = _words({(5, 6): 1, (7, 8): 2, (7, 9): 3})
    np.testing.assert_array_equal(decode_tail(encode_tail(rows, (1, 2)), 4), rows)
    np.testing.assert_array_equal(decode_chunk(encode_chunk(rows), 4), rows.T)
    np.testing.assert_array_equal(decode_chunk(encode_chunk(rows[:0]), 4), rows[:0].T)
    assert len(encode_tail(rows, (1, 2))) == 8 * (HEADER_WORDS + rows.size)


def test_unaligned_bytes_are_copied() -> None:
    rows = _words({(5, 6): 1, (7, 8): 2})
    columns = decode_chunk(memoryview(b"x" + encode_chunk(rows))[1:], 4)
    assert columns.flags.aligned
    np.testing.assert_array_equal(columns, rows.T)
