"""A plan as arrays: measures that share a pass over the rows are gathered, and every index leads somewhere."""

from __future__ import annotations

from tests.features.worlds import DAY, measure, plan_of

from obligor.features import kernels
from obligor.features.layout import FOREVER_US, compiled, scratch
from obligor.features.plan import STACK_MAX


def test_aggregates_of_one_column_share_a_group_and_windows_a_ladder() -> None:
    kinds = [measure(a, window_us=days * DAY) for a in ("count", "sum", "mean", "max") for days in (7, 1)]
    layout, sources = compiled(plan_of(kinds))
    assert len(layout.groups) == 1
    assert layout.ladders[:, 0].tolist() == [0]
    assert layout.rungs.tolist() == [1 * DAY, 7 * DAY]
    assert [(s.timeline, s.via, s.reach_us) for s in sources] == [("consumer", "consumer", 7 * DAY)]
    assert len(layout.measures) == len(kinds)


def test_other_selections_windows_and_entities_are_apart() -> None:
    kinds = [
        measure("sum", 0, window_us=DAY),
        measure("sum", 1, window_us=DAY),
        measure("sum", 0, window_us=None),
        measure("sum", 0, timeline="merchant", via="merchant"),
    ]
    layout, sources = compiled(plan_of(kinds))
    assert [s.timeline for s in sources] == ["consumer", "merchant"]
    assert [s.reach_us for s in sources] == [None, None]
    assert layout.sources[:, 0].tolist() == [0b11, 0b1]
    assert FOREVER_US in layout.rungs


def test_the_arrays_are_made_once_for_a_plan_and_end_where_they_say() -> None:
    plan = plan_of([measure("count"), measure("distinct", slot=1, window_us=DAY)])
    layout, _ = compiled(plan)
    assert compiled(plan).layout is layout
    assert layout.sources[-1, 3] == len(layout.ladders)
    assert layout.sources[-1, 6] == len(layout.measures)


def test_scratch_has_room_for_every_row() -> None:
    layout, _ = compiled(plan_of([measure("distinct", slot=1), measure("count", window_us=DAY)]))
    room = scratch(layout, 100)
    assert room.visible.shape == (100,)
    assert room.sets.shape == (1, kernels.entries(100) + 2)
    assert room.state.shape == (len(layout.groups), kernels.CELL_WIDTH)
    assert len(room.results) == int(layout.sizes[0]) == 2
    assert room.stack.shape == (STACK_MAX,)
