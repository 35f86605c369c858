"""Sequences of a plan in words, as the catalogue has features."""

from __future__ import annotations

from dataclasses import dataclass

from obligor.features.plan import Plan
from obligor.features.sequence_spec import SequenceField, SequenceSpec
from obligor.features.wording import filter_words, owner_words

__all__ = ["SequenceEntry", "sequence_entries"]

_KINDS = {"category": "a category", "number": "a number", "magnitude": "a number, by sign and magnitude"}


@dataclass(frozen=True)
class SequenceEntry:
    """One sequence; texts."""

    name: str
    whose: str
    events: tuple[str, ...]  # what enters, the application's own type among them
    limit: str
    fields: tuple[tuple[str, str, str], ...]  # name, what it is, and where it comes from
    built_in: str


def sequence_entries(plan: Plan) -> list[SequenceEntry]:
    """Return an entry for each sequence, in the plan's order.

    >>> from obligor.features import Entity, Event, Money, Sequence, compile_plan
    >>> from obligor.events.schema import Registry
    >>> class Loan(Event, application=True):
    ...     consumer = Entity()
    ...     amount = Money("NGN")
    >>> history = Sequence.by("consumer", [Loan])
    >>> [entry] = sequence_entries(compile_plan({}, Registry([Loan]), Loan, sequences={"history": history}))
    >>> entry.whose, entry.events, entry.fields[0][1]
    ('the consumer', ('loan, the application itself last',), 'a number, by sign and magnitude')
    """
    return [_entry(plan, spec) for spec in plan.sequences]


def _entry(plan: Plan, spec: SequenceSpec) -> SequenceEntry:
    timeline = plan.timelines[spec.timeline]
    return SequenceEntry(
        name=spec.name,
        whose=owner_words(timeline, spec.via),
        events=tuple(_event(plan, spec, place) for place in spec.selections),
        limit="all of them" if spec.limit is None else f"the newest {spec.limit:,}",
        fields=tuple((field.name, _kind(field), _origin(plan, spec, field)) for field in spec.fields),
        built_in="type, time since the event before, hour, weekday and day of the month",
    )


def _event(plan: Plan, spec: SequenceSpec, place: int) -> str:
    timeline = plan.timelines[spec.timeline]
    selection = timeline.selections[place]
    where = filter_words(plan, timeline, selection, ())
    several = sum(timeline.selections[one].event == selection.event for one in spec.selections) > 1
    words = selection.event + (f" by {' and '.join(selection.by)}" if several else "")
    words += f" where {where}" if where else ""
    return words + (", the application itself last" if place == spec.application else "")


def _kind(field: SequenceField) -> str:
    return _KINDS[field.kind] + (", kept out of contrastive objectives" if field.slow else "")


def _origin(plan: Plan, spec: SequenceSpec, field: SequenceField) -> str:
    timeline = plan.timelines[spec.timeline]
    events = ((timeline.selections[source.selection].event, source.slot) for source in field.sources)
    return ", ".join(dict.fromkeys(f"{event}.{timeline.fields[event][slot].field}" for event, slot in events))
