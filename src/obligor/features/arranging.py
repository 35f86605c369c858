"""From a plan to the arrays that drive the kernels.

Measures are gathered so that a row is touched as rarely as possible: by source (a timeline under fields of the
application), then by ladder (measures whose windows share the search for their edges), then by group (a selection
looked at in one slot: one pass serves its count, sum, mean, min, max, std, first, last, ...) or by pass (one kind of
counting values). Conditions on the application become bits of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, get_args
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from obligor.features.kernels import cells
from obligor.features.kernels import columns as c
from obligor.features.kernels.dense import BUCKET_PLACES, REGISTER_PLACES
from obligor.features.kernels.programs import WHOLE
from obligor.features.kernels.sources import (
    BEYOND_DISTINCT,
    BEYOND_INTEGER,
    BEYOND_KEYS,
    BEYOND_ORDERED,
    BEYOND_SQUARES,
)
from obligor.features.kernels.values import ORDERED_MAX
from obligor.features.layout import FOREVER_US, Compiled, Layout, Sizes, Source, layout_in_blocks
from obligor.features.measures import (
    AGGREGATES,
    DECAY_STEPS_MAX,
    CalendarWindow,
    Condition,
    Inner,
    Measure,
    Op,
    RowsWindow,
    SinceWindow,
    Step,
    TimeWindow,
    Unit,
    is_dense,
    slot_of,
)
from obligor.features.plan import SELECTIONS_MAX, FeatureSpec, Plan
from obligor.features.portable import exp
from obligor.features.tails import ROW_FIXED
from obligor.features.wholeness import exact_steps, is_whole

__all__ = ["compiled"]

_OPERATIONS: tuple[str, ...] = get_args(Op)
_OPERATORS = ("==", "!=", "<", "<=", ">", ">=")
_RANKED = ("distinct", "most_frequent", "top_share", "entropy")  # the kinds of outputs of counted values, in order
_LN2 = 0.6931471805599453
_NEEDS = {
    "first": cells.NEED_ENDS, "last": cells.NEED_ENDS,
    "std": cells.NEED_SQUARES, "sample_std": cells.NEED_SQUARES, "slope": cells.NEED_SLOPE,
    "mean_gap": cells.NEED_GAPS, "std_gap": cells.NEED_GAPS, "longest_gap": cells.NEED_GAPS,
    "streak": cells.NEED_STREAK, "longest_streak": cells.NEED_STREAK,
}  # fmt: skip
_PASSES = {
    "distinct": c.MAP, "most_frequent": c.MAP, "top_share": c.MAP, "entropy": c.MAP, "quantile": c.ORDERED,
    "nth_last": c.RECENT, "decayed_count": c.DECAYED, "decayed_sum": c.DECAYED, "distinct_sketch": c.REGISTERED,
    "quantile_sketch": c.BUCKETED,
}  # fmt: skip
_LIMITS = {
    "std": BEYOND_SQUARES, "sample_std": BEYOND_SQUARES, "slope": BEYOND_SQUARES, "std_gap": BEYOND_SQUARES,
    "quantile": BEYOND_ORDERED, **dict.fromkeys(_RANKED, BEYOND_DISTINCT),
}  # fmt: skip


class _Edges(NamedTuple):
    """What measures of one ladder have in common, but the lengths of their windows."""

    kind: int
    value: int
    bit: int
    tiled: bool


_Cell: TypeAlias = tuple[int, int, int]  # bit, slot, bit of a streak's condition
_Pass: TypeAlias = tuple[int, int, int, int, int]  # kind, bit, slot, half-life, step
_Members: TypeAlias = list[tuple[int, Measure]]  # measures with their places in the plan
_Unit: TypeAlias = tuple[_Edges, _Cell | _Pass]


class _Source:
    """The measures of one source, gathered."""

    def __init__(self, arrays: _Arrays, timeline: str, measures: _Members) -> None:
        self.arrays, self.timeline = arrays, arrays.plan.timelines[timeline]
        self.measures = measures
        self.found: dict[int, int] = {}  # a measure's place -> its place among the results
        self._bits: dict[tuple[int, tuple[Condition, ...]], int] = {}
        self._decays = self._dense = self._coded = 0  # passes that decay, words of a tile, dense passes
        self._first_cell = arrays.sizes.state

    def add(self) -> int:
        """Add all rows of the arrays; return how far back the measures look."""
        a = self.arrays
        starts = len(a.ladders), len(a.conditions), len(a.keys), len(a.passes)
        for place, measure in self.measures:
            if measure.per is not None:
                self._add_keys(place, measure)
        for (edges, windows), units in self._ladders().items():
            self._add_ladder(edges, windows, units)
        reach = max((_reach(measure) for _, measure in self.measures), default=0)
        hashes = len(a.keys) > starts[2] or any(row[c.P_KIND] == c.MAP for row in a.passes[starts[3] :])
        ladders, conditions = (starts[0], len(a.ladders)), (starts[1], len(a.conditions))
        keys = (starts[2], len(a.keys))
        words = a.sizes.state - self._first_cell
        tiles = words, self._dense, self._coded
        a.sources.append((reach, *ladders, *self._add_uses(), *conditions, *keys, *tiles, int(hashes)))
        return reach

    def _ladders(self) -> dict[tuple[_Edges, tuple[int, ...]], list[tuple[_Cell | _Pass, _Members]]]:
        """Return the groups and passes of each ladder: those of the same windows."""
        units: dict[_Unit, _Members] = {}
        for place, measure in sorted(self.measures, key=lambda one: one[1].aggregate == "count"):
            if measure.per is None:
                units.setdefault(self._unit(measure, units), []).append((place, measure))
        ladders: dict[tuple[_Edges, tuple[int, ...]], list[tuple[_Cell | _Pass, _Members]]] = {}
        for (edges, unit), members in units.items():
            windows = tuple(sorted({_length(measure) for _, measure in members}))
            ladders.setdefault((edges, windows), []).append((unit, members))
        return ladders

    def _unit(self, measure: Measure, units: Mapping[_Unit, _Members]) -> _Unit:
        """Return the group or pass of a measure; a count joins a group that passes over its rows for a column."""
        assert measure.selection is not None
        edges, bit = self._edges(measure), self._bit(measure.selection, measure.given)
        slot = -1 if measure.slot is None else measure.slot
        if measure.aggregate in _PASSES:
            spec = slot_of(self.timeline, measure.selection, measure.slot)
            kind = c.COUNTED if is_dense(measure.aggregate, spec) else _PASSES[measure.aggregate]
            half_life, step = map(int, measure.parameters if kind == c.DECAYED else (0, 0))
            return edges, (kind, bit, slot, half_life, step)
        if measure.aggregate == "count":
            for (others, unit), members in units.items():
                joins = others == edges and len(unit) == 3 and unit[0] == bit
                if joins and any(_length(one) == _length(measure) for _, one in members):
                    return others, unit
        condition = 0 if measure.condition is None else 1 << measure.condition
        return edges, (bit, slot, condition)

    def _edges(self, measure: Measure) -> _Edges:
        assert measure.selection is not None
        tiled = not measure.given
        match measure.window:
            case TimeWindow(offset_us=offset):
                return _Edges(c.TIME, offset, 0, tiled)
            case RowsWindow(rows=rows):
                return _Edges(c.BY_ROWS, rows, self._bit(measure.selection, measure.given), tiled)
            case CalendarWindow(unit=unit, back=back):
                return _Edges(c.CALENDAR, self.arrays.period(unit, back), 0, tiled)
            case SinceWindow(anchor=anchor):
                return _Edges(c.SINCE, anchor, 1 << anchor, False)

    def _bit(self, selection: int, given: tuple[Condition, ...]) -> int:
        """Return the bit of a selection's rows that fulfil conditions, a new one where there is none yet."""
        if not given:
            return 1 << selection
        if (selection, given) not in self._bits:
            place = len(self.timeline.selections) + len(self._bits)
            assert place < SELECTIONS_MAX, "the compiler counts conditions as selections"
            bit, of = 1 << place, 1 << selection
            for one in given:
                operator = _OPERATORS.index(one.op)
                self.arrays.conditions.append((bit, of, one.slot, operator, one.comparand))
                of = bit
            self._bits[selection, given] = bit
        return self._bits[selection, given]

    def _add_ladder(
        self, edges: _Edges, windows: tuple[int, ...], units: Sequence[tuple[_Cell | _Pass, _Members]]
    ) -> None:
        a = self.arrays
        groups, passes, rungs = len(a.groups), len(a.passes), len(a.rungs)
        for unit, members in units:
            if len(unit) == 3:
                self._add_group(unit, members, windows)
        if edges.kind == c.BY_ROWS and groups == len(a.groups):
            self._add_group((edges.bit, -1, 0), [], windows)  # whose count of rows finds the window's beginning
        for unit, members in units:
            if len(unit) == 5:
                self._add_pass(unit, members, windows, edges.tiled)
        a.rungs += windows
        bounds = rungs, len(a.rungs), groups, len(a.groups), passes, len(a.passes)
        numbers = edges.kind == c.TIME and passes == len(a.passes)
        numbers &= all(group[cells.G_NEEDS] == cells.NEED_NUMBERS for group in a.groups[groups:])
        a.ladders.append((edges.kind, edges.value, *bounds, edges.bit, int(edges.tiled), int(numbers)))

    def _add_group(self, unit: _Cell, members: _Members, windows: tuple[int, ...]) -> None:
        a, (bit, slot, condition) = self.arrays, unit
        needs = cells.NEED_TIMES if slot < 0 else cells.NEED_NUMBERS
        for _, measure in members:
            needs |= _NEEDS.get(measure.aggregate, 0)
        sections = (
            (cells.NEED_SQUARES, cells.SQUARE_WORDS),
            (cells.NEED_GAPS, cells.GAP_WORDS),
            (cells.NEED_SLOPE, cells.SLOPE_WORDS),
            (cells.NEED_STREAK, cells.STREAK_WORDS),
        )
        # From 0 in every source, so that the same columns serve a tile's cells and the room's.
        begins = [a.take(state=cells.BASE_WORDS) - self._first_cell]
        begins += [a.take(state=words if needs & need else 0) - self._first_cell for need, words in sections]
        results = a.take(results=cells.RESULTS * len(windows))
        for place, measure in members:
            rung = windows.index(_length(measure))
            self.found[place] = results + rung * cells.RESULTS + AGGREGATES.index(measure.aggregate)
        end = a.sizes.state - self._first_cell
        a.groups.append((bit, slot, needs, begins[0], results, condition, *begins[1:], end))

    def _add_pass(self, unit: _Pass, members: _Members, windows: tuple[int, ...], tiled: bool) -> None:
        """Add one pass, with an output for each different parameter."""
        a, (kind, bit, slot, half_life_us, step_us) = self.arrays, unit
        store, size = self._store(kind, members)
        wanted = list(dict.fromkeys(_output(measure) for _, measure in members))
        outputs, weights = len(a.outputs), len(a.weights)
        a.outputs += [(what, whole) for what, whole, _ in wanted]
        a.parameters += [real for _, _, real in wanted]
        results = a.take(results=len(wanted) * len(windows))
        for place, measure in members:
            rung = windows.index(_length(measure))
            self.found[place] = results + rung * len(wanted) + wanted.index(_output(measure))
        a.weights += _weights(half_life_us, step_us) if kind == c.DECAYED else []
        tile = codes = -1
        if tiled and kind == c.DECAYED:
            tile, self._decays = self._decays, self._decays + 1
        elif tiled and kind in (c.COUNTED, c.BUCKETED, c.REGISTERED):
            tile, self._dense = self._dense, self._dense + size
            codes, self._coded = self._coded, self._coded + 1
        bounds = outputs, len(a.outputs), results
        a.passes.append((kind, bit, slot, store, size, *bounds, step_us, weights, len(a.weights), tile, codes))

    def _store(self, kind: int, members: _Members) -> tuple[int, int]:
        """Reserve what a pass keeps its values in; return where that is, and its size."""
        a = self.arrays
        if kind == c.MAP:
            return a.take(maps=1), 0
        if kind == c.DECAYED:
            return a.take(decays=1), 0
        if kind in (c.ORDERED, c.RECENT):
            most = ORDERED_MAX if kind == c.ORDERED else max(int(one.parameters[0]) for _, one in members)
            a.sizes = a.sizes._replace(values=max(a.sizes.values, most))
            return a.take(buffers=1), most
        size = BUCKET_PLACES if kind == c.BUCKETED else REGISTER_PLACES
        if kind == c.COUNTED:
            spec = slot_of(self.timeline, members[0][1].selection, members[0][1].slot)
            assert spec is not None
            size = 2 * (len(spec.values or ()) + 1) + 1
        return a.take(dense=size), size

    def _add_keys(self, place: int, measure: Measure) -> None:
        """Add a measure over keys."""
        a, per = self.arrays, measure.per
        assert per is not None
        start = len(a.inner)
        for one in per.inner:
            length = FOREVER_US if one.window.length_us is None else min(one.window.length_us, FOREVER_US)
            looked_at = self._bit(one.selection, one.given), one.key, -1 if one.slot is None else one.slot
            a.inner.append((*looked_at, AGGREGATES.index(one.aggregate), one.window.offset_us, length))
            a.inner_divisors.append(float(10**one.scale))
        self.found[place] = a.take(results=1)
        whole = is_whole(per)
        steps = a.add_program(per.program, whole, per.inner)
        a.keys.append((start, len(a.inner), *steps, AGGREGATES.index(measure.aggregate), self.found[place], int(whole)))
        a.sizes = a.sizes._replace(keys=len(a.keys), inner=max(a.sizes.inner, len(per.inner)))

    def _add_uses(self) -> tuple[int, int, int]:
        """Add what each measure is for; return where they start, cease to be features as they are, and end."""
        a, plan = self.arrays, self.arrays.plan
        direct = [(i, f.program[0].value) for i, f in enumerate(plan.features) if _is_measure(f)]
        others = {s.value for f in plan.features if not _is_measure(f) for s in f.program if s.op == "measure"}
        uses = [(place, result, i) for place, result in self.found.items() for i, one in direct if one == place]
        features = len(uses)
        uses += [(place, result, -1) for place, result in self.found.items() if place in others]
        start = len(a.uses)
        for place, result, feature in uses:
            measure = plan.measures[place]
            limit = BEYOND_KEYS if measure.per is not None else _LIMITS.get(measure.aggregate, BEYOND_INTEGER)
            a.uses.append((place, result, limit, feature))
            a.divisors.append(float(10**measure.scale))
        return start, start + features, len(a.uses)


