"""The settings: sizes, times, and what is refused."""

from __future__ import annotations

import pytest

from obligor.simulator.simulation import simulate
from obligor.simulator.world import DAY_US, World


def test_a_world_of_a_size_has_about_that_many_events() -> None:
    events = len(simulate(World.of_size(events=200_000)).rows)
    assert events == pytest.approx(200_000, rel=0.1)


def test_the_history_ends_after_its_days() -> None:
    assert World(days=30).end_us - World(days=30).start_us == 30 * DAY_US


@pytest.mark.parametrize("wrong", [{"consumers": 0}, {"merchants": 1}, {"days": 29}])
def test_impossible_worlds_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="a world has consumers"):
        World(**wrong)
