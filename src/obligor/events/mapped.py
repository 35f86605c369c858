"""One mapping applied to one chunk of a source: columns cast, rows chosen, and every cell that is wrong named.

Nothing is dropped here: `MappedRows` says which rows the mapping is about and which of those are wrong, and why; the
ingestion keeps a source row whole (a row with a wrong cell gives none of its events) and takes the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obligor.errors import Problem, did_you_mean
from obligor.events.assembly import Rows, personal_json
from obligor.events.batch import CORRECTION, ORIGINAL, RETRACTION, arrow_type
from obligor.events.casting import Cast, Reading, cast, cast_moments, held, plain, translate, unsupported, written
from obligor.events.chunk import Chunk
from obligor.events.fields import Entity, Field, Money, Timestamp, minor_places, parse_timestamp
from obligor.events.mapping import Mapping
from obligor.events.record_columns import ID_LENGTH_MAX

__all__ = ["Flaw", "MappedRows", "apply", "bind", "keys_read", "needed_columns"]

_MOMENT: Final = Timestamp()
_ID: Final = Entity("event")

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Flaw:
    """Cells of one source column that cannot be stored: by row 0 or 1 + an index of `reasons`."""

    column: str
    field: str
    codes: npt.NDArray[np.uint8]
    reasons: tuple[str, ...]
    values: pa.Array | None = None

    def problem(self, i: int) -> Problem:
        """Return what is wrong with row i."""
        reason = self.reasons[int(self.codes[i]) - 1]
        came = "" if self.values is None else f", got {self.values[i].as_py()!r:.80}"
        name = "" if self.field == self.column else f"{self.field}: "
        return Problem(f"$.{self.column}", f"{name}expected {reason}{came}")


@dataclass(slots=True)
class MappedRows:
    """The columns of one mapping over a chunk, `chosen` (which rows it is about) and the flaws among those."""

    mapping: Mapping
    chosen: Bools
    event_id: pa.Array
    event_time: pa.Array
    known_time: pa.Array | None
    kind: npt.NDArray[np.int8]
    target: pa.Array | None
    columns: dict[str, pa.Array]
    flaws: list[Flaw] = field(default_factory=list)

    def bad(self) -> Bools:
        """Return the chosen rows with any flaw."""
        bad = np.zeros(len(self.chosen), np.bool_)
        for flaw in self.flaws:
            bad |= flaw.codes > 0
        return bad & self.chosen

    def problems(self, i: int) -> list[Problem]:
        """Return all that is wrong with row i."""
        return [flaw.problem(i) for flaw in self.flaws if flaw.codes[i]] if self.chosen[i] else []

    def rows(self, keep: Bools) -> Rows:
        """Return the kept rows, checked and complete."""
        event = self.mapping.event
        mask = None if keep.all() else pa.array(keep)

        def kept(column: pa.Array) -> pa.Array:
            return column if mask is None else column.filter(mask)

        size = int(keep.sum())
        columns = {name: kept(column) for name, column in self.columns.items()}
        personal = {n: c.to_pylist() for n, c in columns.items() if event.fields[n.partition(".")[0]].personal}
        return Rows(
            event_id=kept(self.event_id),
            event_time=kept(self.event_time),
            kind=self.kind[keep],
            target=None if self.target is None else kept(self.target),
            columns={name: column for name, column in columns.items() if name not in personal},
            personal=personal_json(event, personal, size) if personal else None,
            known_time=None if self.known_time is None else kept(self.known_time),
        )


# ---- before anything is read ----------------------------------------------------------------------------------------


def _fields_from(mapping: Mapping, names: Sequence[str]) -> Iterator[tuple[str, Field]]:
    """Yield the fields that are read from a column of the source."""
    for name, one in mapping.event.fields.items():
        if name not in mapping.constants and (name in mapping.columns or name in names):
            yield name, one


def _currency_column(mapping: Mapping, name: str, names: Sequence[str]) -> str | None:
    """Return the source column of a money field's currency: as declared, or one named `<field>.currency`."""
    default = f"{name}.currency"
    return mapping.currencies.get(name) or (default if default in names else None)


