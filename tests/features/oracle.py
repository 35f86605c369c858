"""The specification of features: straight from the definitions, one fact after the other, in Python's own integers.

It knows nothing of timelines, masks, windows' nesting or chunks. Slow is fine; being obviously right is the point. The
aggregates themselves are in `naive.py`. `faults` plants one wrong rule, for the controls that show that the comparison
would notice; WINDOW_FAULTS and the lists beside it say which there are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any, NamedTuple

from tests.features import naive
from tests.features.naive import Limit

__all__ = [
    "GIVEN_FAULTS", "KEY_FAULTS", "OPERATORS", "VIEW_FAULTS", "WINDOW_FAULTS", "Fact", "Limit", "Request", "Row",
    "Version", "feature", "measured", "measured_in", "period", "text_hash", "truth", "view", "winner",
]  # fmt: skip

KEYS_MAX = 4096
DAY = 86_400_000_000
EPOCH = datetime(1970, 1, 1)
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "in": lambda a, b: a in b,
}
_NEXT_TO = {"==": ">=", "!=": ">", "<": "<=", "<=": "<", ">": ">=", ">=": ">"}

VIEW_FAULTS = ("known", "cut", "versions", "self", "composite", "unknown", "scale", "null predicate")
WINDOW_FAULTS = {
    "time": ("start", "end", "future and end", "offset"),
    "rows": ("one more", "oldest", "values only"),
    "calendar": ("start", "end", "utc", "offset of as_of", "sunday", "period", "up to as_of"),
    "since": ("start", "any anchor", "no anchor", "anchor given"),
}
GIVEN_FAULTS = ("edge", "null is true", "any condition")
KEY_FAULTS = ("null key", "absent", "first keys", "null number", "descending", "none")


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
    """One question; `fields` are those of the application that comparands and request values name."""

    as_of: int
    cut: int
    entities: Mapping[str, str | None]
    self_root: int = -1
    fields: Mapping[str, Any] = field(default_factory=dict)


class Row(NamedTuple):
    """A fact of a view."""

    time: int
    root: int
    type: str
    fields: Mapping[str, Any]


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


def view(facts: Sequence[Fact], request: Request, faults: Collection[str] = ()) -> list[Row]:
    """Return the facts of a request's view in the order (event_time, root)."""
    rows = []
    for fact in facts:
        fields, root = winner(fact, request.as_of, request.cut, faults), fact.versions[0].position
        if fields is not None and (root != request.self_root or "self" in faults):
            rows.append(Row(fields["event_time"], root, fact.type, fields))
    return sorted(rows, key=lambda row: (row.time, -row.root if "ties" in faults else row.root))


