"""Decimals as text, read by the column into int64 with a number of places, exactly or not at all.

The grammar is the one of `Decimal.parse` (a test holds the two together): a sign, digits, a point with digits after
it. Digits beyond the places must be zeros; nothing is rounded. About 20 ns a value.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from obligor.events.fields import INT64_MAX

__all__ = ["read_decimals"]

_LENGTH_MAX: Final = 40


@njit(cache=True, nogil=True, fastmath=False)
def _decimal(data: Any, start: int, stop: int, places: int) -> tuple[int, bool]:
    """Return (scaled value, whether the text is one that fits)."""
    negative = start < stop and data[start] == 45
    if start < stop and (data[start] == 45 or data[start] == 43):
        start += 1
    if stop - start < 1 or stop - start > _LENGTH_MAX:
        return 0, False
    value, digits, after = np.int64(0), 0, -1
    for i in range(start, stop):
        byte = int(data[i])
        if byte == 46 and after < 0 and digits > 0:
            after = 0
            continue
        digit = byte - 48
        if digit < 0 or digit > 9:
            return 0, False
        if after >= 0:
            after += 1
            if after > places:
                if digit != 0:
                    return 0, False
                continue
        digits += 1
        if value > (INT64_MAX - digit) // 10:
            return 0, False
        value = value * 10 + digit
    if after == 0 or digits == 0:
        return 0, False
    for _ in range(places - max(after, 0)):
        if value > INT64_MAX // 10:
            return 0, False
        value *= 10
    return int(-value if negative else value), True


@njit(cache=True, nogil=True, fastmath=False)
def _decimals(offsets: Any, data: Any, valid: Any, places: int, values: Any, right: Any) -> None:
    for i in range(len(values)):
        values[i], right[i] = 0, True
        if valid[i]:
            values[i], right[i] = _decimal(data, offsets[i], offsets[i + 1], places)


def read_decimals(texts: pa.Array, places: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return (value times 10**places, whether it is exact) of every text; a null is 0 and right.

    >>> values, right = read_decimals(pa.array(["12.5", "-3", "0.005", "1,000"]), 2)
    >>> values.tolist(), right.tolist()
    ([1250, -300, 0, 0], [True, True, False, False])
    """
    assert texts.type == pa.string(), "decimals are read from a string column"
    _, offsets_buffer, data_buffer = texts.buffers()
    values, right = np.zeros(len(texts), np.int64), np.ones(len(texts), np.bool_)
    if len(texts) and offsets_buffer is not None:
        offsets = np.frombuffer(offsets_buffer, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        data = np.frombuffer(data_buffer if data_buffer is not None else b"", np.uint8)
        valid = np.ones(len(texts), np.bool_) if texts.null_count == 0 else texts.is_valid().to_numpy(False)
        _decimals(offsets, data, valid, places, values, right)
    return values, right
