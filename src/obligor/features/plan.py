"""The plan: what feature definitions compile to. Data (JSON, hashed, format-numbered), never code.

A bundle carries the plan, the kernels evaluate it, the online state is keyed by it. This module is the format: the
records below are exactly the JSON objects, every key is always present, and a key or a format number that is not
known is refused, so that an older program never computes a newer plan wrongly.

    {"format": 1, "application": "loan_application", "zone": "Africa/Lagos", "zone_offsets": [[from_us, offset_s], ...],
     "timelines": {"consumer": {
        "selections": [{"event": "repayment", "by": "consumer", "where": <predicate or null>}, ...],
        "fields": {"repayment": [{"field": "amount", "coding": "integer", "values": null}, ...]}}},
     "measures": [{"timeline": "consumer", "via": "consumer", "selection": 0, "slot": 0, "aggregate": "sum",
                   "window_us": 2592000000000, "offset_us": 0, "scale": 0, "terms": null}, ...],
     "requests": [{"source": "field", "name": "amount", "coding": "integer", "values": null, "scale": 0}, ...],
     "features": [{"name": "repaid_30d", "program": [["measure", 0], ["fill", 0.0]], "type": "integer",
                   "unit": "NGN minor units", "reason": "REPAYMENT", "monotone": -1, "description": "...",
                   "scored": true, "values": null}, ...]}

Timelines. A row of timeline T is one fact that at least one selection of T selects; bit i of its mask is selection i.
A fact whose type enters T through two entity fields makes a row in either entity's timeline. Slot k of a row is the
k-th entry of its event type's `fields`; slots of different types overlay, so T has as many slots as the longest list.
Codings, all int64 with INT64_MIN for null: `integer` is the stored value (minor units, scaled decimal, microseconds,
boolean 0/1); `vocabulary` is the index in `values`, and len(values) for a text that is not in it; `hash` is the first
8 bytes of the text's blake2b-8 digest, little-endian.

Measures. Rows of T under the application's key in field `via`, in the view, whose mask has bit `selection`, with
as_of - offset_us - window_us <= event_time < as_of - offset_us (`window_us` null: no lower bound). The aggregates:

    count                           number of rows; 0 of none                               slot null
    sum                             of the slot's non-null values; 0 of none
    mean, std, min, max             of the non-null values; null of none; std is the population's
    first, last                     of the non-null values by (event_time, root); null of none
    distinct                        number of distinct non-null values; 0 of none
    time_since_first, ..._last      seconds from the first or last row to as_of; null of none     slot null
    balance                         see below                                               selection and slot null

The result of sum, mean, std, min, max, first, last and balance is divided by 10^scale (a decimal's declared places;
0 otherwise). Where the application's key in `via` is null, every measure through it is null: not knowing the merchant
is not the same as a merchant without history.

Balance: "terms": [{"selection": i, "role": "add" | "subtract" | "close", "key": slot, "amount": slot | null,
"expires": slot | null, "expires_after_us": integer | null}, ...]; `window_us` null, `offset_us` 0. It is

    sum over the distinct keys k that no row of a `close` term carries of
        max(0, sum of the live `add` amounts of k - sum of the `subtract` amounts of k)

over the view's rows. It does not depend on the order of the rows. A row belongs to every term whose selection bit it
has; its key is its slot `key` (coding `hash`; rows with a null key are skipped), null amounts count as 0. An `add` row
is live while as_of < its expiry: slot `expires` where that is set and not null, else event_time + `expires_after_us`
where that is not null, else for ever. The roles `subtract` and `close` have no expiry, `close` has no amount.

Requests. Values of the application itself: {"source": "field", ...} a stored field by coding (never `hash`), divided
by 10^scale; {"source": "calendar", "name": "hour" | "day_of_week" | "day_of_month" | "as_of", ...} the hour 0-23,
weekday 0-6 from Monday, day 1-31 of as_of in the plan's zone, or as_of itself in microseconds; {"source": "age", ...}
seconds from a timestamp field to as_of (negative when it lies ahead). The offset of the zone at an instant is that of
the last entry of `zone_offsets` with from_us <= instant; the first entry's from_us is -2^63 + 1.

Programs. Postfix over float64 with NaN for null: each step pushes, or takes its operands from the stack (the second
operand lies on top) and pushes its result. A null operand makes a null result, of every step but `fill`.

    ["measure", i]  ["request", i]  ["constant", x]      push
    ["add"]  ["subtract"]  ["multiply"]  ["divide"]      float64; division by zero is null
    ["minimum"]  ["maximum"]                             of two
    ["less"]  ["less_equal"]  ["greater"]  ["greater_equal"]  ["equal"]  ["not_equal"]       1.0 or 0.0
    ["fill", x]                                          x where the top is null

Left for later formats, by their own keys: two-level measures (`per`, `over`), row-count windows, predicates that
mention the application, sequences. `offset_us` is in the format already.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any, Literal, Self, TypeAlias, get_args

import msgspec

from obligor.errors import BadInput, Problem
from obligor.features.filters import parse_predicate

__all__ = [
    "AGGREGATES",
    "FORMAT",
    "SELECTIONS_MAX",
    "STACK_MAX",
    "Aggregate",
    "Coding",
    "FeatureSpec",
    "Measure",
    "Op",
    "Plan",
    "RequestValue",
    "Selection",
    "Slot",
    "Step",
    "Term",
    "Timeline",
]

FORMAT = 1
SELECTIONS_MAX = 63  # bits of a row's int64 mask
STACK_MAX = 32  # values on the stack of a program

Aggregate: TypeAlias = Literal[
    "count",
    "sum",
    "mean",
    "std",
    "min",
    "max",
    "first",
    "last",
    "distinct",
    "time_since_first",
    "time_since_last",
    "balance",
]
Coding: TypeAlias = Literal["integer", "vocabulary", "hash"]
Op: TypeAlias = Literal[
    "measure",
    "request",
    "constant",
    "add",
    "subtract",
    "multiply",
    "divide",
    "minimum",
    "maximum",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    "equal",
    "not_equal",
    "fill",
]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)
_SLOTLESS = ("count", "time_since_first", "time_since_last")
_PUSH = ("measure", "request", "constant")


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen record that is one JSON object: every key required, none unknown."""


