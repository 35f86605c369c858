"""Casting is exact or refuses: one table of source values for each kind of field."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal as PyDecimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from obligor.events.casting import Cast, Reading, cast, held, lacks_zone, plain, translate, unsupported
from obligor.events.fields import (
    INT64_MAX,
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
    parse_timestamp,
)

BAD = "bad"
MAJOR, MINOR = Reading("major"), Reading("minor")
LAGOS, BERLIN = Reading(zone="Africa/Lagos"), Reading(zone="Europe/Berlin")
US = parse_timestamp
NAN, INF = float("nan"), float("inf")
FAR = [BAD, US("0001-01-01T00:00:00Z"), BAD, US("9999-12-31T23:59:59Z")]
EPOCHS = [7_000_000, -7_250_000, BAD, BAD, BAD, None]


def _cells(result: Cast) -> list[Any]:
    """Return stored values, BAD where a cell was refused."""
    values = result.values.to_pylist()
    assert all(value is None for value, bad in zip(values, result.bad.tolist(), strict=True) if bad)
    assert result.bad.max(initial=0) <= len(result.reasons)
    return [BAD if bad else value for value, bad in zip(values, result.bad.tolist(), strict=True)]


def _decimal(*values: str | None) -> pa.Array:
    return pa.array([None if v is None else PyDecimal(v) for v in values], pa.decimal128(30, 6))


HELD: list[tuple[Any, pa.DataType, Any]] = [
    (2, pa.int8(), 2),
    (300, pa.int8(), None),
    (2**70, pa.int64(), None),
    (2.0, pa.int64(), 2),
    (1.5, pa.int64(), None),
    (NAN, pa.int64(), None),
    (0.1, pa.float32(), pytest.approx(0.1)),
    (2, pa.decimal128(5, 2), PyDecimal(2)),
    (1.25, pa.decimal128(5, 2), PyDecimal("1.25")),
    (1.125, pa.decimal128(5, 2), None),
    (INF, pa.decimal128(5, 2), None),
    (1, pa.bool_(), True),
    (1.5, pa.bool_(), None),
    (1, pa.timestamp("us"), None),
    (dt.date(2026, 1, 2), pa.timestamp("us"), dt.datetime(2026, 1, 2)),
    (dt.date(2026, 1, 2), pa.int64(), None),
    (dt.datetime(2026, 1, 2), pa.int64(), None),
    ([1], pa.int64(), None),
]


@pytest.mark.parametrize(("value", "kind", "expected"), HELD, ids=lambda one: str(one))
def test_a_value_is_what_a_column_holds_or_is_in_none(value: Any, kind: pa.DataType, expected: Any) -> None:
    assert held(value, kind).as_py() == expected


TABLE: list[tuple[str, Field, pa.Array, Reading, list[Any]]] = [
    ("text", Entity(), pa.array(["c-1", None, "", "x" * 201]), Reading(), ["c-1", None, BAD, BAD]),
    ("control", Entity(), pa.array(["a\x1fb", None, "\x00", "c 1", ""]), Reading(), [BAD, None, BAD, "c 1", BAD]),
    ("free text", Text(9), pa.array(["a\nb", "\x1f"]), Reading(), ["a\nb", "\x1f"]),
    ("integers", Entity(), pa.array([301682320, None, -1]), Reading(), ["301682320", None, "-1"]),
    ("uint64", Entity(), pa.array([2**64 - 1], pa.uint64()), Reading(), ["18446744073709551615"]),
    ("floats", Entity(), pa.array([1.0, None]), Reading(), [BAD, None]),
    ("nulls", Entity(), pa.nulls(2), Reading(), [None, None]),
    ("closed", Category("a", "b"), pa.array(["a", "B", None, ""]), Reading(), ["a", BAD, None, BAD]),
    ("open", Category(), pa.array(["a", " "]), Reading(), ["a", " "]),
    ("short", Text(2), pa.array(["", "äö", "abc"]), Reading(), ["", "äö", BAD]),
    ("booleans", Boolean(), pa.array([True, None, False]), Reading(), [True, None, False]),
    ("words", Boolean(), pa.array(["true", "FALSE", "1", "yes", None]), Reading(), [True, False, BAD, BAD, None]),
    ("numbers", Boolean(), pa.array([1, 0, None]), Reading(), [BAD, BAD, None]),
    ("ints", Integer(0, 9), pa.array([0, 9, 10, -1, None]), Reading(), [0, 9, BAD, BAD, None]),
    ("int8", Integer(), pa.array([-128], pa.int8()), Reading(), [-128]),
    ("lowest", Integer(), pa.array([-(2**63), -INT64_MAX]), Reading(), [BAD, -INT64_MAX]),
    ("uint64", Integer(), pa.array([2**63, 5], pa.uint64()), Reading(), [BAD, 5]),
    ("floats", Integer(), pa.array([3.0, 3.5, NAN, INF, 2.0**53, None]), Reading(), [3, BAD, BAD, BAD, BAD, None]),
    ("text", Integer(), pa.array(["7", "7.0", "7.5", " 7", "1e1", ""]), Reading(), [7, 7, BAD, BAD, BAD, BAD]),
    ("booleans", Integer(), pa.array([True]), Reading(), [BAD]),
    ("minor", Money("NGN"), pa.array([1200, -1, None]), MINOR, [1200, BAD, None]),
    ("minor floats", Money("NGN"), pa.array([1200.0, 12.5, NAN]), MINOR, [1200, BAD, BAD]),
    ("minor text", Money("NGN"), pa.array(["1200", "-5", "12.5"]), MINOR, [1200, BAD, BAD]),
    ("negative", Money("NGN", negative=True), pa.array([-1]), MINOR, [-1]),
    ("major", Money("NGN"), pa.array([12.34, 0.1 + 0.2, 12.345, -0.01, NAN]), MAJOR, [1234, BAD, BAD, BAD, BAD]),
    ("large", Money("NGN"), pa.array([90071992547409.91, 1e300]), MAJOR, [9007199254740991, BAD]),
    ("major ints", Money("NGN"), pa.array([12, 2**62]), MAJOR, [1200, BAD]),
    ("major text", Money("NGN"), pa.array(["12.34", "12.345", "1,234"]), MAJOR, [1234, BAD, BAD]),
    ("float32", Money("NGN"), pa.array([12.34, 0.125], pa.float32()), MAJOR, [1234, BAD]),
    ("yen", Money("JPY"), pa.array([12.0, 12.5]), MAJOR, [12, BAD]),
    ("dinar", Money("TND"), pa.array([1.234, 1.2345]), MAJOR, [1234, BAD]),
    ("decimals", Money("NGN"), _decimal("12.34", None), MAJOR, [1234, None]),
    ("too fine", Money("NGN"), _decimal("12.34", "12.345", None), MAJOR, [1234, BAD, None]),
    ("decimals", Decimal(4), _decimal("0.125", "-3"), Reading(), [1250, -30000]),
    ("too large", Decimal(4), _decimal("99999999999999999", "1"), Reading(), [BAD, 10000]),
    ("floats", Decimal(4), pa.array([0.125, 0.1, 1 / 3]), Reading(), [1250, 1000, BAD]),
    ("text", Decimal(2), pa.array(["1.5", "1.505"]), Reading(), [150, BAD]),
    ("zoned text", Timestamp(), pa.array(["1970-01-01T01:00:00+01:00", "soon"]), Reading(), [0, BAD]),
    ("local text", Timestamp(), pa.array(["1970-01-01 01:00:00", "1970-01-01"]), LAGOS, [0, -3_600_000_000]),
    ("no zone", Timestamp(), pa.array(["1970-01-01 01:00:00", None]), Reading(), [BAD, None]),
    ("utc", Timestamp(), pa.array([5, None], pa.timestamp("us", "UTC")), Reading(), [5, None]),
    ("zoned", Timestamp(), pa.array([5], pa.timestamp("us", "Europe/Berlin")), LAGOS, [5]),
    ("local", Timestamp(), pa.array([3_600], pa.timestamp("s")), LAGOS, [0]),
    ("too fine", Timestamp(), pa.array([1_000, 1_001], pa.timestamp("ns", "UTC")), Reading(), [1, BAD]),
    ("millis", Timestamp(), pa.array([7, 2**62], pa.timestamp("ms", "UTC")), Reading(), [7_000, BAD]),
    ("dates", Timestamp(), pa.array([dt.date(1970, 1, 2)]), LAGOS, [82_800_000_000]),
    ("epoch s", Timestamp(), pa.array([7, 2**62]), Reading("s"), [7_000_000, BAD]),
    ("far", Timestamp(), pa.array([-62135596801, -62135596800, 253402300800, 253402300799]), Reading("s"), FAR),
    ("epoch ns", Timestamp(), pa.array([7_000, 7]), Reading("ns"), [7, BAD]),
    ("epoch text", Timestamp(), pa.array(["7", "-7.25", "7.0000005", "1e9", "", None]), Reading("s"), EPOCHS),
    (
        "epoch ms text",
        Timestamp(),
        pa.array(["7.125", "9" * 19, "1970-01-01T00:00:01Z"]),
        Reading("ms"),
        [7_125, BAD, 10**6],
    ),
    ("epoch us text", Timestamp(), pa.array(["7", "7.5", "1970-01-01"]), Reading("us"), [7, BAD, BAD]),
    ("epoch ns text", Timestamp(), pa.array(["7000", "7001", "-7000"]), Reading("ns"), [7, BAD, -7]),
    ("no unit", Timestamp(), pa.array([7, None]), Reading(), [BAD, None]),
    ("no unit", Timestamp(), pa.array(["7", "1700000000"]), Reading(), [BAD, BAD]),
]


@pytest.mark.parametrize(
    ("what", "field", "column", "reading", "stored"), TABLE, ids=[f"{r[1].kind}-{r[0]}" for r in TABLE]
)
def test_a_cell_is_stored_exactly_or_refused(
    what: str, field: Field, column: pa.Array, reading: Reading, stored: list[Any]
) -> None:
    assert _cells(cast(field, column, reading)) == stored


@pytest.mark.parametrize(
    ("what", "field", "column", "reading", "stored"), TABLE, ids=[f"{r[1].kind}-{r[0]}" for r in TABLE]
)
def test_a_slice_is_cast_as_its_rows(
    what: str, field: Field, column: pa.Array, reading: Reading, stored: list[Any]
) -> None:
    assert _cells(cast(field, column.slice(1), reading)) == stored[1:]


def test_local_times_that_are_no_one_moment_are_refused_unless_declared() -> None:
    column = pa.array(["2026-03-29 02:30:00", "2026-10-25 02:30:00", "2026-07-01 00:00:00"])
    summer = US("2026-06-30T22:00:00Z")
    result = cast(Timestamp(), column, BERLIN)
    assert _cells(result) == [BAD, BAD, summer]
    reasons = [result.reasons[code - 1] for code in result.bad.tolist() if code]
    assert ["skipped" in reasons[0], "passed twice" in reasons[1]] == [True, True]
    first = cast(Timestamp(), column, Reading(zone="Europe/Berlin", ambiguous="earliest", nonexistent="next"))
    assert _cells(first) == [US("2026-03-29T01:00:00Z"), US("2026-10-25T00:30:00Z"), summer]
    last = cast(Timestamp(), column, Reading(zone="Europe/Berlin", ambiguous="latest"))
    assert _cells(last) == [BAD, US("2026-10-25T01:30:00Z"), summer]


def test_a_missing_zone_is_told_apart() -> None:
    missing = cast(Timestamp(), pa.array(["2026-01-01 00:00:00"]), Reading())
    assert lacks_zone(missing.bad, missing.reasons)
    malformed = cast(Timestamp(), pa.array(["soon"]), Reading())
    assert not lacks_zone(malformed.bad, malformed.reasons)


def test_a_control_character_in_a_key_is_named() -> None:
    result = cast(Entity(), pa.array(["a\tb", "", "ok"]), Reading())
    assert [result.reasons[code - 1] for code in result.bad.tolist() if code] == [
        "an id without control characters (U+0000 to U+001F)",
        "text of 1 to 200 characters, valid UTF-8",
    ]


def test_text_that_is_not_utf8_is_refused() -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 2, 3], np.int32)), pa.py_buffer(b"\xc3(a")]
    )
    assert _cells(cast(Entity(), broken, Reading())) == [BAD, "a"]


def test_floats_are_the_decimals_that_they_print_as() -> None:
    rng = random.Random(3)
    texts = [f"{rng.randint(0, 10 ** rng.randint(1, 12))}.{rng.randint(0, 99):02}" for _ in range(5_000)]
    floats = pa.array([float(text) for text in texts])
    expected = [int(PyDecimal(text).scaleb(2)) for text in texts]
    assert _cells(cast(Money("NGN"), floats, MAJOR)) == expected
    nudged = pa.array([np.nextafter(float(text), 0) for text in texts if float(text) > 1])
    assert set(_cells(cast(Money("NGN"), nudged, MAJOR))) == {BAD}


@pytest.mark.parametrize(
    ("field", "kind", "reading", "message"),
    [
        (Entity(), pa.float64(), Reading(), "expected text or integers (entity), got a column of double"),
        (Boolean(), pa.int64(), Reading(), "expected booleans"),
        (Integer(), pa.bool_(), Reading(), "got a column of bool"),
        (Money("NGN"), pa.timestamp("us"), Reading(), "got a column of timestamp[us]"),
        (Timestamp(), pa.timestamp("us"), Reading(), "have no time zone; declare one in the mapping"),
        (Timestamp(), pa.date32(), Reading(), "have no time zone"),
        (Timestamp(), pa.int64(), Reading(), "declare their unit"),
        (Timestamp(), pa.float64(), Reading("s"), "got a column of double"),
    ],
)
def test_a_column_that_cannot_be_read_says_why(field: Field, kind: pa.DataType, reading: Reading, message: str) -> None:
    why = unsupported(field, kind, reading)
    assert why is not None
    assert message in why


def test_columns_that_can_be_read_have_no_reason_against() -> None:
    assert unsupported(Entity(), pa.dictionary(pa.int32(), pa.large_string()), Reading()) is None
    assert unsupported(Timestamp(), pa.timestamp("us"), LAGOS) is None
    assert unsupported(Integer(), pa.null(), Reading()) is None


def test_encodings_of_text_are_made_plain() -> None:
    for column in (
        pa.array(["a", None, "a"]).dictionary_encode(),
        pa.array(["a", None, "a"], pa.large_string()),
        pa.chunked_array([["a", None], ["a"]], pa.string_view()),
    ):
        assert plain(column).equals(pa.array(["a", None, "a"]))
    assert len(plain(pa.chunked_array([], pa.string()))) == 0


def test_values_are_replaced_as_declared() -> None:
    values, bad, reasons = translate(pa.array(["Good", "Bad", None, "good"]), {"Good": "good", "Bad": "bad"})
    assert (values.to_pylist(), bad.tolist()) == (["good", "bad", None, None], [0, 0, 0, 1])
    assert reasons == ("one of Good, Bad",)
    assert translate(pa.array([1, 0]), {"1": True, "0": False})[0].to_pylist() == [True, False]


def test_minor_units_follow_iso_4217() -> None:
    assert [minor_places(c) for c in ("NGN", "USD", "XOF", "KRW", "KWD")] == [2, 2, 0, 0, 3]
