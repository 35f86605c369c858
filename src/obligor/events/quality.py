"""The data-quality summary of an ingestion: per field, what is missing, refused, and the range of the rest.

Tallies are updated chunk by chunk and merged by their definition alone, so that the summary does not depend on chunk
sizes. Distinct values are counted exactly to 2,048 and then estimated by the k smallest hashes (Bar-Yossef et al. 2002;
standard error about 2%); the hash is fixed, so that two runs over one file agree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from obligor.events.fields import Decimal, Field

__all__ = ["ColumnQuality", "Tally", "shown"]

_SMALLEST: Final = 2_048
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class ColumnQuality:
    """What an ingestion saw of one field; `minimum` and `maximum` are in the stored form, null for texts."""

    event: str
    field: str
    column: str
    rows: int
    nulls: int
    refused: int
    distinct: int
    distinct_is_exact: bool
    minimum: int | bool | None
    maximum: int | bool | None
    minimum_text: str
    maximum_text: str


@dataclass(slots=True)
class Tally:
    """Counts of one field, to which chunks are added; of a personal field no more than what is missing."""

    event: str
    name: str
    column: str
    kind: Field
    rows: int = 0
    nulls: int = 0
    refused: int = 0
    low: Any = None
    high: Any = None
    _hashes: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))

    def add(self, values: pa.Array, refused: int) -> None:
        """Add stored values (null where absent or refused) of which `refused` were refused."""
        self.rows += len(values)
        self.refused += refused
        self.nulls += values.null_count - refused
        if values.null_count == len(values) or self.kind.personal:
            return
        if self.kind.kind not in ("entity", "category", "text"):
            bounds = pc.min_max(values).as_py()
            self.low = bounds["min"] if self.low is None else min(self.low, bounds["min"])
            self.high = bounds["max"] if self.high is None else max(self.high, bounds["max"])
        self._hashes = _smallest(self._hashes, _hash(values))

    def summary(self) -> ColumnQuality:
        """Return the counts as they stand."""
        distinct, exact = len(self._hashes), len(self._hashes) < _SMALLEST
        if not exact:
            estimate = round((_SMALLEST - 1) / (float(self._hashes[-1]) / 2.0**64))
            distinct = min(estimate, self.rows - self.nulls - self.refused)
        texts = [shown(self.kind, bound) for bound in (self.low, self.high)]
        counts = (self.rows, self.nulls, self.refused, distinct, exact)
        return ColumnQuality(self.event, self.name, self.column, *counts, self.low, self.high, *texts)


def shown(kind: Field, value: int | bool | None) -> str:
    """Return a stored value as people read it; "" for null.

    >>> shown(Decimal(2), 1250)
    '12.50'
    """
    if value is None:
        return ""
    if kind.kind == "timestamp":
        try:
            return (_EPOCH + timedelta(microseconds=int(value))).isoformat().replace("+00:00", "Z")
        except OverflowError:
            return f"{value} us"
    if isinstance(kind, Decimal) and kind.scale:
        digits = f"{abs(value):0{kind.scale + 1}d}"
        return f"{'-' if value < 0 else ''}{digits[: -kind.scale]}.{digits[-kind.scale :]}"
    return str(value)


def _smallest(known: Hashes, new: Hashes) -> Hashes:
    if len(known) == _SMALLEST:
        new = new[new < known[-1]]
    elif len(new) > 8 * _SMALLEST:
        new = np.unique(new)
    return np.unique(np.concatenate([known, new]))[:_SMALLEST] if len(new) else known


def _hash(values: pa.Array) -> Hashes:
    """Return a well-mixed 64-bit hash of every value that is not null."""
    present = values.drop_null()
    if pa.types.is_string(present.type):
        _, offsets_buffer, data_buffer = present.buffers()
        offsets = np.frombuffer(offsets_buffer, np.int32)[present.offset : present.offset + len(present) + 1]
        data = np.frombuffer(data_buffer if data_buffer is not None else b"", np.uint8)
        hashes = np.empty(len(present), np.uint64)
        _hash_texts(offsets, data, hashes)
    else:
        hashes = present.cast(pa.int64()).to_numpy(zero_copy_only=False).view(np.uint64).copy()
    return _mix(hashes)


@njit(cache=True, nogil=True, fastmath=False)
def _hash_texts(offsets: Any, data: Any, hashes: Any) -> None:
    """FNV-1a, 64 bits."""
    for i in range(len(hashes)):
        value = np.uint64(0xCBF29CE484222325)
        for at in range(offsets[i], offsets[i + 1]):
            value = (value ^ np.uint64(data[at])) * np.uint64(0x100000001B3)
        hashes[i] = value


def _mix(hashes: Hashes) -> Hashes:
    """Finish with SplitMix64's mixer, so that near values lie far apart."""
    hashes ^= hashes >> np.uint64(30)
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(27)
    hashes *= np.uint64(0x94D049BB133111EB)
    hashes ^= hashes >> np.uint64(31)
    return hashes
