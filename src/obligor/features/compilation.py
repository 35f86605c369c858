"""Compilation: a project's definitions -> a plan. All that is wrong is reported at once, by feature.

Equal selections, slots, measures and request values are shared; their order is that of first use, so that the same
definitions in the same order give the same hash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from obligor.errors import DefinitionError, LimitError, Problem, did_you_mean
from obligor.events.schema import Event, Registry
from obligor.features.definitions import Feature
from obligor.features.expressions import (
    MOMENT,
    UNIT_US,
    Age,
    Aggregated,
    Balanced,
    Binary,
    Calendar,
    Constant,
    Elapsed,
    Filled,
    Kind,
    Label,
    Node,
    Requested,
    Source,
    kind_of,
)
from obligor.features.plan import FORMAT, SELECTIONS_MAX, STACK_MAX, Coding, Plan
from obligor.features.zone import zone_offsets

__all__ = ["compile_plan"]

_Json = dict[str, Any]
_MONOTONE = {"increasing": 1, "decreasing": -1, None: 0}


def compile_plan(
    features: Mapping[str, Feature], registry: Registry, application: type[Event], zone: str = "UTC"
) -> Plan:
    """Return the plan of named features for one application type.

    `features` is `definitions(vars(module))`. Raises DefinitionError with every fault under its feature's name, and
    LimitError where one entity has more than 63 selections.

    >>> from obligor.features import Entity, Event, Money, request
    >>> class Loan(Event, application=True):
    ...     consumer = Entity()
    ...     amount = Money("NGN")
    >>> before = Loan.by("consumer").count("7d", "30d")
    >>> plan = compile_plan({"before": before, "asked": request("amount")}, Registry([Loan]), Loan)
    >>> plan.names
    ['before_7d', 'before_30d', 'asked']
    >>> compile_plan({"asked": request("amuont")}, Registry([Loan]), Loan)
    Traceback (most recent call last):
    obligor.errors.DefinitionError: $.asked: Loan has no field 'amuont'; did you mean 'amount'?
    """
    if application.event_name not in registry or registry[application.event_name] is not application:
        raise DefinitionError(f"{application.__name__} is not among the project's event types")
    if not application.application:
        raise DefinitionError(f"{application.__name__} asks for no decision; declare it with application=True")
    offsets = zone_offsets(zone)
    compiler = _Compiler(registry, application)
    problems: list[Problem] = []
    for name, definition in features.items():
        for window, node in definition.columns.items():
            try:
                compiler.add_column(name, window, node, definition)
            except DefinitionError as error:
                problem = Problem(f"$.{name}", str(error))
                problems += [] if problem in problems else [problem]
    if problems:
        raise DefinitionError(problems)
    return Plan.load(
        {
            "format": FORMAT,
            "application": application.event_name,
            "zone": zone,
            "zone_offsets": [list(entry) for entry in offsets],
            "timelines": compiler.timelines,
            "measures": compiler.measures,
            "requests": compiler.requests,
            "features": compiler.features,
        }
    )


class _Compiler:
    """Collects the parts of one plan."""

    def __init__(self, registry: Registry, application: type[Event]) -> None:
        self.registry, self.application = registry, application
        self.timelines: dict[str, _Json] = {}
        self.measures: list[_Json] = []
        self.requests: list[_Json] = []
        self.features: list[_Json] = []

    def add_column(self, name: str, window: str, node: Node, definition: Feature) -> None:
        """Add one column; DefinitionError says what is wrong with it."""
        column = f"{name}_{window}" if window else name
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,99}", column):
            raise DefinitionError(f"expected a name of at most 100 small letters, digits and _, got {column!r}")
        if any(feature["name"] == column for feature in self.features):
            raise DefinitionError(f"two features are named {column!r}")
        kind = kind_of(node, self.application)
        if kind is None or isinstance(node, Constant):
            raise DefinitionError("a feature needs something to look at, got a constant")
        if kind.unit == MOMENT:
            raise DefinitionError("a moment is no feature; use the time to as_of: as_of.since(...) or request.age(...)")
        notes = definition.notes
        program = self._program(node)
        if (depth := _stack_depth(program)) > STACK_MAX:
            raise DefinitionError(
                f"needs a stack of {depth} values, at most {STACK_MAX}; split it into several features"
            )
        self.features.append(
            {
                "name": column,
                "program": program,
                "type": kind.type,
                "unit": notes.get("unit", kind.unit),
                "reason": notes.get("reason"),
                "monotone": _MONOTONE[notes.get("monotone")],
                "description": notes.get("description", ""),
                "scored": notes.get("scored", True),
                "values": None if kind.values is None else list(kind.values),
            }
        )

    def _program(self, node: Node) -> list[list[Any]]:
        match node:
            case Constant(value):
                return [["constant", float(value)]]
            case Aggregated() | Balanced():
                steps: list[list[Any]] = [["measure", _place(self.measures, self._measure(node))]]
                timed = isinstance(node, Aggregated) and node.aggregate in ("time_since_first", "time_since_last")
                return [*steps, *_per_unit(node.kind.unit)] if timed else steps
            case Requested() | Age() | Calendar():
                return self._request(node)
            case Elapsed(moment, unit):
                now = _place(self.requests, _request_value("calendar", "as_of"))
                return [
                    ["request", now],
                    *self._program(moment),
                    ["subtract"],
                    ["constant", float(UNIT_US[unit])],
                    ["divide"],
                ]
            case Filled(inner, value):
                return [*self._program(inner), ["fill", self._number(value, inner)]]
            case Binary(op, left, Label() as label):
                return [*self._program(left), ["constant", self._number(label, left)], [op]]
            case Binary(op, left, right):
                return [*self._program(left), *self._program(right), [op]]
        raise AssertionError(f"no program for {node!r}")

    def _number(self, value: Constant | Label, beside: Node) -> float:
        if isinstance(value, Constant):
            return float(value.value)
        kind = kind_of(beside, self.application)
        assert kind is not None
        assert kind.values is not None
        return float(kind.values.index(value.text))

    def _request(self, node: Requested | Age | Calendar) -> list[list[Any]]:
        match node:
            case Calendar(part):
                return [["request", _place(self.requests, _request_value("calendar", part))]]
            case Age(name, unit):
                return [["request", _place(self.requests, _request_value("age", name))], *_per_unit(unit)]
            case Requested(name):
                kind = kind_of(node, self.application)
                assert kind is not None
                return [["request", _place(self.requests, _request_value("field", name, kind))]]

    def _measure(self, node: Aggregated | Balanced) -> _Json:
        source = node.source if isinstance(node, Aggregated) else node.terms[0].source
        timeline, via = source.by.type, self._via(source)
        if isinstance(node, Balanced):
            return _measure_json(timeline, via, "balance", node.kind, terms=self._terms(timeline, node))
        selection = self._selection(timeline, source)
        slot = None if node.field is None else self._slot(timeline, source, node.field, node.coding, node.values)
        return _measure_json(timeline, via, node.aggregate, node.kind, selection, slot, node.window_us)

    def _terms(self, timeline: str, node: Balanced) -> list[_Json]:
        return [
            {
                "selection": self._selection(timeline, term.source),
                "role": term.role,
                "key": self._slot(timeline, term.source, term.key, "hash", None),
                "amount": None if term.amount is None else self._slot(timeline, term.source, term.amount),
                "expires": None if term.expires is None else self._slot(timeline, term.source, term.expires),
                "expires_after_us": term.expires_after_us,
            }
            for term in node.terms
        ]

    def _via(self, source: Source) -> str:
        """Return the application's field with the entity whose history is read."""
        entities = {name: entity.type for name, entity in self.application.entities().items()}
        fitting = [name for name, kind in entities.items() if kind == source.by.type]
        asked = f"{source.event.__name__}.by({source.by.name!r})"
        who = self.application.__name__
        if source.via is not None:
            if source.via not in fitting:
                hint = did_you_mean(source.via, fitting)
                raise DefinitionError(f"{asked}: {who} has no {source.by.type} in a field {source.via!r}; {hint}")
            return source.via
        if not fitting:
            kinds = ", ".join(dict.fromkeys(entities.values()))
            raise DefinitionError(f"{asked}: a {who} names no {source.by.type}; the entities it names: {kinds}")
        if len(fitting) > 1:
            choice = " or ".join(f"via={name!r}" for name in fitting)
            raise DefinitionError(f"{asked}: {who} names {len(fitting)} of type {source.by.type}; choose with {choice}")
        return fitting[0]

    def _selection(self, timeline: str, source: Source) -> int:
        known = self.registry[source.event.event_name]  # raises with the nearest name
        if known is not source.event:
            raise DefinitionError(f"another event type is registered as {source.event.event_name!r}: {known!r}")
        where = None if source.where is None else source.where.to_json()
        entry = {"event": source.event.event_name, "by": source.by.name, "where": where}
        selections = self.timelines.setdefault(timeline, {"selections": [], "fields": {}})["selections"]
        place = _place(selections, entry)
        if place >= SELECTIONS_MAX:
            raise LimitError(
                f"{timeline}: more than {SELECTIONS_MAX} different selections (event type, entity and filter)"
            )
        return place

    def _slot(
        self,
        timeline: str,
        source: Source,
        field: str,
        coding: Coding = "integer",
        values: tuple[str, ...] | None = None,
    ) -> int:
        entry = {"field": field, "coding": coding, "values": None if values is None else list(values)}
        return _place(self.timelines[timeline]["fields"].setdefault(source.event.event_name, []), entry)