def text_hash(text: str) -> int:
    """Return the first 8 bytes of the text's blake2b-8 digest, little-endian."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def coded(value: Any, spec: Mapping[str, Any], faults: Collection[str] = ()) -> int | None:
    """Return a value by the coding of a slot or a comparand."""
    if value is None:
        return None
    if spec["coding"] == "hash":
        return text_hash(value)
    if spec["coding"] == "vocabulary":
        absent = None if "unknown" in faults else len(spec["values"])
        return spec["values"].index(value) if value in spec["values"] else absent
    return int(value)


class Looked(NamedTuple):
    """What a measure looks at: a timeline under the application's keys, in a view."""

    plan: Mapping[str, Any]
    measure: Mapping[str, Any]  # its timeline and via
    view: Sequence[Row]
    request: Request
    faults: Collection[str]

    @property
    def timeline(self) -> Mapping[str, Any]:
        """The timeline's JSON."""
        timeline: Mapping[str, Any] = self.plan["timelines"][self.measure["timeline"]]
        return timeline

    def selects(self, number: int, row: Row) -> bool:
        """Whether a row is in a selection under the application's keys."""
        selection = self.timeline["selections"][number]
        if row.type != selection["event"]:
            return False
        keys = [row.fields.get(name) for name in selection["by"]]
        wanted = [self.request.entities[name] for name in self.measure["via"]]
        if "composite" in self.faults:
            keys, wanted = keys[:1], wanted[:1]
        if None in keys or keys != wanted:
            return False
        true = truth(selection["where"], row.fields)
        return true is not False if "null predicate" in self.faults else true is True

    def value(self, slot: int, row: Row) -> int | None:
        """Return a slot of a row, None for null."""
        spec = self.timeline["fields"][row.type][slot]
        return coded(_field(spec["field"], row.fields), spec, self.faults)

    def comparand(self, number: int) -> int | None:
        """Return a comparand, None for null."""
        spec = self.plan["comparands"][number]
        if spec["source"] == "field":
            return coded(self.request.fields.get(spec["name"]), spec, self.faults)
        assert (spec["source"], spec["name"]) == ("calendar", "as_of")
        return self.request.as_of

    def fulfils(self, condition: Mapping[str, Any], row: Row) -> bool:
        """Whether a condition of `given` is true of a row."""
        value, wanted = self.value(condition["slot"], row), self.comparand(condition["comparand"])
        if value is None or wanted is None:
            return "null is true" in self.faults
        op = _NEXT_TO[condition["op"]] if "edge" in self.faults else condition["op"]
        return bool(OPERATORS[op](value, wanted))

    def rows(self, selection: int, given: Sequence[Mapping[str, Any]]) -> list[Row]:
        """Return the rows of a selection for which every condition is true."""
        every = any if "any condition" in self.faults and given else all
        return [
            row for row in self.view if self.selects(selection, row) and every(self.fulfils(one, row) for one in given)
        ]


def _field(name: str, fields: Mapping[str, Any]) -> Any:
    """Return a column of a fact; `<field>.delay` is event_time less a moment."""
    value = fields.get(name.removesuffix(".delay"))
    return fields["event_time"] - value if name.endswith(".delay") and value is not None else value


def truth(where: Any, fields: Mapping[str, Any]) -> bool | None:
    """Return whether a predicate is true of a fact; a comparison with null is neither true nor false."""
    match where:
        case None:
            return True
        case {"not": part}:
            return None if (value := truth(part, fields)) is None else not value
        case {"and": parts}:
            values = [truth(part, fields) for part in parts]
            return False if False in values else None if None in values else True
        case {"or": parts}:
            values = [truth(part, fields) for part in parts]
            return True if True in values else None if None in values else False
    value = _field(where["field"], fields)
    if where["op"] in ("is_null", "not_null"):
        return bool((value is None) == (where["op"] == "is_null"))
    return None if value is None else bool(OPERATORS[where["op"]](value, where["value"]))


def _offset_us(zone: Sequence[Sequence[int]], instant: int) -> int:
    return next(offset for start, offset in reversed(zone) if start <= instant) * 1_000_000


