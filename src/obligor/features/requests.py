"""What is asked: one row per application or instant, and the numbers that come from the application itself.

The same arithmetic makes the numbers of one request and of a million: calendar and age are integers until the last
division. Only the coding of a field differs, a value online and a column offline; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.features.chunks import NULL
from obligor.features.kernels import INTEGER_MAX
from obligor.features.plan import Plan, RequestValue, Slot
from obligor.features.projection import code_column

__all__ = ["Requests", "request_row", "request_values"]

_DAY_S = 86_400
_HOUR_S = 3_600
_SECOND_US = 1_000_000


@dataclass(frozen=True)
class Requests:
    """Requests to evaluate a plan for; n rows.

    `self_root` is the position of the application's own original, which is not in its own view, -1 for none.
    `entities` holds a key (or null) per application field through which the plan looks at timelines; `fields` the
    application's stored fields that the plan uses.
    """

    as_of: NDArray[np.int64]  # (n,) microseconds
    cuts: NDArray[np.int64]  # (n, shards) or (1, shards): the greatest visible sequence of each shard
    self_root: NDArray[np.int64]  # (n,)
    entities: Mapping[str, pa.StringArray]
    fields: pa.Table

    def __len__(self) -> int:
        return len(self.as_of)


def _coded(value: object, spec: RequestValue) -> int:
    if value is None:
        return NULL
    if spec.coding == "integer":
        assert isinstance(value, int)
        return int(value)
    values = spec.values or ()
    return values.index(str(value)) if value in values else len(values)


def _offset_s(plan: Plan, as_of: NDArray[np.int64]) -> NDArray[np.int64]:
    starts = np.array([start for start, _ in plan.zone_offsets], np.int64)
    offsets = np.array([offset for _, offset in plan.zone_offsets], np.int64)
    return offsets[np.searchsorted(starts, as_of, side="right") - 1]


def _day_of_month(days: NDArray[np.int64]) -> NDArray[np.int64]:
    """The day of the month of days since 1970-01-01, after Hinnant's civil_from_days."""
    shifted = days + 719_468  # days since 0000-03-01
    of_era = shifted - shifted // 146_097 * 146_097
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * of_year + 2) // 153
    day: NDArray[np.int64] = of_year - (153 * month + 2) // 5 + 1
    return day


def _calendar(plan: Plan, name: str, as_of: NDArray[np.int64]) -> NDArray[np.int64]:
    if name == "as_of":
        return as_of
    local_s = as_of // _SECOND_US + _offset_s(plan, as_of)
    if name == "hour":
        return local_s // _HOUR_S % 24
    days = local_s // _DAY_S
    return (days + 3) % 7 if name == "day_of_week" else _day_of_month(days)  # 1970-01-01 was a Thursday


def _numbers(plan: Plan, spec: RequestValue, as_of: NDArray[np.int64], coded: NDArray[np.int64]) -> NDArray[np.float64]:
    """One request value of n rows, infinity beyond what is exact; `coded` is its field, ignored by calendars."""
    if spec.source == "calendar":
        return _calendar(plan, spec.name, as_of).astype(np.float64)
    null = coded == NULL
    if spec.source == "age":
        numbers = (as_of - np.where(null, as_of, coded)).astype(np.float64) / 1e6
    else:
        exact = (coded >= -INTEGER_MAX) & (coded <= INTEGER_MAX)
        numbers = np.where(exact, coded.astype(np.float64) / float(10**spec.scale), np.inf)
    return np.where(null, np.nan, numbers)


def _column(column: pa.ChunkedArray, spec: RequestValue) -> NDArray[np.int64]:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    coded: NDArray[np.int64] = code_column(array, Slot(field=spec.name, coding=spec.coding, values=spec.values))
    return coded


def request_values(plan: Plan, requests: Requests) -> NDArray[np.float64]:
    """Return the plan's request values, (n, values), NaN for null."""
    out = np.empty((len(requests), len(plan.requests)), np.float64)
    for i, spec in enumerate(plan.requests):
        coded = requests.as_of if spec.source == "calendar" else _column(requests.fields.column(spec.name), spec)
        out[:, i] = _numbers(plan, spec, requests.as_of, coded)
    return out


def request_row(plan: Plan, as_of: int, fields: Mapping[str, object]) -> NDArray[np.float64]:
    """Return the request values of one application, (1, values); `fields` are its stored fields, absent is null."""
    instant = np.array([as_of], np.int64)
    out = np.empty((1, len(plan.requests)), np.float64)
    for i, spec in enumerate(plan.requests):
        coded = instant if spec.source == "calendar" else np.array([_coded(fields.get(spec.name), spec)], np.int64)
        out[:, i] = _numbers(plan, spec, instant, coded)
    return out
