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
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product

import pyarrow as pa

from obligor.errors import DefinitionError
from obligor.events.fields import Entity
from obligor.events.lineage import way, withheld
from obligor.events.reading import fact_schema, read_rows
from obligor.events.schema import Event, Registry
from obligor.events.upcast import Renamed
from obligor.features.buckets import entity_name
from obligor.features.plan import Plan

__all__ = [
    "REPLACED",
    "REVISIONS",
    "STANDARD",
    "LakeTable",
    "current_fields",
    "disclosed",
    "entered_anew",
    "lake_table",
    "no_revisions",
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


@cache
def no_revisions() -> pa.Table:
    """Return no revisions, made once: Arrow takes a tenth of a millisecond, and imports pandas for it."""
    return REVISIONS.empty_table()


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

    @cached_property
    def empty(self) -> pa.Table:
        """The table without a row, made once: Arrow takes a quarter of a millisecond."""
        return self.schema.empty_table()

    def entrances(self, event: type[Event]) -> list[tuple[str, ...]]:
        """Return the ways in which an event's entity fields make up this table's entity; none twice the same field.

        The fields are those of all versions, because plans may name either.
        """
        named = {n: field for n, field in event.readable.items() if isinstance(field, Entity)}
        fields = [[n for n, field in named.items() if field.type == entity] for entity in self.entities]
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
    """Yield the columns of an event type's facts that may leave the log, under every name that a version gave them."""
    for column in fact_schema(event):
        if not withheld(event, column.name.partition(".")[0]):
            yield column


def entered_anew(table: LakeTable, event: type[Event], held: Collection[str]) -> tuple[str, ...] | None:
    """Return fields by which rows of older versions enter a table of the columns `held` as they did not before.

    None where there are none: a new field of which older rows hold nothing, and one that is another's new name.
    """

    def known(names: Iterable[str]) -> bool:
        return all(stored_name(event, name) in held for name in names)

    for fields in table.entrances(event):
        if known(fields):
            continue
        for version, one in event.lineage.items():
            ways = [way(event, version, name) for name in fields]
            if all(name in one.fields for name in fields) or any(not w.stored and not w.turns for w in ways):
                continue  # no row of it can be in the table yet, or none enters
            renamed = all(w.stored and all(isinstance(turn.step, Renamed) for turn in w.turns) for w in ways)
            if not renamed or not known(w.origin.name for w in ways):
                return fields
    return None


def current_fields(
    rows: pa.Table, event: type[Event], version: int, names: Collection[str] | None = None
) -> Mapping[str, pa.ChunkedArray]:
    """Return an event type's disclosed columns (some, or all) of rows of the lake, by name.

    The rows have all columns that were disclosed when `version` was the type's last. What has come since is read from
    those: what a later version says of an older row it says of what that version's predecessor said of it.
    """
    wanted = [column for column in disclosed(event) if names is None or column.name in names]
    lacking = [column for column in wanted if column.name not in rows.column_names]
    read = read_rows(rows, event, version, pa.schema(lacking)) if lacking else {}
    return {c.name: read[c.name] if c.name in read else rows.column(c.name) for c in wanted}


def stored_name(event: type[Event], column: str) -> str:
    """Return the name of an event type's column in a table."""
    return f"{event.event_name}.{column}"


def plan_entities(plan: Plan) -> list[tuple[str, ...]]:
    """Return what a plan needs tables of."""
    return list(dict.fromkeys(timeline.entities for timeline in plan.timelines.values()))
