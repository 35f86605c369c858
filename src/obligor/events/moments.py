"""Timestamps as text, read by the column: RFC 3339 with a zone, or local time and dates that need a declared zone.

The kernel accepts exactly what `parse_timestamp` does (a test holds the two together) at about 30 ns a value, and
tells local times apart instead of guessing their zone.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

__all__ = ["DATE", "LOCAL", "MALFORMED", "NULL", "ZONED", "read_moments"]

ZONED: Final = 0  # the value is UTC
LOCAL: Final = 1  # a date and a time of day without a zone: the value is the wall clock's reading
DATE: Final = 2  # a date alone: the value is its midnight on the wall clock
MALFORMED: Final = 3
NULL: Final = 4

_ERA_DAYS: Final = 146_097  # days of 400 years
_EPOCH_DAYS: Final = 719_468  # from 0000-03-01 to 1970-01-01


@njit(cache=True, nogil=True, fastmath=False)
def _number(data: Any, start: int, digits: int) -> int:
    """Return the digits' value, or -1 where one is no ASCII digit."""
    value = 0
    for i in range(start, start + digits):
        digit = int(data[i]) - 48
        if digit < 0 or digit > 9:
            return -1
        value = value * 10 + digit
    return value


@njit(cache=True, nogil=True, fastmath=False)
def _days(data: Any, start: int) -> int:
    """Return days since 1970 of `YYYY-MM-DD`, or a value below -1,000,000 where that is no date."""
    year, month, day = _number(data, start, 4), _number(data, start + 5, 2), _number(data, start + 8, 2)
    if data[start + 4] != 45 or data[start + 7] != 45 or year < 1 or month < 1 or month > 12 or day < 1:
        return -2_000_000
    last = 31
    if month in (4, 6, 9, 11):
        last = 30
    elif month == 2:
        last = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    if day > last:
        return -2_000_000
    if month <= 2:  # the year begins in March, so that the leap day is its last (Hinnant, days_from_civil)
        year -= 1
        month += 12
    era = year // 400
    in_era = year - era * 400
    in_year = (153 * (month - 3) + 2) // 5 + day - 1
    return int(era * _ERA_DAYS + in_era * 365 + in_era // 4 - in_era // 100 + in_year - _EPOCH_DAYS)


@njit(cache=True, nogil=True, fastmath=False)
def _fraction_us(data: Any, start: int, stop: int) -> int:
    """Return microseconds of the digits after the point, or -1; one to six of them."""
    digits = stop - start
    if digits < 1 or digits > 6:
        return -1
    value = _number(data, start, digits)
    if value < 0:
        return -1
    for _ in range(6 - digits):
        value *= 10
    return value


@njit(cache=True, nogil=True, fastmath=False)
def _moment(data: Any, start: int, stop: int) -> tuple[int, int]:
    """Return (microseconds, status) of one text."""
    length = stop - start
    if length != 10 and length < 19:
        return 0, MALFORMED
    days = _days(data, start)
    if days < -1_000_000:
        return 0, MALFORMED
    if length == 10:
        return days * 86_400_000_000, DATE
    hour, minute, second = _number(data, start + 11, 2), _number(data, start + 14, 2), _number(data, start + 17, 2)
    colons = data[start + 13] == 58 and data[start + 16] == 58
    between = data[start + 10] == 84 or data[start + 10] == 32
    if not colons or not between or hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return 0, MALFORMED
    at = start + 19
    us = ((days * 24 + hour) * 60 + minute) * 60_000_000 + second * 1_000_000
    if at < stop and data[at] == 46:
        end = at + 1
        while end < stop and data[end] >= 48 and data[end] <= 57:
            end += 1
        fraction = _fraction_us(data, at + 1, end)
        if fraction < 0:
            return 0, MALFORMED
        us += fraction
        at = end
    if at == stop:
        return us, LOCAL
    if stop - at == 1 and (data[at] == 90 or data[at] == 122):
        return us, ZONED
    if stop - at != 6 or (data[at] != 43 and data[at] != 45) or data[at + 3] != 58:
        return 0, MALFORMED
    hours, minutes = _number(data, at + 1, 2), _number(data, at + 4, 2)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return 0, MALFORMED
    offset = (hours * 60 + minutes) * 60_000_000
    return (us - offset if data[at] == 43 else us + offset), ZONED


@njit(cache=True, nogil=True, fastmath=False)
def _moments(offsets: Any, data: Any, valid: Any, us: Any, status: Any) -> None:
    for i in range(len(us)):
        if valid[i]:
            us[i], status[i] = _moment(data, offsets[i], offsets[i + 1])
        else:
            us[i], status[i] = 0, NULL


def read_moments(texts: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Return (microseconds, status) of every text: ZONED, LOCAL, DATE, MALFORMED or NULL.

    >>> us, status = read_moments(pa.array(["1970-01-01T00:00:01Z", "1970-01-02", "soon"]))
    >>> us.tolist(), status.tolist()
    ([1000000, 86400000000, 0], [0, 2, 3])
    """
    assert texts.type == pa.string(), "moments are read from a string column"
    _, offsets_buffer, data_buffer = texts.buffers()
    us, status = np.empty(len(texts), np.int64), np.empty(len(texts), np.uint8)
    if len(texts) and offsets_buffer is not None:
        offsets = np.frombuffer(offsets_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        data = np.frombuffer(data_buffer if data_buffer is not None else b"", np.uint8)
        valid = np.ones(len(texts), np.bool_) if texts.null_count == 0 else texts.is_valid().to_numpy(False)
        _moments(offsets, data, valid, us, status)
    return us, status
