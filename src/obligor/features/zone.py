"""A calendar zone as data: the offsets in force, written into the plan.

Rules of a zone change with every release of the tz database; a decision must replay for years. So the plan holds the
offsets themselves, taken once when it is compiled, and the kernels look them up by instant.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from obligor.errors import DefinitionError, did_you_mean

__all__ = ["FROM_YEAR", "UNTIL_YEAR", "zone_offsets"]

FROM_YEAR, UNTIL_YEAR = 1970, 2100  # outside, the first and the last offset hold
_FIRST_US = -(2**63) + 1
_DAY_S = 86_400


@lru_cache(maxsize=64)
def zone_offsets(zone: str) -> tuple[tuple[int, int], ...]:
    """Return (from_us, offset_s) of every change of a zone's offset from UTC; DefinitionError for an unknown zone.

    >>> zone_offsets("Africa/Lagos")
    ((-9223372036854775807, 3600),)
    >>> zone_offsets("Europe/Berlin")[-1]  # winter time from 25 October 2099, 01:00 UTC
    (4096573200000000, 3600)
    """
    try:
        info = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        near = did_you_mean(zone, sorted(available_timezones())) if zone else ""
        hint = near if near.startswith("did") else "expected an IANA name such as 'Africa/Lagos'"
        raise DefinitionError(f"unknown time zone {zone!r}; {hint}") from None
    start, end = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (FROM_YEAR, UNTIL_YEAR))
    offsets = [(_FIRST_US, _offset_s(info, start))]
    for day in range(start, end, _DAY_S):
        if _offset_s(info, day + _DAY_S) != offsets[-1][1]:
            change = _change(info, day, day + _DAY_S, offsets[-1][1])
            offsets.append((change * 1_000_000, _offset_s(info, change)))
    return tuple(offsets)


def _change(info: ZoneInfo, before: int, after: int, offset_s: int) -> int:
    """Return the first second in (before, after] at which the offset is no longer `offset_s`."""
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if _offset_s(info, middle) == offset_s else (before, middle)
    return after


def _offset_s(info: ZoneInfo, second: int) -> int:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    offset = moment.astimezone(info).utcoffset()
    assert offset is not None
    return int(offset.total_seconds())
