"""The purge: nothing that a slice learns from was unknown when the next one begins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from tests.models.lender import training_data

from obligor.errors import BadInput
from obligor.features.plan import Plan
from obligor.models.splits import Ints, Split, folds, purged_split

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
    assert as_of[split.fit].max() < split.later_from_us <= as_of[split.selection].min()
    assert not (split.fit & split.selection).any()
    assert not (split.train & split.test).any()
    assert ((split.fit | split.selection) == split.train).all()
    assert split.selection.sum() / split.train.sum() == pytest.approx(0.3, abs=0.01)
    between = (as_of < CUTOFF) & (known_at > CUTOFF)
    assert between.any()
    assert not (between & (split.train | split.test)).any()


def test_a_row_at_the_edge() -> None:
    as_of = np.concatenate([np.arange(300) * DAY, [CUTOFF - HORIZON, CUTOFF - HORIZON + 1, CUTOFF - 1, CUTOFF]])
    bad = np.arange(304) % 3 == 0
    split = purged_split(as_of, as_of + HORIZON, np.ones(304, dtype=np.bool_), bad, cutoff_us=CUTOFF)
    assert split.train[300:].tolist() == [True, False, False, False]
    assert split.test[300:].tolist() == [False, False, False, True]


def test_folds_keep_an_applicant_together_and_are_even() -> None:
    data = training_data(1_000)
    rows = data.matured
    fold = folds(data, rows, 5, seed=3)
    assert set(fold[rows].tolist()) == set(range(5))
    assert set(fold[~rows].tolist()) == {-1}
    assert np.bincount(fold[rows]).max() - np.bincount(fold[rows]).min() <= 1
    assert folds(data, rows, 5, seed=3).tolist() == fold.tolist() != folds(data, rows, 5, seed=4).tolist()
    measure = {"timeline": "consumer", "via": ["consumer"], "selection": 0, "slot": None, "aggregate": "count",
               "window": {"kind": "time", "length_us": None, "offset_us": 0}, "scale": 0, "given": [],
               "condition": None, "parameters": [], "per": None}  # fmt: skip
    selection = {"event": "loan", "by": ["consumer"], "where": None}
    timeline = {"entities": ["consumer"], "hot": False, "selections": [selection], "fields": {}}
    of_consumers = Plan.load({**data.plan.data, "timelines": {"consumer": timeline}, "measures": [measure]})
    consumers = [f"c-{row % 40}" for row in range(len(data))]
    grouped = replace(data, plan=of_consumers, fields=data.fields.append_column("consumer", pa.array(consumers)))
    by_consumer = {(one, int(f)) for one, f, r in zip(consumers, folds(grouped, rows, 5, 3), rows, strict=True) if r}
    assert len(by_consumer) == 40


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
    assert one.selection[shuffled].tolist() == two.selection.tolist()


def test_too_little_is_named() -> None:
    with pytest.raises(BadInput, match="the slice 'selection' has"):
        _split(rows=100)
    as_of = np.full(5, CUTOFF)
    with pytest.raises(BadInput, match="no outcome was known at the cut-off"):
        purged_split(as_of, as_of + 1, np.ones(5, bool), np.ones(5, bool), cutoff_us=CUTOFF)
