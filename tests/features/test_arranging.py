"""A plan as arrays: measures that share a pass over the rows are gathered, and every index leads somewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.features.plans import COMPARANDS, DAY, calendar_window, inner, keyed, measure, plan_of, rows_window

from obligor.features.arranging import compiled
from obligor.features.kernels import columns as c
from obligor.features.kernels.arrays import Layout
from obligor.features.kernels.cells import G_BIT
from obligor.features.kernels.lanes import LANES
from obligor.features.kernels.values import DISTINCT_MAX, entries
from obligor.features.layout import FOREVER_US, read_only, room
from obligor.features.plan import STACK_MAX


def layout_of(*measures: dict[str, Any]) -> Layout:
    return compiled(plan_of(measures, comparands=COMPARANDS)).layout


def test_aggregates_of_one_column_share_a_group_and_windows_a_ladder() -> None:
    kinds = [measure(a, window_us=days * DAY) for a in ("count", "sum", "mean", "max") for days in (7, 1)]
    layout, sources, periods, _, _ = compiled(plan_of(kinds))
    assert (len(layout.groups), len(layout.ladders), len(layout.passes)) == (1, 1, 0)
    assert layout.rungs.tolist() == [1 * DAY, 7 * DAY]
    assert [(s.timeline, s.via, s.reach_us) for s in sources] == [("consumer", ("consumer",), 7 * DAY)]
    assert (len(layout.uses), periods) == (len(kinds), ())


def test_other_selections_windows_and_entities_are_apart() -> None:
    kinds = [
        measure("sum", 0, window_us=DAY),
        measure("sum", 1, window_us=DAY),
        measure("sum", 0, window_us=None),
        measure("sum", 0, window_us=DAY, offset_us=DAY),
        measure("sum", 0, timeline="merchant", via="merchant"),
    ]
    layout, sources, *_ = compiled(plan_of(kinds))
    assert [s.timeline for s in sources] == ["consumer", "merchant"]
    assert [s.reach_us for s in sources] == [None, None]
    # The first selection's windows of a day and of a lifetime are two rungs of one ladder.
    assert (len(layout.groups), len(layout.ladders)) == (4, 4)
    assert layout.rungs.tolist() == [DAY, FOREVER_US, DAY, DAY, FOREVER_US]


def test_every_kind_of_window_has_its_ladder() -> None:
    windows = [rows_window(3), calendar_window("month"), calendar_window("month", 1), {"kind": "since", "anchor": 1}]
    plan = plan_of([measure("sum", window=window) for window in windows])
    layout, _, periods, *_ = compiled(plan)
    assert layout.ladders[:, c.L_KIND].tolist() == [c.BY_ROWS, c.CALENDAR, c.CALENDAR, c.SINCE]
    assert periods == (("month", 0), ("month", 1))
    assert layout.ladders[:, c.L_TILED].tolist() == [1, 1, 1, 0]


def test_parameters_of_one_pass_share_it() -> None:
    halves = [measure("quantile", window_us=DAY, parameters=[q]) for q in (0.1, 0.5, 0.9, 0.5)]
    counted = [measure(a, slot=1, window_us=DAY) for a in ("distinct", "entropy")]
    layout = layout_of(*halves, *counted)
    assert layout.passes[:, c.P_KIND].tolist() == [c.ORDERED, c.MAP]
    assert layout.parameters.tolist()[:3] == [0.1, 0.5, 0.9]


def test_a_condition_is_a_bit_of_its_own_and_used_by_all_that_have_it() -> None:
    given = [{"slot": 0, "op": ">", "comparand": 0}]
    layout = layout_of(*(measure(a, given=given, window_us=DAY) for a in ("sum", "count", "max")), measure("sum"))
    assert len(layout.conditions) == 1
    assert len({int(bit) for bit in layout.groups[:, G_BIT]}) == 2


def test_numbers_by_key_and_their_programs_are_found() -> None:
    layout = layout_of(keyed("max", inner("sum"), inner("count"), program=[["measure", 0], ["measure", 1], ["divide"]]))
    assert (len(layout.keys), len(layout.inner), len(layout.steps)) == (1, 2, 3)


def test_the_arrays_are_made_once_for_a_plan_and_end_where_they_say() -> None:
    plan = plan_of([measure("count"), measure("distinct", slot=1, window_us=DAY)])
    layout, *_ = compiled(plan)
    assert compiled(plan).layout is layout
    assert layout.sources[-1, c.S_LADDERS_END] == len(layout.ladders)
    assert layout.sources[-1, c.S_USES_END] == len(layout.uses)
    assert layout.ladders[-1, c.L_RUNGS_END] == len(layout.rungs)


def test_there_is_room_for_every_row() -> None:
    layout, _, _, sizes, _ = compiled(plan_of([measure("distinct", slot=1), measure("count", window_us=DAY)]))
    own = room(sizes, len(layout.ladders), len(layout.rungs), 100).room
    assert own.visible.shape == (100 + LANES,)
    assert own.maps.shape == (1, entries(100) + 1, 3)
    assert (own.keys.shape, own.stack.shape) == ((DISTINCT_MAX,), (STACK_MAX,))
    assert len(own.results) == sizes.results
    assert own.state.shape == (sizes.state,)


def test_kernels_get_arrays_in_the_one_form_they_are_compiled_for() -> None:
    whole = np.arange(12).reshape(3, 4)
    for array in (whole, whole[:, 1:], whole.T, read_only(whole)):
        found = read_only(array)
        assert found.flags.c_contiguous
        assert not found.flags.writeable
        assert found.tolist() == array.tolist()
    assert read_only(read_only(whole)) is not None
    assert whole.flags.writeable
