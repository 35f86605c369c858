"""Why a feature is missing: the reason of each null, found with the same kernels that left it null.

A null has one cause, the first in the order of the feature's program: a measure that had nothing to look at, a field of
the application that is absent, or arithmetic without a result. To find it every part of the program is asked for as a
feature of its own, and how many events there ever were beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.features.measures import Measure, SinceWindow, Step
from obligor.features.narrowing import pruned
from obligor.features.plan import Plan

__all__ = ["REASONS", "operands", "why_missing"]

REASONS = (
    "",  # it is known
    "entity not named",  # the question leaves the entity's key out
    "no such event",  # the entity has none, ever
    "none in the window",  # it has, but none, or too few, where the feature looks
    "window not begun",  # nothing that the window begins with has happened
    "not given",  # the application's field is absent
    "undefined",  # arithmetic without a result, such as a division by zero
    "limit crossed",  # the row holds more than can be computed exactly; a decision on it would be referred
)
_KNOWN, _NOT_NAMED, _NEVER, _NOT_NOW, _NOT_BEGUN, _NOT_GIVEN, _UNDEFINED, _LIMIT = range(len(REASONS))

Floats = NDArray[np.float64]
Codes = NDArray[np.int8]
Program = tuple[Step, ...]
Ask = Callable[[Plan, NDArray[np.int64]], Floats]  # the features that another plan has in some of the rows


def why_missing(plan: Plan, features: Floats, crossed: Sequence[int], ask: Ask) -> dict[str, pa.Array]:
    """Return, for each feature, why it is null in each row, as texts of `REASONS`, null where it is known.

    `features` are (n, features), null throughout in the rows `crossed`, which crossed a limit. The parts of a program
    that has a result have one too, so that `ask` is never asked for what cannot be computed.
    """
    limited = np.zeros(len(features), np.bool_)
    limited[list(crossed)] = True
    null = np.isnan(features)
    rows = np.flatnonzero(null.any(axis=1) & ~limited)
    codes = np.zeros(features.shape, np.int8)
    places = np.flatnonzero(null[rows].any(axis=0))
    if len(places):
        parts = _Parts(plan, [plan.features[place].program for place in places])
        values = parts.values(ask(parts.plan, rows))
        for place, feature in ((place, plan.features[place]) for place in places):
            codes[rows, place] = values.reasons(feature.program)
    codes[limited] = _LIMIT
    assert ((codes != _KNOWN) == null).all(), "a null without a reason, or a reason without a null"
    names = pa.array(REASONS)
    return {
        name: pa.DictionaryArray.from_arrays(pa.array(codes[:, i], mask=codes[:, i] == _KNOWN), names).cast(pa.string())
        for i, name in enumerate(plan.names)
    }


def operands(program: Program) -> list[Program]:
    """Return the programs of a step's operands: the parts of `program` that its last step takes from the stack."""
    begins: list[int] = []  # where the values on the stack begin in the program
    taken: list[int] = []
    for place, step in enumerate(program):
        operands = {"measure": 0, "request": 0, "constant": 0, "fill": 1}.get(step.op, 2)
        taken = begins[len(begins) - operands :]
        begins[len(begins) - operands :] = [taken[0] if taken else place]
    ends = [*taken[1:], len(program) - 1]
    return [program[start:end] for start, end in zip(taken, ends, strict=bool(taken))]


def _subprograms(program: Program) -> list[Program]:
    return [program, *(part for operand in operands(program) for part in _subprograms(operand))]


class _Looked(NamedTuple):
    """What a measure looked at: how many events there ever were, and how many that its window begins with."""

    facts: tuple[int, ...]  # places of counts
    anchors: int | None


class _Parts:
    """The plan of all parts of some programs, and of counts for each measure in them."""

    def __init__(self, plan: Plan, programs: Sequence[Program]) -> None:
        self._programs = list(dict.fromkeys(part for program in programs for part in _subprograms(program)))
        self._looked: dict[int, _Looked] = {}
        self._counts: list[dict[str, Any]] = []
        self._data = plan.data
        used = {int(step.value or 0) for program in programs for step in program if step.op == "measure"}
        for place in sorted(used):
            self._looked[place] = self._look(plan.measures[place], self._data["measures"][place])
        measures = self._data["measures"]
        counts: list[Program] = [(Step("measure", len(measures) + i),) for i in range(len(self._counts))]
        features = [_feature(i, program) for i, program in enumerate([*self._programs, *counts])]
        self.plan = pruned(self._data | {"measures": [*measures, *self._counts], "features": features})

    def _look(self, measure: Measure, data: Mapping[str, Any]) -> _Looked:
        readers = [data] if measure.per is None else data["per"]["inner"]
        facts = tuple(self._count(data, reader["selection"], reader["given"]) for reader in readers)
        anchor = measure.window.anchor if isinstance(measure.window, SinceWindow) else None
        return _Looked(facts, None if anchor is None else self._count(data, anchor, []))

    def _count(self, data: Mapping[str, Any], selection: int, given: list[Any]) -> int:
        """Add the number of a selection's events, ever, and return its place."""
        own = {name: data[name] for name in ("timeline", "via")} | {"selection": selection, "given": given}
        ever = {"kind": "time", "length_us": None, "offset_us": 0}
        rest: dict[str, Any] = {
            "aggregate": "count",
            "slot": None,
            "window": ever,
            "scale": 0,
            "condition": None,
            "parameters": [],
        }
        self._counts.append(own | rest | {"per": None})
        return len(self._counts) - 1

    def values(self, found: Floats) -> _Values:
        """Return what was found of the plan."""
        programs = {program: found[:, i] for i, program in enumerate(self._programs)}
        return _Values(programs, found[:, len(programs) :], self._looked)


def _feature(place: int, program: Program) -> dict[str, Any]:
    steps = [[step.op] if step.value is None else [step.op, step.value] for step in program]
    rest: dict[str, Any] = {
        "type": "real",
        "unit": "",
        "reason": None,
        "monotone": 0,
        "description": "",
        "scored": False,
    }
    return {"name": f"part_{place}", "program": steps, "values": None, **rest}


class _Values(NamedTuple):
    """The values of all parts of some rows."""

    programs: Mapping[Program, Floats]
    counts: Floats  # (n, counts)
    looked: Mapping[int, _Looked]

    def reasons(self, program: Program) -> Codes:
        """Return why a program is null, by row."""
        null, last = np.isnan(self.programs[program]), program[-1]
        if last.op == "measure":
            codes = self._of_measure(int(last.value or 0))
        elif last.op == "request":
            codes = np.full(len(null), _NOT_GIVEN, np.int8)
        else:
            codes = np.full(len(null), _UNDEFINED, np.int8)
            for operand in reversed(operands(program)):
                own = self.reasons(operand)
                codes = np.where(own != _KNOWN, own, codes)
        return np.where(null, codes, _KNOWN).astype(np.int8)

    def _of_measure(self, place: int) -> Codes:
        looked = self.looked[place]
        facts = self.counts[:, list(looked.facts)]
        codes = np.full(len(facts), _NOT_NOW, np.int8)
        if looked.anchors is not None:
            codes[self.counts[:, looked.anchors] == 0] = _NOT_BEGUN
        codes[(facts == 0).all(axis=1)] = _NEVER
        codes[np.isnan(facts).any(axis=1)] = _NOT_NAMED
        return codes
