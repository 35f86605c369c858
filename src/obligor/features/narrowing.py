"""A part of a plan as a plan of its own: some of its features, and nothing that they do not need.

Measures are computed one by one, so a feature has the same bits in any plan that holds it. Whoever asks for three of
seventy features need not pay for the others, and what one of them costs alone can be measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec

from obligor.errors import NotFound, Problem, did_you_mean
from obligor.features.plan import FORMAT, Plan

__all__ = ["narrowed", "pruned", "sequence_alone", "without_sequences"]

PLANS_KEPT = 16  # parts that are asked for again and again

Json = dict[str, Any]
Places = dict[int, int]  # where something was -> where it is


def narrowed(plan: Plan, names: Sequence[str], *, timelines: Literal["pruned", "kept"] = "pruned") -> Plan:
    """Return the plan of the named features alone, in the order of the names; NotFound names every one that is not.

    With its timelines `kept` it is evaluated on those of the whole plan, and on its state.

    >>> narrowed(Plan.empty("loan_application"), []).names
    []
    """
    unknown = [name for name in names if name not in plan.names]
    if unknown:
        hints = {name: did_you_mean(name, plan.names) for name in unknown}
        raise NotFound(Problem(f"$.features.{name}", f"no such feature; {hint}") for name, hint in hints.items())
    features = plan.data["features"]
    chosen = [features[plan.names.index(name)] for name in dict.fromkeys(names)]
    return pruned(plan.data | {"features": chosen}, timelines=timelines)


@lru_cache(maxsize=PLANS_KEPT)
def without_sequences(plan: Plan) -> Plan:
    """Return the plan of all features alone; itself where it has no sequences."""
    return narrowed(plan, plan.names) if plan.sequences else plan


@lru_cache(maxsize=PLANS_KEPT)
def sequence_alone(plan: Plan, name: str) -> Plan:
    """Return the plan of one sequence and no features; NotFound for one that it does not have.

    It is the same whatever else the plan has: selections and slots stand in the order in which the sequence names them.
    """
    spec = msgspec.to_builtins(plan.sequence(name))
    timeline = plan.data["timelines"][spec["timeline"]]
    events = {place: timeline["selections"][place]["event"] for place in spec["selections"]}
    sources = [source for field in spec["fields"] for source in field["sources"]]
    slots = {
        event: _in_turn(source["slot"] for source in sources if events[source["selection"]] == event)
        for event in events.values()
    }
    selections = _in_turn(spec["selections"])

    def moved(source: Json) -> Json:
        event = events[source["selection"]]
        return source | {"selection": selections[source["selection"]], "slot": slots[event][source["slot"]]}

    own = timeline | {
        "selections": [timeline["selections"][place] for place in selections],
        "fields": {event: [timeline["fields"][event][slot] for slot in places] for event, places in slots.items()
                   if places},
    }  # fmt: skip
    sequence = spec | {
        "selections": [selections[place] for place in spec["selections"]],
        "application": selections[spec["application"]],
        "fields": [field | {"sources": [moved(one) for one in field["sources"]]} for field in spec["fields"]],
    }
    empty: Json = {key: [] for key in ("comparands", "measures", "requests", "features")}
    return Plan.load(plan.data | empty | {"timelines": {spec["timeline"]: own}, "sequences": [sequence]})


def pruned(data: Mapping[str, Any], *, timelines: Literal["pruned", "kept"] = "pruned") -> Plan:
    """Return the plan of JSON data without the measures, values and timelines that no feature of it looks at.

    A part of a plan has no sequences.
    """
    data = {name: value for name, value in data.items() if name != "sequences"} | {"format": FORMAT}
    steps = [step for feature in data["features"] for step in feature["program"]]
    measures = _places(step[1] for step in steps if step[0] == "measure")
    requests = _places(step[1] for step in steps if step[0] == "request")
    kept = [data["measures"][place] for place in measures]
    comparands = _places(one["comparand"] for measure in kept for one in _conditions(measure))
    moved = {"measure": measures, "request": requests}
    own = {
        name: _Timeline(spec, [measure for measure in kept if measure["timeline"] == name], whole=timelines == "kept")
        for name, spec in data["timelines"].items()
    }
    return Plan.load(
        {
            **data,
            "timelines": {name: one.spec for name, one in own.items() if one.selections},
            "comparands": [data["comparands"][place] for place in comparands],
            "measures": [own[measure["timeline"]].measure(measure, comparands) for measure in kept],
            "requests": [data["requests"][place] for place in requests],
            "features": [
                feature | {"program": [_step(step, moved) for step in feature["program"]]}
                for feature in data["features"]
            ],
        }
    )


def _places(used: Iterable[int]) -> Places:
    return {old: new for new, old in enumerate(sorted(set(used)))}


def _in_turn(used: Iterable[int]) -> Places:
    return {old: new for new, old in enumerate(dict.fromkeys(used))}


def _step(step: Sequence[Any], moved: Mapping[str, Places]) -> list[Any]:
    return [step[0], moved[step[0]][step[1]]] if step[0] in moved else list(step)


def _readers(measure: Json) -> list[Json]:
    """Return what of a measure looks at rows: itself, or its inner ones."""
    return [measure] if measure["per"] is None else measure["per"]["inner"]


def _conditions(measure: Json) -> Iterator[Json]:
    return (one for reader in _readers(measure) for one in reader["given"])


class _Timeline:
    """One timeline of some measures: what of it is left, and where its selections and slots are now."""

    def __init__(self, spec: Json, measures: Sequence[Json], *, whole: bool) -> None:
        self._events = [selection["event"] for selection in spec["selections"]]
        if whole:
            self.selections = _places(range(len(self._events)))
            self._moved = {event: _places(range(len(own))) for event, own in spec["fields"].items()}
            self._moved |= {event: {} for event in self._events if event not in spec["fields"]}
            self.spec = spec
            return
        used = (place for measure in measures for place in _selections(measure))
        self.selections = _places(place for place in used if place is not None)
        slots = [(event, slot) for measure in measures for event, slot in self._slots(measure)]
        events = dict.fromkeys(self._events[place] for place in self.selections)
        self._moved = {event: _places(slot for own, slot in slots if own == event) for event in events}
        fields = {event: [spec["fields"][event][slot] for slot in places] for event, places in self._moved.items()}
        self.spec = spec | {
            "selections": [spec["selections"][place] for place in self.selections],
            "fields": {event: own for event, own in fields.items() if event in spec["fields"]},
        }

    def _slots(self, measure: Json) -> Iterator[tuple[str, int]]:
        for reader in _readers(measure):
            event = self._events[reader["selection"]]
            looked_at = (reader["slot"], reader.get("key"), *(one["slot"] for one in reader["given"]))
            yield from ((event, slot) for slot in looked_at if slot is not None)

    def measure(self, measure: Json, comparands: Places) -> Json:
        """Return a measure with the places as they are now."""
        changed = self._reader(measure, comparands) if measure["per"] is None else dict(measure)
        changed["condition"] = self._selection(measure["condition"])
        if "anchor" in measure["window"]:
            changed["window"] = measure["window"] | {"anchor": self._selection(measure["window"]["anchor"])}
        if measure["per"] is not None:
            inner = [self._reader(one, comparands) for one in measure["per"]["inner"]]
            changed["per"] = measure["per"] | {"inner": inner}
        return changed

    def _reader(self, reader: Json, comparands: Places) -> Json:
        slots = self._moved[self._events[reader["selection"]]]
        given = [
            one | {"slot": slots[one["slot"]], "comparand": comparands[one["comparand"]]} for one in reader["given"]
        ]
        moved = {name: slots[reader[name]] for name in ("slot", "key") if reader.get(name) is not None}
        return reader | moved | {"selection": self._selection(reader["selection"]), "given": given}

    def _selection(self, place: int | None) -> int | None:
        return None if place is None else self.selections[place]


def _selections(measure: Json) -> Iterator[int | None]:
    yield measure["condition"]
    yield measure["window"].get("anchor")
    yield from (reader["selection"] for reader in _readers(measure))
