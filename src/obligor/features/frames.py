"""Tables of a data scientist's own kind: pandas, polars, Arrow or DuckDB, read as Arrow and given back as they came.

Arrow is the pivot, because all four speak it and the core is built on it; none of the libraries is imported unless a
frame of its kind is at hand. Rows keep their order, and pandas its index.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import pyarrow as pa

from obligor.errors import BadInput, Problem
from obligor.events.sources import pandas_table

__all__ = ["KINDS", "Frame", "read_frame"]

Frame = TypeVar("Frame")  # a pandas or polars DataFrame, a pyarrow Table, or a DuckDB relation

KINDS = "a pandas or polars DataFrame, a pyarrow Table or a DuckDB relation"
_TYPES = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "Table", "duckdb": "DuckDBPyRelation"}


def read_frame(frame: Frame, what: str = "questions") -> tuple[pa.Table, Callable[[pa.Table], Frame]]:
    """Return a frame's columns as an Arrow table, and what makes a frame of its kind of them and further columns.

    The further columns have as many rows, in the same order. BadInput where it is no frame of a known kind, or two of
    its columns have one name.
    """
    library = next((name for name in _TYPES if isinstance(frame, _frame_types(name))), None)
    if library is None:
        hint = "; collect() it first" if type(frame).__name__ == "LazyFrame" else ""
        raise BadInput(Problem(f"$.{what}", f"expected {KINDS}, got {type(frame).__qualname__}{hint}"))
    names = [str(name) for name in _names(library, frame)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise BadInput(Problem(f"$.{what}.{name}", "expected one column of this name, got several") for name in twice)
    read, give_back = _LIBRARIES[library]
    table: pa.Table = read(frame)
    return table.rename_columns(names), lambda more: give_back(frame, table, more)


def _frame_types(library: str) -> tuple[type, ...]:
    """Return the type of a library's frames, none where it is not loaded: then nothing can be one of them."""
    module: ModuleType | None = sys.modules.get(library)
    found = getattr(module, _TYPES[library], None)
    return (found,) if isinstance(found, type) else ()


def _names(library: str, frame: Any) -> list[Any]:
    return list(frame.column_names if library == "pyarrow" else frame.columns)


def _from_pandas(frame: Any) -> pa.Table:
    try:
        return pandas_table(frame)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:  # a column of objects of several kinds
        raise BadInput(Problem("$.questions", f"expected columns of one kind each: {'; '.join(error.args)}")) from None


def _to_pandas(frame: Any, _: pa.Table, more: pa.Table) -> Any:
    """Return the frame with further columns; a type says by itself that a value may be missing, whatever is missing."""
    if not more.num_columns:
        return frame
    pandas = sys.modules["pandas"]
    kinds = {pa.int64(): pandas.Int64Dtype(), pa.bool_(): pandas.BooleanDtype()}
    added = more.to_pandas(types_mapper=kinds.get)
    return pandas.concat([frame, added.set_index(frame.index)], axis=1)


def _to_polars(frame: Any, _: pa.Table, more: pa.Table) -> Any:
    return frame.hstack(sys.modules["polars"].from_arrow(more)) if more.num_columns else frame


def _to_arrow(frame: pa.Table, _: pa.Table, more: pa.Table) -> pa.Table:
    for name in more.column_names:
        frame = frame.append_column(name, more.column(name))
    return frame


def _to_duckdb(frame: Any, read: pa.Table, more: pa.Table) -> Any:
    """Return a relation of the same connection, which finds the table under its variable's name."""
    answered = _to_arrow(read, read, more)
    assert answered.num_rows == read.num_rows
    return frame.query("questions", "select * from answered")


_LIBRARIES: dict[str, tuple[Callable[[Any], pa.Table], Callable[[Any, pa.Table, pa.Table], Any]]] = {
    "pandas": (_from_pandas, _to_pandas),
    "polars": (lambda frame: frame.to_arrow(), _to_polars),
    "pyarrow": (lambda frame: frame, _to_arrow),
    "duckdb": (lambda frame: frame.to_arrow_table(), _to_duckdb),
}
