"""The event types as a log has recorded them: what a project may change of a type, and what it may not.

A log keeps the description of every version of every type that it was opened with. What rows of a version may hold and
how they are read as the next one is settled by that, for good: replays depend on it. So a project keeps the classes of
all versions that its logs know, and adds to them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import pyarrow.compute as pc

from obligor.errors import DefinitionError, Problem
from obligor.events.block import BlockReader
from obligor.events.lineage import limits
from obligor.events.positions import Cut, stretches
from obligor.events.schema import Event, Registry

__all__ = ["merge_types"]


def merge_types(stored: bytes, registry: Registry, reader: BlockReader, upto: Cut) -> bytes:
    """Return the descriptions of all types the log has seen, the registry's replacing older ones.

    DefinitionError where a version is not what was recorded of it, or where a row of the log (up to `upto`) holds a
    number that the steps of a new version would lead beyond 64 bits.
    """
    known: dict[str, Any] = json.loads(stored)
    evolved = [event for event in registry if event.event_name in known]
    problems = [problem for event in evolved for problem in _changes(event, known[event.event_name])]
    if problems:
        raise DefinitionError(problems)
    for event in evolved:
        if event.version > known[event.event_name]["version"]:
            _check_numbers(event, reader, upto)
    known |= {event.event_name: event.describe() for event in registry}
    return json.dumps(known, sort_keys=True).encode()


def _changes(event: type[Event], recorded: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield how a type's versions differ from what the log recorded of them."""
    path = f"$.{event.event_name}"
    if recorded["version"] > event.version:
        older = f"the log holds version {recorded['version']}, the project defines {event.version}"
        yield Problem(path, older)
        return
    one: Mapping[str, Any] | None = recorded
    while one is not None:
        own = event.lineage.get(one["version"])
        if own is None:
            keep = "keep its class and give it as previous= to the next version"
            yield Problem(path, f"the log holds version {one['version']}, which the project no longer has; {keep}")
            return
        described = json.loads(json.dumps(own.describe()))
        number = f"version {own.version}"
        if described["fields"] != one["fields"]:
            yield Problem(path, f"the fields of {number} changed; put them back and raise the version")
        before, now = _upcast(one), _upcast(described)
        if before != now:
            yield Problem(
                path, f"the upcast of {number} changed, and replays depend on it; expected {before}, got {now}"
            )
        one = one.get("previous")


def _upcast(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a description says of how the version before it is read."""
    previous = described.get("previous")
    return {"previous": previous and previous["version"], "upcast": described.get("upcast", [])}


def _check_numbers(event: type[Event], reader: BlockReader, upto: Cut) -> None:
    """Raise DefinitionError where a row of an older version cannot be read at a greater scale."""
    parts = stretches({}, upto) if any(limits(event, version) for version in event.lineage) else ()
    for _, block in chain.from_iterable(reader.blocks(*one) for one in parts):
        for part in block.parts:
            bounds = limits(event, part.version) if part.type == event.event_name else {}
            table = reader.part(block, part, list(bounds)) if bounds else None
            for name, most in bounds.items():
                assert table is not None, "there are bounds to hold"
                beyond = table.filter(pc.greater(pc.abs(table[name]), most))
                if beyond.num_rows:
                    row = beyond.to_pylist()[0]
                    where = f"the event at position {row['position']} holds {row[name]}"
                    why = f"{where}, which is beyond 64 bits at the scale of version {event.version}"
                    raise DefinitionError(Problem(f"$.{event.event_name}.{name}", why))
