"""The plan: what feature definitions compile to. Data (JSON, hashed, format-numbered), never code.

A bundle carries the plan, the kernels evaluate it, the online state is keyed by it. This module and `measures.py` are
the format: their records are exactly the JSON objects, every key is always present, and a key or a format number that
is not known is refused, so that an older program never computes a newer plan wrongly.

    {"format": 2, "application": "loan_application", "zone": "Africa/Lagos", "zone_offsets": [[from_us, offset_s], ...],
     "timelines": {"consumer": {
        "entities": ["consumer"], "hot": false,
        "selections": [{"event": "repayment", "by": ["consumer"], "where": <predicate or null>}, ...],
        "fields": {"repayment": [{"field": "amount", "coding": "integer", "values": null}, ...]}}},
     "comparands": [{"source": "field", "name": "merchant", "coding": "hash", "values": null, "scale": 0}, ...],
     "measures": [{"timeline": "consumer", "via": ["consumer"], "aggregate": "sum", "selection": 0, "given": [],
                   "slot": 0, "window": {"kind": "time", "length_us": 2592000000000, "offset_us": 0}, "scale": 0,
                   "condition": null, "parameters": [], "per": null}, ...],
     "requests": [{"source": "field", "name": "amount", "coding": "integer", "values": null, "scale": 0}, ...],
     "features": [{"name": "repaid_30d", "program": [["measure", 0], ["fill", 0.0]], "type": "integer",
                   "unit": "NGN minor units", "reason": "REPAYMENT", "monotone": -1, "description": "...",
                   "scored": true, "values": null}, ...],
     "sequences": [{"name": "history", "timeline": "consumer", "via": ["consumer"], "selections": [0, 3],
                    "application": 3, "limit": null,
                    "fields": [{"name": "repayment.amount", "kind": "magnitude", "slow": false,
                                "sources": [{"selection": 0, "slot": 0, "scale": 2}]}, ...]}, ...]}

A plan without sequences is of format 2 and has no such key; one with sequences is of format 3.

Timelines. A timeline belongs to an entity type, or to a composite of several (`entities`; its key is the parts joined
by U+001F, which no entity's key contains). A row of timeline T is one fact that at least one selection of T selects;
bit i of its mask is selection i. There are at most 63, where one that measures combine with conditions (`given`, below)
counts once more for each different combination. A fact whose type enters T through two entity fields makes a row in
either entity's timeline. Slot k of a row is the k-th entry of its event type's `fields`; slots of different types
overlay, so T has as many slots as the longest list. Codings, all int64 with INT64_MIN for null: `integer` is the stored
value (minor units, scaled decimal, microseconds, boolean 0/1); `vocabulary` is the index in `values`, and len(values)
for a text that is not in it; `hash` is the first 8 bytes of the text's blake2b-8 digest, little-endian. `hot` says that
one entity may have very many rows: then only measures with exact partials, and sketches, are allowed.

Measures. The rows of a measure are the rows of T under the application's keys in the fields `via`, in the view (in
particular event_time < as_of), whose mask has bit `selection`, for which every condition of `given` is true, within the
window, in the order (event_time, root). A condition compares a slot with a comparand of the request (the application's
field by coding and unscaled, or as_of); it is false where either is null. The windows:

    time         as_of - offset_us - length_us <= event_time < as_of - offset_us (`length_us` null: no lower bound)
    rows         the newest `rows` of the rows for which `given` is true (nulls of the slot count as rows)
    calendar     from the beginning of the day, week (Monday), month, quarter or year of as_of in the plan's zone, up to
                 as_of; with `back` n > 0 the whole period n before it. A period begins when the zone's clock first
                 shows its first midnight or, where it skips that, is first past it
    since        from the event_time of the newest row of selection `anchor` in the view (whatever `given` says of
                 it), which is a row like the others, up to as_of; without such a row the measure is null

The aggregates; "values" are the slot's non-null values, "none" means no row or no value:

    count                           number of rows; 0 of none                                               slot null
    sum                             of the values; 0 of none
    mean, std, sample_std           of the values; std divides by n, sample_std by n - 1; null of none (of one)
    min, max, first, last           of the values, first and last in the order of rows; null of none
    nth_last [n]                    the n-th of the values from the newest on (1: the last); null of fewer
    time_since_first, ..._last      seconds from the first or last row to as_of; null of none               slot null
    mean_gap, std_gap, longest_gap  seconds between neighbouring rows; null of fewer than two rows          slot null
    slope                           of the least squares line of the values over event_time in whole seconds (rounded
                                    down), per day; null where the times do not differ
    streak, longest_streak          how many rows in a row are also in selection `condition`: counted from the newest
                                    row back, or the longest such run; 0 of none                            slot null
    decayed_count [h, s]            each row counts 2^(-a s / h) for half-life h and step s in us, where a is the age in
                                    whole steps: floor(as_of / s) - floor(event_time / s). length_us + offset_us is
                                    at most 4,096 s; of a lifetime, h is at most 64 s and rows of an age above 4,096
                                    do not count (each would weigh less than 2^-64)                         slot null
    decayed_sum [h, s]              the same of the values; 0 of none, both
    distinct                        number of distinct values; 0 of none
    most_frequent [n]               the n-th most frequent value, ties by the earlier first row; null of fewer distinct
    top_share [k]                   share of the values that are among the k most frequent; null of none
    entropy                         of the values' frequencies, in bits; null of none
    quantile [q]                    linear between the two nearest ranks at q (n - 1); null of none
    distinct_sketch                 about the number of distinct values (HyperLogLog, 2,048 registers: standard error
                                    2.3%); 0 of none
    quantile_sketch [q]             as quantile, each value replaced by the middle of its bucket (within 1.6%)

The result of sum, mean, std, sample_std, min, max, first, last, nth_last, slope, decayed_sum, most_frequent, quantile
and quantile_sketch is divided by 10^scale (a decimal's declared places; 0 otherwise). Where one of the application's
keys in `via` is null, every measure through it is null: not knowing the merchant is not the same as a merchant without
history.

Two levels (`per`): first a number for each key, then an aggregate over the keys. Each of `inner` looks at the rows of
its selection and `given` in its window, groups them by slot `key` (coding `hash`; rows with a null key are left out)
and takes its aggregate, scaled. The keys are those of all inner rows; of a key without rows an inner count or sum is 0,
anything else null. `program` (steps as below; ["measure", i] is inner i) makes one number of them for each key, and the
outer aggregate is taken of those that are not null, in ascending order: count, sum (0 of none), mean, std, min, max
(null of none).

Exactness classes (`measures.class_of`), the same offline and online:

    group        count, sum, mean, std, slope; distinct, most frequent, ... of a vocabulary of at most 255 values
    tiled        min, max, first, last, nth_last, times, gaps, streaks; windows by rows
    decay        decayed_count, decayed_sum: one exact partial for each step, weighted and summed from the newest on
    holistic     distinct, most_frequent, top_share, entropy, quantile; two levels; `given`; windows since an anchor:
                 exact up to a limit (4,096 distinct values or keys, 16,384 values of a quantile), refused where hot
    sketch       distinct_sketch, quantile_sketch: of a hot entity

Requests. Values of the application itself: {"source": "field", ...} a stored field by coding (never `hash`, which only
comparands have), divided by 10^scale; {"source": "calendar", "name": "hour" | "day_of_week" | "day_of_month" |
"as_of", ...} the hour 0-23, weekday 0-6 from Monday, day 1-31 of as_of in the plan's zone, or as_of itself in
microseconds; {"source": "age", ...} seconds from a timestamp field to as_of (negative when it lies ahead). The offset
of the zone at an instant is that of the last entry of `zone_offsets` with from_us <= instant; the first entry's from_us
is -2^63 + 1.

Programs. Postfix over float64 with NaN for null: each step pushes, or takes its operands from the stack (the second
operand lies on top) and pushes its result. A null operand makes a null result, of every step but `fill`. A result that
is not finite crosses a limit; so does, where the feature is of type `integer` (or a key's number is made of integers),
or what is compared is made of integers, a sum, difference or product that reaches 2^53, unless it is only a part of a
quotient or of a real number: it could be rounded. A sum of integers over keys is held to the same.

    ["measure", i]  ["request", i]  ["constant", x]      push
    ["add"]  ["subtract"]  ["multiply"]  ["divide"]      float64; division by zero is null
    ["minimum"]  ["maximum"]                             of two
    ["less"]  ["less_equal"]  ["greater"]  ["greater_equal"]  ["equal"]  ["not_equal"]       1.0 or 0.0
    ["fill", x]                                          x where the top is null

Sequences. The rows of a sequence are the rows of its timeline under the application's keys in the fields `via`, in the
view, that are in one of its selections, in the order (event_time, root); with `limit` the newest so many of them. After
them comes the application itself: the row that its own fields make in selection `application` (as_of stands for its
event_time). A row's type is the first of `selections` that it is in. A field's value in a row is that of `slot`, of the
source whose selection is the row's type; it is absent where there is no such source, or the slot is null. Its kinds:

    category     the slot's value is one of many that are only told apart; a text not in a vocabulary is unknown
    number       the slot's value divided by 10^scale
    magnitude    sign(x) log2(1 + |x|) of that: money in major units, times in seconds

`slow` fields say who it is rather than what happens, and are kept out of contrastive objectives. Every sequence also
has the fields of `sequence_spec.BUILT_IN`: the type, the time since the row before it, and hour, weekday and day of the
month of event_time in the plan's zone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, Self

import msgspec

from obligor.errors import BadInput, NotFound, Problem, did_you_mean
from obligor.features.filters import parse_predicate
from obligor.features.measures import Coding, Measure, Record, Step, Timeline, measure_faults
from obligor.features.sequence_spec import SequenceSpec, sequence_faults

__all__ = ["FORMAT", "FORMAT_SEQUENCES", "SELECTIONS_MAX", "STACK_MAX", "FeatureSpec", "Plan", "RequestValue"]

FORMAT = 2
FORMAT_SEQUENCES = 3  # of a plan that has any
SELECTIONS_MAX = 63  # bits of a row's int64 mask
STACK_MAX = 32  # values on the stack of a program
_PUSH = ("measure", "request", "constant")


class RequestValue(Record, frozen=True):
    """One number out of the application itself or its as_of."""

    source: Literal["field", "calendar", "age"]
    name: str
    coding: Coding
    values: tuple[str, ...] | None
    scale: int


class FeatureSpec(Record, frozen=True):
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


class _Plan(Record, frozen=True):
    format: Literal[2]
    application: str
    zone: str
    zone_offsets: tuple[tuple[int, int], ...]
    timelines: dict[str, Timeline]
    comparands: tuple[RequestValue, ...]
    measures: tuple[Measure, ...]
    requests: tuple[RequestValue, ...]
    features: tuple[FeatureSpec, ...]


class _SequencesPlan(_Plan, frozen=True):
    format: Literal[3]  # type: ignore[assignment]
    sequences: tuple[SequenceSpec, ...]


_FORMS: dict[object, type[_Plan]] = {FORMAT: _Plan, FORMAT_SEQUENCES: _SequencesPlan}


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
        self.comparands = record.comparands
        self.measures = record.measures
        self.requests = record.requests
        self.features = record.features
        self.sequences = record.sequences if isinstance(record, _SequencesPlan) else ()
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
                "comparands": [],
                "measures": [],
                "requests": [],
                "features": [],
            }
        )

    @classmethod
    def load(cls, data: object) -> Self:
        """Return the plan of JSON data; BadInput where it is not exactly this format, naming the place."""
        stated = data.get("format") if isinstance(data, dict) else FORMAT
        if stated not in _FORMS:
            known = " or ".join(map(str, _FORMS))
            raise BadInput(Problem("$.format", f"expected plan format {known}, got {stated!r}"))
        try:
            canonical = _canonical(data)  # also puts the keys in order, so that a plan reads the same wherever it was
            plan = cls(msgspec.convert(json.loads(canonical), _FORMS[stated]))
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `")
            raise BadInput(Problem(path.rstrip("`") or "$", f"not a feature plan: {message}")) from None
        except (TypeError, ValueError) as error:
            raise BadInput(f"not a feature plan: {error}") from None
        if plan.canonical != canonical:
            raise BadInput("not a feature plan: expected its canonical form, got extra or rewritten parts")
        return plan

    def sequence(self, name: str) -> SequenceSpec:
        """Return a sequence by name; NotFound with the nearest one otherwise."""
        names = [one.name for one in self.sequences]
        if name not in names:
            hint = did_you_mean(name, names) if names else "the plan has none"
            raise NotFound(f"no sequence {name!r}; {hint}")
        return self.sequences[names.index(name)]

    @cached_property
    def data(self) -> dict[str, Any]:
        """The plan as JSON data."""
        data: dict[str, Any] = msgspec.to_builtins(self._record)
        two_level = [measure["per"] for measure in data["measures"] if measure["per"] is not None]
        for one in (*data["features"], *two_level):
            one["program"] = [[op] if value is None else [op, value] for op, value in one["program"]]
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
        """The sha256 of the timelines alone."""
        return hashlib.sha256(_canonical(self.data["timelines"])).hexdigest()

    def __repr__(self) -> str:
        more = f", {len(self.sequences)} sequences" if self.sequences else ""
        return f"Plan({self.hash[:12]}: {len(self.features)} features, {len(self.measures)} measures{more})"


def _canonical(data: object) -> bytes:
    # Tuples (from our own records) and lists (from JSON) encode alike; NaN and infinity have no JSON form.
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _check(record: _Plan) -> None:
    """Raise BadInput with every reference that points nowhere and every program that does not leave one value."""
    problems: list[Problem] = []
    for name, timeline in record.timelines.items():
        problems += [Problem(f"$.timelines.{name}{path}", message) for path, message in _timeline_faults(timeline)]
    comparands = len(record.comparands)
    for i, measure in enumerate(record.measures):
        faults = measure_faults(measure, record.timelines, comparands)
        if measure.per is not None:
            faults += [_program_fault(measure.per.program, {"measure": len(measure.per.inner)}) or ""]
        problems += [Problem(f"$.measures[{i}]", fault) for fault in faults if fault]
    problems += [Problem(f"$.timelines.{name}", message) for name, message in _selection_faults(record)]
    for i, comparand in enumerate(record.comparands):
        if comparand.source != "field" and (comparand.source, comparand.name) != ("calendar", "as_of"):
            problems.append(Problem(f"$.comparands[{i}]", "expected a field of the application, or as_of"))
    for i, request in enumerate(record.requests):
        if request.coding == "hash":
            problems.append(Problem(f"$.requests[{i}].coding", "expected a number or a vocabulary, got a hash"))
    sizes = {"measure": len(record.measures), "request": len(record.requests)}
    for i, feature in enumerate(record.features):
        fault = _program_fault(feature.program, sizes)
        problems += [Problem(f"$.features[{i}].program", fault)] if fault else []
    names = [feature.name for feature in record.features]
    problems += [
        Problem("$.features", f"two features are named {n!r}") for n in {n for n in names if names.count(n) > 1}
    ]
    if isinstance(record, _SequencesPlan):
        problems += _sequences_faults(record)
    if problems:
        raise BadInput(problems)


def _sequences_faults(record: _SequencesPlan) -> Iterator[Problem]:
    if not record.sequences:
        yield Problem("$.sequences", f"expected one or more; a plan without is of format {FORMAT}")
    for i, spec in enumerate(record.sequences):
        for path, message in sequence_faults(spec, record.timelines, record.application):
            yield Problem(f"$.sequences[{i}]{path}", message)
    names = [spec.name for spec in record.sequences]
    yield from (Problem("$.sequences", f"two are named {n!r}") for n in {n for n in names if names.count(n) > 1})


def _selection_faults(record: _Plan) -> Iterator[tuple[str, str]]:
    for name, timeline in record.timelines.items():
        measures = [measure for measure in record.measures if measure.timeline == name]
        readers = [one for measure in measures for one in ((measure,) if measure.per is None else measure.per.inner)]
        conditioned = {(one.selection, one.given) for one in readers if one.given}
        if len(timeline.selections) + len(conditioned) > SELECTIONS_MAX:
            yield name, f"more than {SELECTIONS_MAX} selections" + (", with conditions counted" if conditioned else "")


def _timeline_faults(timeline: Timeline) -> Iterator[tuple[str, str]]:
    for i, selection in enumerate(timeline.selections):
        if not timeline.entities or len(selection.by) != len(timeline.entities):
            yield f".selections[{i}].by", f"expected {len(timeline.entities)} fields, got {list(selection.by)}"
        try:
            None if selection.where is None else parse_predicate(selection.where)
        except BadInput as error:
            yield f".selections[{i}].where", str(error)


def _program_fault(program: tuple[Step, ...], sizes: Mapping[str, int]) -> str | None:
    """Return what is wrong with a program over so many measures and request values, None where it is right."""
    depth = 0
    for step in program:
        if (step.value is None) == (step.op in (*_PUSH, "fill")):
            return f"{step.op} {'needs a' if step.value is None else 'has no'} value"
        if step.op in ("measure", "request") and not (
            isinstance(step.value, int) and 0 <= step.value < sizes.get(step.op, 0)
        ):
            return f"no {step.op} {step.value}"
        if depth < (0 if step.op in _PUSH else 1 if step.op == "fill" else 2):
            return f"{step.op} lacks an operand"
        depth += 1 if step.op in _PUSH else 0 if step.op == "fill" else -1
        if depth > STACK_MAX:
            return f"needs a stack of more than {STACK_MAX} values"
    return None if depth == 1 else f"leaves {depth} values, expected one"
