"""When a feature is null, in words, read from its program: what is asked first about a number that is not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from obligor.events.schema import Registry
from obligor.features.infix import Piece, program_words
from obligor.features.measures import Inner, Measure, SinceWindow, Slot, Step, TimeWindow, slot_of
from obligor.features.missing import operands
from obligor.features.plan import FeatureSpec, Plan
from obligor.features.wording import anchor_words, facts_words, field_words, keys_words, measure_piece, request_piece

__all__ = ["none_words", "null_words"]

_ZERO_OF_NONE = (
    "count", "sum", "streak", "longest_streak", "decayed_count", "decayed_sum", "distinct", "distinct_sketch",
)  # fmt: skip
_SEVERAL = {
    "sample_std": "fewer than two", "mean_gap": "fewer than two", "std_gap": "fewer than two",
    "longest_gap": "fewer than two", "slope": "not two at different times",
}  # fmt: skip


def null_words(plan: Plan, feature: FeatureSpec, registry: Registry) -> tuple[str, ...]:
    """Return when a feature is null, each way once; nothing where it never is, the entity being named."""
    return tuple(dict.fromkeys(_nulls(plan, feature.program, registry)))


def none_words(plan: Plan, feature: FeatureSpec) -> str:
    """Return what a feature that is one measure is of no events, "" where that is null."""
    last = feature.program[-1]
    if last.op != "measure":
        return ""
    return "0 of none" if plan.measures[int(last.value or 0)].aggregate in _ZERO_OF_NONE else ""


def _nulls(plan: Plan, program: tuple[Step, ...], registry: Registry) -> Iterator[str]:
    last = program[-1]
    if last.op == "measure":
        yield from _of_measure(plan, plan.measures[int(last.value or 0)], registry)
    elif last.op == "request":
        value = plan.requests[int(last.value or 0)]
        if value.source != "calendar" and registry[plan.application].readable[value.name].optional:
            yield f"the application has no {value.name}"
    elif last.op not in ("constant", "fill"):
        parts = operands(program)
        for part in parts:
            yield from _nulls(plan, part, registry)
        if last.op == "divide":
            yield from _zero(plan, parts[1])


def _zero(plan: Plan, divisor: tuple[Step, ...]) -> Iterator[str]:
    if divisor[-1].op == "constant":
        return

    def operand(step: Step) -> Piece:
        place = int(step.value or 0)
        if step.op == "request":
            return request_piece(plan, plan.requests[place])
        return measure_piece(plan, plan.measures[place])

    words = program_words(divisor, operand)
    yield f"this does not hold: {words.text}" if words.truth else f"what it is divided by is 0: {words.text}"


def _of_measure(plan: Plan, measure: Measure, registry: Registry) -> Iterator[str]:
    for name in measure.via:
        if registry[plan.application].readable[name].optional:
            yield f"the application names no {name}"
    if isinstance(measure.window, SinceWindow):
        yield f"there are none of {anchor_words(plan, measure, measure.window.anchor)}, ever"
    if measure.aggregate in _ZERO_OF_NONE:
        return
    if measure.per is not None:
        yield _no_key(plan, measure)
        return
    timeline = plan.timelines[measure.timeline]
    slot = slot_of(timeline, measure.selection, measure.slot)
    assert measure.selection is not None
    valued = _valued(registry, timeline.selections[measure.selection].event, slot)
    yield f"there are {_too_few(measure, slot, valued)} {facts_words(plan, measure, measure)}"


def _too_few(measure: Measure, slot: Slot | None, valued: str) -> str:
    """Return how many facts are too few."""
    match measure.aggregate, measure.parameters:
        case "nth_last", (int(n),) if n > 1:
            return f"fewer than {n}{valued} of"
        case "most_frequent", (int(n),) if n > 1 and slot is not None:
            return f"fewer than {n} different values of {field_words(slot.field)} among"
    return f"{_SEVERAL.get(measure.aggregate, 'none')}{valued} of"


def _valued(registry: Registry, event: str, slot: Slot | None) -> str:
    """Return that only facts with the value count, where there may be others."""
    if slot is None or event not in registry:
        return ""
    name = slot.field.partition(".")[0]
    field = registry[event].readable.get(name)
    return f" with a {name}" if field is None or field.optional else ""


def _no_key(plan: Plan, measure: Measure) -> str:
    """Return when there is no number by key to take the least, greatest or mean of."""
    per = measure.per
    assert per is not None
    always = {"count", "sum"}.issuperset(one.aggregate for one in per.inner) and all(
        step.op != "divide" for step in per.program
    )
    if not always:
        return f"the number is known of none of {keys_words(plan, measure)}"
    facts = (facts_words(plan, measure, one).removeprefix("its ") for one in _widest(per.inner))
    return f"none of {keys_words(plan, measure)} has any of these: {', or '.join(dict.fromkeys(facts))}"


def _widest(inner: Iterable[Inner]) -> Iterator[Inner]:
    """Yield the inner numbers that together look at all facts: of those that end earlier or later the latest."""
    found: dict[object, Inner] = {}
    for one in inner:
        endless = isinstance(one.window, TimeWindow) and one.window.length_us is None
        place = (one.selection, one.given, None if endless else one.window)
        before = found.get(place)
        if before is None or one.window.offset_us < before.window.offset_us:
            found[place] = one
    yield from found.values()
