"""Local times of a declared zone as UTC, by the column, with the times that do not exist or exist twice told apart.

The zone's offsets come from Python's `zoneinfo` (the tz database of the system or of the `tzdata` package), found by
sampling them once a day and bisecting each change to the second; the tz database has no two changes within a day.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import numpy as np
import numpy.typing as npt

from obligor.errors import DefinitionError, did_you_mean

__all__ = ["AMBIGUOUS", "EXISTS", "NONEXISTENT", "OUT_OF_RANGE", "local_to_utc", "zone_named"]

EXISTS: Final = 0
NONEXISTENT: Final = 1  # skipped when clocks went forward: the value is the moment of the change
AMBIGUOUS: Final = 2  # passed twice when clocks went back: the value is the earlier moment
OUT_OF_RANGE: Final = 3  # outside the years 1800 to 2199

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S: Final = 86_400
_YEAR_FIRST, _YEAR_LAST = 1800, 2199

Instants = npt.NDArray[np.int64]


def zone_named(name: str) -> ZoneInfo:
    """Return the zone of the tz database; DefinitionError with the nearest valid name where there is none.

    >>> zone_named("Africa/Lagos").key
    'Africa/Lagos'
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        hint = did_you_mean(str(name), sorted(available_timezones()))
        hint = hint if hint.startswith("did") else "use a name of the tz database such as 'Africa/Lagos' or 'UTC'"
        raise DefinitionError(f"unknown time zone {name!r}; {hint}") from None


def local_to_utc(zone: str, local_us: Instants) -> tuple[Instants, npt.NDArray[np.uint8], Instants]:
    """Return (earlier UTC microseconds, status, later UTC microseconds) of wall clock readings in `zone`.

    The two differ only where the status is AMBIGUOUS.

    >>> utc, status, _ = local_to_utc("Africa/Lagos", np.array([3_600_000_000]))
    >>> utc.tolist(), status.tolist()
    ([0], [0])
    """
    status = np.zeros(len(local_us), np.uint8)
    low, high = _year_us(_YEAR_FIRST), _year_us(_YEAR_LAST + 1)
    outside = (local_us < low) | (local_us >= high)
    inside = local_us[~outside]
    if not len(inside):
        status[outside] = OUT_OF_RANGE
        return local_us.copy(), status, local_us.copy()
    zone_named(zone)
    starts, offsets = _periods(zone, _year_of(int(inside.min())) - 1, _year_of(int(inside.max())) + 1)
    ends = np.append(starts[1:], np.iinfo(np.int64).max - 2 * _DAY_S * 1_000_000)
    local = np.where(outside, starts[0] + offsets[0], local_us)
    k = np.searchsorted(starts + offsets, local, side="right") - 1
    k = np.maximum(k, 0)
    before = np.maximum(k - 1, 0)
    gone = local >= ends[k] + offsets[k]
    twice = (k > 0) & (local < ends[before] + offsets[before])
    earlier = np.where(gone, ends[k], local - np.where(twice, offsets[before], offsets[k]))
    later = np.where(gone, ends[k], local - offsets[k])
    status[gone], status[twice], status[outside] = NONEXISTENT, AMBIGUOUS, OUT_OF_RANGE
    return earlier, status, later


def _year_us(year: int) -> int:
    return (datetime(year, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def _year_of(us: int) -> int:
    return (_EPOCH + timedelta(microseconds=us)).year


@lru_cache(maxsize=256)
def _periods(zone: str, first_year: int, last_year: int) -> tuple[Instants, Instants]:
    """Return where each period of one offset starts (UTC microseconds, the first before all) and its offset."""
    info = ZoneInfo(zone)

    def offset_s(at_s: int) -> int:
        return int((_EPOCH + timedelta(seconds=at_s)).astimezone(info).utcoffset() // timedelta(seconds=1))  # type: ignore[operator]

    low_s, high_s = _year_us(first_year) // 1_000_000, _year_us(last_year + 1) // 1_000_000
    starts, offsets = [low_s], [offset_s(low_s)]
    for day_s in range(low_s + _DAY_S, high_s + _DAY_S, _DAY_S):
        known, seen = offsets[-1], offset_s(day_s)
        if seen == known:
            continue
        left, right = day_s - _DAY_S, day_s
        while right - left > 1:
            middle = (left + right) // 2
            left, right = (middle, right) if offset_s(middle) == known else (left, middle)
        starts.append(right)
        offsets.append(seen)
    return np.array(starts, np.int64) * 1_000_000, np.array(offsets, np.int64) * 1_000_000
