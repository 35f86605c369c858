"""When a feature is null, in words, read from its program: what is asked first about a number that is not there."""

from __future__ import annotations

from collections.abc import Iterator

from obligor.events.schema import Event
from obligor.features.infix import program_words
from obligor.features.looks import looks
from obligor.features.measures import Measure, SinceWindow, Step
from obligor.features.missing import operands
from obligor.features.plan import FeatureSpec, Plan
from obligor.features.wording import measure_piece, request_piece

__all__ = ["null_words"]

_ZERO_OF_NONE = (
    "count", "sum", "streak", "longest_streak", "decayed_count", "decayed_sum", "distinct", "distinct_sketch",
)  # fmt: skip
_SEVERAL = {
    "sample_std": "fewer than two", "mean_gap": "fewer than two", "std_gap": "fewer than two",
    "longest_gap": "fewer than two", "slope": "none at different times",
}  # fmt: skip


def null_words(plan: Plan, feature: FeatureSpec, application: type[Event]) -> tuple[str, ...]:
    """Return when a feature is null, each way once; nothing where it never is."""
    return tuple(dict.fromkeys(_nulls(plan, feature.program, application)))


def _nulls(plan: Plan, program: tuple[Step, ...], application: type[Event]) -> Iterator[str]:
    last = program[-1]
    if last.op == "measure":
        yield from _of_measure(plan, plan.measures[int(last.value or 0)], application)
    elif last.op == "request":
        value = plan.requests[int(last.value or 0)]
        if value.source != "calendar" and application.readable[value.name].optional:
            yield f"the application has no {value.name}"
    elif last.op not in ("constant", "fill"):
        parts = operands(program)
        for part in parts:
            yield from _nulls(plan, part, application)
        if last.op == "divide":
            yield from _zero(plan, parts[1])


def _zero(plan: Plan, divisor: tuple[Step, ...]) -> Iterator[str]:
    if divisor[-1].op == "constant":
        return
    words = program_words(
        divisor,
        lambda step: (
            request_piece(plan, plan.requests[int(step.value or 0)])
            if step.op == "request"
            else measure_piece(plan, plan.measures[int(step.value or 0)])
        ),
    )
    yield f"not ({words.text})" if words.truth else f"this is 0: {words.text}"


def _of_measure(plan: Plan, measure: Measure, application: type[Event]) -> Iterator[str]:
    for name in measure.via:
        if application.readable[name].optional:
            yield f"the application names no {name}"
    own, *further = looks(plan, measure)
    if isinstance(measure.window, SinceWindow):
        begins = next(look for look in further if look.role == "begins the window")
        yield f"there was never a {begins.event}{f' where {begins.filter}' if begins.filter else ''}"
    if measure.aggregate in _ZERO_OF_NONE:
        return
    if measure.per is not None:
        yield f"there is no {own.by_key} with a known number"
        return
    window = "ever" if own.window == "lifetime" else own.window
    which = f"{own.event} events{f' where {own.filter}' if own.filter else ''}"
    yield f"{_SEVERAL.get(measure.aggregate, 'none')} of {own.whose}'s {which}, {window}"
