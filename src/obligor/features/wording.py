"""Measures in words: whose facts, which of them, in which window, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from obligor.events.predicates import And, Comparison, Not, Or, Predicate
from obligor.features.delays import SUFFIX, UNIT, stored
from obligor.features.filters import parse_predicate
from obligor.features.infix import PHRASE, Piece, program_words
from obligor.features.measures import (
    CalendarWindow,
    Condition,
    Inner,
    Measure,
    RowsWindow,
    Selection,
    SinceWindow,
    Slot,
    Step,
    Timeline,
    TimeWindow,
    Window,
    slot_of,
)
from obligor.features.plan import Plan, RequestValue

__all__ = [
    "aggregate_words",
    "anchor_words",
    "facts_words",
    "field_words",
    "filter_words",
    "keys_words",
    "length_words",
    "measure_piece",
    "owner_words",
    "request_piece",
    "window_words",
]

_DAY_US = 86_400_000_000
_UNITS_US = (("day", _DAY_US), ("hour", 3_600_000_000), ("minute", 60_000_000), ("second", 1_000_000))
_AGGREGATES = {
    "count": "number of {facts}",
    "sum": "sum of {field} over {facts}",
    "mean": "mean of {field} over {facts}",
    "std": "standard deviation of {field} over {facts}",
    "sample_std": "sample standard deviation of {field} over {facts}",
    "min": "least {field} among {facts}",
    "max": "greatest {field} among {facts}",
    "first": "{field} of the first of {facts}",
    "last": "{field} of the last of {facts}",
    "nth_last": "{nth}newest {field} among {facts}",
    "time_since_first": "seconds since the first of {facts}",
    "time_since_last": "seconds since the last of {facts}",
    "mean_gap": "mean seconds from one of {facts} to the next",
    "std_gap": "standard deviation of the seconds from one of {facts} to the next",
    "longest_gap": "most seconds from one of {facts} to the next",
    "slope": "growth per day (least squares) of {field} over {facts}",
    "streak": "number in a row, from the newest back, of {facts} that also meet {condition}",
    "longest_streak": "most in a row of {facts} that also meet {condition}",
    "decayed_count": "number of {facts}, {decay}",
    "decayed_sum": "sum of {field} over {facts}, {decay}",
    "distinct": "number of distinct values of {field} among {facts}",
    "most_frequent": "{nth}most frequent {field} among {facts}",
    "top_share": "share of the {most} {field} among {facts}",
    "entropy": "entropy, in bits, of {field} among {facts}",
    "quantile": "{quantile} of {field} over {facts}",
    "distinct_sketch": "about the number of distinct values of {field} among {facts}",
    "quantile_sketch": "about the {quantile} of {field} over {facts}",
}
_TIMED = ("time_since_first", "time_since_last", "mean_gap", "std_gap", "longest_gap")
_TOLD_APART = ("distinct", "distinct_sketch", "top_share", "entropy")  # of values, whatever their unit
_OVER_KEYS = {
    "count": "number of {keys} with a known {number}",
    "sum": "sum over {keys} of {number}",
    "mean": "mean over {keys} of {number}",
    "std": "standard deviation over {keys} of {number}",
    "min": "least over {keys} of {number}",
    "max": "greatest over {keys} of {number}",
}
_OVER_KEYS_TRUE = {
    "count": "number of {keys} for which it is known whether {number}",
    "sum": "number of {keys} whose {number}",
    "mean": "share of {keys} whose {number}",
    "std": "standard deviation over {keys} of whether {number}",
    "min": "whether all of {keys} have {number}",
    "max": "whether any of {keys} has {number}",
}
_CALENDAR = {
    "hour": "hour of the day (0 to 23)",
    "day_of_week": "weekday (0 Monday to 6 Sunday)",
    "day_of_month": "day of the month (1 to 31)",
}
_AS_OF = "the moment of the question"
_SIGNS = {"==": "is", "!=": "is not"}
_MOMENT_SIGNS = {"<": "is before", ">": "is after", "<=": "is not after", ">=": "is not before"}


def length_words(length_us: int | None) -> str:
    """Return a window's length in words.

    >>> length_words(30 * 86_400_000_000), length_words(None), length_words(1_799_999_999)
    ('30 days', 'lifetime', 'less than 30 minutes')
    """
    if length_us is None:
        return "lifetime"
    if (length_us + 1) % 1_000_000 == 0:  # all but the instant itself at which the length begins
        return f"less than {length_words(length_us + 1)}"
    name, unit_us = next(((n, u) for n, u in _UNITS_US if length_us % u == 0), ("microsecond", 1))
    number = length_us // unit_us
    return f"{number:,} {name}{'s' if number != 1 else ''}"


def request_piece(plan: Plan, value: RequestValue) -> Piece:
    """Return a value of the application in words."""
    if value.source == "calendar":
        moment = value.name == "as_of"
        return Piece(_AS_OF if moment else f"{_CALENDAR[value.name]} in {plan.zone}", moment=moment)
    if value.source == "age":
        return Piece(f"seconds since the application's {value.name}", PHRASE, timed="seconds")
    return Piece(f"the application's {value.name}", values=value.values)


def measure_piece(plan: Plan, measure: Measure) -> Piece:
    """Return a measure in words."""
    timeline = plan.timelines[measure.timeline]
    if measure.per is not None:
        return _over_keys(plan, timeline, measure)
    assert measure.selection is not None
    selection = timeline.selections[measure.selection]
    facts = _facts(plan, timeline, _owner(timeline, measure.via), selection, measure.given)
    facts = _newest(facts, measure.window)
    slot = slot_of(timeline, measure.selection, measure.slot)
    text = aggregate_words(measure, timeline, slot, facts) + _when(plan, timeline, measure.via, measure.window)
    categorical = slot is not None and measure.aggregate in ("first", "last", "nth_last", "most_frequent")
    return Piece(
        text,
        PHRASE,
        slot.values if slot is not None and categorical else None,
        timed=_timed(measure.aggregate, slot),
    )


def window_words(plan: Plan, timeline: Timeline, window: Window) -> str:
    """Return a window in a few words."""
    match window:
        case TimeWindow(length_us=length_us, offset_us=offset_us):
            before = f" before the last {length_words(offset_us)}" if offset_us else ""
            return f"all{before}" if before and length_us is None else length_words(length_us) + before
        case RowsWindow(rows=rows):
            return f"newest {rows:,} events"
        case CalendarWindow(unit=unit, back=back):
            known = {0: f"this {unit} so far", 1: f"last {unit}", 2: f"the {unit} before last"}
            return f"{known.get(back) or f'the {unit} {back} {unit}s back'} ({plan.zone})"
        case SinceWindow(anchor=anchor):
            begins = timeline.selections[anchor]
            where = filter_words(plan, timeline, begins, ())
            return f"since the last {begins.event}{f' where {where}' if where else ''}"


def facts_words(plan: Plan, measure: Measure, reader: Measure | Inner) -> str:
    """Return which facts a measure looks at, such as `the consumer's repayment events, last 30 days`; by key `its`."""
    timeline = plan.timelines[measure.timeline]
    assert reader.selection is not None
    owner = ["its"] if isinstance(reader, Inner) else _owner(timeline, measure.via)
    facts = _facts(plan, timeline, owner, timeline.selections[reader.selection], reader.given)
    return _newest(facts, reader.window) + _when(plan, timeline, measure.via, reader.window)


def anchor_words(plan: Plan, measure: Measure, anchor: int) -> str:
    """Return which facts a window may begin with."""
    timeline = plan.timelines[measure.timeline]
    return _facts(plan, timeline, _owner(timeline, measure.via), timeline.selections[anchor], ())


def _newest(facts: str, window: Window) -> str:
    return f"the newest {window.rows:,} of {facts}" if isinstance(window, RowsWindow) else facts


def _when(plan: Plan, timeline: Timeline, via: Sequence[str], window: Window) -> str:
    """Return the window as the end of a sentence."""
    match window:
        case TimeWindow(length_us=None, offset_us=0):
            return ", ever"
        case TimeWindow(length_us=None, offset_us=offset_us):
            return f", all before the last {length_words(offset_us)}"
        case TimeWindow(length_us=length_us, offset_us=0):
            words = length_words(length_us)
            return f", {words} ago" if words.startswith("less") else f", last {words}"
        case TimeWindow(length_us=length_us, offset_us=offset_us):
            return f", the {length_words(length_us)} before the last {length_words(offset_us)}"
        case CalendarWindow():
            return f", {window_words(plan, timeline, window)}"
        case SinceWindow(anchor=anchor):
            facts = _facts(plan, timeline, _owner(timeline, via), timeline.selections[anchor], ())
            return f", since the last of {facts}"
    return ""


def _owner(timeline: Timeline, via: Sequence[str]) -> list[str]:
    """Return whose facts they are: the entities, by the application's fields where those are named otherwise."""
    return [
        f"the {name}" if name == entity else f"the application's {name}"
        for entity, name in zip(timeline.entities, via, strict=True)
    ]


