"""The specification of features: straight from the definitions, one fact after the other, in Python's own integers.

It knows nothing of timelines, masks, slots' coding, windows' nesting or chunks. Slow is fine; being obviously right is
the point. `faults` plants one wrong rule, for the controls that show that the comparison would notice.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DISTINCT_MAX = KEYS_MAX = 4096
OPERATORS = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
}


class Limit(Exception):
    """A result has no exact form; the argument is the measure's place."""


@dataclass(frozen=True)
class Version:
    """One statement about a fact; `parent` is the place of the version it corrects, None for the original."""

    position: int
    known: int
    parent: int | None = None
    fields: Mapping[str, Any] | None = None  # None: a retraction; else with "event_time"


@dataclass(frozen=True)
class Fact:
    """All that was ever said about one fact; versions[0] is the original, its position the root."""

    type: str
    versions: Sequence[Version]


@dataclass(frozen=True)
class Request:
    """One question."""

    as_of: int
    cut: int
    entities: Mapping[str, str | None]
    self_root: int = -1
    fields: Mapping[str, Any] = field(default_factory=dict)


def winner(fact: Fact, as_of: int, cut: int, faults: Collection[str] = ()) -> Mapping[str, Any] | None:
    """Return the fields of the version that holds at (cut, as_of), None where there is none."""

    def visible(version: Version) -> bool:
        chain = version.parent is None or visible(fact.versions[version.parent])
        known = version.known < as_of if "known" in faults else version.known <= as_of
        return chain and known and (version.position <= cut or "cut" in faults)

    seen = [version for version in fact.versions if visible(version)]
    if not seen:
        return None
    rank = [(v.parent is not None, v.known, v.position) for v in seen]
    best = seen[rank.index(min(rank) if "versions" in faults else max(rank))]
    if best.fields is None or best.fields["event_time"] >= as_of + ("future" in faults):
        return None
    return best.fields


def holds(where: Any, fields: Mapping[str, Any]) -> bool:
    """Return whether a comparison (all that the tests' plans use) is true; with null it is not."""
    return where is None or (
        fields[where["field"]] is not None and bool(OPERATORS[where["op"]](fields[where["field"]], where["value"]))
    )


def selected(
    plan: Any, measure: Any, number: int, facts: Sequence[Fact], request: Request, faults: Collection[str]
) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
    """Yield (event_time, root, fields) of the view's facts in one selection of a timeline, in their order."""
    selection = plan["timelines"][measure["timeline"]]["selections"][number]
    rows = []
    for fact in facts:
        fields = winner(fact, request.as_of, request.cut, faults) if fact.type == selection["event"] else None
        root = fact.versions[0].position
        own = root == request.self_root and "self" not in faults
        if fields is None or own or fields[selection["by"]] != request.entities[measure["via"]]:
            continue
        if holds(selection["where"], fields):
            rows.append((fields["event_time"], root, fields))
    yield from sorted(rows, key=lambda row: (row[0], -row[1]) if "ties" in faults else row[:2])


def slot_name(plan: Any, measure: Any, selection: int, slot: int) -> str:
    """Return the field that a slot holds for the event type of a selection."""
    timeline = plan["timelines"][measure["timeline"]]
    return str(timeline["fields"][timeline["selections"][selection]["event"]][slot]["field"])


def exact(value: int) -> float:
    """Return an integer result as a float."""
    if abs(value) > 2**53:
        raise Limit
    return float(value)


def aggregate(name: str, values: list[int], times: list[int], as_of: int) -> float | None:
    """Return one aggregate of the values (or of the rows' times) in order, before its scale."""
    n = len(values)
    if name == "count":
        return float(len(times))
    if name == "distinct":
        if len(set(values)) > DISTINCT_MAX:
            raise Limit
        return float(len(set(values)))
    total = sum(values)
    if name == "sum":
        return exact(total)
    if name.startswith("time_since"):
        return float(as_of - times[0 if name.endswith("first") else -1]) / 1e6 if times else None
    if not values:
        return None
    if name == "mean":
        return float(total) / float(n)
    if name == "std":
        if n * sum(v * v for v in values) >= 2**127:
            raise Limit
        return math.sqrt(float(n * sum(v * v for v in values) - total * total) / float(n * n))
    return exact({"min": min(values), "max": max(values), "first": values[0], "last": values[-1]}[name])


