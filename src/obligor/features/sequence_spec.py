"""Sequences as a plan holds them: which rows of a timeline a sequence model reads, and which of their values.

Records of the plan's format, like those of `measures.py`; `plan.py` says what each means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

from obligor.features.measures import Record, Timeline

__all__ = ["BUILT_IN", "SequenceField", "SequenceKind", "SequenceSource", "SequenceSpec", "sequence_faults"]

SequenceKind: TypeAlias = Literal["category", "number", "magnitude"]
BUILT_IN = ("type", "gap", "hour", "weekday", "day_of_month")  # the fields that every sequence has


class SequenceSource(Record, frozen=True):
    """Where a field's values lie in the rows of one selection of the timeline."""

    selection: int
    slot: int
    scale: int  # a number is the slot's value divided by 10^scale


class SequenceField(Record, frozen=True):
    """One value of each event; it is absent of selections that are no source."""

    name: str
    kind: SequenceKind
    slow: bool  # says who it is rather than what happens: kept out of contrastive objectives
    sources: tuple[SequenceSource, ...]  # at most one of each selection


class SequenceSpec(Record, frozen=True):
    """The rows of a timeline in order of time, the application itself last."""

    name: str
    timeline: str
    via: tuple[str, ...]  # the application's fields that hold the entity
    selections: tuple[int, ...]  # of the timeline; a row's type is the first of these that it is in
    application: int  # the selection of the application's own type, one of them
    fields: tuple[SequenceField, ...]
    limit: int | None  # how many of the newest rows count; null: all


def sequence_faults(
    spec: SequenceSpec, timelines: Mapping[str, Timeline], application: str
) -> Iterator[tuple[str, str]]:
    """Yield the path and the message of everything in a sequence that points nowhere."""
    timeline = timelines.get(spec.timeline)
    if timeline is None:
        yield ".timeline", f"no timeline {spec.timeline!r}"
        return
    if len(spec.via) != len(timeline.entities):
        yield ".via", f"expected {len(timeline.entities)} fields, got {list(spec.via)}"
    known = range(len(timeline.selections))
    if len(set(spec.selections)) < len(spec.selections) or not set(spec.selections) <= set(known):
        yield ".selections", f"expected different ones of 0 to {len(known) - 1}, got {list(spec.selections)}"
        return
    if spec.application not in spec.selections or timeline.selections[spec.application].event != application:
        yield ".application", f"expected a selection of {application!r} among its own, got {spec.application}"
    if spec.limit is not None and spec.limit < 1:
        yield ".limit", f"expected at least one row, got {spec.limit}"
    names = [*BUILT_IN, *(field.name for field in spec.fields)]
    yield from ((".fields", f"two fields are named {name!r}") for name in {n for n in names if names.count(n) > 1})
    for i, field in enumerate(spec.fields):
        if len({source.selection for source in field.sources}) < max(1, len(field.sources)):
            yield f".fields[{i}].sources", "expected one or more, of different selections"
        for source in field.sources:
            fault = _source_fault(spec, field, source, timeline)
            if fault:
                yield f".fields[{i}].sources", fault


def _source_fault(spec: SequenceSpec, field: SequenceField, source: SequenceSource, timeline: Timeline) -> str | None:
    if source.selection not in spec.selections:
        return f"selection {source.selection} is none of the sequence's"
    slots = timeline.fields.get(timeline.selections[source.selection].event, ())
    if not 0 <= source.slot < len(slots):
        return f"no slot {source.slot}"
    if field.kind != "category" and slots[source.slot].coding != "integer":
        return f"slot {source.slot} holds no number"
    return None if source.scale >= 0 else f"expected a scale of 0 or more, got {source.scale}"
