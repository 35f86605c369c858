"""Which rows of a batch the log takes: de-duplication by event_id, checks against the log, positions and known times.

Most rows of most batches are plain: an original whose id nobody has seen and nobody waits for. They are recognised for
the whole batch at once. What remains (corrections, retractions, ids that may be known, awaited ids) is decided row by
row, in order, so that the result is the same as if every row had been appended alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obligor.errors import BadInput, did_you_mean
from obligor.events.batch import ORIGINAL, Batch, TypeVersion, part_schema
from obligor.events.schema import Event, Registry

__all__ = ["DECLARED_NONE", "Appended", "Rows", "known_times", "plain_rows"]

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
DECLARED_NONE = -(2**63)


@dataclass(frozen=True)
class Appended:
    """What became of a batch's rows, in its order.

    `status`: "accepted", "duplicate", "conflict" or "rejected:<why>". `position` and `known_time`: of a duplicate or a
    conflict those of the event that has the id already, of a rejected row -1.
    """

    status: list[str]
    position: Int64s
    known_time: Int64s

    @property
    def accepted(self) -> int:
        """How many rows are new in the log."""
        return self.status.count("accepted")


@dataclass(frozen=True)
class Rows:
    """A batch, flattened to its own order; `place[i]` is row i's (part, row within the part)."""

    parts: list[tuple[TypeVersion, pa.Table]]
    ids: list[str]
    kind: npt.NDArray[np.int8]
    declared: Int64s
    part: npt.NDArray[np.int32]
    row: Int64s
    targets: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, batch: Batch, registry: Registry) -> Rows:
        """Flatten a batch; BadInput if a part is not of the registry's form."""
        parts = [(name, _checked(name, part, registry)) for name, part in batch.parts.items() if part.num_rows]
        n = batch.size
        rows = cls(
            parts,
            [""] * n,
            np.empty(n, np.int8),
            np.empty(n, np.int64),
            np.empty(n, np.int32),
            np.empty(n, np.int64),
        )
        for number, (_, part) in enumerate(parts):
            rows._take(number, part)
        return rows

    def _take(self, number: int, part: pa.Table) -> None:
        index = part["index"].to_numpy()
        ids = part["event_id"].to_pylist()
        if len(self.parts) == 1:
            self.ids[:] = ids
        else:
            for i, one in zip(index.tolist(), ids, strict=True):
                self.ids[i] = one
        kind = part["kind"].to_numpy()
        self.kind[index] = kind
        known = part["known_time"]
        self.declared[index] = DECLARED_NONE if known.null_count == len(known) else known.fill_null(DECLARED_NONE)
        self.part[index] = number
        self.row[index] = np.arange(len(index))
        if kind.any():
            targets = part["target"].to_pylist()
            self.targets.update((int(index[i]), targets[i]) for i in np.nonzero(kind)[0].tolist())

    def __len__(self) -> int:
        return len(self.ids)

    def type(self, i: int) -> str:
        """Return the event type of row i."""
        (name, _), _ = self.parts[int(self.part[i])]
        return name

    def content(self, i: int) -> bytes:
        """Return the content hash of row i."""
        return bytes(self.parts[self.part[i]][1]["content"][int(self.row[i])].as_py())


@lru_cache(maxsize=1024)
def _expected(event: type[Event]) -> tuple[list[str], list[pa.DataType]]:
    schema = part_schema(event)
    return schema.names, schema.types


def _checked(form: TypeVersion, part: pa.Table, registry: Registry) -> pa.Table:
    name, version = form
    if name not in registry:
        raise BadInput(f"unknown event type {name!r}; {did_you_mean(name, registry.names())}")
    if version not in registry[name].lineage:
        raise BadInput(f"expected {name} events of version {_versions(registry[name])}, got version {version}")
    names, types = _expected(registry[name].lineage[version])
    if part.schema.names != names or part.schema.types != types:
        raise BadInput(f"a batch's {name} events have the columns {names}, got {part.schema.names}")
    index = part["index"].to_numpy()
    if len(index) > 1 and not (index[1:] > index[:-1]).all():
        order = np.argsort(index)
        part = part.take(order)
    return part


def _versions(event: type[Event]) -> str:
    return " or ".join(map(str, event.lineage))


def plain_rows(rows: Rows, slots: Int64s, order: Int64s, known_slots: Sequence[int] | Int64s, awaited: Bools) -> Bools:
    """Return which rows need no look at any other; `order` sorts `slots`, `known_slots` are taken or referred to."""
    plain: Bools = (rows.kind == ORIGINAL) & ~awaited
    ordered = slots[order]
    same = ordered[1:] == ordered[:-1]
    if same.any():
        plain[order[1:][same]] = False
        plain[order[:-1][same]] = False
    if len(known_slots):
        plain &= ~np.isin(slots, np.asarray(known_slots, np.int64))
    return plain


def known_times(declared: Int64s, clock_us: int, last: int) -> Int64s:
    """Return the known_time of each accepted row: as declared, or measured, strictly increasing and past all before it.

    >>> known_times(np.array([DECLARED_NONE, 40, DECLARED_NONE]), clock_us=50, last=49).tolist()
    [50, 40, 51]
    """
    measured = declared == DECLARED_NONE
    start = max(clock_us, last + 1)
    if measured.all():
        return np.arange(start, start + len(declared), dtype=np.int64)
    before = np.cumsum(measured) - measured
    floor = np.where(measured, start, declared + 1 - before)
    reached = np.maximum.accumulate(np.concatenate([[start], floor]))[:-1]
    times: Any = np.where(measured, reached + before, declared)
    return np.asarray(times, np.int64)