class _Arrays:
    """Collects the arrays of a plan; each list is a row of the array of that name."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.sources: list[tuple[int, ...]] = []
        self.ladders: list[tuple[int, ...]] = []
        self.rungs: list[int] = []
        self.groups: list[tuple[int, ...]] = []
        self.passes: list[tuple[int, ...]] = []
        self.outputs: list[tuple[int, int]] = []
        self.parameters: list[float] = []
        self.weights: list[float] = []
        self.uses: list[tuple[int, int, int, int]] = []
        self.divisors: list[float] = []
        self.conditions: list[tuple[int, ...]] = []
        self.keys: list[tuple[int, ...]] = []
        self.inner: list[tuple[int, ...]] = []
        self.inner_divisors: list[float] = []
        self.steps: list[tuple[int, int]] = []
        self.constants: list[float] = []
        self.periods: list[tuple[Unit, int]] = []
        self.sizes = Sizes()

    def take(self, **amount: int) -> int:
        """Reserve room of one kind and return where it begins."""
        ((name, n),) = amount.items()
        begin: int = getattr(self.sizes, name)
        self.sizes = self.sizes._replace(**{name: begin + n})
        return begin

    def period(self, unit: Unit, back: int) -> int:
        """Return the place of a calendar period among those that a question needs."""
        if (unit, back) not in self.periods:
            self.periods.append((unit, back))
        return self.periods.index((unit, back))

    def add_program(
        self, program: Sequence[Step], whole: bool, measures: Sequence[Measure] | Sequence[Inner]
    ) -> tuple[int, int]:
        """Add the steps of a program over measures, of a result that may be whole; return where they start and end."""
        start = len(self.steps)
        for step, exact in zip(program, exact_steps(program, whole, measures, self.plan.requests), strict=True):
            operand = WHOLE if exact else 0
            if step.op in ("constant", "fill"):
                operand = len(self.constants)
                self.constants.append(float(step.value or 0))
            elif step.value is not None:
                operand = int(step.value)
            self.steps.append((_OPERATIONS.index(step.op), operand))
        return start, len(self.steps)

    def layout(self) -> Layout:
        """Return the arrays, the programs of features added."""
        programs = [
            (i, *self.add_program(feature.program, feature.type == "integer", self.plan.measures))
            for i, feature in enumerate(self.plan.features)
            if not _is_measure(feature)
        ]
        return Layout(
            sources=_table(self.sources, c.SOURCE_COLUMNS),
            ladders=_table(self.ladders, c.LADDER_COLUMNS),
            rungs=np.array(self.rungs, np.int64),
            groups=_table(self.groups, cells.GROUP_COLUMNS),
            passes=_table(self.passes, c.PASS_COLUMNS),
            outputs=_table(self.outputs, 2),
            parameters=np.array(self.parameters, np.float64),
            weights=np.array(self.weights, np.float64),
            uses=_table(self.uses, 4),
            divisors=np.array(self.divisors, np.float64),
            conditions=_table(self.conditions, 5),
            keys=_table(self.keys, 7),
            inner=_table(self.inner, 6),
            inner_divisors=np.array(self.inner_divisors, np.float64),
            programs=_table(programs, 3),
            steps=_table(self.steps, 2),
            constants=np.array(self.constants, np.float64),
        )


def _length(measure: Measure) -> int:
    """Return the length of a measure's window where that tells it from others of its ladder."""
    if not isinstance(measure.window, TimeWindow):
        return 0
    return FOREVER_US if measure.window.length_us is None else min(measure.window.length_us, FOREVER_US)


