"""The purge: nothing that a slice learns from was unknown when the next one begins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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


def _split(seed: int = 0, rows: int = 3000, **changes: Any) -> tuple[Split, Ints, Ints]:
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
    assert not (split.train & split.test).any()
    between = (as_of < CUTOFF) & (known_at > CUTOFF)
    assert between.any()
    assert not (between & (split.train | split.test)).any()


def test_rolls_are_the_later_rows_in_parts_each_with_all_rows_before_it() -> None:
    split, as_of, _ = _split(later_share=0.6, rolls=4)
    assert len(split.rolls) == 4
    for roll in split.rolls:
        assert as_of[roll.fit].max() < roll.from_us <= as_of[roll.later].min()
        assert (roll.fit == (split.train & (as_of < as_of[roll.later].min()))).all()
        assert roll.later.sum() / split.train.sum() == pytest.approx(0.15, abs=0.002)
    judged = np.sum([roll.later for roll in split.rolls], axis=0)
    assert judged.max() == 1
    assert ((judged == 1) == (split.train & ~split.rolls[0].fit)).all()
    one, _, _ = _split(later_share=0.6, rolls=1)
    assert one.rolls[0].fit.tolist() == split.rolls[0].fit.tolist()
    assert (one.rolls[0].later == (judged == 1)).all()


def test_rows_of_one_instant_stay_in_one_roll() -> None:
    as_of = np.repeat(np.arange(20) * DAY, 100)
    known = np.ones(2000, dtype=np.bool_)
    bad = np.arange(2000) % 2 == 0
    split = purged_split(as_of, as_of + HORIZON, known, bad, cutoff_us=CUTOFF, rolls=3)
    for roll in split.rolls:
        assert set(as_of[roll.fit].tolist()).isdisjoint(as_of[roll.later].tolist())


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
    read = {"name": "history", "timeline": "consumer", "via": ["consumer"], "selections": [0], "application": 0,
            "fields": [], "limit": None}  # fmt: skip
    own = {
        "format": 3,
        "timelines": {"consumer": timeline | {"selections": [{**selection, "event": "loan_application"}]}},
    }
    of_sequences = replace(grouped, plan=Plan.load({**data.plan.data, **own, "sequences": [read]}))
    assert folds(of_sequences, rows, 5, 3).tolist() == folds(grouped, rows, 5, 3).tolist()


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
    for a, b in zip(one.rolls, two.rolls, strict=True):
        assert (a.fit[shuffled].tolist(), a.later[shuffled].tolist()) == (b.fit.tolist(), b.later.tolist())


def test_few_bads_give_fewer_rolls() -> None:
    as_of = np.arange(1000) * DAY // 4
    known = np.ones(1000, dtype=np.bool_)
    for every, rolls in ((5, 4), (11, 3), (15, 2), (25, 1)):  # 400 later rows: 80, 36, 27, 16 bads
        bad = np.arange(1000) % every == 0
        split = purged_split(as_of, as_of + HORIZON, known, bad, cutoff_us=CUTOFF)
        assert len(split.rolls) == rolls
        assert sum(int(roll.later.sum()) for roll in split.rolls) == 400
        assert all((roll.later & bad).sum() >= 10 for roll in split.rolls)


def test_too_little_is_named() -> None:
    with pytest.raises(BadInput, match="the slice 'later rows' has"):
        _split(rows=300, later_share=0.05)
    with pytest.raises(BadInput, match="the slice 'before the later rows' has"):
        _split(rows=1000, later_share=0.99)
    with pytest.raises(BadInput, match="rolls: expected 1 to 50"):
        _split(rolls=0)
    as_of = np.full(5, CUTOFF)
    with pytest.raises(BadInput, match="no outcome was known at the cut-off"):
        purged_split(as_of, as_of + 1, np.ones(5, bool), np.ones(5, bool), cutoff_us=CUTOFF)
