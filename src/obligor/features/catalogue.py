"""The catalogue: every feature of a plan in words, for people who do not read code.

It is derived from the plan alone, so a bundle from last year explains itself, and the words can say nothing that the
kernels do not compute.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from obligor.events.predicates import And, Comparison, Not, Or, Predicate
from obligor.features.filters import comparisons, parse_predicate
from obligor.features.plan import FeatureSpec, Measure, Plan, RequestValue, Selection, Slot, Step

__all__ = ["Entry", "catalogue", "length_words"]

_UNITS_US = (("day", 86_400_000_000), ("hour", 3_600_000_000), ("minute", 60_000_000), ("second", 1_000_000))
_AGGREGATES = {
    "sum": "sum of {field} over {facts}",
    "mean": "mean of {field} over {facts}",
    "std": "standard deviation of {field} over {facts}",
    "min": "least {field} among {facts}",
    "max": "greatest {field} among {facts}",
    "first": "{field} of the first of {facts}",
    "last": "{field} of the last of {facts}",
    "distinct": "number of distinct {field} among {facts}",
    "count": "number of {facts}",
    "time_since_first": "seconds since the first of {facts}",
    "time_since_last": "seconds since the last of {facts}",
}
_CALENDAR = {
    "hour": "hour of the day",
    "day_of_week": "weekday (0 Monday to 6)",
    "day_of_month": "day of the month",
    "as_of": "moment of the question",
}
_INFIX = {  # operator and how tightly it binds
    "less": ("<", 1),
    "less_equal": ("<=", 1),
    "greater": (">", 1),
    "greater_equal": (">=", 1),
    "equal": ("=", 1),
    "not_equal": ("is not", 1),
    "add": ("+", 2),
    "subtract": ("-", 2),
    "multiply": ("x", 3),
    "divide": ("/", 3),
}
_ATOM, _PHRASE = 9, 0  # a phrase is bracketed wherever it meets an operator
_TIMES = {  # what a time divided by a constant is
    ("microseconds", 1_000_000.0): "seconds",
    ("microseconds", 3_600_000_000.0): "hours",
    ("microseconds", 86_400_000_000.0): "days",
    ("seconds", 3_600.0): "hours",
    ("seconds", 86_400.0): "days",
}
_MONOTONE = {1: "risk rises with it", -1: "risk falls with it", 0: ""}


@dataclass(frozen=True)
class Entry:
    """One row of the catalogue; texts, and '' where there is nothing to say."""

    name: str
    description: str  # what its author wrote
    definition: str  # what is computed, in words
    type: str
    unit: str
    windows: tuple[str, ...]
    entities: tuple[str, ...]  # whose history, by entity type
    reason: str
    monotone: str
    inputs: tuple[str, ...]  # `event_type.field` and `event_type`, all that it reads
    scored: bool


def catalogue(plan: Plan) -> list[Entry]:
    """Return an entry for each feature, in the plan's order.

    >>> from obligor.features import Entity, Event, compile_plan
    >>> from obligor.events.schema import Registry
    >>> class Loan(Event, application=True):
    ...     consumer = Entity()
    >>> plan = compile_plan({"busy": Loan.by("consumer").count("7d") > 3}, Registry([Loan]), Loan)
    >>> catalogue(plan)[0].definition
    "(number of the consumer's loan events, last 7 days) > 3"
    """
    return [_entry(plan, feature) for feature in plan.features]


def _entry(plan: Plan, feature: FeatureSpec) -> Entry:
    measures = [plan.measures[int(s.value or 0)] for s in feature.program if s.op == "measure"]
    requests = [plan.requests[int(s.value or 0)] for s in feature.program if s.op == "request"]
    inputs = [name for measure in measures for name in _inputs(plan, measure)]
    inputs += [f"{plan.application}.{r.name}" for r in requests if r.source != "calendar"]
    windows = [length_words(m.window_us) for m in measures]
    return Entry(
        name=feature.name,
        description=feature.description,
        definition=_words(plan, feature),
        type=feature.type,
        unit=feature.unit,
        windows=_unique(windows),
        entities=_unique(measure.timeline for measure in measures),
        reason=feature.reason or "",
        monotone=_MONOTONE[feature.monotone],
        inputs=_unique(inputs),
        scored=feature.scored,
    )


def length_words(length_us: int | None) -> str:
    """Return a window's length in words.

    >>> length_words(30 * 86_400_000_000), length_words(None)
    ('30 days', 'lifetime')
    """
    if length_us is None:
        return "lifetime"
    name, unit_us = next(((n, u) for n, u in _UNITS_US if length_us % u == 0), ("microsecond", 1))
    number = length_us // unit_us
    return f"{number} {name}{'s' if number != 1 else ''}"


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


@dataclass(frozen=True)
class _Piece:
    """A part of a definition in words."""

    text: str
    binding: int = _ATOM
    values: tuple[str, ...] | None = None  # of a category
    truth: bool = False  # a comparison, or a combination of them
    number: float | None = None  # of a constant


def _words(plan: Plan, feature: FeatureSpec) -> str:
    """Return the program in infix words, with brackets only where they are needed."""
    stack: list[_Piece] = []
    for step in feature.program:
        if step.op == "fill":
            filled = stack.pop()
            text = f"{filled.text}, or {_number(step, filled.values)} if unknown"
            stack.append(replace(filled, text=text, binding=_PHRASE))
        elif step.op in ("measure", "request", "constant"):
            stack.append(_operand(plan, step, stack[-1].values if stack else None))
        else:
            right, left = stack.pop(), stack.pop()
            stack.append(_join(step, left, right))
    return stack[0].text


def _operand(plan: Plan, step: Step, beside: tuple[str, ...] | None) -> _Piece:
    if step.op == "constant":
        return _Piece(_number(step, beside), number=float(step.value or 0))
    if step.op == "request":
        value = plan.requests[int(step.value or 0)]
        return _Piece(_request_words(plan, value), _PHRASE if value.source == "age" else _ATOM, value.values)
    measure = plan.measures[int(step.value or 0)]
    slot = _slot(plan, measure)
    values = slot.values if slot is not None and measure.aggregate in ("first", "last") else None
    return _Piece(_measure_words(plan, measure), _PHRASE, values)


def _join(step: Step, left: _Piece, right: _Piece) -> _Piece:
    unit, since, what = left.text.partition(" since ")
    if step.op == "subtract" and left.text == _CALENDAR["as_of"]:
        return _Piece(f"microseconds since {right.text}", _PHRASE)
    if step.op == "divide" and since and (unit, right.number) in _TIMES:
        return _Piece(f"{_TIMES[unit, right.number or 0]} since {what}", _PHRASE)
    if step.op == "equal" and left.truth and right.number == 0:
        return _Piece(f"not ({left.text})", truth=True)
    if step.op in ("minimum", "maximum"):
        if left.truth and right.truth:
            return _Piece(
                f"({left.text}) {'and' if step.op == 'minimum' else 'or'} ({right.text})", _PHRASE, truth=True
            )
        return _Piece(f"the {'lesser' if step.op == 'minimum' else 'greater'} of ({left.text}) and ({right.text})")
    sign, binding = _INFIX[step.op]
    a = f"({left.text})" if left.binding < binding else left.text
    b = f"({right.text})" if right.binding <= binding else right.text
    return _Piece(f"{a} {sign} {b}", binding, truth=binding == _INFIX["equal"][1])


def _number(step: Step, values: tuple[str, ...] | None) -> str:
    value = float(step.value or 0)
    if values is not None and value.is_integer() and 0 <= value < len(values):
        return repr(values[int(value)])
    return f"{value:,.0f}" if value.is_integer() else f"{value:,}"


def _request_words(plan: Plan, value: RequestValue) -> str:
    if value.source == "calendar":
        return f"{_CALENDAR[value.name]} in {plan.zone}" if value.name != "as_of" else _CALENDAR["as_of"]
    if value.source == "age":
        return f"seconds since the application's {value.name}"
    return f"the application's {value.name}"


def _slot(plan: Plan, measure: Measure) -> Slot | None:
    if measure.selection is None or measure.slot is None:
        return None
    timeline = plan.timelines[measure.timeline]
    return timeline.fields[timeline.selections[measure.selection].event][measure.slot]


def _measure_words(plan: Plan, measure: Measure) -> str:
    whose = f"the {measure.via}'s" if measure.via == measure.timeline else f"the application's {measure.via}'s"
    if measure.aggregate == "balance":
        return _balance_words(plan, measure, whose)
    assert measure.selection is not None
    facts = f"{whose} {_facts_words(plan.timelines[measure.timeline].selections[measure.selection])}"
    slot = _slot(plan, measure)
    words = _AGGREGATES[measure.aggregate].format(field=slot.field if slot is not None else "", facts=facts)
    when = ", ever" if measure.window_us is None else f", last {length_words(measure.window_us)}"
    return words + when + (f" before the last {length_words(measure.offset_us)}" if measure.offset_us else "")


def _balance_words(plan: Plan, measure: Measure, whose: str) -> str:
    timeline = plan.timelines[measure.timeline]
    parts: dict[str, list[str]] = {"add": [], "subtract": [], "close": []}
    keys = []
    for term in measure.terms or ():
        selection = timeline.selections[term.selection]
        slots = timeline.fields[selection.event]
        keys.append(slots[term.key].field)
        amount = "" if term.amount is None else f"{slots[term.amount].field} of "
        ends = [] if term.expires is None else [f"until {slots[term.expires].field}"]
        ends += [] if term.expires_after_us is None else [f"for {length_words(term.expires_after_us)}"]
        parts[term.role].append(f"{amount}{_facts_words(selection)}{' ' if ends else ''}{', else '.join(ends)}")
    text = f"{whose} {' plus '.join(parts['add'])}"
    text += f" less {' and '.join(parts['subtract'])}" if parts["subtract"] else ""
    text += f", at least 0 for each {' = '.join(_unique(keys))}"
    return text + (f", without those that have {' or '.join(parts['close'])}" if parts["close"] else "")


def _facts_words(selection: Selection) -> str:
    where = "" if selection.where is None else f" where {_predicate_words(parse_predicate(selection.where))}"
    return f"{selection.event} events{where}"


def _predicate_words(predicate: Predicate) -> str:
    match predicate:
        case Comparison(field, "is_null"):
            return f"{field} is absent"
        case Comparison(field, "not_null"):
            return f"{field} is present"
        case Comparison(field, "in", tuple(values)):
            return f"{field} is {' or '.join(map(str, values)) or 'one of none'}"
        case Comparison(field, op, value):
            sign = {"==": "is", "!=": "is not"}.get(op, op)
            return f"{field} {sign} {str(value).lower() if isinstance(value, bool) else value}"
        case Not(part):
            return f"not ({_predicate_words(part)})"
        case And(parts):
            return " and ".join(f"({_predicate_words(p)})" if isinstance(p, Or) else _predicate_words(p) for p in parts)
        case Or(parts):
            return " or ".join(_predicate_words(part) for part in parts)
    raise AssertionError(f"a predicate of unknown form: {predicate!r}")


def _inputs(plan: Plan, measure: Measure) -> list[str]:
    """Return what a measure reads: event types, their fields, and the fields of their filters."""
    timeline = plan.timelines[measure.timeline]
    uses = [(measure.selection, (measure.slot,))] if measure.terms is None else []
    uses += [(t.selection, (t.key, t.amount, t.expires)) for t in measure.terms or ()]  # type: ignore[misc]
    names = []
    for place, slots in uses:
        assert place is not None
        selection = timeline.selections[place]
        names.append(selection.event)
        names += [f"{selection.event}.{timeline.fields[selection.event][s].field}" for s in slots if s is not None]
        filtered = comparisons(parse_predicate(selection.where)) if selection.where is not None else ()
        names += [f"{selection.event}.{c.field}" for c in filtered]
    return names
