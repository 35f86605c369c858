"""The kernels of arrears against plain loops over lists."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from obligor.credit.arrears import NO_EVIDENCE, days_past_due, earliest, last_row

Rows = list[tuple[int, int, int]]  # loan, moment, event_time
rows = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 9)), max_size=12)
questions = st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 10)), min_size=1, max_size=6)


def grouped(found: Rows) -> tuple[Rows, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    ordered = sorted(found)
    offsets = np.searchsorted([loan for loan, _, _ in ordered], np.arange(4)).astype(np.int64)
    return ordered, offsets


def column(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(rows, questions)
def test_the_earliest_is_the_smallest_moment_before_the_end(found: Rows, asked: list[tuple[int, int]]) -> None:
    ordered, offsets = grouped(found)
    moment, known = column([m for _, m, _ in ordered]), column([t for _, _, t in ordered])
    out = earliest(column([k for k, _ in asked]), column([end for _, end in asked]), offsets, moment, known)
    for (loan, end), row in zip(asked, out.tolist(), strict=True):
        own = [m for k, m, t in ordered if k == loan and t < end]
        assert (ordered[row][1] if row >= 0 else None) == min(own, default=None)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(rows, questions)
def test_the_last_row_is_the_latest_before_the_end(found: Rows, asked: list[tuple[int, int]]) -> None:
    ordered, offsets = grouped([(loan, moment, moment) for loan, moment, _ in found])
    times = column([t for _, _, t in ordered])
    out = last_row(column([k for k, _ in asked]), column([end for _, end in asked]), offsets, times)
    for (loan, end), row in zip(asked, out.tolist(), strict=True):
        own = [i for i, (k, _, t) in enumerate(ordered) if k == loan and t < end]
        assert row == max(own, default=-1)


def test_days_past_due_of_no_loan_and_of_no_instalment() -> None:
    none, zero = column([]), column([0, 0])
    out = days_past_due(
        column([-1, 0]), column([9, 9]), column([0, 0]), zero, none, none, none, none, zero, none, none, none
    )
    assert out.tolist() == [NO_EVIDENCE, NO_EVIDENCE]


def test_an_instalment_is_settled_by_the_payment_that_completes_it() -> None:
    day = column([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    one = column([0, 1])
    paid_at = column([3, 5, 7])
    out = days_past_due(
        column([0, 0, 0]), column([10, 6, 5]), column([9, 5, 4]), one, day[2:3], day[2:3], day[:1], column([100]),
        column([0, 3]), paid_at, paid_at, column([40, 40, 40]),
    )  # fmt: skip
    assert out.tolist() == [5, 3, 2]  # completed on day 7; by day 6 and 5 it is not
