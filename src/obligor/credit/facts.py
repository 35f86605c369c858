"""The facts an outcome looks at: winners of one view, selected by a predicate, grouped by the loan they are about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obligor.credit.definitions import Occurrence
from obligor.errors import BadInput
from obligor.events.predicates import Predicate
from obligor.features.filters import comparisons, evaluate

__all__ = ["Cut", "Facts", "Grouped", "Ints", "Log", "View", "integers", "selected", "texts"]

Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Cut: TypeAlias = Mapping[int, int]


class Facts(Protocol):
    """The versions of one type's facts, as the log gives them."""

    @property
    def rows(self) -> pa.Table:
        """All versions: originals and corrections."""

    def view(self, cut: Any, as_of: int) -> pa.Table:
        """Return the winners at (cut, as_of) with event_time before as_of."""


class Log(Protocol):
    """What outcomes need of an event log."""

    def cut(self) -> dict[int, int]:
        """Return the cut that shows everything."""

    def facts(self, type_name: str, cut: Any = None, columns: Any = None) -> Facts:
        """Return the facts of one type up to a cut."""


@dataclass(frozen=True, eq=False)
class Grouped:
    """Winners of one occurrence by loan: rows offsets[k] to offsets[k + 1] are those of loan k."""

    event: str
    offsets: Ints  # (loans + 1,)
    event_time: Ints
    table: pa.Table

    def integers(self, column: str) -> Ints:
        """Return an int64 column; BadInput where a fact has none, as what is not known is not 0."""
        if nulls := self.table.column(column).null_count:
            raise BadInput(
                f"{self.event}.{column}: {nulls} of the loans' facts have none, and to count them as 0 would be wrong: "
                "correct them, or leave them out by a predicate such as paid_where=..."
            )
        return integers(self.table, column)


class View:
    """What was known at (cut, seen_at), read from the log once a type."""

    def __init__(self, log: Log, cut: Cut, seen_at: int) -> None:
        self._log, self._cut, self._seen_at = log, cut, seen_at
        self._winners: dict[str, pa.Table] = {}

    def winners(self, event: str) -> pa.Table:
        """Return the winning facts of one type with event_time before seen_at."""
        if event not in self._winners:
            self._winners[event] = self._log.facts(event, self._cut).view(self._cut, self._seen_at)
        return self._winners[event]

    def selected(self, occurrence: Occurrence) -> pa.Table:
        """Return the winners for which the occurrence's predicate is true."""
        return selected(self.winners(occurrence.event), occurrence.where)

    def grouped(self, occurrence: Occurrence, key: str, loans: pa.Array, order: str = "event_time") -> Grouped:
        """Return the winners of the `loans` by the field `key`, sorted by (`order`, root) within a loan.

        Facts without a loan, or with a null in `order`, are left out.
        """
        table = self.selected(occurrence)
        codes = pc.index_in(_strings(table.column(key)), value_set=loans)
        kept = pc.and_(pc.is_valid(codes), pc.is_valid(table.column(order)))
        table, codes = table.filter(kept), codes.filter(kept).cast(pa.int64())
        loan = _numpy(codes)
        by = np.lexsort((integers(table, "root"), integers(table, order), loan))
        offsets = np.searchsorted(loan[by], np.arange(len(loans) + 1)).astype(np.int64)
        table = table.take(pa.array(by))
        return Grouped(occurrence.event, offsets, integers(table, "event_time"), table)


def selected(table: pa.Table, where: Predicate | None) -> pa.Table:
    """Return the rows for which a predicate is true; null is not true."""
    if where is None:
        return table
    true, _ = evaluate(where, _Columns(table, where))
    return table.filter(pa.array(true))


def integers(table: pa.Table, column: str) -> Ints:
    """Return a column as int64, null as 0."""
    return _numpy(pc.fill_null(table.column(column).cast(pa.int64()), 0))


def texts(table: pa.Table, column: str) -> pa.StringArray:
    """Return a column as texts in one piece."""
    return pa.concat_arrays(_strings(table.column(column)).chunks or [pa.array([], pa.string())])


class _Columns:
    """A table's columns for predicates; a text is coded by its place among the texts that the predicate mentions."""

    def __init__(self, table: pa.Table, where: Predicate) -> None:
        self._table = table
        self._texts: dict[str, list[str]] = {}
        for comparison in comparisons(where):
            wanted = comparison.value if isinstance(comparison.value, tuple) else (comparison.value,)
            self._texts.setdefault(comparison.field, []).extend(text for text in wanted if isinstance(text, str))

    def integers(self, field: str) -> tuple[Ints, Bools]:
        """Return values and where they are not null."""
        column = self._table.column(field)
        valid: Bools = np.asarray(pc.is_valid(column))
        if not _is_text(column.type):
            return integers(self._table, field), valid
        codes = pc.index_in(_strings(column), value_set=pa.array(self._texts[field], pa.string()))
        return _numpy(pc.fill_null(codes, -1).cast(pa.int64())), valid

    def code(self, field: str, text: str) -> int:
        """Return the code of a text."""
        return self._texts[field].index(text)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))


def _strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string())


def _numpy(column: Any) -> Ints:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values: Ints = np.ascontiguousarray(array.to_numpy(zero_copy_only=False))
    return values
