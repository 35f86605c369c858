"""Several mappings over the same rows, as one batch: a source row goes in whole or not at all.

A row with a wrong cell in any of the mappings that are about it gives none of its events; the events of the others
stand in the order of their rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obligor.errors import Problem
from obligor.events.assembly import part_table
from obligor.events.batch import Batch, TypeVersion
from obligor.events.mapped import MappedRows

__all__ = ["MappedBatch", "mapped_batch"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MappedBatch:
    """The events of rows; `row[i]` is the row that event i comes from, `problems` the rows that give none and why."""

    batch: Batch
    row: Ints
    problems: dict[int, list[Problem]]
    skipped: int  # rows that no mapping is about


def mapped_batch(read: Sequence[MappedRows], commitment_key: bytes) -> MappedBatch:
    """Return the events that mappings, one or more applied to the same rows, make of them; the key is the log's."""
    bad = np.logical_or.reduce([one.bad() for one in read])
    kept = [one.chosen & ~bad for one in read]
    counts: Ints = np.stack(kept).sum(axis=0, dtype=np.int64)
    place = np.cumsum(counts) - counts
    parts: dict[TypeVersion, list[pa.Table]] = {}
    for one, keep in zip(read, kept, strict=True):
        if keep.any():
            event = one.mapping.event
            table = part_table(event, one.rows(keep), place[keep], commitment_key)
            parts.setdefault((event.event_name, event.version), []).append(table)
        place = place + keep
    batch = Batch({form: pa.concat_tables(tables) for form, tables in parts.items()}, int(counts.sum()))
    problems = {i: _distinct(p for one in read for p in one.problems(i)) for i in np.nonzero(bad)[0].tolist()}
    skipped = int((~np.logical_or.reduce([one.chosen for one in read])).sum())
    return MappedBatch(batch, np.repeat(np.arange(len(counts)), counts), problems, skipped)


def _distinct(problems: Iterator[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))