class Selection(_Record, frozen=True):
    """The facts of one event type, under the entity in field `by`, for which `where` is true (null: all)."""

    event: str
    by: str
    where: Any  # a predicate's JSON, see obligor.events.predicates, or None


class Slot(_Record, frozen=True):
    """One stored value of an event type in a timeline; `values` is the frozen vocabulary of coding `vocabulary`."""

    field: str  # a column of the facts: a field, or `<field>.currency`
    coding: Coding
    values: tuple[str, ...] | None


class Timeline(_Record, frozen=True):
    """One entity type's rows: which facts enter (selections) and what of them is kept (fields by event type)."""

    selections: tuple[Selection, ...]
    fields: dict[str, tuple[Slot, ...]]

    @property
    def slots(self) -> int:
        """The number of value slots of a row: the longest list of `fields`."""
        return max(map(len, self.fields.values()), default=0)

    @property
    def events(self) -> tuple[str, ...]:
        """The event types that enter, in order of first use."""
        return tuple(dict.fromkeys(selection.event for selection in self.selections))


class Term(_Record, frozen=True):
    """One part of a balance: rows that add to their key's balance, subtract from it, or close it."""

    selection: int
    role: Literal["add", "subtract", "close"]
    key: int
    amount: int | None
    expires: int | None
    expires_after_us: int | None


class Measure(_Record, frozen=True):
    """One number out of one entity's timeline."""

    timeline: str
    via: str  # the application's field that holds the entity's key
    selection: int | None
    slot: int | None
    aggregate: Aggregate
    window_us: int | None
    offset_us: int
    scale: int
    terms: tuple[Term, ...] | None


class RequestValue(_Record, frozen=True):
    """One number out of the application itself or its as_of."""

    source: Literal["field", "calendar", "age"]
    name: str
    coding: Coding
    values: tuple[str, ...] | None
    scale: int


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One step of a program; `value` is an index (measure, request) or a number (constant, fill), else None."""

    op: Op
    value: int | float | None = None


class FeatureSpec(_Record, frozen=True):
    """One column of the feature matrix; a category's number is an index in `values`, len(values) for unknown."""

    name: str
    program: tuple[Step, ...]
    type: Literal["integer", "real", "boolean", "category"]
    unit: str
    reason: str | None
    monotone: Literal[-1, 0, 1]  # how the risk may move when the feature grows
    description: str
    scored: bool  # False: for policy only, models never see it
    values: tuple[str, ...] | None


class _Plan(_Record, frozen=True):
    format: Literal[1]
    application: str
    zone: str
    zone_offsets: tuple[tuple[int, int], ...]
    timelines: dict[str, Timeline]
    measures: tuple[Measure, ...]
    requests: tuple[RequestValue, ...]
    features: tuple[FeatureSpec, ...]


