"""Calendar days of moments in a time zone: lateness is counted in the borrower's days, not in spans of 24 hours."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from obligor.features.zone import zone_offsets

__all__ = ["first_moments", "local_days"]

Ints: TypeAlias = npt.NDArray[np.int64]
_DAY_US = 86_400_000_000
_SECOND_US = 1_000_000
_OFF_US = 26 * 3_600_000_000  # more than any zone is ahead of or behind UTC


def local_days(moments: Ints, zone: str) -> Ints:
    """Return the days since 1970-01-01 on the zone's calendar of moments in UTC microseconds.

    >>> late_evening = np.array([1_483_227_000_000_000])
    >>> local_days(late_evening, "UTC"), local_days(late_evening, "Africa/Lagos")
    (array([17166]), array([17167]))
    """
    starts, offsets = np.array(zone_offsets(zone), np.int64).T
    offset_us = offsets[np.searchsorted(starts, moments, side="right") - 1] * _SECOND_US
    days: Ints = np.floor_divide(moments + offset_us, _DAY_US)
    return days


def first_moments(days: Ints, zone: str) -> Ints:
    """Return the first moment of each calendar day in the zone, in UTC microseconds, also where it has no midnight.

    >>> first_moments(np.array([17167]), "Africa/Lagos")
    array([1483225200000000])
    """
    low, high = days * _DAY_US - _OFF_US, days * _DAY_US + _OFF_US  # the day has not begun at low, and has at high
    while bool(np.any(high - low > 1)):
        middle = (low + high) // 2
        begun = local_days(middle, zone) >= days
        low, high = np.where(begun, low, middle), np.where(begun, middle, high)
    return high