def needed_columns(mapping: Mapping, names: Sequence[str]) -> set[str]:
    """Return the source columns that a mapping reads, given the names that the source has."""
    needed = set(mapping.source_columns())
    for name, one in _fields_from(mapping, names):
        needed.add(mapping.source_of(name))
        currency = _currency_column(mapping, name, names) if isinstance(one, Money) else None
        needed |= {currency} if currency else set()
    return needed


def keys_read(mappings: Sequence[Mapping]) -> list[str]:
    """Return the keys that mappings read of a source without a schema: what they name, and the fields' own names."""
    own = [[one.source_of(name) for name in one.event.fields if name not in one.constants] for one in mappings]
    money = [
        [f"{name}.currency" for name, one in mapping.event.fields.items() if isinstance(one, Money)]
        for mapping in mappings
    ]
    named = [list(one.source_columns()) for one in mappings]
    return sorted({name for names in (*own, *money, *named) for name in names})


def bind(mapping: Mapping, schema: pa.Schema) -> list[Problem]:
    """Return all that stands between a mapping and a source's columns: missing ones, types, zones, units."""
    path, names, event = f"$.{mapping.event.event_name}", schema.names, mapping.event
    problems = [
        Problem(f"{path}.{where}", f"the source has no column {column!r}; {did_you_mean(column, names)}")
        for column, where in mapping.source_columns().items()
        if column not in names
    ]
    for name, one in event.fields.items():
        if name in mapping.constants or name in mapping.columns or name in names:
            continue
        if not one.optional:
            problems.append(
                Problem(f"{path}.columns.{name}", f"no column is mapped to it; {did_you_mean(name, names)}")
            )
    for name, one in _fields_from(mapping, names):
        column = mapping.source_of(name)
        if name not in mapping.values:
            problems += _misfit(f"{path}.{name}", one, column, schema, _reading(mapping, name, column))
        several = isinstance(one, Money) and len(one.currencies) > 1
        if several and _currency_column(mapping, name, names) is None:
            problems.append(Problem(f"{path}.{name}", "it has several currencies; name the column of its currency"))
    for column in _moment_columns(mapping):
        problems += _misfit(f"{path}.event_time", _MOMENT, column, schema, _reading(mapping, "event_time", column))
    for column, value in mapping.where.items():
        problems += _never(f"{path}.where", value, column, schema)
    for link in (*mapping.id.names, mapping.corrects, mapping.retracts):
        problems += _misfit(f"{path}.id", _ID, link, schema, Reading())
    if (mapping.corrects or mapping.retracts) and (mapping.id.kind == "row" or len(mapping.id.names) > 1):
        problems.append(Problem(f"{path}.id", "corrections need ids of one column: id = field(...) or columns(one)"))
    return problems


def _misfit(path: str, one: Field, column: str | None, schema: pa.Schema, reading: Reading) -> list[Problem]:
    if column is None or column not in schema.names:
        return []
    why = unsupported(one, schema.field(column).type, reading)
    return [Problem(path, f"column {column!r}: {why}")] if why else []


def _never(path: str, value: Any, column: str, schema: pa.Schema) -> list[Problem]:
    """Return why a column can never hold what a condition asks for; text is compared as it is written."""
    if column not in schema.names or isinstance(value, str):
        return []
    kind = plain(schema.empty_table()[column]).type
    if pa.types.is_null(kind) or pa.types.is_string(kind) or held(value, kind).is_valid:
        return []
    return [Problem(path, f"column {column!r}: expected a value that a column of {kind} can hold, got {value!r:.80}")]


def _moment_columns(mapping: Mapping) -> list[str]:
    lag_column, _ = mapping.lag_of()
    return [*([] if "event_time" in mapping.constants else [mapping.event_time]), *([lag_column] if lag_column else [])]


