"""Tokens: what a row of a timeline becomes for a sequence model, one position an event.

A tokenizer has an ordered list of fields: the built-in ones, then those of the plan's sequence. Each gives an event an
int32 `code` and a float32 `part`, and an event's vector is the sum over fields of

    (1 - part) * table[code] + part * table[code + 1]          (the second term only where part is not 0)

A category has code 0 where it is absent, 1 for a value that is not known, 2 and on for the known ones, and part 0. A
number x has code 0 where it is absent; else it is clamped to [e_0, e_B], its code is 1 + i for e_i <= x < e_(i+1) (the
last interval is closed) and its part (x - e_i) / (e_(i+1) - e_i): piecewise linear, so that a table row belongs to an
edge and no step is lost between (Gorishniy et al. 2022, "On Embeddings for Numerical Features in Tabular Deep
Learning"). Kind `bins` is the same with part 0. Kind `periodic` has the codes of bins, which is what foretelling it
asks for, and as its part the number itself, clamped as well: in spreads from the middle edge, a spread being from the
first quarter of the edges to the last; the encoder takes sines and cosines of it. Magnitudes (money, times) are taken
as sign(x) log2(1 + |x|).

A tokenizer is fitted once (`fitting`), is JSON, and says by hash for which definition of a sequence it was made. The
arithmetic is + - * / on float64, and a logarithm made of these: the same bits on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.errors import BadInput, IntegrityError, Problem
from obligor.features.kernels.compiling import entry, kernel
from obligor.features.kernels.integers import NULL
from obligor.features.kernels.values import log2
from obligor.features.layout import read_only
from obligor.features.measures import Record
from obligor.features.narrowing import sequence_alone
from obligor.features.plan import Plan
from obligor.features.projection import code_slots
from obligor.features.requests import slot_row
from obligor.features.sequence_spec import BUILT_IN
from obligor.sequences.kernels.tokens import SPREADS_MAX
from obligor.sequences.numbers import NumberKind

__all__ = ["ABSENT", "FORMAT", "KNOWN", "UNKNOWN", "Encoder", "TokenField", "Tokenizer", "Tokens", "magnitude"]

FORMAT: Final = 1
ABSENT, UNKNOWN, KNOWN = 0, 1, 2  # codes of a category; the known values begin at KNOWN
_TYPE, _GAP, _HOUR, _WEEKDAY, _DAY, _CATEGORY, _NUMBER, _MAGNITUDE = range(8)
_KINDS = {"category": _CATEGORY, "number": _NUMBER, "magnitude": _MAGNITUDE}
_DAY_S, _HOUR_S = 86_400, 3_600
_FIRST: Final = np.zeros(1, np.int64)

Ints: TypeAlias = NDArray[np.int64]
Codes: TypeAlias = NDArray[np.int32]
Parts: TypeAlias = NDArray[np.float32]


class Tokens(NamedTuple):
    """Of n events: codes (n, fields) and parts (n, fields), C order."""

    codes: Codes
    parts: Parts


class TokenField(Record, frozen=True):
    """One field: a category's known values, the most frequent first, or a number's edges, ascending."""

    name: str
    kind: Literal["category"] | NumberKind
    size: int  # how many codes it has: rows of its table, unless it is periodic
    slow: bool  # kept out of contrastive objectives
    values: tuple[int, ...] | None
    edges: tuple[float, ...] | None


class _Tokenizer(Record, frozen=True):
    format: Literal[1]
    definition: str
    fields: tuple[TokenField, ...]


@dataclass(frozen=True)
class Tokenizer:
    """How the rows of one definition of a sequence become tokens. Immutable; equal ones have equal hashes."""

    definition: str  # the hash of the plan of the sequence alone
    fields: tuple[TokenField, ...]

    @classmethod
    def load(cls, data: object) -> Self:
        """Return the tokenizer of JSON data; BadInput where it is none, naming the place."""
        try:
            record = msgspec.convert(data, _Tokenizer)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `")
            raise BadInput(Problem(path.rstrip("`") or "$", f"not a tokenizer: {message}")) from None
        problems = [
            Problem(f"$.fields[{i}]", fault)
            for i, one in enumerate(record.fields)
            if (fault := _fault(one)) is not None
        ]
        if problems:
            raise BadInput(problems)
        return cls(record.definition, record.fields)

    @cached_property
    def data(self) -> dict[str, Any]:
        """The tokenizer as JSON data."""
        data: dict[str, Any] = msgspec.to_builtins(_Tokenizer(format=1, definition=self.definition, fields=self.fields))
        return data

    @cached_property
    def canonical(self) -> bytes:
        """The canonical JSON: sorted keys, no spaces, floats by repr."""
        return json.dumps(self.data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @cached_property
    def hash(self) -> str:
        """The sha256 of the canonical JSON, in hex."""
        return hashlib.sha256(self.canonical).hexdigest()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fields."""
        return tuple(one.name for one in self.fields)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many codes each field has."""
        return tuple(one.size for one in self.fields)

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which fields are periodic."""
        return tuple(one.kind == "periodic" for one in self.fields)

    @property
    def slow(self) -> tuple[bool, ...]:
        """Which fields are kept out of contrastive objectives."""
        return tuple(one.slow for one in self.fields)

    def encoder(self, plan: Plan, name: str) -> Encoder:
        """Return what makes tokens of the rows of a plan's timelines, be it the whole plan or the sequence alone.

        IntegrityError where the plan's sequence is defined otherwise than the one that this was fitted on.
        """
        found = sequence_alone(plan, name).hash
        if found != self.definition:
            raise IntegrityError(
                f"the tokenizer was fitted on another definition of {name!r}: {self.definition[:12]}, this plan's is "
                f"{found[:12]}"
            )
        return Encoder(self, plan, name)


