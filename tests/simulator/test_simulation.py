"""The same settings give the same world, to the last bit, in blocks of any size and however long it lives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from obligor.simulator import rows as r
from obligor.simulator import simulation as module
from obligor.simulator.simulation import simulate
from obligor.simulator.world import World

WORLD = World(consumers=60, days=200)


def test_equal_settings_give_equal_worlds_and_other_seeds_do_not() -> None:
    first, again, other = simulate(WORLD), simulate(WORLD), simulate(replace(WORLD, seed=8))
    assert np.array_equal(first.rows, again.rows)
    assert np.array_equal(first.truth, again.truth)
    assert first.rows.shape != other.rows.shape or not np.array_equal(first.rows, other.rows)


def test_blocks_and_small_buffers_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = simulate(WORLD)
    monkeypatch.setattr(module, "_BLOCK", 7)
    monkeypatch.setattr(module, "_ROWS_A_CONSUMER", 16)
    parts = simulate(WORLD)
    assert np.array_equal(whole.rows, parts.rows)
    assert np.array_equal(whole.truth, parts.truth)


def test_a_longer_life_has_the_same_beginning() -> None:
    short, long = simulate(WORLD), simulate(replace(WORLD, live_days=9.5))
    same = long.rows[long.rows[:, r.TIME] < WORLD.end_us]
    assert len(long.rows) > len(same)
    assert np.array_equal(short.rows, same)


def test_rows_are_in_time_order_within_the_world() -> None:
    rows = simulate(WORLD).rows
    assert (np.diff(rows[:, r.TIME]) >= 0).all()
    assert rows[0, r.TIME] >= WORLD.start_us
    assert rows[-1, r.TIME] < WORLD.end_us
