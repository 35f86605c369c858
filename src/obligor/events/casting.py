"""Casting: a source's column to a field's stored values, exactly or not at all, by the column.

Any source type is taken where the value it holds is exactly one that the field can store: 12.5 in a float column is
1250 minor units, 12.345 is refused, and so is NaN. Nothing is rounded, trimmed, clipped or guessed. Cells that cannot
be stored are marked with a reason; the rest of the column is not touched by them.
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obligor.events.decimals import read_decimals
from obligor.events.fields import (
    INT64_MAX,
    WITHOUT_CONTROL,
    Boolean,
    Category,
    Decimal,
    Entity,
    Field,
    Integer,
    Money,
    Text,
    Timestamp,
    minor_places,
)
from obligor.events.moments import DATE, LOCAL, MALFORMED, NULL, ZONED, read_moments
from obligor.events.texts import controlled
from obligor.events.zones import AMBIGUOUS, NONEXISTENT, OUT_OF_RANGE, local_to_utc

__all__ = [
    "Cast",
    "Reading",
    "cast",
    "cast_moments",
    "held",
    "lacks_zone",
    "plain",
    "translate",
    "unsupported",
    "written",
]

_PLACES: Final = {"s": 6, "ms": 3, "us": 0}  # of a unit, to the microsecond; whole nanoseconds are divided
_EXACT: Final = {pa.float64(): 2**53, pa.float32(): 2**24}

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Marks = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source column is to be read: its unit, its zone, and what becomes of local times that are no one moment."""

    unit: str = ""
    zone: str | None = None
    ambiguous: Literal["reject", "earliest", "latest"] = "reject"
    nonexistent: Literal["reject", "next"] = "reject"


@dataclass(frozen=True, slots=True)
class Cast:
    """Stored values (null where the source is null or the cell is bad) and, by row, 0 or 1 + an index of `reasons`."""

    values: pa.Array
    bad: npt.NDArray[np.uint8]
    reasons: tuple[str, ...]


def plain(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column as one array, dictionaries decoded, large and view strings as strings."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # an empty column has no chunk to combine
        array = pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type):
        array = array.cast(pa.string())
    return array


def written(kind: pa.DataType) -> bool:
    """Whether values of an Arrow type have one way to be written, as a text has: "-999", "true", "1900-01-01"."""
    numbers = pa.types.is_integer(kind) or kind in _EXACT or pa.types.is_decimal(kind)
    return bool(numbers or pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_date32(kind))


def held(value: Any, kind: pa.DataType) -> pa.Scalar:
    """Return a value as a column of an Arrow type holds it; null where none can, as no whole number is 1.5.

    >>> held(2.0, pa.int64()).as_py(), held(1.5, pa.int64()).as_py()
    (2, None)
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    exact = decimal.Decimal(str(value)) if number and pa.types.is_decimal(kind) else value
    near = kind == pa.float32() or (pa.types.is_temporal(kind) and not number)  # rounded, or a moment of a date
    try:
        found = pa.scalar(exact).cast(kind)
        same = near or found.as_py() == exact
    except (pa.ArrowException, OverflowError, TypeError):
        same = False
    return found if same else pa.scalar(None, kind)


def unsupported(one: Field, kind: pa.DataType, reading: Reading) -> str | None:
    """Return why a column of Arrow type `kind` cannot be read as the field at all, or None where it can."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    whole = pa.types.is_integer(kind)
    if pa.types.is_null(kind) or text:
        return None
    if isinstance(one, Timestamp):
        return _unsupported_moment(kind, reading)
    if isinstance(one, Entity | Category | Text):
        right, expected = whole, "text or integers"
    elif isinstance(one, Boolean):
        right, expected = pa.types.is_boolean(kind), "booleans, or text with declared values"
    else:
        right, expected = whole or kind in _EXACT or pa.types.is_decimal(kind), "integers, decimals, floats or text"
    return None if right else f"expected {expected} ({one.kind}), got a column of {kind}"


