"""The purge: nothing that a slice learns from was unknown when the next one begins."""

from __future__ import annotations

import numpy as np
import pytest

from obligor.errors import BadInput
from obligor.models.splits import Ints, Split, purged_split

DAY = 86_400_000_000
HORIZON = 30 * DAY
CUTOFF = 400 * DAY


def _split(seed: int = 0, rows: int = 3000, **changes: int) -> tuple[Split, Ints, Ints]:
    rng = np.random.default_rng(seed)
    as_of = (rng.random(rows) * 500 * DAY).astype(np.int64)
    bad = rng.random(rows) < 0.2
    matured = as_of + HORIZON <= 500 * DAY
    split = purged_split(as_of, as_of + HORIZON, matured, bad, cutoff_us=CUTOFF, **changes)
    return split, as_of, as_of + HORIZON


def test_slices_are_purged_and_disjoint() -> None:
    split, as_of, known_at = _split()
    assert known_at[split.train].max() <= CUTOFF
    assert as_of[split.test].min() >= CUTOFF
    later = split.selection | split.calibration
    assert known_at[split.fit].max() <= split.later_from_us <= as_of[later].min()
    assert not (split.selection & split.calibration).any()
    assert not (split.train & split.test).any()
    assert ((split.fit | later) <= split.train).all()
    between = (as_of < CUTOFF) & (known_at > CUTOFF)
    assert between.any()
    assert not (between & (split.train | split.test)).any()


def test_a_row_at_the_edge() -> None:
    as_of = np.concatenate([np.arange(300) * DAY, [CUTOFF - HORIZON, CUTOFF - HORIZON + 1, CUTOFF - 1, CUTOFF]])
    bad = np.arange(304) % 3 == 0
    split = purged_split(as_of, as_of + HORIZON, np.ones(304, dtype=np.bool_), bad, cutoff_us=CUTOFF)
    assert split.train[300:].tolist() == [True, False, False, False]
    assert split.test[300:].tolist() == [False, False, False, True]


def test_both_later_slices_reach_the_end() -> None:
    split, as_of, _ = _split()
    newest = np.sort(as_of[split.train])[-4:]
    assert np.isin(newest, as_of[split.selection]).any()
    assert np.isin(newest, as_of[split.calibration]).any()


def test_a_long_horizon_still_leaves_both_slices() -> None:
    as_of = np.arange(2000) * (400 * DAY // 2000)
    bad = np.arange(2000) % 3 == 0
    for horizon, left in ((0, 1.0), (120 * DAY, 160 / 280), (180 * DAY, 40 / 220)):
        split = purged_split(as_of, as_of + horizon, np.ones(2000, bool), bad, cutoff_us=CUTOFF)
        used = int(split.fit.sum() + split.selection.sum() + split.calibration.sum())
        assert used / split.train.sum() == pytest.approx(left, abs=0.02)
        assert split.fit.sum() / used == pytest.approx(0.7, abs=0.01)


def test_the_test_period_can_end() -> None:
    split, as_of, _ = _split(test_until_us=420 * DAY)
    assert as_of[split.test].max() < 420 * DAY


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    as_of = rng.permutation(1000) * DAY // 3
    bad = rng.random(1000) < 0.3
    shuffled = rng.permutation(1000)
    one = purged_split(as_of, as_of + HORIZON, np.ones(1000, bool), bad, cutoff_us=300 * DAY)
    two = purged_split(
        as_of[shuffled], as_of[shuffled] + HORIZON, np.ones(1000, bool), bad[shuffled], cutoff_us=300 * DAY
    )
    assert one.calibration[shuffled].tolist() == two.calibration.tolist()


def test_too_little_is_named() -> None:
    with pytest.raises(BadInput, match="the slice 'fit' has"):
        _split(rows=100)
    as_of = np.full(5, CUTOFF)
    with pytest.raises(BadInput, match="no outcome was known at the cut-off"):
        purged_split(as_of, as_of + 1, np.ones(5, bool), np.ones(5, bool), cutoff_us=CUTOFF)