class Plan:
    """A compiled set of features. Immutable; equal plans have equal hashes.

    >>> plan = Plan.load(Plan.empty("loan_application").data)
    >>> plan.application, plan.names, len(plan.hash)
    ('loan_application', [], 64)
    """

    def __init__(self, record: _Plan) -> None:
        _check(record)
        self._record = record
        self.application = record.application
        self.zone = record.zone
        self.zone_offsets = record.zone_offsets
        self.timelines = record.timelines
        self.measures = record.measures
        self.requests = record.requests
        self.features = record.features
        self.names = [feature.name for feature in record.features]

    @classmethod
    def empty(cls, application: str) -> Self:
        """Return the plan without features, in UTC."""
        return cls.load(
            {
                "format": FORMAT,
                "application": application,
                "zone": "UTC",
                "zone_offsets": [[-(2**63) + 1, 0]],
                "timelines": {},
                "measures": [],
                "requests": [],
                "features": [],
            }
        )

    @classmethod
    def load(cls, data: object) -> Self:
        """Return the plan of JSON data; BadInput where it is not exactly this format, naming the place."""
        if isinstance(data, dict) and data.get("format") != FORMAT:
            raise BadInput(Problem("$.format", f"expected plan format {FORMAT}, got {data.get('format')!r}"))
        try:
            canonical = _canonical(data)  # also puts the keys in order, so that a plan reads the same wherever it was
            plan = cls(msgspec.convert(json.loads(canonical), _Plan))
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `")
            raise BadInput(Problem(path.rstrip("`") or "$", f"not a feature plan: {message}")) from None
        except (TypeError, ValueError) as error:
            raise BadInput(f"not a feature plan: {error}") from None
        if plan.canonical != canonical:
            raise BadInput("not a feature plan: expected its canonical form, got extra or rewritten parts")
        return plan

    @cached_property
    def data(self) -> dict[str, Any]:
        """The plan as JSON data."""
        data: dict[str, Any] = msgspec.to_builtins(self._record)
        for feature in data["features"]:
            feature["program"] = [[op] if value is None else [op, value] for op, value in feature["program"]]
        return data

    @cached_property
    def canonical(self) -> bytes:
        """The canonical JSON: sorted keys, no spaces, UTF-8, floats by repr."""
        return _canonical(self.data)

    @cached_property
    def hash(self) -> str:
        """The sha256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.canonical).hexdigest()

    @cached_property
    def timelines_hash(self) -> str:
        """The sha256 of the timelines alone: plans that share it share their online state."""
        return hashlib.sha256(_canonical(self.data["timelines"])).hexdigest()

    def __repr__(self) -> str:
        return f"Plan({self.hash[:12]}: {len(self.features)} features, {len(self.measures)} measures)"


def _canonical(data: object) -> bytes:
    # Tuples (from our own records) and lists (from JSON) encode alike; NaN and infinity have no JSON form.
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _check(record: _Plan) -> None:
    """Raise BadInput with every reference that points nowhere and every program that does not leave one value."""
    problems: list[Problem] = []
    for name, timeline in record.timelines.items():
        if len(timeline.selections) > SELECTIONS_MAX:
            problems.append(Problem(f"$.timelines.{name}", f"more than {SELECTIONS_MAX} selections"))
        for i, selection in enumerate(timeline.selections):
            try:
                None if selection.where is None else parse_predicate(selection.where)
            except BadInput as error:
                problems.append(Problem(f"$.timelines.{name}.selections[{i}].where", str(error)))
    for i, measure in enumerate(record.measures):
        problems += [Problem(f"$.measures[{i}]", message) for message in _measure_faults(record, measure)]
    for i, feature in enumerate(record.features):
        fault = _program_fault(record, feature.program)
        problems += [Problem(f"$.features[{i}].program", fault)] if fault else []
    names = [feature.name for feature in record.features]
    problems += [
        Problem("$.features", f"two features are named {n!r}") for n in {n for n in names if names.count(n) > 1}
    ]
    if problems:
        raise BadInput(problems)


def _measure_faults(record: _Plan, measure: Measure) -> list[str]:
    timeline = record.timelines.get(measure.timeline)
    if timeline is None:
        return [f"unknown timeline {measure.timeline!r}"]
    uses: list[tuple[int | None, int | None]]
    if measure.aggregate == "balance":
        if not measure.terms or measure.selection is not None or measure.slot is not None:
            return ["a balance has terms, and neither selection nor slot"]
        uses = [(t.selection, s) for t in measure.terms for s in (t.key, t.amount, t.expires)]
    else:
        if measure.terms is not None or measure.selection is None:
            return [f"a {measure.aggregate} has a selection and no terms"]
        if (measure.slot is None) != (measure.aggregate in _SLOTLESS):
            return [f"a {measure.aggregate} {'has no' if measure.aggregate in _SLOTLESS else 'needs a'} slot"]
        uses = [(measure.selection, measure.slot)]
    return [fault for selection, slot in uses if (fault := _use_fault(timeline, selection, slot))]


def _use_fault(timeline: Timeline, selection: int | None, slot: int | None) -> str | None:
    if selection is None or not 0 <= selection < len(timeline.selections):
        return f"no selection {selection}"
    slots = timeline.fields.get(timeline.selections[selection].event, ())
    return None if slot is None or 0 <= slot < len(slots) else f"no slot {slot}"


def _program_fault(record: _Plan, program: tuple[Step, ...]) -> str | None:
    sizes = {"measure": len(record.measures), "request": len(record.requests)}
    depth = 0
    for step in program:
        if (step.value is None) == (step.op in (*_PUSH, "fill")):
            return f"{step.op} {'needs a' if step.value is None else 'has no'} value"
        if step.op in sizes and not (isinstance(step.value, int) and 0 <= step.value < sizes[step.op]):
            return f"no {step.op} {step.value}"
        if depth < (0 if step.op in _PUSH else 1 if step.op == "fill" else 2):
            return f"{step.op} lacks an operand"
        depth += 1 if step.op in _PUSH else 0 if step.op == "fill" else -1
        if depth > STACK_MAX:
            return f"needs a stack of more than {STACK_MAX} values"
    return None if depth == 1 else f"leaves {depth} values, expected one"