def _reading(mapping: Mapping, name: str, column: str) -> Reading:
    unit = mapping.units.get(name, "") if name == "event_time" else mapping.unit_of(mapping.event.fields[name])
    return Reading(unit, mapping.zone_of(column), mapping.ambiguous, mapping.nonexistent)


# ---- a chunk --------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads the columns of one chunk for one mapping and gathers the flaws."""

    def __init__(self, mapping: Mapping, chunk: Chunk) -> None:
        self.mapping, self.table = mapping, chunk.table
        self.size = len(chunk.numbers)
        self.flaws: list[Flaw] = []

    def source(self, column: str) -> pa.Array:
        if column not in self.table.column_names:
            return pa.nulls(self.size, pa.string())
        array = plain(self.table[column])
        if self.mapping.nulls and written(array.type):
            null = pc.is_in(array.cast(pa.string()), pa.array(list(self.mapping.nulls), pa.string()))
            array = pc.if_else(null, pa.scalar(None, array.type), array)
        return array

    def note(self, column: str, name: str, result: Cast, values: pa.Array) -> pa.Array:
        if result.bad.any():
            self.flaws.append(Flaw(column, name, result.bad, result.reasons, values))
        return result.values

    def require(self, column: str, name: str, present: pa.Array, expected: str, where: Bools) -> None:
        """Mark the rows of `where` in which the source has nothing."""
        if present.null_count:
            missing = present.is_null().to_numpy(zero_copy_only=False) & where
            if missing.any():
                self.flaws.append(Flaw(column, name, missing.astype(np.uint8), (f"{expected}, got nothing",)))


def apply(mapping: Mapping, chunk: Chunk, digest: bytes | None, *, declared: bool) -> MappedRows:
    """Return a mapping's rows of a chunk; `digest` is the file's for ids made of rows."""
    reader = _Reader(mapping, chunk)
    names = chunk.table.column_names
    chosen = _chosen(mapping, reader)
    event_id = _event_ids(mapping, reader, chunk, digest, chosen)
    kind, target = _links(mapping, reader, event_id, chosen)
    payload = chosen & (kind != RETRACTION)
    event_time = _event_time(mapping, reader, payload)
    columns: dict[str, pa.Array] = {}
    before = len(reader.flaws)
    for name, one in mapping.event.fields.items():
        columns.update(_field(mapping, reader, name, one, names, payload))
    if not payload.all():  # what a retraction's row holds besides its id is not read
        columns = {name: _only(column, payload) for name, column in columns.items()}
        for flaw in reader.flaws[before:]:
            flaw.codes[~payload] = 0
    known_time = _known_time(mapping, reader, event_time, chosen) if declared else None
    return MappedRows(mapping, chosen, event_id, event_time, known_time, kind, target, columns, reader.flaws)


def _only(column: pa.Array, where: Bools) -> pa.Array:
    return pc.if_else(pa.array(where), column, pa.scalar(None, column.type))


def _chosen(mapping: Mapping, reader: _Reader) -> Bools:
    chosen = np.ones(reader.size, np.bool_)
    for column, value in mapping.where.items():
        cells = reader.source(column)
        if isinstance(value, bool) and pa.types.is_string(cells.type):
            wanted = pc.equal(pc.utf8_lower(cells), str(value).lower())  # as a boolean field reads them
        elif isinstance(value, str) or pa.types.is_string(cells.type) or pa.types.is_null(cells.type):
            wanted = pc.equal(cells.cast(pa.string()), str(value))
        else:
            wanted = pc.equal(cells, held(value, cells.type))
        chosen &= wanted.fill_null(False).to_numpy(zero_copy_only=False)
    for column in mapping.skip_null:
        cells = reader.source(column)
        if cells.null_count:
            chosen &= cells.is_valid().to_numpy(zero_copy_only=False)
    return chosen


