"""Erasure: the personal fields of everything that names an entity are deleted, and nothing else changes.

They lie sealed beside the log, which holds only keyed commitments to them: hashes and chains stay intact, and no replay
needs them. What was erased cannot be brought back, not even with the log's key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from obligor.errors import BadInput, DefinitionError, did_you_mean
from obligor.events.fields import Entity
from obligor.events.log import EventLog
from obligor.events.positions import stretches
from obligor.events.reading import fact_schema, read_rows, stored_columns
from obligor.events.schema import Event

__all__ = ["Erasure", "erase"]


@dataclass(frozen=True)
class Erasure:
    """What an erasure found: events that name the entity, and those of them whose personal fields it deleted."""

    events: int
    erased: int


def erase(log: EventLog, entity: str, key: str) -> Erasure:
    """Delete the sealed personal fields of all events that name the `entity` with this key; safe to run again.

    The log is open for writing, and no transaction is. DefinitionError for an entity that no event type has.
    """
    if log.read_only:
        raise BadInput("this log is open for reading only")
    named = {event: {n: f for n, f in event.readable.items() if isinstance(f, Entity)} for event in log.registry}
    fields = {event: [n for n, one in own.items() if one.type == entity] for event, own in named.items()}
    if not any(fields.values()):
        known = sorted({one.type for own in named.values() for one in own.values()})
        raise DefinitionError(f"no event type has the entity {entity!r}; {did_you_mean(entity, known)}")
    positions = [position for event, names in fields.items() if names for position in _naming(log, event, names, key)]
    return Erasure(len(positions), log.store.erase(positions))


def _naming(log: EventLog, event: type[Event], names: list[str], key: str) -> Iterator[int]:
    """Yield the positions of a type's events, corrections included, that have the key in one of these fields."""
    schema = pa.schema([fact_schema(event).field(name) for name in names])
    for _, block in chain.from_iterable(log.reader.blocks(*one) for one in stretches({}, log.ends())):
        for part in block.parts:
            if part.type == event.event_name:
                table = log.reader.part(block, part, stored_columns(event, part.version, names))
                columns = read_rows(table, event, part.version, schema).values()
                named = [pc.fill_null(pc.equal(column, key), False) for column in columns]
                for column in named[1:]:
                    named[0] = pc.or_(named[0], column)
                yield from table.column("position").filter(named[0]).to_pylist()
