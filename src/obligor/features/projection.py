"""Projection: raw fact rows -> timeline rows, the one place where events lose their own shape.

The offline build and the online state both call `project`, so a predicate or a coding cannot mean two things. It is
vectorised over one Arrow table of one event type: predicates become bits of a mask, fields become int64 slots.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obligor.events.predicates import Predicate
from obligor.features.delays import SUFFIX, stored
from obligor.features.filters import comparisons, evaluate, parse_predicate
from obligor.features.kernels.integers import NULL
from obligor.features.measures import Slot
from obligor.features.plan import Plan

__all__ = [
    "KEY_SEPARATOR",
    "NULL",
    "Projection",
    "Rows",
    "code_column",
    "code_slots",
    "hash_text",
    "joined_keys",
    "project",
]

KEY_SEPARATOR = "\x1f"  # between the parts of a composite entity's key; no entity's key contains it
HASHES_KEPT = 1 << 18  # of texts: those of the entities that come again and again
PROJECTIONS_MAX = 256  # compiled projections that are kept
Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Timeline rows, in the order of the table they come from; all of length n."""

    key: pa.StringArray  # the entity
    event_time: Ints
    root: Ints
    mask: Ints  # bit i: selection i of the timeline; never 0
    values: Ints  # (n, slots), C order, NULL where absent
    source: Ints  # the row's index in the table

    def __len__(self) -> int:
        return len(self.source)


def project(plan: Plan, timeline: str, event_name: str, table: pa.Table) -> Rows:
    """Return the rows that facts of one event type make in a timeline.

    `table` holds `event_time`, `root` and the fields the plan uses, texts plain or dictionary-encoded. A fact without
    the entity, or selected by nothing, makes no row; one that enters by two entity fields makes a row for either key.
    """
    return _projection(plan, timeline, event_name).rows(table)


def joined_keys(parts: Sequence[pa.StringArray]) -> pa.StringArray:
    """Return the keys of entities, or of composites of several; null where a part is."""
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, KEY_SEPARATOR)


@lru_cache(maxsize=HASHES_KEPT)
def hash_text(text: str) -> int:
    """Return the first 8 bytes of the text's blake2b-8 digest as int64; never NULL.

    >>> hash_text("loan-1") == hash_text("loan-1") != hash_text("loan-2")
    True
    """
    value = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
    return value if value != NULL else NULL + 1


def code_column(array: pa.Array, slot: Slot) -> Ints:
    """Return one column's values by a slot's coding, NULL for null."""
    return _TableColumns(pa.table({slot.field: array}), {}).slot(slot)


def code_slots(table: pa.Table, slots: Sequence[Slot]) -> Ints:
    """Return the values of a table's rows by some slots' codings, (slots, n); a delay needs `event_time`."""
    columns = _TableColumns(table, {})
    coded = np.empty((len(slots), table.num_rows), np.int64)
    for k, slot in enumerate(slots):
        coded[k] = columns.slot(slot)
    return coded


class Projection:
    """One event type's way into one timeline, read out of the plan once."""

    def __init__(self, plan: Plan, timeline: str, event_name: str) -> None:
        spec = plan.timelines[timeline]
        self.slots_width = spec.slots
        self.slots = spec.fields.get(event_name, ())
        self.entrances: dict[tuple[str, ...], list[tuple[int, Predicate | None]]] = {}  # by entity fields
        self.texts: dict[str, list[str]] = {}  # the texts that predicates compare a field with
        for bit, selection in enumerate(spec.selections):
            if selection.event == event_name:
                predicate = None if selection.where is None else parse_predicate(selection.where)
                self.entrances.setdefault(selection.by, []).append((1 << bit, predicate))
                self._note_texts(predicate)

    def _note_texts(self, predicate: Predicate | None) -> None:
        for comparison in comparisons(predicate) if predicate is not None else ():
            wanted = comparison.value if isinstance(comparison.value, tuple) else (comparison.value,)
            texts = self.texts.setdefault(comparison.field, [])
            texts += [text for text in wanted if isinstance(text, str) and text not in texts]

    def rows(self, table: pa.Table) -> Rows:
        """Return the rows of one table."""
        columns = _TableColumns(table, self.texts)
        parts = [self._entrance(columns, by, bits) for by, bits in self.entrances.items()]
        parts = _merge(parts) if len(parts) > 1 else parts
        key, mask, source = (
            parts[0] if parts else (pa.array([], pa.string()), np.empty(0, np.int64), np.empty(0, np.int64))
        )
        values = self._values(columns, source)
        event_time, root = (_take(columns.integers(name)[0], source) for name in ("event_time", "root"))
        return Rows(key, event_time, root, mask, values, source)

    def _values(self, columns: _TableColumns, source: Ints) -> Ints:
        taken = [_take(columns.slot(slot), source) for slot in self.slots]
        if self.slots_width == len(taken) == 1:
            return taken[0].reshape(-1, 1)  # (n, 1), as it lies in the table
        values = np.full((len(source), self.slots_width), NULL, np.int64)  # (n, slots)
        for k, column in enumerate(taken):
            values[:, k] = column
        return values

    def _entrance(self, columns: _TableColumns, by: tuple[str, ...], bits: list[tuple[int, Predicate | None]]) -> _Part:
        keys = joined_keys([columns.array(name) for name in by])
        if keys.null_count == 0 and all(predicate is None for _, predicate in bits):
            return keys, np.full(len(keys), sum(bit for bit, _ in bits), np.int64), _all_rows(len(keys))
        mask = np.zeros(len(keys), np.int64)
        for bit, predicate in bits:
            if predicate is None:
                mask |= bit
            else:
                mask[evaluate(predicate, columns)[0]] |= bit
        source = np.flatnonzero((mask != 0) & _valid(keys))
        return (keys if len(source) == len(keys) else keys.take(pa.array(source))), _take(mask, source), source