def _reach(measure: Measure) -> int:
    """Return how far back a measure looks."""
    windows = [measure.window] if measure.per is None else [inner.window for inner in measure.per.inner]
    reach = 0
    for window in windows:
        if isinstance(window, TimeWindow) and window.length_us is not None:
            reach = max(reach, min(window.length_us + window.offset_us, FOREVER_US))
        elif isinstance(window, CalendarWindow):
            reach = max(reach, (window.back + 2) * _LONGEST_US[window.unit])
        else:
            reach = FOREVER_US
    return reach


_LONGEST_US = {
    unit: days * 86_400_000_000 for unit, days in {"day": 2, "week": 8, "month": 32, "quarter": 93, "year": 367}.items()
}


def _output(measure: Measure) -> tuple[int, int, float]:
    """Return what a pass is asked for: kind, parameter as an integer and as a number."""
    kind = _RANKED.index(measure.aggregate) if measure.aggregate in _RANKED else 0
    if measure.aggregate.startswith("decayed") or not measure.parameters:
        return kind, 0, 0.0
    return kind, int(measure.parameters[0]), float(measure.parameters[0])


def _weights(half_life_us: int, step_us: int) -> list[float]:
    """Return what a step counts, by its age; older ones count nothing."""
    fade = exp(-_LN2 * float(step_us) / float(half_life_us))
    weights = [1.0]
    while len(weights) <= DECAY_STEPS_MAX:
        weights.append(weights[-1] * fade)
    return weights