def _beginning(unit: str, day: datetime, back: int, faults: Collection[str]) -> datetime:
    """The first midnight, by the zone's clock, of the period of a day or of one `back` periods before it."""
    if unit in ("day", "week"):
        weekday = (day.weekday() + ("sunday" in faults)) % 7 if unit == "week" else 0
        return day - timedelta(days=weekday + back * (7 if unit == "week" else 1))
    months = {"month": 1, "quarter": 3, "year": 12}[unit]
    month = ((day.year * 12 + day.month - 1) // months - back) * months
    return datetime(month // 12, month % 12 + 1, 1)


@lru_cache(maxsize=100_000)
def period(
    zone: tuple[tuple[int, int], ...], unit: str, back: int, as_of: int, faults: frozenset[str] = frozenset()
) -> tuple[int, int]:
    """Return start and end of a calendar window: a period begins when the zone's clock first shows its first midnight.

    A clock that skips that midnight begins it at the first moment after; of two midnights the first counts.
    """
    zone = ((-(2**63) + 1, 0),) if "utc" in faults else zone
    local = EPOCH + timedelta(microseconds=as_of + _offset_us(zone, as_of))
    today = datetime(local.year, local.month, local.day)

    def instant(moment: datetime) -> int:
        shown = (moment - EPOCH) // timedelta(microseconds=1)
        if "offset of as_of" in faults:
            return shown - _offset_us(zone, as_of)
        ends = [start for start, _ in zone[1:]] + [2**63]
        times = [max(start, shown - offset * 1_000_000) for start, offset in zone]
        return next(time for time, end in zip(times, ends, strict=True) if time < end)

    back += "period" in faults
    start = instant(_beginning(unit, today, back, faults))
    return start, as_of if back == 0 or "up to as_of" in faults else instant(_beginning(unit, today, back - 1, faults))


def _windowed(at: Looked, window: Mapping[str, Any], rows: list[Row], slot: int | None) -> list[Row] | None:
    """Return the rows within a window, None where it has no beginning."""
    as_of, faults = at.request.as_of, at.faults
    start, end = -(2**70), as_of
    match window["kind"]:
        case "rows":
            if "values only" in faults and slot is not None:
                rows = [row for row in rows if at.value(slot, row) is not None]
            n = window["rows"] + ("one more" in faults)
            return rows[:n] if "oldest" in faults else rows[-n:]
        case "time":
            end = as_of - window["offset_us"]
            if window["length_us"] is not None:
                start = (as_of if "offset" in faults else end) - window["length_us"]
        case "calendar":
            zone = tuple((entry[0], entry[1]) for entry in at.plan["zone_offsets"])
            start, end = period(zone, window["unit"], window["back"], as_of, frozenset(faults))
        case "since":
            anchors = at.rows(window["anchor"], at.measure["given"] if "anchor given" in faults else ())
            if not anchors and "no anchor" not in faults:
                return None
            start = anchors[0 if "any anchor" in faults else -1].time if anchors else start
    return [row for row in rows if start + ("start" in faults) <= row.time < end + ("end" in faults)]


def _aggregate(at: Looked, spec: Mapping[str, Any], rows: Sequence[Row]) -> float | None:
    """Return a measure's or an inner level's aggregate of its rows, scaled."""
    name, slot, condition = spec["aggregate"], spec["slot"], spec.get("condition")
    looked = naive.Rows(
        times=[row.time for row in rows],
        values=[] if slot is None else [at.value(slot, row) for row in rows],
        kept=[] if condition is None else [at.selects(condition, row) for row in rows],
        as_of=at.request.as_of,
    )
    result = naive.aggregate(name, looked, spec.get("parameters", ()), slot is None, at.faults)
    if result is None or name not in naive.SCALED or "scale" in at.faults:
        return result
    return result / float(10 ** spec["scale"])


def _over_keys(at: Looked) -> float | None:
    """Return a two-level measure: numbers by key, a program over them, an aggregate over the keys."""
    per, faults = at.measure["per"], at.faults
    by_key: list[dict[Any, list[Row]]] = []
    for inner in per["inner"]:
        groups: dict[Any, list[Row]] = {}
        rows = _windowed(at, inner["window"], at.rows(inner["selection"], inner["given"]), None)
        for row in rows or ():
            key = at.value(inner["key"], row)
            if key is not None or "null key" in faults:
                groups.setdefault(key, []).append(row)
        by_key.append(groups)
    keys = {key for groups in (by_key[:1] if "first keys" in faults else by_key) for key in groups}
    if len(keys) > KEYS_MAX:
        raise Limit
    numbers: list[float] = []
    samples = _samples(per)
    whole = isinstance(_parts(per["program"], [None] * len(samples), (), samples).sample, int)
    inside = at._replace(faults=[one for one in faults if one not in ("none", "descending")])
    for key in sorted(keys, key=str):
        values = [
            None if "absent" in faults and key not in groups else _aggregate(inside, inner, groups.get(key, ()))
            for inner, groups in zip(per["inner"], by_key, strict=True)
        ]
        number = feature(per["program"], values, (), whole, samples)
        if number is not None or "null number" in faults:
            numbers.append(number or 0.0)
    result = naive.outer(at.measure["aggregate"], numbers, faults, whole)
    return None if result is None else _finite(result)


def measured_in(
    plan: Any, measure: Any, view: Sequence[Row], request: Request, faults: Collection[str] = ()
) -> float | None:
    """Return one measure over a request's view."""
    if any(request.entities[name] is None for name in measure["via"]):
        return None
    at = Looked(plan, measure, view, request, faults)
    if measure["per"] is not None:
        return _over_keys(at)
    rows = _windowed(at, measure["window"], at.rows(measure["selection"], measure["given"]), measure["slot"])
    return None if rows is None else _aggregate(at, measure, rows)


def measured(
    plan: Any, measure: Any, facts: Sequence[Fact], request: Request, faults: Collection[str] = ()
) -> float | None:
    """Return one measure."""
    return measured_in(plan, measure, view(facts, request, faults), request, faults)


def _samples(per: Any) -> list[int | float]:
    """Return a number of the type of each inner one: Python says of what type a program's result is."""
    integers = ("count", "sum", "min", "max", "first", "last")
    return [1 if one["aggregate"] in integers and one["scale"] == 0 else 0.5 for one in per["inner"]]


_ARITHMETIC = ("add", "subtract", "multiply")
_EITHER = ("minimum", "maximum")
_COMPUTED = (*_ARITHMETIC, *_EITHER, "divide")


class _Part(NamedTuple):
    """A part of a program: how it is computed, told whether it must be exact (None: if it is whole), and a sample."""

    compute: Callable[[bool | None], float | None]
    sample: int | float


def feature(
    program: Any,
    measures: Sequence[float | None],
    values: Sequence[float | None],
    whole: bool = False,
    samples: Sequence[int | float] = (),
) -> float | None:
    """Run a program; None is null, and zero has no sign. What is `whole` or compared is exact where all its parts are.

    `samples` are of the types of the measures or, where there are none, of the values; floats where they are left out.
    """
    result = _parts(program, measures, values, samples or [0.5] * len(measures or values)).compute(whole)
    return None if result is None else result + 0.0


def _parts(
    program: Any, measures: Sequence[float | None], values: Sequence[float | None], samples: Sequence[int | float]
) -> _Part:
    stack: list[_Part] = []
    for op, *rest in program:
        if op in ("measure", "request"):
            found = (measures if op == "measure" else values)[rest[0]]
            stack.append(_Part(partial(lambda found, exact: found, found), samples[rest[0]]))
        elif op == "constant":
            number = float(rest[0])
            stack.append(_Part(partial(lambda found, exact: found, number), _typed(number)))
        elif op == "fill":
            part = stack.pop()
            stack.append(_Part(partial(_filled, part, float(rest[0])), part.sample + _typed(rest[0])))
        else:
            b, a = stack.pop(), stack.pop()
            sample = a.sample / 2 if op == "divide" else a.sample + b.sample if op in _COMPUTED else 1
            stack.append(_Part(partial(_stepped, op, a, b), sample))
    return stack.pop()


def _typed(number: float) -> int | float:
    return 1 if float(number).is_integer() else 0.5


def _filled(part: _Part, by: float, exact: bool | None) -> float | None:
    return by if (found := part.compute(exact)) is None else found


def _stepped(op: str, left: _Part, right: _Part, exact: bool | None) -> float | None:
    whole = isinstance(left.sample + right.sample, int) if exact is None else exact
    asked = None if op not in _COMPUTED or (exact is None and op in _EITHER) else whole and op != "divide"
    a, b = left.compute(asked), right.compute(asked)
    found = None if a is None or b is None else operate(op, a, b)
    if whole and op in _ARITHMETIC and found is not None and abs(found) >= 2**53:
        raise Limit
    return found


def operate(op: str, a: float, b: float) -> float | None:
    """Return one step on two numbers; a result that is not finite has no exact form."""
    if op == "divide":
        return _finite(a / b) if b else None
    arithmetic = {"add": a + b, "subtract": a - b, "multiply": a * b, "minimum": min(a, b), "maximum": max(a, b)}
    comparison = {
        "less": a < b, "less_equal": a <= b, "greater": a > b, "greater_equal": a >= b, "equal": a == b,
        "not_equal": a != b,
    }  # fmt: skip
    return _finite(arithmetic[op]) if op in arithmetic else float(comparison[op])


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise Limit
    return number
