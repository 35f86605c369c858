"""From a sequence's definition to the plan's record; its selections and slots become those of its timeline."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from obligor.errors import DefinitionError, did_you_mean
from obligor.features.expressions import Source
from obligor.features.kinds import one
from obligor.features.parts import Json, Parts, hot_error, only_field
from obligor.features.sequence import Entrance, Sequence, Token, entrance
from obligor.features.sequence_spec import BUILT_IN

__all__ = ["sequence_json"]


def sequence_json(parts: Parts, name: str, definition: Sequence) -> Json:
    """Return a sequence as the plan's JSON; DefinitionError says what is wrong with it."""
    entrances, application = _entrances(parts, definition)
    _check_named(definition, entrances)
    own = entrances[application].source
    timeline = parts.timeline(own)
    if parts.timelines[timeline]["hot"]:
        raise hot_error(own, "a sequence", "take the sequence of a narrower entity")
    selections = [parts.selection(timeline, one.source) for one in entrances]
    if len(set(selections)) < len(selections):
        raise DefinitionError("Sequence.by: two of its streams are the same")
    return {
        "name": name,
        "timeline": timeline,
        "via": list(own.via or ()),
        "selections": selections,
        "application": selections[application],
        "fields": _fields(parts, definition, timeline, dict(zip(selections, entrances, strict=True))),
        "limit": definition.limit,
    }


def _entrances(parts: Parts, definition: Sequence) -> tuple[list[Entrance], int]:
    """Return a sequence's facts, the application's own among them, and the place of these."""
    application, entities = parts.application, parts.application.entities()
    asked = f"Sequence.by({' x '.join(definition.entities)!r}, ...)"
    kinds = [entity.type for entity in entities.values()]
    via = []
    for kind, through in zip(definition.entities, definition.via or [None] * len(definition.entities), strict=True):
        fitting = [name for name, entity in entities.items() if entity.type == kind]
        via.append(only_field(fitting, through, kind, asked, application.__name__, kinds))
    own = Source(application, tuple(entities[name] for name in via), tuple(via))
    entrances = list(definition.entrances)
    for place, known in enumerate(entrances):
        if known.source.event is application and [field.name for field in known.source.by] == via:
            if known.source.where is not None:
                raise DefinitionError(f"{application.__name__} asks the question: it enters without a filter")
            entrances[place] = Entrance(own, known.tokens)
            return entrances, place
    return [*entrances, entrance(own)], len(entrances)


def _check_named(definition: Sequence, entrances: Iterable[Entrance]) -> None:
    """Raise DefinitionError where a field is said to be shared or slow that no event has."""
    columns = list(dict.fromkeys(token.column for entering in entrances for token in entering.tokens))
    for option, names in (("shared", definition.shared), ("slow", definition.slow or ())):
        for unknown in sorted(set(names) - set(columns)):
            raise DefinitionError(f"{option}: no event here has a field {unknown!r}; {did_you_mean(unknown, columns)}")
    for name in sorted(definition.shared & set(BUILT_IN)):
        raise DefinitionError(f"shared: every sequence has a field {name!r} of its own; this one cannot be shared")


def _fields(parts: Parts, definition: Sequence, timeline: str, entrances: dict[int, Entrance]) -> list[Json]:
    fields: dict[str, Json] = {}
    first: dict[str, Token] = {}
    for selection, entering in entrances.items():
        for token in entering.tokens:
            shared = token.column in definition.shared
            name = token.column if shared else f"{entering.source.event.event_name}.{token.column}"
            known = first.setdefault(name, token)
            if (known.kind, known.unit) != (token.kind, token.unit):
                raise DefinitionError(
                    f"shared: {token.column} is {_spoken(known)} here and {_spoken(token)} there; these are two fields"
                )
            slow = token.entity if definition.slow is None else token.column in definition.slow
            field = fields.setdefault(name, {"name": name, "kind": token.kind, "slow": False, "sources": []})
            field["slow"] |= slow
            alike = {one.values for one in _of_name(entrances.values(), token.column)}
            # Values that are declared differently by two types are told apart by their text alone.
            by_text = shared and len(alike) > 1 and token.kind == "category" and token.coding != "integer"
            coding, values = ("hash", None) if by_text else (token.coding, token.values)
            slot = parts.slot(timeline, entering.source, token.column, coding, values)
            field["sources"].append({"selection": selection, "slot": slot, "scale": token.scale})
    return list(fields.values())


def _of_name(entrances: Iterable[Entrance], column: str) -> Iterable[Token]:
    tokens = chain.from_iterable(entering.tokens for entering in entrances)
    return (token for token in tokens if token.column == column)


def _spoken(token: Token) -> str:
    return one(token.kind) + (f" in {token.unit}" if token.unit else "")
