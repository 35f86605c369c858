"""The buffer keeps what fits, counts everything, and drops what lies beyond the world's end."""

from __future__ import annotations

from obligor.simulator import rows as r


def test_rows_beyond_the_end_are_dropped_and_a_full_buffer_keeps_counting() -> None:
    rows, count = r.empty_rows(2)
    for time in (10, 99, 20, 30):
        r.add(rows, count, 50, 1, time, r.BANK, -1, -1, 500, 2, 0)
    assert count[0] == 3
    assert rows[:, r.TIME].tolist() == [10, 20]
    assert rows[0].tolist() == [1, 10, r.BANK, -1, -1, 500, 2, 0]