def _unsupported_moment(kind: pa.DataType, reading: Reading) -> str | None:
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        if (pa.types.is_date(kind) or kind.tz is None) and reading.zone is None:
            return f"its timestamps ({kind}) have no time zone; declare one in the mapping: zone = 'Africa/Lagos'"
        return None
    if pa.types.is_integer(kind):
        if not reading.unit:
            return f"its timestamps are integers ({kind}); declare their unit in the mapping: s, ms, us or ns"
        return None
    return f"expected timestamps, dates, text or integers with a unit, got a column of {kind}"


def translate(column: pa.Array, values: Mapping[str, Any]) -> tuple[pa.Array, npt.NDArray[np.uint8], tuple[str, ...]]:
    """Return the column with its texts replaced as declared, and its cells that are not declared as bad."""
    texts = column if column.type == pa.string() else column.cast(pa.string())
    found = pc.index_in(texts, pa.array(list(values), pa.string()))
    bad = _and_present(column, found.is_null().to_numpy(zero_copy_only=False))
    return pa.array(list(values.values())).take(found), bad.astype(np.uint8), (f"one of {', '.join(values)}",)


def cast(one: Field, column: pa.Array, reading: Reading, currency: str = "") -> Cast:
    """Return a plain column as the field's stored values; `currency` sets the places of money in major units."""
    why = unsupported(one, column.type, reading)
    if why is not None:
        return _result(
            pa.nulls(len(column), column.type), np.ones(len(column), np.bool_), why.removeprefix("expected "), column
        )
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    if isinstance(one, Timestamp):
        return cast_moments(column, reading)
    if isinstance(one, Boolean):
        return _booleans(column)
    if isinstance(one, Entity | Category | Text):
        return _texts(one, column)
    if isinstance(one, Money):
        places = minor_places(currency or one.currencies[0]) if reading.unit == "major" else 0
        return _numbers(column, places, *_money_bounds(one, reading.unit, places, currency))
    if isinstance(one, Decimal):
        return _numbers(column, one.scale, None, None, f"a decimal with at most {one.scale} places within 64 bits")
    assert isinstance(one, Integer), "every kind of field has its cast"
    low, high = one.minimum, one.maximum
    least = f" of at least {low}" if low is not None else ""
    most = f"{' and' if least else ' of'} at most {high}" if high is not None else ""
    return _numbers(column, 0, low, high, f"an integer{least}{most} within 64 bits")


def _money_bounds(one: Money, unit: str, places: int, currency: str) -> tuple[int | None, None, str]:
    sign = "an amount" if one.negative else "a non-negative amount"
    name = currency or one.currencies[0]
    form = f"with at most {places} places" if unit == "major" else "in whole minor units"
    return None if one.negative else 0, None, f"{sign} of {name} {form}"


def _result(values: pa.Array, bad: Bools, reason: str, column: pa.Array) -> Cast:
    marked = _and_present(column, bad)
    return Cast(_without(values, marked), marked.astype(np.uint8), (reason,))


def _and_present(column: pa.Array, bad: Bools) -> Bools:
    return bad if column.null_count == 0 else bad & column.is_valid().to_numpy(zero_copy_only=False)


def _without(values: pa.Array, bad: Bools) -> pa.Array:
    return pc.if_else(pa.array(~bad), values, pa.scalar(None, values.type)) if bad.any() else values


# ---- texts and booleans ---------------------------------------------------------------------------------------------


def _texts(one: Entity | Category | Text, column: pa.Array) -> Cast:
    texts = column if column.type == pa.string() else column.cast(pa.string())
    shortest, longest = (0, one.length_max) if isinstance(one, Text) else (1, one.LENGTH_MAX)
    expected = f"text of {shortest} to {longest} characters, valid UTF-8"
    malformed = _malformed_texts(texts)
    texts = _without(texts, malformed)
    lengths = pc.utf8_length(texts).fill_null(shortest).to_numpy(zero_copy_only=False)
    bad = malformed | (lengths < shortest) | (lengths > longest)
    if isinstance(one, Category) and one.values:
        known = pc.is_in(texts, pa.array(list(one.values), pa.string())).to_numpy(zero_copy_only=False)
        bad, expected = bad | ~known, f"one of {', '.join(one.values)}"
    if isinstance(one, Entity) and (control := controlled(texts)).any():
        marks = _and_present(column, bad).astype(np.uint8)
        marks[control & (marks == 0)] = 2
        return Cast(_without(texts, marks > 0), marks, (expected, WITHOUT_CONTROL))
    return _result(texts, bad, expected, column)


