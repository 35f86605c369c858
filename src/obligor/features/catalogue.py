"""The catalogue: every feature of a plan in words, for people who do not read code.

It is derived from the plan alone, so a bundle from last year explains itself, and the words can say nothing that the
kernels do not compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from obligor.features.infix import Piece, program_words
from obligor.features.looks import looks
from obligor.features.measures import Measure, Step, class_of
from obligor.features.plan import FeatureSpec, Plan
from obligor.features.wording import length_words, measure_piece, request_piece, window_words

__all__ = ["Entry", "catalogue", "length_words"]

_MONOTONE = {1: "risk rises with it", -1: "risk falls with it", 0: ""}
_ABOUT = {
    "distinct_sketch": "about, standard error 2.3%",
    "quantile_sketch": "about, within 1.6%",
}


@dataclass(frozen=True)
class Entry:
    """One row of the catalogue; texts, and '' where there is nothing to say."""

    name: str
    description: str  # what its author wrote
    definition: str  # what is computed, in words
    type: str
    unit: str
    windows: tuple[str, ...]
    entities: tuple[str, ...]  # whose history, by entity type; of several together `consumer with merchant`
    reason: str
    monotone: str
    inputs: tuple[str, ...]  # `event_type.field` and `event_type`, all that it reads
    scored: bool
    exactness: str  # exact, or how far a sketch may be off
    classes: tuple[str, ...]  # how its measures are kept so: group, tiled, decay, holistic, sketch


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
    return Entry(
        name=feature.name,
        description=feature.description,
        definition=program_words(feature.program, lambda step: _operand(plan, step)).text,
        type=feature.type,
        unit=feature.unit,
        windows=_unique(words for measure in measures for words in _windows(plan, measure)),
        entities=_unique(" with ".join(plan.timelines[measure.timeline].entities) for measure in measures),
        reason=feature.reason or "",
        monotone=_MONOTONE[feature.monotone],
        inputs=_unique(inputs),
        scored=feature.scored,
        exactness="; ".join(_unique(_ABOUT[m.aggregate] for m in measures if m.aggregate in _ABOUT)) or "exact",
        classes=_unique(class_of(measure, plan.timelines[measure.timeline]) for measure in measures),
    )


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _operand(plan: Plan, step: Step) -> Piece:
    place = int(step.value or 0)
    if step.op == "request":
        return request_piece(plan, plan.requests[place])
    return measure_piece(plan, plan.measures[place])


def _windows(plan: Plan, measure: Measure) -> list[str]:
    timeline = plan.timelines[measure.timeline]
    windows = [measure.window] if measure.per is None else [inner.window for inner in measure.per.inner]
    return [window_words(plan, timeline, window) for window in windows]


def _inputs(plan: Plan, measure: Measure) -> Iterator[str]:
    """Yield what a measure reads: event types, their fields, those of their filters, and the application's."""
    for look in looks(plan, measure):
        yield look.event
        yield from (f"{look.event}.{name}" for name in look.reads)
        yield from (f"{plan.application}.{name}" for name in look.compares)