def _is_measure(feature: FeatureSpec) -> bool:
    """Whether a feature is a measure as it is, so that no program has to run."""
    return len(feature.program) == 1 and feature.program[0].op == "measure"


def _table(rows: Sequence[tuple[int, ...]], width: int) -> NDArray[np.int64]:
    return np.array(rows, np.int64).reshape(len(rows), width)


def _compile(plan: Plan) -> Compiled:
    arrays = _Arrays(plan)
    by_source: dict[tuple[str, tuple[str, ...]], _Members] = {}
    for place, measure in enumerate(plan.measures):
        by_source.setdefault((measure.timeline, measure.via), []).append((place, measure))
    sources = []
    for (timeline, via), measures in by_source.items():
        reach = _Source(arrays, timeline, measures).add()
        width = ROW_FIXED + plan.timelines[timeline].slots
        sources.append(Source(timeline, via, None if reach == FOREVER_US else reach, width))
    layout, packed = layout_in_blocks(arrays.layout())
    return Compiled(layout, tuple(sources), tuple(arrays.periods), arrays.sizes, packed)


_KEPT: WeakKeyDictionary[Plan, Compiled] = WeakKeyDictionary()


def compiled(plan: Plan) -> Compiled:
    """Return the plan's arrays, made once for each plan object."""
    kept: Any = _KEPT.get(plan)
    if kept is None:
        kept = _KEPT[plan] = _compile(plan)
    result: Compiled = kept
    return result
