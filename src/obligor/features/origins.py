"""Where a feature comes from, as a tree of words: from event types and fields, in all their versions, to the feature.

The plan says what is looked at; the event classes say what that is, which versions of it there are and how rows of
older ones are read. So whoever asks what a number is made of gets to the records, without reading code.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from obligor.events.fields import Boolean, Category, Decimal, Entity, Field, Integer, Money
from obligor.events.lineage import Turn, way
from obligor.events.schema import Event, Registry
from obligor.events.upcast import Default, Denominated, Filled, Mapped, Scaled
from obligor.features.looks import Look, looks
from obligor.features.measures import class_of
from obligor.features.plan import FeatureSpec, Plan
from obligor.features.wording import measure_piece, request_piece

__all__ = ["CLASSES", "Branch", "event_doc", "origins"]

CLASSES = {  # how numbers are kept exact, by exactness class; `plan.py` has them in full
    "group": "sums that are added to and taken back from, exact",
    "tiled": "a tree of tiles over the events, exact",
    "decay": "a sum for each step of age, weighted when asked, exact",
    "holistic": "the events themselves are looked at again, exact; a decision that meets more than 4,096 values or "
    "keys, or 16,384 values of a quantile, is referred",
    "sketch": "a sketch of fixed size, approximate",
}
VALUES_SHOWN = 6  # of a category


@dataclass(frozen=True, slots=True)
class Branch:
    """Something, and what it is made of."""

    text: str
    branches: tuple[Branch, ...] = ()


def origins(plan: Plan, registry: Registry, feature: FeatureSpec) -> tuple[Branch, ...]:
    """Return what a feature is made of, in the order of its program: measures, and values of the application."""
    application = registry[plan.application]
    found: dict[str, Branch] = {}
    for step in feature.program:
        place = int(step.value or 0)
        if step.op == "measure":
            measure = plan.measures[place]
            kept = class_of(measure, plan.timelines[measure.timeline])
            text = measure_piece(plan, measure).text
            seen = (_look(registry, application, look) for look in looks(plan, measure))
            found[text] = Branch(text, (*seen, Branch(f"kept as {kept}: {CLASSES[kept]}")))
        elif step.op == "request":
            value = plan.requests[place]
            text = request_piece(plan, value).text
            read = () if value.source == "calendar" else (_field(application, value.name),)
            found[text] = Branch(text, read)
    return tuple(found.values())


def _look(registry: Registry, application: type[Event], look: Look) -> Branch:
    if look.event not in registry:
        return Branch(f"{look.event} events: no event class of events.py is named so")
    event = registry[look.event]
    versions = f" (versions {_listed(event.lineage)})" if len(event.lineage) > 1 else ""
    doc = event_doc(event)
    role = f"{look.role}: " if look.role and look.role != "by key" else ""
    said = [
        f"whose: {look.whose}, as the event's {' and '.join(look.keys)}",
        f"only where {look.filter}" if look.filter else "",
        f"for each {look.by_key}" if look.by_key else "",
        f"window: {look.window}" if look.window else "",
        f"taken: {look.made}" if look.made else "",
        f"known values: {_values(look.values)}" if look.values else "",
    ]
    fields = [_field(event, name) for name in look.reads]
    compared = [Branch("compared with the application's", (_field(application, name),)) for name in look.compares]
    branches = (*(Branch(one) for one in said if one), *fields, *compared)
    return Branch(f"{role}{look.event} events{versions}{f': {doc}' if doc else ''}", branches)


def event_doc(event: type[Event]) -> str:
    """Return the first sentence that the lender wrote of an event type."""
    lines = (inspect.cleandoc(event.__doc__) if event.__doc__ else "").split("\n\n")[0]
    return " ".join(lines.split()).rstrip(".")


def _field(event: type[Event], name: str) -> Branch:
    """Return a field with its kind, what its author says of it, and how versions that lack it are read."""
    field = event.readable.get(name)
    if field is None:
        return Branch(f"{event.event_name}.{name}: no version of events.py has it")
    doc = f": {field.doc}" if field.doc else ""
    return Branch(f"{event.event_name}.{name}, {_kind(field)}{doc}", tuple(map(Branch, _history(event, name))))


def _kind(field: Field) -> str:
    optional = ", may be absent" if field.optional else ""
    match field:
        case Money():
            return f"money in minor units of {' or '.join(field.currencies)}{optional}"
        case Decimal():
            return f"a decimal of {field.scale} places{optional}"
        case Category():
            return f"one of {_values(field.values)}{optional}" if field.values else f"any category{optional}"
        case Entity():
            return f"the key of {'an' if field.type[0] in 'aeiou' else 'a'} {field.type}{optional}"
        case Integer():
            bounds = (("from", field.minimum), ("to", field.maximum))
            return f"a whole number{''.join(f' {word} {one:,}' for word, one in bounds if one is not None)}{optional}"
        case Boolean():
            return f"yes or no{optional}"
    return f"a {field.kind}{optional}"


def _values(values: Sequence[str]) -> str:
    more = f" and {len(values) - VALUES_SHOWN} more" if len(values) > VALUES_SHOWN else ""
    return ", ".join(values[:VALUES_SHOWN]) + more


def _history(event: type[Event], name: str) -> Iterator[str]:
    """Yield, for versions that have no such field, how their rows answer to its name."""
    for number in event.lineage:
        path = way(event, number, name)
        if path.turns:
            steps = [f"{path.origin.name}"] if path.stored else []
            yield f"in version {number}: {', '.join([*steps, *map(_turn, path.turns)])}"
        elif not path.stored:
            yield f"in version {number}: not there, so unknown"


def _turn(turn: Turn) -> str:
    step = turn.step
    if turn.back:
        return f"read back from {step.target}"
    match step:
        case Default():
            return f"{step.value!r} for every row"
        case Filled():
            return f"renamed to {step.target}, {step.value!r} where absent"
        case Mapped():
            words = ", ".join(f"{old} read as {new}" for old, new in step.values.items())
            return f"renamed to {step.target}, {words}"
        case Scaled():
            return f"renamed to {step.target}, with more places"
        case Denominated():
            return f"renamed to {step.target}, as {step.currency}"
    return f"renamed to {step.target}"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
