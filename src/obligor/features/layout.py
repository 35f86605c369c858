"""A plan as the arrays that drive the kernels, and the room the kernels work in.

Measures are gathered so that a row is touched as rarely as possible: by source (a timeline under one field of the
application), then by ladder (measures with the same windows and offset share the search for their edges), then by group
(a selection looked at in one slot: one pass serves its count, sum, mean, min, max, std, first, last and distinct).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, get_args
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from obligor.features import kernels as k
from obligor.features.chunks import NULL
from obligor.features.plan import AGGREGATES, STACK_MAX, FeatureSpec, Measure, Op, Plan

__all__ = ["FOREVER_US", "Compiled", "Layout", "Rows", "Scratch", "Source", "compiled", "read_only", "scratch"]

FOREVER_US = 2**62  # a window without a lower bound; longer than any that dates can span

_OPERATIONS: tuple[str, ...] = get_args(Op)
_ROLES = ("add", "subtract", "close")
_NEEDS = {"count": 0, "std": k.NEED_NUMBERS | k.NEED_SQUARES, "distinct": k.NEED_DISTINCT}
_Group: TypeAlias = tuple[int, int, int, bool]  # offset, selection, slot, and a pass of its own for distinct values


class Layout(NamedTuple):
    """A plan as arrays; every index is into the next array. Made by `layout.py`."""

    # (sources, 11): mask, reach_us, start and end of ladders, of measures (and between them the end of those that are
    # features as they are), of balances, of sets
    sources: NDArray[np.int64]
    ladders: NDArray[np.int64]  # (ladders, 5): offset_us, rung start, end, group start, end
    rungs: NDArray[np.int64]  # (rungs,) window length in us, ascending within a ladder
    groups: NDArray[np.int64]  # (groups, 5): mask bit, slot or -1, needs, first row of results, set or -1
    measures: NDArray[
        np.int64
    ]  # (uses, 4) source by source: place in the plan, row and column of results, feature or -1
    divisors: NDArray[np.float64]  # (uses,) 10 ** scale
    balances: NDArray[np.int64]  # (balances, 2): term start, end
    terms: NDArray[np.int64]  # (terms, 6): mask bit, role, slots of key, amount and expiry or -1, expiry in us or NULL
    programs: NDArray[np.int64]  # (programs, 3): feature, start and end of its steps
    steps: NDArray[np.int64]  # (steps, 2): operation, place of its operand
    constants: NDArray[np.float64]
    sizes: NDArray[np.int64]  # (2,): windows of all groups, sets


class Scratch(NamedTuple):
    """What one thread works in; `begin` makes it ready for one request's source."""

    state: NDArray[np.int64]  # (groups, CELL_WIDTH)
    reached: NDArray[np.int64]  # (ladders,) the window that rows are added to
    results: NDArray[np.float64]  # (windows of all groups + balances, aggregates)
    sets: NDArray[np.int64]  # (sets, entries + 2): open hash sets; the last word is how many are held
    tables: NDArray[np.int64]  # (balances, entries + 1, 4): open hash tables; the last entry counts
    visible: NDArray[np.int64]  # (rows,) masks of the rows that are in the view
    stack: NDArray[np.float64]  # (STACK_MAX,) of programs


class Rows(NamedTuple):
    """The facts of all entities of one type, sorted by (entity, event_time, root)."""

    offsets: NDArray[np.int64]  # (entities + 1,)
    event_time: NDArray[np.int64]  # (n,)
    known: NDArray[np.int64]  # (n,) when the version was known, its chain included
    position: NDArray[np.int64]  # (n,) the greatest position of the version's chain
    root: NDArray[np.int64]  # (n,)
    mask: NDArray[np.int64]  # (n,) selections; the sign bit says that versions of the fact may rank above this one
    values: NDArray[np.int64]  # (slots, n)
    version: NDArray[np.int32]  # (n,) -1, or where the versions above are listed
    above_start: NDArray[np.int64]
    above_end: NDArray[np.int64]
    above_position: NDArray[np.int64]
    above_known: NDArray[np.int64]


class Source(NamedTuple):
    """A timeline under one field of the application."""

    timeline: str
    via: str
    reach_us: int | None  # how far back its measures look; None: to the beginning


class Compiled(NamedTuple):
    """A plan's arrays and the sources that they speak of, in order."""

    layout: Layout
    sources: tuple[Source, ...]