def _fault(field: TokenField) -> str | None:
    """Return what is wrong with a field."""
    if field.kind == "category":
        if field.values is None or field.edges is not None:
            return "a category has values and no edges"
        if len(set(field.values)) < len(field.values):
            return "a value is there twice"
        return None if field.size == KNOWN + len(field.values) else f"expected size {KNOWN + len(field.values)}"
    if field.edges is None or field.values is not None:
        return "a number has edges and no values"
    if not all(a < b for a, b in pairwise(field.edges)) or not all(abs(edge) < np.inf for edge in field.edges):
        return "expected finite edges, ascending"
    if field.edges and field.edges[-1] - field.edges[0] == np.inf:
        return "expected edges that are less than the greatest float64 apart"
    return None if field.size == 1 + len(field.edges) else f"expected size {1 + len(field.edges)}"


class _Layout(NamedTuple):
    """A tokenizer as the kernels take it; S types, F fields."""

    types: Ints  # (S,) the bit of each
    slots: NDArray[np.int32]  # (S, F) -1 where a type has no such field
    divisors: NDArray[np.float64]  # (S, F)
    kinds: NDArray[np.int32]  # (F,)
    binned: NDArray[np.bool_]  # (F,) whose part is not the place within an interval
    middles: NDArray[np.float64]  # (F,) of periodic fields
    spreads: NDArray[np.float64]  # (F,) of periodic fields, else 0
    value_ends: Ints  # (F + 1,)
    values: Ints  # of each category, ascending
    value_codes: Codes
    edge_ends: Ints  # (F + 1,)
    edges: NDArray[np.float64]
    zone_from: Ints
    zone_offsets: Ints  # seconds


