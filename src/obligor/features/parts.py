"""Parts of a plan: what its features share, each once, in order of first use.

Equal selections, slots, conditions, comparands, measures and request values are one entry; the same definitions in the
same order therefore give the same plan. The limits of a timeline are held here, and what its being hot rules out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from obligor.errors import DefinitionError, LimitError, did_you_mean
from obligor.events.fields import Category
from obligor.events.predicates import Relation
from obligor.events.schema import Event, Registry
from obligor.features.conditions import OfApplication, coding_of, fit_application
from obligor.features.expressions import Aggregated, OverKeys, Since, Source, leaves
from obligor.features.kinds import Kind
from obligor.features.measures import (
    DENSE_VALUES_MAX,
    Aggregate,
    Coding,
    Measure,
    Timeline,
    class_of,
    is_dense,
    slot_of,
)
from obligor.features.plan import SELECTIONS_MAX
from obligor.features.windows import LIFETIME

__all__ = ["Json", "Parts", "Steps", "hot_error", "only_field"]

Json = dict[str, Any]
Steps = list[list[Any]]
_SKETCHES: dict[Aggregate, Aggregate] = {"distinct": "distinct_sketch", "quantile": "quantile_sketch"}


class Parts:
    """The timelines, comparands, measures and request values of one plan, as JSON."""

    def __init__(self, registry: Registry, application: type[Event]) -> None:
        self.registry, self.application = registry, application
        self.timelines: dict[str, Json] = {}
        self.comparands: list[Json] = []
        self.measures: list[Json] = []
        self.requests: list[Json] = []
        self._hot = {one.type for event in registry for one in event.entities().values() if one.hot}
        self._conditioned: dict[str, list[Json]] = {}  # by timeline: selections with conditions

    def request(self, source: str, name: str, kind: Kind | None = None) -> int:
        """Return the place of a request value."""
        return _place(self.requests, _value(source, name, kind or Kind("integer")))

    def measure(self, node: Aggregated) -> int:
        """Return the place of a measure."""
        source = node.source
        via, name, selection, given, slot = self._reading(node)
        window, condition = node.window, node.condition
        measure = {
            "timeline": name,
            "via": via,
            "aggregate": node.aggregate,
            "selection": selection,
            "given": given,
            "slot": slot,
            "window": (
                {"kind": "since", "anchor": self.selection(name, window.anchor)}
                if isinstance(window, Since)
                else msgspec.to_builtins(window)
            ),
            "scale": node.kind.scale,
            "condition": None if condition is None else self.selection(name, condition),
            "parameters": list(node.parameters),
            "per": None,
        }
        if self.timelines[name]["hot"]:
            self._keep_hot(measure, node, source)
        return _place(self.measures, measure)

    def two_level(self, node: OverKeys, program: Callable[[Callable[[Aggregated], int]], Steps]) -> int:
        """Return the place of a measure over keys; `program` makes its steps with a function that places inner ones."""
        source = next(leaves(node)).source
        name = self.timeline(source)
        if self.timelines[name]["hot"]:
            raise hot_error(
                source, "a number for each key", "aggregate the events themselves, or take a narrower entity"
            )
        inner: list[Json] = []
        steps = program(lambda leaf: _place(inner, self._inner(leaf)))
        measure = {
            "timeline": name,
            "via": self._via(source),
            "aggregate": node.aggregate,
            "selection": None,
            "given": [],
            "slot": None,
            "window": msgspec.to_builtins(LIFETIME),
            "scale": 0,
            "condition": None,
            "parameters": [],
            "per": {"inner": inner, "program": steps},
        }
        return _place(self.measures, measure)

    def _inner(self, node: Aggregated) -> Json:
        assert node.key is not None, "a leaf of a number by key has a key"
        _, name, selection, given, slot = self._reading(node)
        return {
            "selection": selection,
            "given": given,
            "key": self.slot(name, node.source, node.key, "hash"),
            "slot": slot,
            "aggregate": node.aggregate,
            "window": msgspec.to_builtins(node.window),
            "scale": node.kind.scale,
        }

    def _reading(self, node: Aggregated) -> tuple[list[str], str, int, list[Json], int | None]:
        """Return what a measure reads: via, timeline, selection, conditions, slot."""
        source, via = node.source, self._via(node.source)
        name = self.timeline(source)
        selection = self.selection(name, source)
        given = self._given(name, source, selection)
        slot = None if node.field is None else self.slot(name, source, node.field, node.coding, node.values)
        return via, name, selection, given, slot

    def timeline(self, source: Source) -> str:
        """Return the name of the timeline that facts are rows of."""
        name = source.whose
        entities = list(source.entities)
        entry = {"entities": entities, "hot": set(entities) <= self._hot, "selections": [], "fields": {}}
        if self.timelines.setdefault(name, entry)["entities"] != entities:
            raise DefinitionError(f"an entity type is named {name!r} like several entities taken together; rename it")
        return name

    def _via(self, source: Source) -> list[str]:
        """Return the application's fields with the entities whose history is read."""
        asked = f"{source.event.__name__}.by({', '.join(repr(one.name) for one in source.by)})"
        who, entities = self.application.__name__, self.application.entities()
        kinds = [one.type for one in source.by]
        twice = next((kind for kind in kinds if kinds.count(kind) > 1), None)
        if source.via is None and twice is not None:
            raise DefinitionError(f"{asked}: several of type {twice}; say which of {who}'s is which with via=[...]")
        found = []
        for kind, via in zip(kinds, source.via or [None] * len(kinds), strict=True):
            fitting = [name for name, entity in entities.items() if entity.type == kind]
            found.append(only_field(fitting, via, kind, asked, who, [entity.type for entity in entities.values()]))
        return found

    def selection(self, timeline: str, source: Source) -> int:
        """Return the place of a selection."""
        known = self.registry[source.event.event_name]  # raises with the nearest name
        if known is not source.event:
            raise DefinitionError(f"another event type is registered as {source.event.event_name!r}: {known!r}")
        where = None if source.where is None else source.where.to_json()
        entry = {"event": source.event.event_name, "by": [one.name for one in source.by], "where": where}
        place = _place(self.timelines[timeline]["selections"], entry)
        self._check_selections(timeline)
        return place

    def _given(self, timeline: str, source: Source, selection: int) -> list[Json]:
        """Return a source's conditions on the question."""
        conditions: list[Json] = []
        for relation in source.given:
            fit_application(source, relation, self.application)
            coding = coding_of(source, relation)
            slot = self.slot(timeline, source, relation.field, coding)
            comparand = _place(self.comparands, _comparand(relation, coding))
            _place(conditions, {"slot": slot, "op": relation.op, "comparand": comparand})
        conditions.sort(key=lambda one: (one["slot"], one["op"], one["comparand"]))
        if conditions:
            pairs = self._conditioned.setdefault(timeline, [])
            _place(pairs, {"selection": selection, "given": conditions})
            self._check_selections(timeline)
        return conditions

    def _check_selections(self, timeline: str) -> None:
        plain, conditioned = len(self.timelines[timeline]["selections"]), len(self._conditioned.get(timeline, []))
        if plain + conditioned > SELECTIONS_MAX:
            more = f", {conditioned} of them with conditions on the application" if conditioned else ""
            raise LimitError(
                f"{timeline}: more than {SELECTIONS_MAX} different selections (event type, entity and filter{more})"
            )

    def slot(
        self, timeline: str, source: Source, field: str, coding: Coding, values: tuple[str, ...] | None = None
    ) -> int:
        """Return the place of a stored value among those of its event type."""
        entry = {"field": field, "coding": coding, "values": None if values is None else list(values)}
        return _place(self.timelines[timeline]["fields"].setdefault(source.event.event_name, []), entry)

    def _keep_hot(self, measure: Json, node: Aggregated, source: Source) -> None:
        """Give a measure of a hot entity a sketch where it needs one; DefinitionError where there is none."""
        timeline = msgspec.convert(self.timelines[measure["timeline"]], Timeline)
        slot = slot_of(timeline, measure["selection"], measure["slot"])
        if node.aggregate in _SKETCHES and not is_dense(node.aggregate, slot):
            measure["aggregate"] = _SKETCHES[node.aggregate]
        if class_of(msgspec.convert(measure, Measure), timeline) != "holistic":
            return
        if source.given:
            what, instead = "a condition on the application", "take the entities together, as in .by(['consumer', ...])"
        elif isinstance(node.window, Since):
            what, instead = "a window since an event", "take a window of time"
        else:
            what = f"{node.aggregate} of {node.field}"
            instead = f"count a category of at most {DENSE_VALUES_MAX} values, or take distinct or a quantile"
            if isinstance(source.event.fields.get(node.field or ""), Category):
                instead = f"give it at most {DENSE_VALUES_MAX} values: in its Category(...), or here with values="
        raise hot_error(source, what, instead)