def owner_words(timeline: Timeline, via: Sequence[str]) -> str:
    """Return whose facts they are, such as `the consumer with the merchant`."""
    return " with ".join(_owner(timeline, via))


def _owned(owner: Sequence[str], what: str) -> str:
    """Return something of an entity, or of several together.

    >>> _owned(["the consumer"], "loans"), _owned(["the consumer", "the merchant"], "loans")
    ("the consumer's loans", 'the loans of the consumer with the merchant')
    """
    return f"{owner[0]}'s {what}" if len(owner) == 1 else f"the {what} of {' with '.join(owner)}"


def _facts(
    plan: Plan, timeline: Timeline, owner: Sequence[str], selection: Selection, given: Sequence[Condition]
) -> str:
    """Return which facts: an owner's events of a type, and the filter that they pass."""
    where = filter_words(plan, timeline, selection, given)
    events = f"{selection.event} events"
    facts = f"{owner[0]} {events}" if owner == ["its"] else _owned(owner, events)
    return f"{facts} where {where}" if where else facts


def filter_words(plan: Plan, timeline: Timeline, selection: Selection, given: Sequence[Condition]) -> str:
    """Return what a selection and conditions on the application let through, "" where that is everything."""
    parts = [] if selection.where is None else [_bracketed(parse_predicate(selection.where))]
    slots = timeline.fields.get(selection.event, ())
    parts += [_condition_words(plan, slots[one.slot], one) for one in given]
    return " and ".join(parts)


