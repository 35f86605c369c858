"""What a measure looks at, look by look: whose events, of which type and filter, in which window, to make what.

A plain measure is one look; one over keys has a look for each number by key; a window that begins with an event, and
what keeps a streak going, are looks of their own. The catalogue's inputs, the lineage and the difference of two plans
are made of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from obligor.features.delays import stored
from obligor.features.filters import comparisons, parse_predicate
from obligor.features.measures import Condition, Inner, Measure, Selection, SinceWindow, slot_of
from obligor.features.plan import Plan
from obligor.features.wording import aggregate_words, filter_words, owner_words, window_words

__all__ = ["Look", "looks"]


@dataclass(frozen=True, slots=True)
class Look:
    """One look at events; texts are in words, "" where there is nothing to say."""

    role: str  # "" of a plain look; else what it is for
    event: str  # the event type
    whose: str
    filter: str
    window: str
    made: str  # such as "sum of amount"
    by_key: str  # of a number by key: the field that holds the key
    keys: tuple[str, ...]  # the event's fields that say whose it is
    reads: tuple[str, ...]  # its other fields that are looked at, those of the filter last
    compares: tuple[str, ...]  # the application's fields that conditions compare with
    values: tuple[str, ...]  # the frozen vocabulary of what is looked at


def looks(plan: Plan, measure: Measure) -> list[Look]:
    """Return the looks of a measure: its own, then what its window begins with, then what its streak asks."""
    found = [_own(plan, measure, reader) for reader in (measure.per.inner if measure.per is not None else [measure])]
    if isinstance(measure.window, SinceWindow):
        found.append(_plain(plan, measure, measure.window.anchor, "begins the window"))
    if measure.condition is not None:
        found.append(_plain(plan, measure, measure.condition, "keeps the streak going"))
    return found


def _own(plan: Plan, measure: Measure, reader: Measure | Inner) -> Look:
    timeline = plan.timelines[measure.timeline]
    assert reader.selection is not None, "what looks at rows has a selection"
    selection = timeline.selections[reader.selection]
    slot = slot_of(timeline, reader.selection, reader.slot)
    key = slot_of(timeline, reader.selection, reader.key) if isinstance(reader, Inner) else None
    fields = timeline.fields.get(selection.event, ())
    read = [slot, key, *(fields[one.slot] for one in reader.given)]
    return Look(
        role="by key" if key is not None else "",
        event=selection.event,
        whose=owner_words(timeline, measure.via),
        filter=filter_words(plan, timeline, selection, reader.given),
        window=window_words(plan, timeline, reader.window),
        made=aggregate_words(reader, timeline, slot, "these"),
        by_key="" if key is None else key.field,
        keys=selection.by,
        reads=_read(selection, [one.field for one in read if one is not None]),
        compares=tuple(dict.fromkeys(_compared(plan, reader.given))),
        values=() if slot is None else slot.values or (),
    )


def _plain(plan: Plan, measure: Measure, place: int, role: str) -> Look:
    timeline = plan.timelines[measure.timeline]
    selection = timeline.selections[place]
    whose, filter_ = owner_words(timeline, measure.via), filter_words(plan, timeline, selection, ())
    return Look(role, selection.event, whose, filter_, "", "", "", selection.by, _read(selection, []), (), ())


def _read(selection: Selection, fields: Sequence[str]) -> tuple[str, ...]:
    """Return the fields of an event that a look reads, as they are stored."""
    filtered = [] if selection.where is None else [one.field for one in comparisons(parse_predicate(selection.where))]
    return tuple(dict.fromkeys(stored(name) for name in (*fields, *filtered)))


def _compared(plan: Plan, given: Sequence[Condition]) -> Iterator[str]:
    values = (plan.comparands[one.comparand] for one in given)
    return (value.name for value in values if value.source == "field")