def hot_error(source: Source, what: str, instead: str) -> DefinitionError:
    """Return the error of what an entity with very many events cannot have."""
    return DefinitionError(
        f"{source.whose} is hot, one may have very many events, and {what} would look at them all again; {instead}"
    )


def only_field(fitting: list[str], via: str | None, kind: str, asked: str, who: str, entities: Sequence[str]) -> str:
    """Return the one field of the application that fits, or that was chosen."""
    if via is not None:
        if via not in fitting:
            raise DefinitionError(f"{asked}: {who} has no {kind} in a field {via!r}; {did_you_mean(via, fitting)}")
        return via
    if not fitting:
        raise DefinitionError(
            f"{asked}: a {who} names no {kind}; the entities it names: {', '.join(dict.fromkeys(entities))}"
        )
    if len(fitting) > 1:
        choice = " or ".join(f"via={name!r}" for name in fitting)
        raise DefinitionError(f"{asked}: {who} names {len(fitting)} of type {kind}; choose with {choice}")
    return fitting[0]


def _comparand(relation: Relation, coding: Coding) -> Json:
    value = relation.value
    if not isinstance(value, OfApplication):
        return _value("calendar", "as_of", Kind("integer"))
    return {"source": "field", "name": value.name, "coding": coding, "values": None, "scale": 0}


def _value(source: str, name: str, kind: Kind) -> Json:
    values = None if kind.values is None else list(kind.values)
    return {"source": source, "name": name, "coding": kind.coding, "values": values, "scale": kind.scale}


def _place(entries: list[Json], entry: Json) -> int:
    """Return the index of an entry in a list, added where it is new."""
    if entry not in entries:
        entries.append(entry)
    return entries.index(entry)
