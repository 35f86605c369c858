"""Whether a table's rows are those of its log: made from the log once more, and compared with what the files say.

The log is read in stretches of which only the rows of some buckets are kept; many buckets are gone through in several
passes, so that memory is bounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obligor.features.buckets import BUCKETS
from obligor.features.lake_compaction import merged_rows
from obligor.features.lake_rows import Additions, Pairs, replaced_columns, staircase
from obligor.features.lake_tables import REPLACED, LakeTable, no_revisions
from obligor.features.lake_view import TableView

__all__ = ["PASS_ROWS", "Checked", "check_table", "passes"]

PASS_ROWS = 4_000_000  # compared at a time
SAMPLED = 64  # buckets, where not all are checked
EXAMPLES_MAX = 3
_ORDER = [(name, "ascending") for name in ("bucket", "entity", "event_time", "root", "position", "known")]
_IDENTITY = ("bucket", "entity", "root", "position", "known")

Stretches = Callable[[], Iterable[Additions]]  # what the log adds to the table, from the beginning on


@dataclass(frozen=True)
class Checked:
    """What a check of a table found; `missing` rows are in the log only, `unexpected` ones in the lake only."""

    name: str
    buckets: int
    rows: int
    missing: int
    unexpected: int
    examples: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether all rows are the same."""
        return not self.missing and not self.unexpected


def passes(rows: int, *, whole: bool) -> Iterator[Sequence[int]]:
    """Yield the buckets to check together: of a table of so many rows all, or a sample of them."""
    if not whole:
        yield range(0, BUCKETS, BUCKETS // SAMPLED)
        return
    size = max(1, min(BUCKETS, BUCKETS * PASS_ROWS // max(1, rows)))
    for first in range(0, BUCKETS, size):
        yield range(first, min(first + size, BUCKETS))


def check_table(view: TableView, stretches: Stretches, *, whole: bool) -> Checked:
    """Compare a table's files, and what replaces their rows, with what the log adds to it."""
    checked = rows = missing = unexpected = 0
    examples: list[str] = []
    for buckets in passes(sum(file.rows for file in view.files), whole=whole):
        expected, actual = _expected(view.table, stretches(), buckets), _actual(view, buckets)
        checked, rows = checked + len(buckets), rows + expected.num_rows
        if not expected.equals(actual):
            wanted, found = _counted(expected), _counted(actual)
            missing, unexpected = missing + (wanted - found).total(), unexpected + (found - wanted).total()
            examples += [f"missing: {dict(row)}" for row in wanted - found]
            examples += [f"unexpected: {dict(row)}" for row in found - wanted]
    return Checked(view.table.name, checked, rows, missing, unexpected, tuple(examples[:EXAMPLES_MAX]))


def _counted(rows: pa.Table) -> Counter[tuple[tuple[str, str], ...]]:
    return Counter(tuple((name, repr(value)) for name, value in row.items()) for row in rows.to_pylist())


def _actual(view: TableView, buckets: Sequence[int]) -> pa.Table:
    found = [view.table.empty]
    ranges = [(buckets[0], buckets[-1])] if len(buckets) == buckets[-1] - buckets[0] + 1 else [(b, b) for b in buckets]
    for one in ranges:
        rows = merged_rows(view.table, view.store, view.files, one, view.revisions)
        found += [] if rows is None else [rows]
    return pa.concat_tables(found).sort_by(_ORDER).combine_chunks()


def _expected(table: LakeTable, stretches: Iterable[Additions], buckets: Sequence[int]) -> pa.Table:
    wanted = pa.array(buckets, pa.int16())
    rows, revisions = [table.empty], [no_revisions()]
    for added in stretches:
        for kept, part in ((rows, added.rows), (revisions, added.revisions)):
            kept.append(part.filter(pc.is_in(part.column("bucket"), value_set=wanted)))
    replaced = _by_row(pa.concat_tables(revisions))
    return _with_revisions(pa.concat_tables(rows).sort_by(_ORDER).combine_chunks(), replaced)


def _by_row(revisions: pa.Table) -> dict[tuple[object, ...], Pairs]:
    found: dict[tuple[object, ...], Pairs] = {}
    columns = [revisions.column(name).to_pylist() for name in (*_IDENTITY, "replaced_position", "replaced_known")]
    for *identity, position, known in zip(*columns, strict=True):
        found.setdefault(tuple(identity), []).append((position, known))
    return found


def _with_revisions(rows: pa.Table, revised: Mapping[tuple[object, ...], Pairs]) -> pa.Table:
    """Return rows with all that replaces them."""
    replaced: dict[int, Pairs] = {}
    roots = {identity[2] for identity in revised}
    concerned = pc.or_(
        pc.is_valid(rows.column("replaced_known")), pc.is_in(rows.column("root"), value_set=pa.array(roots, pa.int64()))
    )
    for place in np.flatnonzero(concerned.to_numpy()).tolist():
        row = {name: rows.column(name)[place].as_py() for name in (*_IDENTITY, *REPLACED)}
        own = [(row["replaced_position"], row["replaced_known"])] if row["replaced_known"] is not None else []
        own += [(pair["position"], pair["known"]) for pair in row["replaced_more"] or ()]
        pairs = staircase([*own, *revised.get(tuple(row[name] for name in _IDENTITY), ())])
        if pairs:
            replaced[place] = pairs
    for name, column in zip(REPLACED, replaced_columns(rows.num_rows, replaced), strict=True):
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    return rows
