"""Questions as a table: rows of entity keys, an instant and the application's fields, read to what a plan is asked.

The columns are named as the application's fields are, and read by the same rules as a file that is ingested: a value is
taken where it is exactly one that the field can store, and refused with its row where it is not. Instants say their
zone. All that is wrong is reported at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.errors import BadInput, Problem, did_you_mean
from obligor.events.casting import Cast, Reading, cast, cast_moments, plain, unsupported
from obligor.events.fields import Category, Field, Integer, Money, Timestamp, parse_timestamp
from obligor.events.schema import Event
from obligor.features.plan import Plan
from obligor.features.requests import field_names, key_names

__all__ = ["AsOf", "columns_of", "read_columns", "read_instants", "read_integers", "required"]

AsOf = datetime | str  # an instant for all rows, or the name of a column of instants
Ints = NDArray[np.int64]

PROBLEMS_MAX: Final = 20  # rows of one column that are named
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ZONED: Final = "a moment with a time zone, such as 2026-01-31T09:30:00+01:00"


def required(plan: Plan) -> list[str]:
    """Return the columns that a plan's questions have: keys of entities, then fields of the application."""
    return list(dict.fromkeys([*key_names(plan), *field_names(plan)]))


def columns_of(event: type[Event]) -> dict[str, Field]:
    """Return what may be a column of questions, by name: the application's readable fields, money's currencies too."""
    found: dict[str, Field] = {}
    for name, field in event.readable.items():
        found[name] = field
        if isinstance(field, Money) and len(field.currencies) > 1:
            found[f"{name}.currency"] = Category(*field.currencies)
    return found


def read_columns(plan: Plan, event: type[Event], table: pa.Table) -> dict[str, pa.Array]:
    """Return the columns that a plan needs in stored form; BadInput names every one that is absent or wrong."""
    known = columns_of(event)
    problems: list[Problem] = []
    found: dict[str, pa.Array] = {}
    for name in required(plan):
        if name not in table.column_names:
            problems.append(Problem(f"$.{name}", _absent(plan, event, name, table.column_names)))
            continue
        column = plain(table.column(name))
        why = _unsuited(known[name], column.type)
        if why:
            problems.append(Problem(f"$.{name}", why))
            continue
        done = cast(known[name], column, Reading())
        problems += _flaws(name, column, done)
        found[name] = done.values
    if problems:
        raise BadInput(problems)
    return found


def _absent(plan: Plan, event: type[Event], name: str, names: Sequence[str]) -> str:
    """Return what is expected where a column is absent: what it is, which features need it, the nearest name."""
    needing = list(_needing(plan, name))
    others = f" and {len(needing) - 3} more" if len(needing) > 3 else ""
    kind = columns_of(event)[name].kind
    use = f"for {', '.join(needing[:3])}{others}"
    return f"expected a column with the {event.event_name}'s {kind} {name!r}, {use}; {did_you_mean(name, names)}"


def _needing(plan: Plan, name: str) -> Iterator[str]:
    """Yield the features that look at a field of the application, or at the history of whom it names."""
    for feature in plan.features:
        for step in feature.program:
            place = int(step.value or 0)
            if step.op == "request" and plan.requests[place].name == name:
                yield feature.name
                break
            if step.op == "measure":
                measure = plan.measures[place]
                readers = [measure] if measure.per is None else measure.per.inner
                compared = {plan.comparands[one.comparand].name for reader in readers for one in reader.given}
                if name in measure.via or name in compared:
                    yield feature.name
                    break


def _unsuited(field: Field, kind: pa.DataType) -> str | None:
    """Return why a column of an Arrow type cannot hold a field, None where it can."""
    return _not_zoned(kind) if isinstance(field, Timestamp) else unsupported(field, kind, Reading())


def _not_zoned(kind: pa.DataType) -> str | None:
    """Return why a column of an Arrow type holds no instants, None where it does, or where its texts may."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if texts or pa.types.is_null(kind) or (pa.types.is_timestamp(kind) and kind.tz is not None):
        return None
    naive = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    hint = "; say its zone, as in tz_localize('Africa/Lagos') or dt.replace_time_zone('Africa/Lagos')" if naive else ""
    return f"expected timestamps with a time zone, got {kind}{hint}"


def _flaws(name: str, column: pa.Array, done: Cast, moments: bool = False) -> list[Problem]:
    """Return what is wrong with a column's cells, each with its row."""
    rows = np.flatnonzero(done.bad)
    found = []
    for row in rows[:PROBLEMS_MAX].tolist():
        reason = _ZONED if moments else done.reasons[int(done.bad[row]) - 1]
        found.append(Problem(f"$[{row}].{name}", f"expected {reason}, got {column[row].as_py()!r:.80}"))
    if len(rows) > PROBLEMS_MAX:
        found.append(Problem(f"$.{name}", f"{len(rows) - PROBLEMS_MAX:,} more rows are wrong"))
    return found


def read_integers(name: str, column: pa.Array, field: Integer) -> Ints:
    """Return a plain column of whole numbers that are all there and within the field's bounds."""
    why = unsupported(field, column.type, Reading())
    if why:
        raise BadInput(Problem(f"$.{name}", why))
    done = cast(field, column, Reading())
    problems = [*_flaws(name, column, done), *_absences(name, column, f"an integer up to {field.maximum}")]
    if problems:
        raise BadInput(problems)
    numbers: Ints = done.values.to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def _absences(name: str, column: pa.Array, expected: str) -> list[Problem]:
    """Return where a column that must be whole is null."""
    rows = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[:PROBLEMS_MAX].tolist()
    return [Problem(f"$[{row}].{name}", f"expected {expected}, got null") for row in rows]


def read_instants(table: pa.Table, as_of: AsOf) -> Ints:
    """Return each row's instant in microseconds since 1970, UTC.

    `as_of` is a moment for all rows (a zoned datetime, or its text by RFC 3339), or the name of a column of them.
    """
    if isinstance(as_of, str) and as_of in table.column_names:
        return _instants(as_of, plain(table.column(as_of)))
    return np.full(table.num_rows, _instant(as_of, table.column_names), np.int64)


def _instant(as_of: AsOf, names: Sequence[str]) -> int:
    if isinstance(as_of, datetime):
        if as_of.tzinfo is None:
            raise BadInput(Problem("$.as_of", f"expected {_ZONED}, got {as_of!r}"))
        if getattr(as_of, "nanosecond", 0):
            raise BadInput(Problem("$.as_of", f"expected a moment in whole microseconds, got {as_of!r}"))
        return (as_of - _EPOCH) // _MICROSECOND
    try:
        return parse_timestamp(as_of)
    except ValueError:
        hint = f"; no column has this name: {did_you_mean(as_of, names)}" if isinstance(as_of, str) else ""
        message = f"expected {_ZONED}, or the name of a column of such moments, got {as_of!r:.80}{hint}"
        raise BadInput(Problem("$.as_of", message)) from None


def _instants(name: str, column: pa.Array) -> Ints:
    why = _not_zoned(column.type)
    if why:
        raise BadInput(Problem(f"$.{name}", why))
    done = cast_moments(column.cast(pa.string()) if pa.types.is_null(column.type) else column, Reading())
    problems = [*_flaws(name, column, done, moments=True), *_absences(name, column, _ZONED)]
    if problems:
        raise BadInput(problems)
    instants: Ints = done.values.to_numpy(zero_copy_only=False).astype(np.int64)
    return instants