class _Builder:
    """Collects the arrays; each list is a row of the array of that name."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.sources: list[tuple[int, ...]] = []
        self.ladders: list[tuple[int, ...]] = []
        self.rungs: list[int] = []
        self.groups: list[tuple[int, ...]] = []
        self.measures: list[
            tuple[int, int, int]
        ] = []  # of one source: place, aggregate, row of results or -1 - balance
        self.uses: list[tuple[int, int, int, int]] = []
        self.divisors: list[float] = []
        self.balances: list[tuple[int, int]] = []
        self.terms: list[tuple[int, ...]] = []
        self.windows = self.sets = 0

    def add_source(self, measures: list[tuple[int, Measure]]) -> int:
        """Add the measures of one source, each with its place in the plan; return its reach."""
        ladders, balances = len(self.ladders), len(self.balances)
        self.measures = []
        mask, reach = 0, 0
        sets = self.sets
        for place, measure in measures:
            if measure.aggregate == "balance":
                mask |= self._add_balance(place, measure)
                reach = FOREVER_US
            else:
                assert measure.selection is not None
                mask |= 1 << measure.selection
                reach = max(reach, _reach(measure))
        by_group = _grouped(measures)
        by_ladder: dict[tuple[int, tuple[int, ...]], list[_Group]] = {}
        for group, members in by_group.items():
            windows = tuple(sorted({_window(m) for _, m in members}))
            by_ladder.setdefault((group[0], windows), []).append(group)
        for (offset, windows), groups in by_ladder.items():
            self._add_ladder(offset, windows, {group: by_group[group] for group in groups})
        uses = self._add_uses()
        self.sources.append(
            (mask, reach, ladders, len(self.ladders), *uses, balances, len(self.balances), sets, self.sets)
        )
        return reach

    def _add_uses(self) -> tuple[int, int, int]:
        """Add what each measure of a source is for; return where they start, cease to be features, and end."""
        features = [(i, f.program[0].value) for i, f in enumerate(self.plan.features) if _is_measure(f)]
        others = {s.value for f in self.plan.features if not _is_measure(f) for s in f.program if s.op == "measure"}
        uses = [(*measure, i) for measure in self.measures for i, place in features if place == measure[0]]
        direct = len(uses)
        uses += [(*measure, -1) for measure in self.measures if measure[0] in others]
        start = len(self.uses)
        self.uses += [(place, row, aggregate, feature) for place, aggregate, row, feature in uses]
        self.divisors += [float(10 ** self.plan.measures[use[0]].scale) for use in uses]
        return start, start + direct, len(self.uses)

    def _add_ladder(
        self, offset: int, windows: tuple[int, ...], groups: dict[_Group, list[tuple[int, Measure]]]
    ) -> None:
        start = len(self.groups)
        for (_, selection, slot, _), members in groups.items():
            needs = k.NEED_TIMES if slot < 0 else 0
            for place, measure in members:
                needs |= _NEEDS.get(measure.aggregate, 0 if slot < 0 else k.NEED_NUMBERS)
                self._add_measure(place, measure, self.windows + windows.index(_window(measure)))
            members_set = self.sets if needs & k.NEED_DISTINCT else -1
            self.sets += members_set >= 0
            self.groups.append((1 << selection, slot, needs, self.windows, members_set))
            self.windows += len(windows)
        self.ladders.append((offset, len(self.rungs), len(self.rungs) + len(windows), start, len(self.groups)))
        self.rungs += windows

    def _add_measure(self, place: int, measure: Measure, at: int) -> None:
        self.measures.append((place, AGGREGATES.index(measure.aggregate), at))

    def _add_balance(self, place: int, measure: Measure) -> int:
        self._add_measure(place, measure, -1 - len(self.balances))  # its row follows those of windows
        start, mask = len(self.terms), 0
        for term in measure.terms or ():
            after = NULL if term.expires_after_us is None else min(term.expires_after_us, FOREVER_US)
            slots = (-1 if slot is None else slot for slot in (term.key, term.amount, term.expires))
            self.terms.append((1 << term.selection, _ROLES.index(term.role), *slots, after))
            mask |= 1 << term.selection
        self.balances.append((start, len(self.terms)))
        return mask


def _grouped(measures: list[tuple[int, Measure]]) -> dict[_Group, list[tuple[int, Measure]]]:
    """Return the measures, but balances, by group; a count joins a group that passes over its rows for a column."""
    groups: dict[_Group, list[tuple[int, Measure]]] = {}
    for place, measure in sorted(measures, key=lambda one: one[1].aggregate == "count"):
        if measure.aggregate == "balance" or measure.selection is None:
            continue
        slot = -1 if measure.slot is None else measure.slot
        key = (measure.offset_us, measure.selection, slot, measure.aggregate == "distinct")
        if measure.aggregate == "count":
            hosts = (
                host
                for host, members in groups.items()
                if host[:2] == key[:2] and host[2] >= 0 and not host[3]
                if any(_window(member) == _window(measure) for _, member in members)
            )
            key = next(hosts, key)
        groups.setdefault(key, []).append((place, measure))
    return groups


def _window(measure: Measure) -> int:
    return FOREVER_US if measure.window_us is None else min(measure.window_us, FOREVER_US)


def _reach(measure: Measure) -> int:
    return min(_window(measure) + measure.offset_us, FOREVER_US)


def _is_measure(feature: FeatureSpec) -> bool:
    """Whether a feature is a measure as it is, so that no program has to run."""
    return len(feature.program) == 1 and feature.program[0].op == "measure"


def _programs(plan: Plan) -> tuple[list[tuple[int, int, int]], list[tuple[int, int]], list[float]]:
    programs: list[tuple[int, int, int]] = []
    steps: list[tuple[int, int]] = []
    constants: list[float] = []
    for i, feature in enumerate(plan.features):
        if _is_measure(feature):
            continue
        start = len(steps)
        for step in feature.program:
            operand = 0
            if step.op in ("constant", "fill"):
                operand = len(constants)
                constants.append(float(step.value or 0))
            elif step.value is not None:
                operand = int(step.value)
            steps.append((_OPERATIONS.index(step.op), operand))
        programs.append((i, start, len(steps)))
    return programs, steps, constants


def _compile(plan: Plan) -> Compiled:
    builder = _Builder(plan)
    by_source: dict[tuple[str, str], list[tuple[int, Measure]]] = {}
    for place, measure in enumerate(plan.measures):
        by_source.setdefault((measure.timeline, measure.via), []).append((place, measure))
    sources = []
    for (timeline, via), measures in by_source.items():
        reach = builder.add_source(measures)
        sources.append(Source(timeline, via, None if reach == FOREVER_US else reach))
    programs, steps, constants = _programs(plan)
    uses = [(use[0], use[1] if use[1] >= 0 else builder.windows - 1 - use[1], *use[2:]) for use in builder.uses]
    layout = Layout(
        sources=_table(builder.sources, 11),
        ladders=_table(builder.ladders, 5),
        rungs=np.array(builder.rungs, np.int64),
        groups=_table(builder.groups, 5),
        measures=_table(uses, 4),
        divisors=np.array(builder.divisors, np.float64),
        balances=_table(builder.balances, 2),
        terms=_table(builder.terms, 6),
        programs=_table(programs, 3),
        steps=_table(steps, 2),
        constants=np.array(constants, np.float64),
        sizes=np.array([builder.windows, builder.sets], np.int64),
    )
    return Compiled(layout, tuple(sources))


def _table(rows: Sequence[tuple[int, ...]], width: int) -> NDArray[np.int64]:
    return np.array(rows, np.int64).reshape(len(rows), width)


_KEPT: WeakKeyDictionary[Plan, Compiled] = WeakKeyDictionary()


def compiled(plan: Plan) -> Compiled:
    """Return the plan's arrays, made once for each plan object."""
    kept = _KEPT.get(plan)
    if kept is None:
        kept = _KEPT[plan] = _compile(plan)
    return kept


def scratch(layout: Layout, rows_max: int) -> Scratch:
    """Return room for a request whose sources have at most `rows_max` rows each."""
    entries = k.entries(rows_max)
    windows, sets = (int(size) for size in layout.sizes)
    return Scratch(
        state=np.empty((len(layout.groups), k.CELL_WIDTH), np.int64),
        reached=np.empty(len(layout.ladders), np.int64),
        results=np.empty((windows + len(layout.balances), len(AGGREGATES)), np.float64),
        sets=np.empty((sets, entries + 2), np.int64),
        tables=np.empty((len(layout.balances), entries + 1, 4), np.int64),
        visible=np.empty(rows_max, np.int64),
        stack=np.empty(STACK_MAX, np.float64),
    )


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in the one form that kernels are compiled for: contiguous, aligned, read only."""
    flags = array.flags
    if not flags.writeable and flags.c_contiguous and flags.aligned:
        return array
    array = np.require(array, requirements=["C", "A"]).view()
    array.flags.writeable = False
    return array