def _event_ids(mapping: Mapping, reader: _Reader, chunk: Chunk, digest: bytes | None, chosen: Bools) -> pa.Array:
    one = mapping.id
    prefix = mapping.event.event_name if one.prefix is None else one.prefix
    if one.kind == "row":
        assert digest is not None, "ids made of rows need the file's digest"
        start = pa.scalar(f"{prefix}:{digest.hex()}:")
        return pc.binary_join_element_wise(start, pa.array(chunk.numbers).cast(pa.string()), "")
    parts = [_id_text(reader, column, chosen) for column in one.names]
    ids = parts[0] if one.kind == "field" else _joined(prefix, parts)
    long = pc.greater(pc.utf8_length(ids), ID_LENGTH_MAX).fill_null(False).to_numpy(zero_copy_only=False)
    if long.any():
        reason = f"an id of 1 to {ID_LENGTH_MAX} characters"
        reader.flaws.append(Flaw(one.names[0], "event_id", long.astype(np.uint8), (reason,), ids))
    return ids


def _id_text(reader: _Reader, column: str, chosen: Bools) -> pa.Array:
    cells = reader.source(column)
    reader.require(column, "event_id", cells, "an id", chosen)
    return reader.note(column, "event_id", cast(_ID, cells, Reading()), cells)


def _joined(prefix: str, parts: list[pa.Array]) -> pa.Array:
    """Return `prefix:a:b`, with % and : in the parts escaped so that no two rows of different values share an id."""
    escaped = [pc.replace_substring(pc.replace_substring(part, "%", "%25"), ":", "%3A") for part in parts]
    return pc.binary_join_element_wise(pa.scalar(prefix), *escaped, ":", null_handling="emit_null")


def _links(
    mapping: Mapping, reader: _Reader, event_id: pa.Array, chosen: Bools
) -> tuple[npt.NDArray[np.int8], pa.Array | None]:
    """Return the kind of each row and the id that it is about."""
    kind = np.full(reader.size, ORIGINAL, np.int8)
    target: pa.Array | None = None
    for column, link in ((mapping.corrects, CORRECTION), (mapping.retracts, RETRACTION)):
        if column is None:
            continue
        cells = reader.source(column)
        ids = reader.note(column, "the link", cast(_ID, cells, Reading()), cells)
        if mapping.id.kind == "columns":
            prefix = mapping.event.event_name if mapping.id.prefix is None else mapping.id.prefix
            ids = _joined(prefix, [ids])
        present = ids.is_valid().to_numpy(zero_copy_only=False)
        if (present & (kind != ORIGINAL) & chosen).any():
            both = (present & (kind != ORIGINAL)).astype(np.uint8)
            reader.flaws.append(Flaw(column, "the link", both, ("either a correction or a retraction",), cells))
        own = pc.equal(ids, event_id).fill_null(False).to_numpy(zero_copy_only=False)
        if own.any():
            reader.flaws.append(Flaw(column, "the link", own.astype(np.uint8), ("another event's id",), cells))
        kind[present] = link
        target = ids if target is None else pc.coalesce(target, ids)
    return kind, target


def _event_time(mapping: Mapping, reader: _Reader, payload: Bools) -> pa.Array:
    constant = mapping.constants.get("event_time")
    if constant is not None:
        return pa.array(np.full(reader.size, parse_timestamp(constant), np.int64))
    return _moments(mapping, reader, mapping.event_time, payload, "event_time")


def _moments(mapping: Mapping, reader: _Reader, column: str, required: Bools, name: str) -> pa.Array:
    cells = reader.source(column)
    reader.require(column, name, cells, "a timestamp", required)
    reading = _reading(mapping, "event_time", column)
    if unsupported(_MOMENT, cells.type, reading) is not None or pa.types.is_null(cells.type):
        return reader.note(column, name, cast(_MOMENT, cells, reading), cells)
    return reader.note(column, name, cast_moments(cells, reading), cells)


