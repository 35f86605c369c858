"""Calendar arithmetic in a plan's zone, on integers: parts of an instant, and where days, weeks, months, ... begin.

After Howard Hinnant's days_from_civil and civil_from_days (proleptic Gregorian). The zone's offsets are the plan's own,
so a new release of the tz database changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from obligor.features.measures import Unit

__all__ = ["civil", "days_of", "local_seconds", "offset_seconds", "period_begin", "utc_of_local"]

Ints = NDArray[np.int64]
Offsets = Sequence[tuple[int, int]]  # (from_us, offset_s), see plan.zone_offsets

DAY_S = 86_400
SECOND_US = 1_000_000


def offset_seconds(offsets: Offsets, instants_us: Ints) -> Ints:
    """Return the zone's offset from UTC at each instant."""
    starts = np.array([start for start, _ in offsets], np.int64)
    seconds = np.array([offset for _, offset in offsets], np.int64)
    return seconds[np.searchsorted(starts, instants_us, side="right") - 1]


def local_seconds(offsets: Offsets, instants_us: Ints) -> Ints:
    """Return the zone's clock at each instant as seconds since 1970-01-01 00:00 on that clock, rounded down."""
    return instants_us // SECOND_US + offset_seconds(offsets, instants_us)


def utc_of_local(offsets: Offsets, local_s: Ints) -> Ints:
    """Return the instants, in microseconds, at which the zone's clock first shows these seconds or is past them.

    Where the clock skips them, that is the moment of the change; of two moments that show the same, the first.

    >>> summer = ((-(2**62), 3_600), (7_200_000_000, 7_200))  # at 02:00 UTC the clock goes from 03:00 to 04:00
    >>> utc_of_local(summer, np.array([10_799, 12_600, 14_400])).tolist()
    [7199000000, 7200000000, 7200000000]
    """
    starts = np.array([start for start, _ in offsets], np.int64)
    ends = np.append(starts[1:], 2**63 - 1)
    shifts = np.array([offset * SECOND_US for _, offset in offsets], np.int64)
    shown = local_s * SECOND_US
    place = np.maximum(np.searchsorted(starts, shown - shifts.max(), side="right") - 1, 0)
    while True:  # no earlier stretch of one offset can show them; nearly always the first or the second does
        found: Ints = np.maximum(starts[place], shown - shifts[place])
        beyond = found >= ends[place]
        if not beyond.any():
            return found
        place = place + beyond


def civil(days: Ints) -> tuple[Ints, Ints, Ints]:
    """Return year, month and day of days since 1970-01-01.

    >>> [int(part[0]) for part in civil(np.array([19_782]))]
    [2024, 2, 29]
    """
    shifted = days + 719_468  # days since 0000-03-01
    era = shifted // 146_097
    of_era = shifted - era * 146_097
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * of_year + 2) // 153
    day: Ints = of_year - (153 * shifted_month + 2) // 5 + 1
    month: Ints = np.where(shifted_month < 10, shifted_month + 3, shifted_month - 9)
    year: Ints = year_of_era + era * 400 + (month <= 2)
    return year, month, day


def days_of(year: Ints, month: Ints, day: Ints) -> Ints:
    """Return days since 1970-01-01.

    >>> int(days_of(np.array([2024]), np.array([2]), np.array([29]))[0])
    19782
    """
    shifted = year - (month <= 2)
    era = shifted // 400
    year_of_era = shifted - era * 400
    of_year = (153 * (month + np.where(month > 2, -3, 9)) + 2) // 5 + day - 1
    of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + of_year
    days: Ints = era * 146_097 + of_era - 719_468
    return days


def period_begin(offsets: Offsets, unit: Unit, back: int, instants_us: Ints) -> Ints:
    """Return where the period that holds each instant began, or the one `back` periods before it."""
    days = local_seconds(offsets, instants_us) // DAY_S
    if unit == "day":
        first = days - back
    elif unit == "week":
        first = days - (days + 3) % 7 - 7 * back  # 1970-01-01 was a Thursday
    else:
        year, month, _ = civil(days)
        months = {"month": 1, "quarter": 3, "year": 12}[unit]
        number = year * 12 + month - 1
        number = (number // months - back) * months
        first = days_of(number // 12, number % 12 + 1, np.ones_like(number))
    return utc_of_local(offsets, first * DAY_S)
