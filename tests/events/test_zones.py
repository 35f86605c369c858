"""Local times against Python's own zone arithmetic, one by one, also where clocks are changed."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from obligor.errors import DefinitionError
from obligor.events.zones import AMBIGUOUS, EXISTS, NONEXISTENT, OUT_OF_RANGE, local_to_utc, zone_named

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CHANGING = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]
ZONES = [*CHANGING, "Africa/Lagos", "Africa/Casablanca", "Asia/Kolkata", "Pacific/Apia", "UTC"]


def _us(moment: datetime) -> int:
    return (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def _naive(zone: ZoneInfo, local: datetime) -> tuple[int, int, int]:
    """Return (status, earlier, later) by Python's fold."""
    earlier, later = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if earlier.astimezone(zone).replace(tzinfo=None) != local:
        return NONEXISTENT, 0, 0
    status = EXISTS if earlier == later else AMBIGUOUS
    return status, _us(earlier.replace(tzinfo=None)), _us(later.replace(tzinfo=None))


@pytest.mark.parametrize("name", ZONES)
def test_local_times_are_what_python_says(name: str) -> None:
    rng, zone = random.Random(name), ZoneInfo(name)
    start = datetime(2010, 1, 1)
    locals_ = [start + timedelta(seconds=rng.randrange(17 * 365 * 86_400)) for _ in range(2_000)]
    for _ in range(40):  # around every change of the clocks that is met
        near = start + timedelta(hours=rng.randrange(17 * 365 * 24))
        locals_ += [near + timedelta(minutes=30 * i) for i in range(60)]
    for year in (2016, 2017):
        hours = (datetime(year, 1, 1) + timedelta(minutes=30 * i) for i in range(2 * 24 * 366))
        locals_ += list(hours)
    earlier, status, later = local_to_utc(name, np.array([_us(one) for one in locals_]))
    found = [
        (s, 0, 0) if s == NONEXISTENT else (s, one, two)
        for s, one, two in zip(status.tolist(), earlier.tolist(), later.tolist(), strict=True)
    ]
    assert found == [_naive(zone, one) for one in locals_]
    if name in CHANGING:
        assert {AMBIGUOUS, NONEXISTENT} <= set(status.tolist())


def test_a_skipped_time_is_the_moment_of_the_change() -> None:
    skipped = datetime(2026, 3, 29, 2, 30)
    earlier, status, later = local_to_utc("Europe/Berlin", np.array([_us(skipped)]))
    assert status.tolist() == [NONEXISTENT]
    assert earlier.tolist() == later.tolist() == [_us(datetime(2026, 3, 29, 1))]


def test_times_of_other_centuries_are_told_apart() -> None:
    far = [_us(datetime(1799, 12, 31, 23)), _us(datetime(2200, 1, 1)), _us(datetime(2026, 1, 1)), 2**62]
    assert local_to_utc("Africa/Lagos", np.array(far))[1].tolist() == [OUT_OF_RANGE, OUT_OF_RANGE, EXISTS, OUT_OF_RANGE]
    assert local_to_utc("Africa/Lagos", np.array([2**62]))[1].tolist() == [OUT_OF_RANGE]


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Africa/Lagoss", "did you mean 'Africa/Lagos'"), ("Nowhere", "tz database"), ("../x", "tz database")],
)
def test_an_unknown_zone_is_refused(name: str, hint: str) -> None:
    with pytest.raises(DefinitionError, match=hint):
        zone_named(name)
