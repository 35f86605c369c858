"""Measures: what a plan computes out of one timeline. Records of the plan's format, and their exactness classes.

`plan.py` says what each field means; this module says which combinations exist.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import msgspec

__all__ = [
    "AGGREGATES",
    "DECAY_STEPS_MAX",
    "DENSE_VALUES_MAX",
    "HALF_LIFE_STEPS_MAX",
    "INNER_AGGREGATES",
    "OUTER_AGGREGATES",
    "Aggregate",
    "CalendarWindow",
    "Coding",
    "Condition",
    "ExactnessClass",
    "Inner",
    "Measure",
    "Op",
    "Per",
    "Record",
    "RowsWindow",
    "Selection",
    "SinceWindow",
    "Slot",
    "Step",
    "TimeWindow",
    "Timeline",
    "Unit",
    "Window",
    "class_of",
    "is_dense",
    "measure_faults",
    "slot_of",
]

Aggregate: TypeAlias = Literal[
    "count", "sum", "mean", "std", "sample_std", "min", "max", "first", "last", "nth_last",
    "time_since_first", "time_since_last", "mean_gap", "std_gap", "longest_gap", "slope", "streak", "longest_streak",
    "decayed_count", "decayed_sum",
    "distinct", "most_frequent", "top_share", "entropy", "quantile",
    "distinct_sketch", "quantile_sketch",
]  # fmt: skip
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)
Coding: TypeAlias = Literal["integer", "vocabulary", "hash"]
ExactnessClass: TypeAlias = Literal["group", "tiled", "decay", "holistic", "sketch"]
Unit: TypeAlias = Literal["day", "week", "month", "quarter", "year"]
Op: TypeAlias = Literal[
    "measure",
    "request",
    "constant",
    "add",
    "subtract",
    "multiply",
    "divide",
    "minimum",
    "maximum",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    "equal",
    "not_equal",
    "fill",
]

DECAY_STEPS_MAX = 4096  # how many steps back what decays may reach
HALF_LIFE_STEPS_MAX = 64  # over a lifetime: what is older than DECAY_STEPS_MAX steps weighs less than 2^-64
DENSE_VALUES_MAX = 255  # a vocabulary up to this size is counted value by value, exactly, however many the rows

_GROUP = ("count", "sum", "mean", "std", "sample_std", "slope")
_TILED = (
    "min", "max", "first", "last", "nth_last", "time_since_first", "time_since_last", "mean_gap", "std_gap",
    "longest_gap", "streak", "longest_streak",
)  # fmt: skip
_COUNTED = ("distinct", "most_frequent", "top_share", "entropy")  # of a dense vocabulary: exact partials
_SLOTLESS = (
    "count", "time_since_first", "time_since_last", "mean_gap", "std_gap", "longest_gap", "streak", "longest_streak",
    "decayed_count",
)  # fmt: skip
_SCALED = (
    "sum", "mean", "std", "sample_std", "min", "max", "first", "last", "nth_last", "slope", "decayed_sum",
    "most_frequent", "quantile", "quantile_sketch",
)  # fmt: skip
SCALE_MAX = 18  # decimal places that 64 bits hold
INNER_AGGREGATES: tuple[Aggregate, ...] = (
    "count", "sum", "mean", "min", "max", "first", "last", "time_since_first", "time_since_last",
)  # fmt: skip
OUTER_AGGREGATES: tuple[Aggregate, ...] = ("count", "sum", "mean", "std", "min", "max")


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen record that is one JSON object: every key required, none unknown."""


class Selection(Record, frozen=True):
    """The facts of one event type, under the entity in fields `by`, for which `where` is true (null: all)."""

    event: str
    by: tuple[str, ...]  # one field, or several for a composite entity
    where: Any  # a predicate's JSON, see obligor.events.predicates, or None


class Slot(Record, frozen=True):
    """One stored value of an event type in a timeline; `values` is the frozen vocabulary of coding `vocabulary`."""

    field: str  # a column of the facts: a field, `<field>.currency` or `<field>.delay`
    coding: Coding
    values: tuple[str, ...] | None


class Timeline(Record, frozen=True):
    """One entity's rows: which facts enter (selections) and what of them is kept (fields by event type)."""

    entities: tuple[str, ...]  # entity types; several: a composite entity
    hot: bool
    selections: tuple[Selection, ...]
    fields: dict[str, tuple[Slot, ...]]

    @property
    def slots(self) -> int:
        """The number of value slots of a row: the longest list of `fields`."""
        return max(map(len, self.fields.values()), default=0)

    @property
    def events(self) -> tuple[str, ...]:
        """The event types that enter, in order of first use."""
        return tuple(dict.fromkeys(selection.event for selection in self.selections))