def _bracketed(predicate: Predicate) -> str:
    words = _predicate_words(predicate)
    return f"({words})" if isinstance(predicate, Or) else words


def _condition_words(plan: Plan, slot: Slot, condition: Condition) -> str:
    value, op = plan.comparands[condition.comparand], condition.op
    if value.source == "calendar":
        return f"{slot.field} {_SIGNS.get(op) or _MOMENT_SIGNS[op]} {_AS_OF}"
    return f"{field_words(slot.field)} {_SIGNS.get(op, op)} the application's {value.name}"


def aggregate_words(measure: Measure | Inner, timeline: Timeline, slot: Slot | None, facts: str) -> str:
    """Return what is made of some facts."""
    parameters: tuple[Any, ...] = measure.parameters if isinstance(measure, Measure) else ()
    words = {"facts": facts, "field": "" if slot is None else field_words(slot.field, _timed(measure.aggregate, slot))}
    match measure.aggregate, parameters:
        case (("nth_last" | "most_frequent"), (int(n),)):
            words["nth"] = "" if n == 1 else f"{_ordinal(n)} "
        case "top_share", (int(k),):
            words["most"] = "most frequent" if k == 1 else f"{k} most frequent values of"
        case (("quantile" | "quantile_sketch"), (q,)):
            words["quantile"] = "median" if q == 0.5 else f"{q:g} quantile"
        case (("decayed_count" | "decayed_sum"), (int(half_life_us), int(step_us))):
            step = "calendar days" if step_us == _DAY_US else f"steps of {length_words(step_us)}"
            words["decay"] = f"each half as much for every {length_words(half_life_us)} of age in {step} (UTC)"
    if isinstance(measure, Measure) and measure.condition is not None and measure.selection is not None:
        both = (timeline.selections[place] for place in (measure.selection, measure.condition))
        words["condition"] = _streak_words(*both)
    return _AGGREGATES[measure.aggregate].format(**words)