def _malformed_texts(texts: pa.Array) -> Bools:
    """Return which texts are not valid UTF-8; files may hold such, and Arrow does not look when it reads them."""
    bad = np.zeros(len(texts), np.bool_)
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        for i, raw in enumerate(texts.cast(pa.binary()).to_pylist()):
            bad[i] = raw is not None and raw.decode("utf-8", "replace").encode() != raw
    return bad


def _booleans(column: pa.Array) -> Cast:
    if pa.types.is_boolean(column.type):
        return Cast(column, np.zeros(len(column), np.uint8), ())
    lower = pc.utf8_lower(column)
    known = pc.is_in(lower, pa.array(["true", "false"])).to_numpy(zero_copy_only=False)
    return _result(pc.equal(lower, "true"), ~known, "true or false", column)


# ---- numbers --------------------------------------------------------------------------------------------------------


def _numbers(column: pa.Array, places: int, low: int | None, high: int | None, expected: str) -> Cast:
    """Return the column times 10**places as int64 within the bounds."""
    kind = column.type
    if pa.types.is_string(kind):
        values, right = read_decimals(column, places)
    elif pa.types.is_integer(kind):
        values, right = _from_integers(column, places)
    elif kind in _EXACT:
        values, right = _from_floats(column, places)
    else:
        values, right = _from_decimals(column, places)
    least = -INT64_MAX if low is None else max(low, -INT64_MAX)
    most = INT64_MAX if high is None else high
    bad = ~right | (values < least) | (values > most)
    null = None if column.null_count == 0 else column.is_null().to_numpy(zero_copy_only=False)
    return _result(pa.array(values, pa.int64(), mask=null), bad, expected, column)


def _from_integers(column: pa.Array, places: int) -> tuple[Ints, Bools]:
    raw = column.fill_null(0).to_numpy(zero_copy_only=False)
    limit = INT64_MAX // 10**places
    if raw.dtype == np.uint64:
        right = raw <= limit
        raw = np.where(right, raw, 0)
    values = raw.astype(np.int64)
    right = (values <= limit) & (values >= -limit) if raw.dtype != np.uint64 else right
    return np.where(right, values, 0) * 10**places, right


def _from_floats(column: pa.Array, places: int) -> tuple[Ints, Bools]:
    """Return the decimals whose nearest float the cells are; a float that is no such decimal is not right."""
    raw = column.fill_null(0).to_numpy(zero_copy_only=False)
    limit = _EXACT[column.type]
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(raw.astype(np.float64) * 10.0**places)
        right = np.isfinite(scaled) & (np.abs(scaled) < limit)
        scaled = np.where(right, scaled, 0.0)
        right &= (scaled / 10.0**places).astype(raw.dtype) == raw
    return scaled.astype(np.int64), right


def _from_decimals(column: pa.Array, places: int) -> tuple[Ints, Bools]:
    try:
        whole = pc.multiply(column, pa.scalar(10**places, pa.decimal128(19, 0))).cast(pa.int64())
    except pa.ArrowInvalid:  # a cell does not fit: find which
        texts = pa.array([None if v is None else f"{v:f}" for v in column.to_pylist()], pa.string())
        return read_decimals(texts, places)
    return whole.fill_null(0).to_numpy(zero_copy_only=False), np.ones(len(column), np.bool_)


# ---- moments --------------------------------------------------------------------------------------------------------