_Part: TypeAlias = "tuple[pa.StringArray, Ints, Ints]"  # key, mask, source


@lru_cache(maxsize=PROJECTIONS_MAX)
def _projection(plan: Plan, timeline: str, event_name: str) -> Projection:
    return Projection(plan, timeline, event_name)


def _merge(parts: list[_Part]) -> list[_Part]:
    """Return one part in table order; the rows that one fact makes under one key become one, their masks joined."""
    keys = pa.concat_arrays([key for key, _, _ in parts])
    mask, source = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    codes = _integers(pc.dictionary_encode(keys).indices)[0]
    order = np.lexsort((codes, source))
    first = np.ones(len(order), np.bool_)
    first[1:] = (np.diff(source[order]) != 0) | (np.diff(codes[order]) != 0)
    joined = np.bitwise_or.reduceat(mask[order], np.flatnonzero(first)) if len(order) else mask
    kept = order[first]
    return [(keys.take(pa.array(kept)), joined, source[kept])]


class _TableColumns:
    """The columns of one table, each converted once; for predicates, a text is its place in `texts`, else -1."""

    def __init__(self, table: pa.Table, texts: dict[str, list[str]]) -> None:
        self._table, self._texts = table, texts
        self._arrays: dict[str, pa.Array] = {}
        self._encoded: dict[str, tuple[list[str], Ints, Bools]] = {}
        self._integers: dict[str, tuple[Ints, Bools]] = {}

    def array(self, field: str) -> pa.Array:
        if field not in self._arrays and field.endswith(SUFFIX):
            self._arrays[field] = _delays(self.array("event_time"), self.array(stored(field)))
        elif field not in self._arrays:
            self._arrays[field] = _plain(self._table.column(field))
        return self._arrays[field]

    def integers(self, field: str) -> tuple[Ints, Bools]:
        if field not in self._integers:
            if not pa.types.is_string(self.array(field).type):
                self._integers[field] = _integers(self.array(field))
            elif field in self._texts:
                self._integers[field] = self._codes(field, [self._place(field, t) for t in self._encode(field)[0]], -1)
            else:  # a text that is only asked whether it is null
                self._integers[field] = (np.zeros(len(self.array(field)), np.int64), _valid(self.array(field)))
        return self._integers[field]

    def code(self, field: str, text: str) -> int:
        return self._texts[field].index(text)

    def slot(self, slot: Slot) -> Ints:
        """Return a field's values by the slot's coding, NULL for null."""
        if slot.coding == "integer":
            values, valid = self.integers(slot.field)
        elif slot.coding == "hash":
            values, valid = self._codes(slot.field, [hash_text(text) for text in self._encode(slot.field)[0]], NULL)
        else:
            place = {text: i for i, text in enumerate(slot.values or ())}
            codes = [place.get(text, len(place)) for text in self._encode(slot.field)[0]]
            values, valid = self._codes(slot.field, codes, NULL)
        return values if self.array(slot.field).null_count == 0 else np.where(valid, values, NULL)

    def _place(self, field: str, text: str) -> int:
        return self._texts[field].index(text) if text in self._texts[field] else -1

    def _encode(self, field: str) -> tuple[list[str], Ints, Bools]:
        """Return a text column's distinct values, their index in each row, and where it is not null."""
        if field not in self._encoded:
            encoded = pc.dictionary_encode(self.array(field))
            self._encoded[field] = (encoded.dictionary.to_pylist(), *_integers(encoded.indices))
        return self._encoded[field]

    def _codes(self, field: str, codes: list[int], absent: int) -> tuple[Ints, Bools]:
        _, indices, valid = self._encode(field)
        return np.array([*codes, absent], np.int64)[indices], valid  # the index of a null is any


def _plain(column: Any) -> pa.Array:
    array = column
    if isinstance(column, pa.ChunkedArray):  # `combine_chunks` would copy even a single one
        array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # combine_chunks of no chunk, in some versions
        array = pa.array([], column.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(pa.string()) if pa.types.is_large_string(array.type) else array


def _delays(event_time: pa.Array, moments: pa.Array) -> pa.Array:
    """Return event_time less moments in microseconds, null where a moment is."""
    (happened, _), (named, valid) = _integers(event_time), _integers(moments)
    return pa.array(happened - named, pa.int64(), mask=None if valid.all() else ~valid)


def _integers(array: pa.Array) -> tuple[Ints, Bools]:
    """Return an integer, boolean or timestamp column as int64 (0 where null), and where it is not null."""
    valid = _valid(array)
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.timestamp("us", array.type.tz)).cast(pa.int64())
    filled = array if array.null_count == 0 else pc.fill_null(array, False if pa.types.is_boolean(array.type) else 0)
    values = filled.to_numpy(zero_copy_only=False)  # Arrow's own cast costs more than a small table is worth
    return values.astype(np.int64, copy=False), valid


def _valid(array: pa.Array) -> Bools:
    if array.null_count == 0:
        return np.ones(len(array), np.bool_)
    valid: Bools = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


_SHARED = np.arange(0)


def _all_rows(rows: int) -> Ints:
    """Return 0, 1, ... `rows` - 1, read only; all share their memory."""
    global _SHARED
    shared = _SHARED
    if len(shared) < rows:
        shared = np.arange(rows)
        shared.flags.writeable = False
        _SHARED = shared
    return shared[:rows]


def _take(values: Ints, source: Ints) -> Ints:
    return values if len(source) == len(values) else values[source]