class TimeWindow(Record, frozen=True, tag_field="kind", tag="time"):
    """as_of - offset_us - length_us <= event_time < as_of - offset_us; `length_us` null: no lower bound."""

    length_us: int | None
    offset_us: int


class RowsWindow(Record, frozen=True, tag_field="kind", tag="rows"):
    """The newest `rows` rows with event_time < as_of."""

    rows: int


class CalendarWindow(Record, frozen=True, tag_field="kind", tag="calendar"):
    """The calendar period of as_of in the plan's zone up to as_of (`back` 0), or the whole one `back` periods ago."""

    unit: Unit
    back: int


class SinceWindow(Record, frozen=True, tag_field="kind", tag="since"):
    """From the event_time of the newest row of selection `anchor` before as_of, up to as_of; null without one."""

    anchor: int


Window: TypeAlias = TimeWindow | RowsWindow | CalendarWindow | SinceWindow


class Condition(Record, frozen=True):
    """A comparison of a row's slot with a comparand of the request; false where either is null."""

    slot: int
    op: Literal["==", "!=", "<", "<=", ">", ">="]
    comparand: int


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One step of a program; `value` is an index (measure, request) or a number (constant, fill), else None."""

    op: Op
    value: int | float | None = None


class Inner(Record, frozen=True):
    """One number for each key of a two-level measure."""

    selection: int
    given: tuple[Condition, ...]
    key: int  # slot, coding `hash`
    slot: int | None
    aggregate: Aggregate
    window: TimeWindow
    scale: int


class Per(Record, frozen=True):
    """The inner level: numbers by key, and the program (its `measure` steps are inner ones) that makes one of them."""

    inner: tuple[Inner, ...]
    program: tuple[Step, ...]


class Measure(Record, frozen=True):
    """One number out of one entity's timeline."""

    timeline: str
    via: tuple[str, ...]  # the application's fields that hold the entity's key
    aggregate: Aggregate
    selection: int | None
    given: tuple[Condition, ...]
    slot: int | None
    window: Window
    scale: int
    condition: int | None  # of streaks: the selection of the rows that keep one going
    parameters: tuple[int | float, ...]
    per: Per | None


def is_dense(aggregate: Aggregate, slot: Slot | None) -> bool:
    """Whether values are counted one by one because their vocabulary is small."""
    return (
        aggregate in _COUNTED and slot is not None and slot.values is not None and len(slot.values) <= DENSE_VALUES_MAX
    )


def class_of(measure: Measure, timeline: Timeline) -> ExactnessClass:
    """Return how a measure is kept exact; see the table in `plan.py`."""
    if measure.per is not None or measure.given or isinstance(measure.window, SinceWindow):
        return "holistic"
    if measure.aggregate.endswith("_sketch"):
        return "sketch"
    if measure.aggregate.startswith("decayed"):
        return "decay"
    if measure.aggregate in _GROUP or is_dense(measure.aggregate, slot_of(timeline, measure.selection, measure.slot)):
        return "group" if isinstance(measure.window, TimeWindow | CalendarWindow) else "tiled"
    return "tiled" if measure.aggregate in _TILED else "holistic"


def slot_of(timeline: Timeline, selection: int | None, slot: int | None) -> Slot | None:
    """Return the slot that a measure looks at, None where it looks at none."""
    if selection is None or slot is None:
        return None
    return timeline.fields[timeline.selections[selection].event][slot]


def measure_faults(measure: Measure, timelines: dict[str, Timeline], comparands: int) -> list[str]:
    """Return what is wrong with a measure of a plan with these timelines and so many comparands."""
    timeline = timelines.get(measure.timeline)
    if timeline is None:
        return [f"unknown timeline {measure.timeline!r}"]
    if len(measure.via) != len(timeline.entities):
        return [f"expected {len(timeline.entities)} fields in via, got {list(measure.via)}"]
    faults = _two_level_faults(measure, timeline) if measure.per is not None else _one_level_faults(measure, timeline)
    conditions = [(measure.selection, one) for one in measure.given]
    conditions += [
        (inner.selection, one) for inner in (measure.per.inner if measure.per else ()) for one in inner.given
    ]
    for selection, one in conditions:
        faults += _use_faults(timeline, selection, one.slot)
        faults += [] if 0 <= one.comparand < comparands else [f"no comparand {one.comparand}"]
    if not faults and timeline.hot and class_of(measure, timeline) == "holistic":
        faults.append("its entity is hot: this measure has no exact partials and no sketch")
    return faults