class Encoder:
    """Makes tokens of rows by a frozen tokenizer."""

    def __init__(self, tokenizer: Tokenizer, plan: Plan, name: str) -> None:
        self.tokenizer, self._plan, self._spec = tokenizer, plan, plan.sequence(name)
        self._layout = _layout(tokenizer.fields, plan, name)
        self._slots = plan.timelines[self._spec.timeline].fields.get(plan.application, ())
        sources = (source for field in self._spec.fields for source in field.sources)
        self._own = sorted({source.slot for source in sources if source.selection == self._spec.application})

    def rows(self, time: Ints, mask: Ints, values: Ints, previous: Ints, places: Ints | None = None) -> Tokens:
        """Return the tokens of rows: event_time, mask (n,), values (slots, n), and the time of the row before or NULL.

        `places` are the rows that are wanted, with `previous` of each; None: all of them.
        """
        places = np.arange(len(time)) if places is None else places
        n, fields = len(places), len(self.tokenizer.fields)
        found = Tokens(np.empty((n, fields), np.int32), np.empty((n, fields), np.float32))
        _encode(
            self._layout, read_only(time), read_only(mask), read_only(values), read_only(previous), read_only(places),
            found.codes, found.parts,
        )  # fmt: skip
        return found

    def gaps(self, time: Ints, previous: Ints) -> tuple[Codes, Parts]:
        """Return code and part of the time since a row before, which is NULL where there is none; (n,) each."""
        codes, parts = np.empty(len(time), np.int32), np.empty(len(time), np.float32)
        _gaps(self._layout, read_only(time), read_only(previous), codes, parts)
        return codes, parts

    def application(self, fields: pa.Table, as_of: Ints, previous: Ints) -> Tokens:
        """Return the tokens of applications by their stored fields; as_of (n,) stands for their event_time."""
        table = pa.table({**{name: fields.column(name) for name in fields.column_names}, "event_time": as_of})
        values = np.full((len(self._slots), len(as_of)), NULL)
        values[self._own] = code_slots(table, [self._slots[slot] for slot in self._own])
        return self.rows(as_of, np.full(len(as_of), 1 << self._spec.application), values, previous)

    def application_row(self, fields: Mapping[str, object], as_of: int, previous: int) -> Tokens:
        """Return the token (1, fields) of one application: `application` of a table with this one row."""
        values = np.full((len(self._slots), 1), NULL)
        values[self._own, 0] = slot_row([self._slots[slot] for slot in self._own], as_of, fields)
        time, mask = np.array([as_of]), np.array([1 << self._spec.application])
        return self.rows(time, mask, values, np.array([previous]), _FIRST)


def _layout(fields: tuple[TokenField, ...], plan: Plan, name: str) -> _Layout:
    spec = plan.sequence(name)
    count, types = len(fields), spec.selections
    slots = np.full((len(types), count), -1, np.int32)
    divisors = np.ones((len(types), count))
    kinds = np.arange(count, dtype=np.int32)
    for f, field in enumerate(spec.fields, len(BUILT_IN)):
        kinds[f] = _KINDS[field.kind]
        for source in field.sources:
            place = types.index(source.selection)
            slots[place, f], divisors[place, f] = source.slot, float(10**source.scale)
    values = [sorted((v, KNOWN + i) for i, v in enumerate(field.values or ())) for field in fields]
    edges = [field.edges or () for field in fields]
    flat = np.array([pair for own in values for pair in own], np.int64).reshape(-1, 2)
    scales = np.array([_scale(field) for field in fields])
    zone = np.array(plan.zone_offsets, np.int64)
    return _Layout(
        np.array([1 << place for place in types], np.int64),
        slots,
        divisors,
        kinds,
        np.array([field.kind in ("bins", "periodic") for field in fields]),
        np.ascontiguousarray(scales[:, 0]),
        np.ascontiguousarray(scales[:, 1]),
        np.cumsum([0, *map(len, values)]),
        np.ascontiguousarray(flat[:, 0]),
        flat[:, 1].astype(np.int32),
        np.cumsum([0, *map(len, edges)]),
        np.array([edge for own in edges for edge in own], np.float64),
        np.ascontiguousarray(zone[:, 0]),
        np.ascontiguousarray(zone[:, 1]),
    )