def _measure_json(
    timeline: str,
    via: str,
    aggregate: str,
    kind: Kind,
    selection: int | None = None,
    slot: int | None = None,
    window_us: int | None = None,
    terms: list[_Json] | None = None,
) -> _Json:
    return {
        "timeline": timeline,
        "via": via,
        "selection": selection,
        "slot": slot,
        "aggregate": aggregate,
        "window_us": window_us,
        "offset_us": 0,
        "scale": kind.scale,
        "terms": terms,
    }


def _request_value(source: str, name: str, kind: Kind | None = None) -> _Json:
    kind = kind or Kind("integer")
    values = None if kind.values is None else list(kind.values)
    return {"source": source, "name": name, "coding": kind.coding, "values": values, "scale": kind.scale}


def _per_unit(unit: str) -> list[list[Any]]:
    """Return the steps from seconds to a unit of time."""
    seconds = UNIT_US[unit] / UNIT_US["seconds"]
    return [] if seconds == 1 else [["constant", seconds], ["divide"]]


def _stack_depth(program: list[list[Any]]) -> int:
    effects = ({"measure": 1, "request": 1, "constant": 1, "fill": 0}.get(step[0], -1) for step in program)
    return max(accumulate(effects))


def _place(entries: list[_Json], entry: _Json) -> int:
    """Return the index of an entry in a list, added where it is new."""
    if entry not in entries:
        entries.append(entry)
    return entries.index(entry)