def cast_moments(column: pa.Array, reading: Reading) -> Cast:
    """Return a supported column as UTC microseconds; local times need `reading.zone`."""
    null = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_string(column.type):
        us, status = read_moments(column)
        if reading.unit:
            us, status = _or_numbers(column, reading.unit, us, status)
        local = (status == LOCAL) | (status == DATE)
        bad = (status == MALFORMED).astype(np.uint8)
        null = null | (status == NULL)
    elif pa.types.is_integer(column.type):
        us, right = _from_unit(column, reading.unit)
        local, bad = np.zeros(len(us), np.bool_), (~right).astype(np.uint8)
    else:
        us, right = _from_arrow_moments(column)
        naive = pa.types.is_date(column.type) or column.type.tz is None
        local, bad = np.full(len(us), naive), (~right).astype(np.uint8)
    local &= (bad == 0) & ~null
    if local.any():
        us, bad = _zoned(us, local, bad, reading)
    bad[(bad == 0) & ((us < _FIRST_US) | (us >= _END_US))] = _FAR
    bad[null] = 0
    values = pa.array(us, pa.int64(), mask=null | (bad > 0))
    return Cast(values, bad, _MOMENT_REASONS)


_MOMENT_REASONS: Final = (
    "an RFC 3339 timestamp such as 2026-01-31T09:30:00Z, to the microsecond",
    "a timestamp with a zone (declare one in the mapping: zone = 'Africa/Lagos')",
    "a local time that exists (this one was skipped when clocks went forward; see nonexistent in the mapping)",
    "a local time that is one moment (this one was passed twice as clocks went back; see ambiguous in the mapping)",
    "a time in the years 1 to 9999 (of a local time: 1800 to 2199)",
)
_FIRST_US: Final = -62_135_596_800_000_000  # 0001-01-01, where RFC 3339 as Python reads it begins
_END_US: Final = 253_402_300_800_000_000  # 10000-01-01
_NO_ZONE, _SKIPPED, _TWICE, _FAR = 2, 3, 4, 5


def lacks_zone(bad: npt.NDArray[np.uint8], reasons: tuple[str, ...]) -> bool:
    """Whether a cast of moments met local times for which no zone is declared."""
    return reasons is _MOMENT_REASONS and bool((bad == _NO_ZONE).any())


def _zoned(us: Ints, local: Bools, bad: npt.NDArray[np.uint8], reading: Reading) -> tuple[Ints, npt.NDArray[np.uint8]]:
    if reading.zone is None:
        bad[local] = _NO_ZONE
        return us, bad
    earlier, status, later = local_to_utc(reading.zone, us[local])
    us, bad = us.copy(), bad.copy()
    us[local] = later if reading.ambiguous == "latest" else earlier
    reasons = np.zeros(len(status), np.uint8)
    reasons[status == OUT_OF_RANGE] = _FAR
    if reading.nonexistent == "reject":
        reasons[status == NONEXISTENT] = _SKIPPED
    if reading.ambiguous == "reject":
        reasons[status == AMBIGUOUS] = _TWICE
    bad[local] = reasons
    return us, bad


def _or_numbers(column: pa.Array, unit: str, us: Ints, status: Marks) -> tuple[Ints, Marks]:
    """Return moments of texts with those that are numbers of a unit: no text is both."""
    values, right = read_decimals(column, _PLACES.get(unit, 0))
    if unit == "ns":
        values, right = _from_nanoseconds(values, right)
    numbers = right & (status == MALFORMED)
    return np.where(numbers, values, us), np.where(numbers, np.uint8(ZONED), status)


def _from_unit(column: pa.Array, unit: str) -> tuple[Ints, Bools]:
    values, right = _from_integers(column, 0)
    if unit == "ns":
        return _from_nanoseconds(values, right)
    scale = 10 ** _PLACES[unit]
    limit = INT64_MAX // scale
    right &= (values <= limit) & (values >= -limit)
    return np.where(right, values, 0) * scale, right


def _from_nanoseconds(values: Ints, right: Bools) -> tuple[Ints, Bools]:
    return values // 1_000, right & (values % 1_000 == 0)


def _from_arrow_moments(column: pa.Array) -> tuple[Ints, Bools]:
    if pa.types.is_date(column.type):
        days = column.cast(pa.date32()).cast(pa.int32()).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        return days * 86_400_000_000, np.ones(len(column), np.bool_)
    return _from_unit(column.cast(pa.int64()), column.type.unit)
