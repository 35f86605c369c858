"""The plan's offsets agree with the tz database at any instant and to the second at each change."""

from __future__ import annotations

import random
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from obligor.errors import DefinitionError
from obligor.features.zone import FROM_YEAR, UNTIL_YEAR, zone_offsets

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = ["UTC", "Africa/Lagos", "Europe/Berlin", "Australia/Lord_Howe", "Africa/Casablanca", "Africa/Monrovia"]


def _looked_up(zone: str, instant_us: int) -> int:
    offsets = zone_offsets(zone)
    return offsets[bisect_right([since for since, _ in offsets], instant_us) - 1][1]


def _true(zone: str, instant_us: int) -> float:
    offset = (EPOCH + timedelta(microseconds=instant_us)).astimezone(ZoneInfo(zone)).utcoffset()
    assert offset is not None
    return offset.total_seconds()


@pytest.mark.parametrize("zone", ZONES)
def test_the_offset_at_any_instant_is_the_zones(zone: str) -> None:
    chance = random.Random(7)
    first, last = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 10**6 for year in (FROM_YEAR, UNTIL_YEAR))
    for _ in range(2000):
        instant_us = chance.randrange(first, last)
        assert _looked_up(zone, instant_us) == _true(zone, instant_us)


@pytest.mark.parametrize("zone", ZONES)
def test_a_change_is_exact_to_the_microsecond(zone: str) -> None:
    for since_us, offset_s in zone_offsets(zone)[1:]:
        assert (_true(zone, since_us - 1) != offset_s, _true(zone, since_us)) == (True, offset_s)


def test_entries_ascend_and_cover_all_time() -> None:
    since = [entry[0] for entry in zone_offsets("Europe/Berlin")]
    assert since == sorted(set(since))
    assert since[0] == -(2**63) + 1


def test_an_unknown_zone_names_the_nearest() -> None:
    with pytest.raises(DefinitionError, match="unknown time zone 'Africa/Lagoss'; did you mean 'Africa/Lagos'"):
        zone_offsets("Africa/Lagoss")
    with pytest.raises(DefinitionError, match="expected an IANA name"):
        zone_offsets("../etc/passwd")
