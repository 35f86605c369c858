"""Compilation: a project's definitions -> a plan. All that is wrong is reported at once, by feature.

This module makes the features and their programs; what they share is collected by `parts`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import accumulate
from types import MappingProxyType

from obligor.errors import DefinitionError, Problem
from obligor.events.schema import Event, Registry
from obligor.features.definitions import Feature
from obligor.features.expressions import (
    Age,
    Aggregated,
    Binary,
    Calendar,
    Constant,
    Elapsed,
    Filled,
    Label,
    Node,
    OverKeys,
    Requested,
    kind_of,
)
from obligor.features.kinds import MOMENT, UNIT_US
from obligor.features.parts import Json, Parts, Steps
from obligor.features.pivot import label_in_names
from obligor.features.plan import FORMAT, FORMAT_SEQUENCES, STACK_MAX, Plan
from obligor.features.sequence import Sequence
from obligor.features.sequence_parts import sequence_json
from obligor.features.zone import zone_offsets

__all__ = ["compile_plan"]

_MONOTONE = {"increasing": 1, "decreasing": -1, None: 0}
_TIMES = ("time_since_first", "time_since_last", "mean_gap", "std_gap", "longest_gap")  # measured in seconds


def compile_plan(
    features: Mapping[str, Feature],
    registry: Registry,
    application: type[Event],
    zone: str = "UTC",
    sequences: Mapping[str, Sequence] = MappingProxyType({}),
) -> Plan:
    """Return the plan of named features, and of named sequences, for one application type.

    `features` is `definitions(vars(module))`, `sequences` is `sequences(vars(module))`. Raises DefinitionError with
    every fault under its feature's name, and LimitError where one entity has more than 63 selections, those with
    conditions on the application counted twice.

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
        for labels, node in definition.columns.items():
            try:
                compiler.add_column("_".join([name, *map(label_in_names, labels)]), node, definition)
            except DefinitionError as error:
                problem = Problem(f"$.{name}", str(error))
                problems += [] if problem in problems else [problem]
    found: list[Json] = []
    for name, sequence in sequences.items():
        try:
            _check_name(name)
            found.append(sequence_json(compiler.parts, name, sequence))
        except DefinitionError as error:
            problems.append(Problem(f"$.{name}", str(error)))
    if problems:
        raise DefinitionError(problems)
    return Plan.load(
        {
            **({"format": FORMAT_SEQUENCES, "sequences": found} if found else {"format": FORMAT}),
            "application": application.event_name,
            "zone": zone,
            "zone_offsets": [list(entry) for entry in offsets],
            "timelines": compiler.parts.timelines,
            "comparands": compiler.parts.comparands,
            "measures": compiler.parts.measures,
            "requests": compiler.parts.requests,
            "features": compiler.features,
        }
    )


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,99}", name):
        raise DefinitionError(f"expected a name of at most 100 small letters, digits and _, got {name!r}")


class _Compiler:
    """Makes the features of one plan, and collects what they share."""

    def __init__(self, registry: Registry, application: type[Event]) -> None:
        self.application = application
        self.parts = Parts(registry, application)
        self.features: list[Json] = []

    def add_column(self, column: str, node: Node, definition: Feature) -> None:
        """Add one column; DefinitionError says what is wrong with it."""
        _check_name(column)
        if any(feature["name"] == column for feature in self.features):
            raise DefinitionError(f"two features are named {column!r}")
        kind = kind_of(node, self.application)
        if kind is None or isinstance(node, Constant):
            raise DefinitionError("a feature needs something to look at, got a constant")
        if kind.unit == MOMENT:
            raise DefinitionError("a moment is no feature; use the time to as_of: as_of.since(...) or request.age(...)")
        notes = definition.notes
        self.features.append(
            {
                "name": column,
                "program": _within_stack(self._steps(node, self._leaf)),
                "type": kind.type,
                "unit": notes.get("unit", kind.unit),
                "reason": notes.get("reason"),
                "monotone": _MONOTONE[notes.get("monotone")],
                "description": notes.get("description", ""),
                "scored": notes.get("scored", True),
                "values": None if kind.values is None else list(kind.values),
            }
        )

    def _steps(self, node: Node, leaf: Callable[[Node], Steps]) -> Steps:
        """Return the program of a tree; `leaf` gives the steps of what is no operation."""
        match node:
            case Constant(value):
                return [["constant", float(value)]]
            case Filled(inner, value):
                return [*self._steps(inner, leaf), ["fill", self._number(value, inner)]]
            case Binary(op, left, Label() as label):
                return [*self._steps(left, leaf), ["constant", self._number(label, left)], [op]]
            case Binary(op, left, right):
                return [*self._steps(left, leaf), *self._steps(right, leaf), [op]]
        return leaf(node)

    def _leaf(self, node: Node) -> Steps:
        match node:
            case Aggregated():
                return [["measure", self.parts.measure(node)], *_in_its_unit(node)]
            case OverKeys(number=number):

                def program(place: Callable[[Aggregated], int]) -> Steps:
                    def inner(leaf: Node) -> Steps:
                        assert isinstance(leaf, Aggregated), "a number by key is made of aggregates alone"
                        return [["measure", place(leaf)], *_in_its_unit(leaf)]

                    return _within_stack(self._steps(number, inner))

                return [["measure", self.parts.two_level(node, program)]]
            case Calendar(part):
                return [["request", self.parts.request("calendar", part)]]
            case Age(name, unit):
                return [["request", self.parts.request("age", name)], *_per_unit(unit)]
            case Requested(name):
                return [["request", self.parts.request("field", name, kind_of(node, self.application))]]
            case Elapsed(moment, unit):
                now = ["request", self.parts.request("calendar", "as_of")]
                length: Steps = [["constant", float(UNIT_US[unit])], ["divide"]]
                return [now, *self._steps(moment, self._leaf), ["subtract"], *length]
        raise AssertionError(f"no program for {node!r}")

    def _number(self, value: Constant | Label, beside: Node) -> float:
        if isinstance(value, Constant):
            return float(value.value)
        kind = kind_of(beside, self.application)
        assert kind is not None
        assert kind.values is not None
        return float(kind.values.index(value.text))


def _in_its_unit(node: Aggregated) -> Steps:
    return _per_unit(node.kind.unit) if node.aggregate in _TIMES else []


def _per_unit(unit: str) -> Steps:
    """Return the steps from seconds to a unit of time."""
    seconds = UNIT_US[unit] / UNIT_US["seconds"]
    return [] if seconds == 1 else [["constant", seconds], ["divide"]]


def _within_stack(program: Steps) -> Steps:
    """Return a program as it is; DefinitionError where it needs too much room."""
    effects = ({"measure": 1, "request": 1, "constant": 1, "fill": 0}.get(step[0], -1) for step in program)
    depth = max(accumulate(effects))
    if depth > STACK_MAX:
        raise DefinitionError(f"needs a stack of {depth} values, at most {STACK_MAX}; split it into several features")
    return program
