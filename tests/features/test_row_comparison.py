"""Rows that differ are counted to the bit, and the largest shown first."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from obligor.features.row_comparison import EXAMPLES_MAX, compare_rows

_NUMBERS = st.lists(
    st.tuples(*[st.one_of(st.just(float("nan")), st.sampled_from([0.0, 1.0, -3.0, 1e300, 0.1, 0.1 + 2**-56]))] * 2)
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(pairs=_NUMBERS)
def test_rows_are_counted_as_one_would_by_hand(pairs: list[tuple[float, float]]) -> None:
    before, after = (np.array([pair[i] for pair in pairs], np.float64) for i in (0, 1))
    found = compare_rows(before, after)
    null = [(a != a, b != b) for a, b in pairs]
    assert found.rows == len(pairs)
    assert found.differ == sum(n[0] != n[1] or (not any(n) and a != b) for n, (a, b) in zip(null, pairs, strict=True))
    assert found.appeared == null.count((True, False))
    assert found.vanished == null.count((False, True))
    distances = [abs(b - a) for n, (a, b) in zip(null, pairs, strict=True) if not any(n) and a != b]
    assert found.largest == (max(distances) if distances else None)
    assert len(found.examples) == min(found.differ, EXAMPLES_MAX)
    shown = [abs(pairs[row][1] - pairs[row][0]) for row in found.examples]
    assert [one for one in shown if one == one] == sorted(distances, reverse=True)[: len(shown)]
