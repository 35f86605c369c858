"""Calendar arithmetic against Python's datetime and zoneinfo, over the centuries that dates can span."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obligor.features.calendar import civil, days_of, local_seconds, period_begin, utc_of_local
from obligor.features.zone import zone_offsets

EPOCH = date(1970, 1, 1)
DATES = st.dates(date(1, 1, 1), date(9999, 12, 31))
# Berlin moves at 01:00 UTC, Santiago at its midnight, Lord Howe by half an hour, Apia skipped a day, Kolkata stands.
ZONES = ["UTC", "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kolkata"]
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2035, 12, 31), timezones=st.just(UTC))
STEP = timedelta(minutes=15)  # all offsets of these zones in these years are whole quarters of an hour


def _us(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(DATES)
def test_days_and_dates_are_those_of_the_standard_library(day: date) -> None:
    days = np.array([(day - EPOCH).days])
    assert tuple(int(part[0]) for part in civil(days)) == (day.year, day.month, day.day)
    assert days_of(*(np.array([part]) for part in (day.year, day.month, day.day))).tolist() == days.tolist()


@pytest.mark.parametrize("zone", ZONES)
@settings(max_examples=100, derandomize=True, deadline=None)
@given(moment=MOMENTS)
def test_a_zone_shows_what_the_tz_database_says(zone: str, moment: datetime) -> None:
    shown = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=UTC, microsecond=0)
    assert local_seconds(zone_offsets(zone), np.array([_us(moment)])).tolist() == [_us(shown) // 1_000_000]


def _first_showing(zone: str, wanted: datetime) -> datetime:
    """Walk the clock: the first moment that shows `wanted`; where it is skipped, the first that is past it."""
    moment = wanted.replace(tzinfo=UTC) - timedelta(days=2)
    while moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None) < wanted:
        moment += STEP
    return moment


@pytest.mark.parametrize("zone", ZONES)
@settings(max_examples=60, derandomize=True, deadline=None)
@given(moment=MOMENTS)
def test_days_and_months_begin_when_the_clock_first_shows_it(zone: str, moment: datetime) -> None:
    local = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    first = midnight.replace(day=1)
    before = (first - timedelta(days=1)).replace(day=1)
    expected = {
        ("day", 0): midnight,
        ("day", 3): midnight - timedelta(days=3),
        ("week", 0): midnight - timedelta(days=local.weekday()),
        ("month", 0): first,
        ("month", 1): before,
        ("quarter", 0): first.replace(month=(first.month - 1) // 3 * 3 + 1),
        ("year", 1): first.replace(year=first.year - 1, month=1),
    }
    for (unit, back), begins in expected.items():
        found = period_begin(zone_offsets(zone), unit, back, np.array([_us(moment)]))  # type: ignore[arg-type]
        assert found.tolist() == [_us(_first_showing(zone, begins))], (unit, back)


@pytest.mark.parametrize("zone", ZONES)
@settings(max_examples=60, derandomize=True, deadline=None)
@given(moment=MOMENTS)
def test_the_clock_there_and_back(zone: str, moment: datetime) -> None:
    offsets, at = zone_offsets(zone), np.array([_us(moment.replace(microsecond=0))])
    found = utc_of_local(offsets, local_seconds(offsets, at))
    assert found[0] <= at[0]  # the clock may have shown the same before
    assert local_seconds(offsets, found).tolist() == local_seconds(offsets, at).tolist()