def _scale(field: TokenField) -> tuple[float, float]:
    """Return the middle and the spread of a periodic field's edges; spread 0 where there is no such thing.

    >>> edges = (0.0, 1.0, 2.0, 4.0, 900.0)
    >>> _scale(TokenField(name="price", kind="periodic", size=6, slow=False, values=None, edges=edges))
    (2.0, 3.0)
    """
    if field.kind != "periodic" or not field.edges:
        return 0.0, 0.0
    last = len(field.edges) - 1
    spread = field.edges[last - last // 4] - field.edges[last // 4]
    return field.edges[last // 2], spread if last else 1.0


# ---- kernels --------------------------------------------------------------------------------------------------------


@entry
def magnitude(x: Any) -> Any:
    """Return sign(x) log2(1 + |x|).

    >>> magnitude(-3.0)
    -2.0
    """
    return -log2(1.0 - x) if x < 0.0 else log2(1.0 + x)


@kernel
def _category(layout: Any, f: int, value: int) -> int:
    """The code of a category's value."""
    low, end = layout.value_ends[f], layout.value_ends[f + 1]
    high = end
    while low < high:
        middle = (low + high) >> 1
        if layout.values[middle] < value:
            low = middle + 1
        else:
            high = middle
    if low < end and layout.values[low] == value:
        return int(layout.value_codes[low])
    return UNKNOWN


@kernel
def _number(layout: Any, f: int, x: float) -> tuple[int, float]:
    """The code and the part of a number."""
    code, part = _interval(layout, f, x)
    if layout.spreads[f] > 0.0:
        first, end = layout.edge_ends[f], layout.edge_ends[f + 1]
        clamped = min(max(x, layout.edges[first]), layout.edges[end - 1])
        part = min(max((clamped - layout.middles[f]) / layout.spreads[f], -SPREADS_MAX), SPREADS_MAX)
    return code, part


@kernel
def _interval(layout: Any, f: int, x: float) -> tuple[int, float]:
    """The code of the interval that a number lies in, and the place there."""
    first, end = layout.edge_ends[f], layout.edge_ends[f + 1]
    if end - first < 2 or x <= layout.edges[first]:
        return min(1, end - first), 0.0
    if x >= layout.edges[end - 1]:
        return end - first - 1, 0.0 if layout.binned[f] else 1.0
    low, high = first, end - 1  # edges[low] <= x < edges[high]
    while high - low > 1:
        middle = (low + high) >> 1
        if layout.edges[middle] <= x:
            low = middle
        else:
            high = middle
    if layout.binned[f]:
        return 1 + low - first, 0.0
    return 1 + low - first, (x - layout.edges[low]) / (layout.edges[low + 1] - layout.edges[low])


@kernel
def _gap(layout: Any, time: int, previous: int) -> tuple[int, float]:
    if previous == NULL:
        return 0, 0.0
    return _number(layout, _GAP, log2(1.0 + (time - previous) / 1e6))


@entry
def _gaps(layout: Any, time: Any, previous: Any, codes: Any, parts: Any) -> None:
    for i in range(time.shape[0]):
        codes[i], parts[i] = _gap(layout, time[i], previous[i])


@kernel
def _local(layout: Any, time: int, at: int) -> int:
    """The place of the zone's offset that holds at an instant; `at` is where the last search ended."""
    starts = layout.zone_from
    if at < starts.shape[0] and starts[at] <= time and (at + 1 == starts.shape[0] or time < starts[at + 1]):
        return at
    low, high = 0, starts.shape[0]  # the first one begins before everything
    while high - low > 1:
        middle = (low + high) >> 1
        if starts[middle] <= time:
            low = middle
        else:
            high = middle
    return low


@kernel
def _day_of_month(days: int) -> int:
    """The day of the month of days since 1970-01-01, as `features.calendar.civil` has it."""
    shifted = days + 719_468
    of_era = shifted - shifted // 146_097 * 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    return of_year - (153 * ((5 * of_year + 2) // 153) + 2) // 5 + 1


@entry
def _encode(layout: Any, time: Any, mask: Any, values: Any, previous: Any, places: Any, codes: Any, parts: Any) -> None:
    """Write the tokens of the rows `places`."""
    fields, types, at = layout.kinds.shape[0], layout.types.shape[0], 0
    for i in range(places.shape[0]):
        j = places[i]
        kind = 0
        while kind < types and mask[j] & layout.types[kind] == 0:
            kind += 1
        at = _local(layout, time[j], at)
        local_s = time[j] // 1_000_000 + layout.zone_offsets[at]
        days = local_s // _DAY_S
        codes[i, _TYPE] = _category(layout, _TYPE, kind)
        codes[i, _GAP], parts[i, _GAP] = _gap(layout, time[j], previous[i])
        codes[i, _HOUR] = _category(layout, _HOUR, local_s // _HOUR_S % 24)
        codes[i, _WEEKDAY] = _category(layout, _WEEKDAY, (days + 3) % 7)
        codes[i, _DAY] = _category(layout, _DAY, _day_of_month(days))
        parts[i, _TYPE] = parts[i, _HOUR] = parts[i, _WEEKDAY] = parts[i, _DAY] = 0.0
        for f in range(_DAY + 1, fields):
            code, part = 0, 0.0
            slot = layout.slots[kind, f] if kind < types else -1
            if slot >= 0 and values[slot, j] != NULL:
                if layout.kinds[f] == _CATEGORY:
                    code = _category(layout, f, values[slot, j])
                else:
                    x = values[slot, j] / layout.divisors[kind, f]
                    code, part = _number(layout, f, magnitude(x) if layout.kinds[f] == _MAGNITUDE else x)
            codes[i, f], parts[i, f] = code, part