def balance(plan: Any, measure: Any, facts: Sequence[Fact], request: Request, faults: Collection[str]) -> float:
    """Return the sum over open keys of what is above zero."""
    net: dict[str, int] = {}
    closed = set()
    for term in measure["terms"]:
        for time, _, fields in selected(plan, measure, term["selection"], facts, request, faults):
            name = {k: slot_name(plan, measure, term["selection"], term[k]) for k in ("key", "amount", "expires") if
                    term[k] is not None}  # fmt: skip
            key, expiry = fields[name["key"]], fields.get(name.get("expires", ""))
            if expiry is None and term["expires_after_us"] is not None:
                expiry = time + term["expires_after_us"]
            live = term["role"] != "add" or expiry is None or request.as_of < expiry + ("expiry" in faults)
            if key is None or not live:
                continue
            amount = fields.get(name.get("amount", "")) or 0
            net[key] = net.get(key, 0) + {"add": amount, "subtract": -amount, "close": 0}[term["role"]]
            closed |= {key} if term["role"] == "close" else set()
    if len(net) > KEYS_MAX:
        raise Limit
    total = sum(max(0, amount) for key, amount in net.items() if key not in closed or "close" in faults)
    return exact(total)


def measured(
    plan: Any, measure: Any, facts: Sequence[Fact], request: Request, faults: Collection[str] = ()
) -> float | None:
    """Return one measure."""
    if request.entities[measure["via"]] is None:
        return None
    divisor = float(10 ** measure["scale"])
    if measure["aggregate"] == "balance":
        return balance(plan, measure, facts, request, faults) / divisor
    end = request.as_of - measure["offset_us"]
    start = -(2**70) if measure["window_us"] is None else end - measure["window_us"]
    rows = [
        (time, fields)
        for time, _, fields in selected(plan, measure, measure["selection"], facts, request, faults)
        if start + ("start" in faults) <= time < end + ("end" in faults)
    ]
    values: list[Any] = []
    if measure["slot"] is not None:
        name = slot_name(plan, measure, measure["selection"], measure["slot"])
        values = [fields[name] for _, fields in rows]
        values = [v or 0 for v in values] if "nulls" in faults else [v for v in values if v is not None]
    result = aggregate(measure["aggregate"], values, [time for time, _ in rows], request.as_of)
    return None if result is None else result / divisor


def feature(program: Any, measures: Sequence[float | None], values: Sequence[float | None]) -> float | None:
    """Run a program; None is null."""
    stack: list[Any] = []
    for op, *rest in program:
        if op in ("measure", "request", "constant"):
            stack.append({"measure": measures, "request": values}[op][rest[0]] if op != "constant" else float(rest[0]))
        elif op == "fill":
            stack.append(float(rest[0]) if (top := stack.pop()) is None else top)
        else:
            b, a = stack.pop(), stack.pop()
            stack.append(None if a is None or b is None else operate(op, a, b))
    result: float | None = stack.pop()
    return result


def operate(op: str, a: float, b: float) -> float | None:
    """Return one step on two numbers."""
    if op == "divide":
        return a / b if b else None
    arithmetic = {"add": a + b, "subtract": a - b, "multiply": a * b, "minimum": min(a, b), "maximum": max(a, b)}
    comparison = {
        "less": a < b, "less_equal": a <= b, "greater": a > b, "greater_equal": a >= b, "equal": a == b,
        "not_equal": a != b,
    }  # fmt: skip
    return arithmetic[op] if op in arithmetic else float(comparison[op])
