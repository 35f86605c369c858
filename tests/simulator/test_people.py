"""Consumers and merchants: plausible, hidden traits standard, the same from the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from obligor.simulator.people import CATEGORIES, draw_consumers, draw_merchants
from obligor.simulator.world import World

WORLD = World(consumers=20_000)


def test_traits_are_standard_and_the_bureau_sees_them_dimly() -> None:
    people = draw_consumers(WORLD)
    known = people.bureau >= 0
    assert (people.trait.mean(), people.trait.std()) == pytest.approx((0.0, 1.0), abs=0.03)
    assert np.corrcoef(people.trait[known], people.bureau[known])[0, 1] == pytest.approx(-0.77, abs=0.05)
    assert 1 - known.mean() == pytest.approx(0.05, abs=0.01)


def test_wages_follow_the_pay_period() -> None:
    people = draw_consumers(WORLD)
    monthly = people.wage * 30 / people.pay_period
    assert set(people.pay_period.tolist()) == {7, 14, 30}
    for period in (7, 14, 30):
        assert np.median(monthly[people.pay_period == period]) == pytest.approx(np.median(monthly), rel=0.05)


def test_some_merchants_are_large() -> None:
    shops = draw_merchants(World(merchants=300))
    shares = np.diff(shops.share, prepend=0.0)
    assert shares[0] > 20 * shares[-1]
    assert shops.share[-1] == pytest.approx(1.0)
    assert set(shops.category.tolist()) == set(range(len(CATEGORIES)))


def test_people_depend_on_the_seed_alone() -> None:
    first, again, other = (draw_consumers(World(seed=seed, consumers=50)) for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.trait, other.trait)