def _streak_words(selection: Selection, condition: Selection) -> str:
    """Return what a streak's condition asks beyond the filter of its facts."""
    known, asked = _conjuncts(selection.where), _conjuncts(condition.where)
    given = [part.to_json() for part in known]
    more = [part for part in asked if part.to_json() not in given]
    return " and ".join(map(_bracketed, more)) or "the same"


def _conjuncts(where: object) -> list[Predicate]:
    predicate = None if where is None else parse_predicate(where)
    return list(predicate.parts) if isinstance(predicate, And) else [predicate] if predicate is not None else []


def _ordinal(n: int) -> str:
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def _over_keys(plan: Plan, timeline: Timeline, measure: Measure) -> Piece:
    """Return a measure over keys in words."""
    per = measure.per
    assert per is not None

    def operand(step: Step) -> Piece:
        inner = per.inner[int(step.value or 0)]
        slot = slot_of(timeline, inner.selection, inner.slot)
        facts = _facts(plan, timeline, ["its"], timeline.selections[inner.selection], inner.given)
        text = aggregate_words(inner, timeline, slot, facts) + _when(plan, timeline, measure.via, inner.window)
        values = slot.values if slot is not None and inner.aggregate in ("first", "last") else None
        return Piece(text, PHRASE, values, timed=_timed(inner.aggregate, slot))

    number = program_words(per.program, operand)
    keys = keys_words(plan, measure)
    forms = _OVER_KEYS_TRUE if number.truth else _OVER_KEYS
    words = forms[measure.aggregate].format(keys=keys, number=number.text if number.truth else number.within())
    return Piece(words, PHRASE, truth=number.truth and measure.aggregate in ("min", "max"), timed="")


def keys_words(plan: Plan, measure: Measure) -> str:
    """Return what a measure over keys is over, such as `the consumer's loans`."""
    timeline, per = plan.timelines[measure.timeline], measure.per
    assert per is not None
    key = slot_of(timeline, per.inner[0].selection, per.inner[0].key)
    assert key is not None
    return _owned(_owner(timeline, measure.via), _plural(key.field))


def _plural(name: str) -> str:
    """Return the plural of a field's name.

    >>> _plural("loan"), _plural("category"), _plural("address")
    ('loans', 'categories', 'addresses')
    """
    if name.endswith("y") and name[-2:-1] not in "aeiou":
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith(("s", "x", "ch", "sh")) else f"{name}s"


def _timed(aggregate: str, slot: Slot | None) -> str:
    """Return the unit of time in which a measure's words begin to speak, '' where it is no length of time."""
    if aggregate in _TIMED:
        return "seconds"
    lasting = slot is not None and slot.field.endswith(SUFFIX) and aggregate not in _TOLD_APART
    return UNIT if lasting else ""


def field_words(field: str, unit: str = "") -> str:
    """Return a field, its delay or its currency in words."""
    if field.endswith(SUFFIX):
        return f"delay{f' in {unit}' if unit else ''} after {stored(field)}"
    return f"currency of {field.removesuffix('.currency')}" if field.endswith(".currency") else field


def _predicate_words(predicate: Predicate) -> str:
    match predicate:
        case Comparison(field, "is_null"):
            return f"{field_words(field)} is absent"
        case Comparison(field, "not_null"):
            return f"{field_words(field)} is present"
        case Comparison(field, "in", tuple(values)):
            return f"{field_words(field)} is {' or '.join(map(str, values)) or 'one of none'}"
        case Comparison(field, op, value):
            return f"{field_words(field)} {_SIGNS.get(op, op)} {_value_words(field, value)}"
        case Not(part):
            return f"not ({_predicate_words(part)})"
        case And(parts):
            return " and ".join(map(_bracketed, parts))
        case Or(parts):
            return " or ".join(_predicate_words(part) for part in parts)
    raise AssertionError(f"a predicate of unknown form: {predicate!r}")


def _value_words(field: str, value: object) -> str:
    if field.endswith(SUFFIX) and isinstance(value, int):
        return length_words(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
