"""Rows of any version of a type, read by the names of all versions: where upcasts are carried out, column by column.

Offline facts, the changes that online state applies, applications that are decided and replayed: all of them read rows
here, so that a row means the same everywhere. The rows themselves stay as they were written.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from obligor.errors import DefinitionError, LimitError
from obligor.events.batch import arrow_type, field_columns
from obligor.events.fields import Field, Money
from obligor.events.lineage import Turn, Way, way
from obligor.events.schema import Event
from obligor.events.upcast import Default, Denominated, Filled, Mapped, Stored, constant

__all__ = ["fact_schema", "read_rows", "stored_columns"]


class _Values(NamedTuple):
    """One field of n rows, with the currencies of money in several."""

    values: pa.ChunkedArray
    currency: pa.ChunkedArray | None = None


@lru_cache(maxsize=1024)
def fact_schema(event: type[Event]) -> pa.Schema:
    """Return the columns of a type's readable fields, as facts and changes have them; personal fields never."""
    return pa.schema([c for name, one in event.readable.items() if not one.personal for c in field_columns(name, one)])


def stored_columns(event: type[Event], version: int, columns: Iterable[str]) -> list[str]:
    """Return the columns of a version's rows that `columns` of `fact_schema` are read from."""
    origins = (way(event, version, name) for name in _fields(columns))
    return [c.name for one in origins if one.stored for c in field_columns(one.origin.name, one.origin)]


def read_rows(
    table: pa.Table, event: type[Event], version: int, columns: pa.Schema | None = None
) -> dict[str, pa.ChunkedArray]:
    """Return rows that a version wrote as `columns` (default: all) of `fact_schema`, by name.

    `table` holds at least `stored_columns`. DefinitionError where the type has no such version.
    """
    schema = fact_schema(event) if columns is None else columns
    found: dict[str, pa.ChunkedArray] = {}
    for name in _fields(schema.names):
        path = way(event, version, name)
        one = _start(table, path)
        for turn in path.turns:
            one = _back(turn, one) if turn.back else _forward(turn, one)
        found[name] = one.values
        if one.currency is not None:
            found[f"{name}.currency"] = one.currency
    return {name: found[name] for name in schema.names}


def _fields(columns: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(column.partition(".")[0] for column in columns))


def _currencies(turn: Turn) -> tuple[str, ...]:
    """Return what older amounts may be in."""
    if isinstance(turn.step, Denominated):
        return (turn.step.currency,)
    return turn.old.currencies if isinstance(turn.old, Money) else ()


def _several(field: Field | None) -> bool:
    return isinstance(field, Money) and len(field.currencies) > 1


def _start(table: pa.Table, path: Way) -> _Values:
    field, size = path.origin, table.num_rows
    if not path.stored:
        nulls = pa.chunked_array([pa.nulls(size, arrow_type(field))])
        return _Values(nulls, pa.chunked_array([pa.nulls(size, pa.string())]) if _several(field) else None)
    values = table.column(field.name)
    if values.type != arrow_type(field):
        raise DefinitionError(f"{field.event_name}.{field.name}: the log holds {values.type}, not {arrow_type(field)}")
    return _Values(values, table.column(f"{field.name}.currency") if _several(field) else None)


# ---- forward: older rows under newer names --------------------------------------------------------------------------


def _forward(turn: Turn, came: _Values) -> _Values:
    """Return what older rows say under the name of a step's target."""
    step, old, new = turn.step, turn.old, turn.new
    if isinstance(step, Default):
        return _filled(came, new, constant(new, step.value))
    if isinstance(step, Mapped):
        return _Values(_translated(came.values, {value: step.read(value, new) for value in _distinct(came.values)}))
    if turn.factor > 1:
        came = _Values(_multiplied(came.values, turn.factor, new))
    if _several(new) and not _several(old):
        (currency,) = _currencies(turn)
        there = pc.if_else(pc.is_valid(came.values), pa.scalar(currency), pa.scalar(None, pa.string()))
        came = _Values(came.values, there)
    return _filled(came, new, constant(new, step.value)) if isinstance(step, Filled) else came


def _filled(came: _Values, field: Field, value: Stored) -> _Values:
    stored, currency = value
    values = pc.fill_null(came.values, pa.scalar(stored, arrow_type(field)))
    return _Values(values, None if came.currency is None else pc.fill_null(came.currency, currency))


def _multiplied(values: pa.ChunkedArray, factor: int, field: Field) -> pa.ChunkedArray:
    try:
        return pc.multiply_checked(values, factor)
    except pa.ArrowInvalid:
        raise LimitError(f"{field.event_name}.{field.name}: an older number is beyond 64 bits at this scale") from None


# ---- back: newer rows under older names -----------------------------------------------------------------------------


def _back(turn: Turn, came: _Values) -> _Values:
    """Return what newer rows say under the name of a step's source, null where it cannot be said exactly."""
    step, old, new = turn.step, turn.old, turn.new
    assert old is not None, "a step that leads back has a source"
    if new.protected and not old.protected:  # what is withheld now is not let out under an older name
        return _Values(_nulls(came.values), None if came.currency is None else _nulls(came.currency))
    if isinstance(step, Mapped):
        return _Values(_translated(came.values, {value: step.unread(value, old) for value in _distinct(came.values)}))
    values, currency = came
    if currency is not None:
        sayable = pc.is_in(currency, value_set=pa.array(_currencies(turn), pa.string()))
        values = pc.if_else(sayable, values, pa.scalar(None, values.type))
        currency = pc.if_else(sayable, currency, pa.scalar(None, pa.string())) if _several(old) else None
    return _Values(_divided(values, turn.factor) if turn.factor > 1 else values, currency)


def _divided(values: pa.ChunkedArray, factor: int) -> pa.ChunkedArray:
    quotient = pc.divide(values, factor)
    exact = pc.equal(pc.multiply(quotient, factor), values)
    return pc.if_else(exact, quotient, pa.scalar(None, values.type))


# ---- columns --------------------------------------------------------------------------------------------------------


def _nulls(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([pa.nulls(len(values), values.type)])


def _distinct(values: pa.ChunkedArray) -> list[str]:
    found: list[str] = pc.unique(values).drop_null().to_pylist()
    return found


def _translated(values: pa.ChunkedArray, words: dict[str, str | None] | dict[str, str]) -> pa.ChunkedArray:
    """Return the texts replaced; null stays null."""
    places = pc.index_in(values, value_set=pa.array(list(words), pa.string()))
    return pc.take(pa.array(list(words.values()), pa.string()), places)