def _one_level_faults(measure: Measure, timeline: Timeline) -> list[str]:
    if measure.selection is None:
        return [f"a {measure.aggregate} has a selection"]
    if (measure.slot is None) != (measure.aggregate in _SLOTLESS):
        return [f"a {measure.aggregate} {'has no' if measure.aggregate in _SLOTLESS else 'needs a'} slot"]
    faults = _use_faults(timeline, measure.selection, measure.slot) + _parameter_faults(measure)
    if (measure.condition is None) != (measure.aggregate not in ("streak", "longest_streak")):
        faults.append("streaks have a condition, and nothing else has one")
    faults += [] if measure.condition is None else _use_faults(timeline, measure.condition, None)
    faults += _scale_faults(measure.aggregate, measure.scale)
    match measure.window:
        case SinceWindow(anchor=anchor):
            faults += _use_faults(timeline, anchor, None)
        case RowsWindow(rows=rows) if not 1 <= rows <= 2**31:
            faults.append(f"a window of {rows} rows")
        case TimeWindow(length_us=length, offset_us=offset) if offset < 0 or (length is not None and length <= 0):
            faults.append(f"a window of {length} us, {offset} us ago")
        case CalendarWindow(back=back) if not 0 <= back <= 120:
            faults.append(f"a calendar period {back} ago")
    if measure.aggregate.startswith("decayed") and not isinstance(measure.window, TimeWindow):
        faults.append("what decays has a window of time")
    return faults


def _two_level_faults(measure: Measure, timeline: Timeline) -> list[str]:
    assert measure.per is not None
    if measure.selection is not None or measure.slot is not None or measure.given or measure.condition is not None:
        return ["a measure over keys has neither selection, slot, given nor condition of its own"]
    faults = [] if measure.aggregate in OUTER_AGGREGATES else [f"no {measure.aggregate} over keys"]
    if measure.window != TimeWindow(length_us=None, offset_us=0) or measure.scale or measure.parameters:
        faults.append("a measure over keys has windows, scales and parameters within only")
    for inner in measure.per.inner:
        if inner.aggregate not in INNER_AGGREGATES:
            faults.append(f"no {inner.aggregate} by key")
        elif (inner.slot is None) != (inner.aggregate in _SLOTLESS):
            faults.append(f"a {inner.aggregate} by key {'has no' if inner.slot is not None else 'needs a'} slot")
        faults += _use_faults(timeline, inner.selection, inner.slot) + _use_faults(timeline, inner.selection, inner.key)
        faults += _scale_faults(inner.aggregate, inner.scale)
    return faults


def _scale_faults(aggregate: Aggregate, scale: int) -> list[str]:
    most = SCALE_MAX if aggregate in _SCALED else 0
    return [] if 0 <= scale <= most else [f"a {aggregate} divided by 10^{scale}"]


def _use_faults(timeline: Timeline, selection: int | None, slot: int | None) -> list[str]:
    if selection is None or not 0 <= selection < len(timeline.selections):
        return [f"no selection {selection}"]
    slots = timeline.fields.get(timeline.selections[selection].event, ())
    return [] if slot is None or 0 <= slot < len(slots) else [f"no slot {slot}"]


def _parameter_faults(measure: Measure) -> list[str]:
    parameters = measure.parameters
    valid = not parameters
    match measure.aggregate:
        case "nth_last" | "most_frequent" | "top_share":
            valid = len(parameters) == 1 and isinstance(parameters[0], int) and 1 <= parameters[0] <= 4096
        case "quantile" | "quantile_sketch":
            valid = len(parameters) == 1 and 0 <= parameters[0] <= 1
        case "decayed_count" | "decayed_sum":
            valid = len(parameters) == 2 and all(isinstance(p, int) and p > 0 for p in parameters)
            valid = valid and _decays_in_reach(parameters[0], parameters[1], measure.window)
    return [] if valid else [f"a {measure.aggregate} with the parameters {list(parameters)}"]


def _decays_in_reach(half_life_us: int | float, step_us: int | float, window: Window) -> bool:
    if not isinstance(window, TimeWindow):
        return True  # its own fault
    if window.length_us is None:
        return half_life_us <= HALF_LIFE_STEPS_MAX * step_us
    return window.length_us + window.offset_us <= DECAY_STEPS_MAX * step_us