def _known_time(mapping: Mapping, reader: _Reader, event_time: pa.Array, chosen: Bools) -> pa.Array:
    """Return the declared known_time: event_time, or the declared column, and the lag."""
    column, lag_us = mapping.lag_of()
    if column is None:
        reader.require(mapping.event_time, "known_time", event_time, "a timestamp that the lag counts from", chosen)
        return pc.add(event_time, lag_us)
    return pc.add(_moments(mapping, reader, column, chosen, "known_time"), lag_us)


def _field(
    mapping: Mapping, reader: _Reader, name: str, one: Field, names: Sequence[str], payload: Bools
) -> dict[str, pa.Array]:
    """Return the stored column(s) of one field."""
    if name in mapping.constants:
        return _constant(one, mapping.constants[name], reader.size)
    column = mapping.source_of(name)
    if column not in names:
        empty = {name: pa.nulls(reader.size, arrow_type(one))}
        if isinstance(one, Money) and len(one.currencies) > 1:
            empty[f"{name}.currency"] = pa.nulls(reader.size, pa.string())
        return empty
    cells = reader.source(column)
    if not one.optional:
        reader.require(column, name, cells, f"a value of {name} ({one.kind})", payload)
    read = cells
    if name in mapping.values:
        read, bad, reasons = translate(cells, mapping.values[name])
        reader.note(column, name, Cast(read, bad, reasons), cells)
    reading = _reading(mapping, name, column)
    if isinstance(one, Money):
        return _money(mapping, reader, name, one, column, read, names)
    return {name: reader.note(column, name, cast(one, read, reading), cells)}


def _constant(one: Field, value: Any, size: int) -> dict[str, pa.Array]:
    if isinstance(one, Money):
        amount, currency = one.parse_with_currency(value)
        columns = {one.name: pa.array(np.full(size, amount, np.int64))}
        if len(one.currencies) > 1:
            columns[f"{one.name}.currency"] = pa.repeat(pa.scalar(currency), size)
        return columns
    return {one.name: pa.repeat(pa.scalar(one.parse(value), arrow_type(one)), size)}


def _money(
    mapping: Mapping, reader: _Reader, name: str, one: Money, column: str, cells: pa.Array, names: Sequence[str]
) -> dict[str, pa.Array]:
    """Return amount and currency; the places of major units depend on the row's currency."""
    reading = _reading(mapping, name, column)
    currency_column = _currency_column(mapping, name, names)
    if currency_column is None:
        return {name: reader.note(column, name, cast(one, cells, reading), cells)}
    currencies = reader.source(currency_column)
    currencies = currencies if currencies.type == pa.string() else currencies.cast(pa.string())
    if len(one.currencies) == 1 and name not in mapping.currencies:  # where it may stay unsaid, but not be another
        currencies = pc.fill_null(currencies, one.currencies[0])
    known = pc.is_in(currencies, pa.array(list(one.currencies))).to_numpy(zero_copy_only=False)
    wrong = ~known & cells.is_valid().to_numpy(zero_copy_only=False)
    if wrong.any():
        reason = f"currency {' or '.join(one.currencies)}"
        reader.flaws.append(Flaw(currency_column, f"{name}.currency", wrong.astype(np.uint8), (reason,), currencies))
    amounts = pa.nulls(len(cells), pa.int64())
    for places in sorted({minor_places(c) for c in one.currencies}):
        alike = [c for c in one.currencies if minor_places(c) == places]
        part = _only(cells, pc.is_in(currencies, pa.array(alike)).to_numpy(zero_copy_only=False))
        found = reader.note(column, name, cast(one, part, reading, alike[0]), cells)
        if found.type == amounts.type:  # what is no number at all is noted, and stays what it is
            amounts = pc.coalesce(amounts, found)
    columns = {name: amounts}
    if len(one.currencies) > 1:
        columns[f"{name}.currency"] = _only(currencies, amounts.is_valid().to_numpy(zero_copy_only=False))
    return columns
