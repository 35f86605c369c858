"""The tables of a lake: one for each entity type (or several that are one together) that a plan looks at.

A row is one version of a fact, under one entity; it can be read with nothing but SQL:

    bucket              int16   where the entity lies; see `buckets`
    entity              text    its key, the parts of a composite joined by U+001F
    event               text    the name of the event type
    event_time          int64   microseconds UTC
    known               int64   from when on the lender knew this version, and all that it corrects
    position            int64   from which position of the log on it is visible
    root                int64   the position of the fact's original
    replaced_position   int64   from where and when on a version that ranks above is visible: the earliest in known;
    replaced_known      int64   null: none so far
    replaced_more       list of (position, known)   further ones, known later and visible from an earlier position on
    <event>.<field>     the fields that are neither personal nor protected; null in rows of other types

The facts that hold at an instant, all positions seen, are those with

    known <= as_of AND event_time < as_of AND (replaced_known IS NULL OR replaced_known > as_of)

Left out is a version that no view shows, because what replaces it is visible wherever it is itself: so no two rows of
one fact under one entity have the same position and known.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import pyarrow as pa

from obligor.errors import DefinitionError
from obligor.events.changes import conform, fact_schema
from obligor.events.schema import Event, Registry
from obligor.features.buckets import entity_name
from obligor.features.plan import Plan

__all__ = [
    "REPLACED",
    "REVISIONS",
    "STANDARD",
    "LakeTable",
    "current_fields",
    "disclosed",
    "entities_of",
    "lake_table",
    "plan_entities",
    "stored_name",
]

_PAIRS = pa.list_(
    pa.field(
        "element",
        pa.struct([pa.field("position", pa.int64(), nullable=False), pa.field("known", pa.int64(), nullable=False)]),
        nullable=False,
    )
)
REPLACED = ("replaced_position", "replaced_known", "replaced_more")
STANDARD = pa.schema(
    [
        pa.field("bucket", pa.int16(), nullable=False),
        pa.field("entity", pa.string(), nullable=False),
        pa.field("event", pa.string(), nullable=False),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("event_time", "known", "position", "root")),
        pa.field("replaced_position", pa.int64()),
        pa.field("replaced_known", pa.int64()),
        pa.field("replaced_more", _PAIRS),
    ]
)
# What replaces rows that lie in the table already, until they are written again.
REVISIONS = pa.schema(
    [
        pa.field("bucket", pa.int16(), nullable=False),
        pa.field("entity", pa.string(), nullable=False),
        *(
            pa.field(name, pa.int64(), nullable=False)
            for name in ("root", "position", "known", "replaced_position", "replaced_known")
        ),
    ]
)


@dataclass(frozen=True)
class LakeTable:
    """One table: whose timelines it holds, and by which fields events enter it."""

    entities: tuple[str, ...]
    events: tuple[type[Event], ...]  # those that enter

    @property
    def name(self) -> str:
        """The table's name, also that of its folder."""
        return entity_name(self.entities)

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the rows."""
        fields = [pa.field(stored_name(e, c.name), c.type) for e in self.events for c in disclosed(e)]
        return pa.schema([*STANDARD, *fields])

    def entrances(self, event: type[Event]) -> list[tuple[str, ...]]:
        """Return the ways in which an event's entity fields make up this table's entity; none twice the same field."""
        fields = [[n for n, field in event.entities().items() if field.type == entity] for entity in self.entities]
        return [one for one in product(*fields) if len(set(one)) == len(one)]


def lake_table(registry: Registry, entities: Iterable[str]) -> LakeTable:
    """Return the table of these entity types; DefinitionError where no event has them all, or they name no folder."""
    entities = tuple(entities)
    for name in entities:
        if not re.fullmatch(r"[^\W_][\w -]*", name):
            raise DefinitionError(f"expected an entity type of letters, digits, blanks, _ and -, got {name!r}")
    table = LakeTable(entities, ())
    events = tuple(event for event in registry if table.entrances(event))
    if not events:
        raise DefinitionError(f"no event type has the entity {table.name!r}")
    return LakeTable(entities, events)


def disclosed(event: type[Event]) -> Iterator[pa.Field]:
    """Yield the columns of an event type's facts that may leave the log."""
    for column in fact_schema(event):
        if not event.fields[column.name.partition(".")[0]].withheld:
            yield column


def current_fields(
    rows: pa.Table, event: type[Event], names: Collection[str] | None = None
) -> dict[str, pa.ChunkedArray]:
    """Return an event type's disclosed columns (some, or all) of rows that an older version may have written."""
    return conform(rows, pa.schema([column for column in disclosed(event) if names is None or column.name in names]))


def stored_name(event: type[Event], column: str) -> str:
    """Return the name of an event type's column in a table."""
    return f"{event.event_name}.{column}"


def entities_of(plan: Plan, timeline: str) -> tuple[str, ...]:
    """Return the entity types whose key a timeline of a plan has."""
    assert timeline in plan.timelines, "the plan has this timeline"
    return (timeline,)


def plan_entities(plan: Plan) -> list[tuple[str, ...]]:
    """Return what a plan needs tables of."""
    return list(dict.fromkeys(entities_of(plan, timeline) for timeline in plan.timelines))
