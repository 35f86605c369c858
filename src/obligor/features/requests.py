"""What is asked: one row per application or instant, and the numbers that come from the application itself.

The same arithmetic makes the numbers of one request and of a million: calendar and age are integers until the last
division. Only the coding of a field differs, a value online and a column offline; a test holds them equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from obligor.features.calendar import DAY_S, civil, local_seconds, period_begin
from obligor.features.delays import SUFFIX, stored
from obligor.features.kernels.integers import INTEGER_MAX, NULL
from obligor.features.measures import Slot, Unit
from obligor.features.plan import Plan, RequestValue
from obligor.features.projection import KEY_SEPARATOR, code_column, hash_text, joined_keys
from obligor.features.sequence_spec import SequenceSpec

__all__ = [
    "Requests",
    "comparand_row",
    "comparand_values",
    "composite_key",
    "cut_rows",
    "field_names",
    "key_names",
    "own_fields",
    "period_bounds",
    "request_row",
    "request_values",
    "slot_row",
    "source_keys",
    "split_keys",
]

Ints = NDArray[np.int64]

_HOUR_S = 3_600


@dataclass(frozen=True)
class Requests:
    """Requests to evaluate a plan for; n rows.

    `self_root` is the position of the application's own original, which is not in its own view, -1 for none.
    `entities` holds a key (or null) per application field through which the plan looks at timelines; `fields` the
    application's stored fields that the plan uses (`field_names`).
    """

    as_of: Ints  # (n,) microseconds
    cuts: Ints  # (n, shards) or (1, shards): the greatest visible sequence of each shard
    self_root: Ints  # (n,)
    entities: Mapping[str, pa.StringArray]
    fields: pa.Table

    def __len__(self) -> int:
        return len(self.as_of)

    def take(self, rows: Ints) -> Requests:
        """Return some of the requests."""
        places = pa.array(rows)
        return Requests(
            self.as_of[rows],
            self.cuts if len(self.cuts) == 1 else self.cuts[rows],
            self.self_root[rows],
            {name: keys.take(places) for name, keys in self.entities.items()},
            self.fields.take(places) if self.fields.num_columns else self.fields,
        )


def cut_rows(cuts: Sequence[Mapping[int, int]]) -> Ints:
    """Return cuts as the rows of `Requests.cuts`.

    >>> cut_rows([{0: 5}, {}]).tolist()
    [[5], [0]]
    """
    rows = np.zeros((len(cuts), 1 + max((shard for cut in cuts for shard in cut), default=0)), np.int64)
    for row, cut in enumerate(cuts):
        for shard, sequence in cut.items():
            rows[row, shard] = sequence
    return rows


def field_names(plan: Plan) -> list[str]:
    """Return the application's fields that a plan's request values, comparands and sequences come from."""
    specs = (*plan.requests, *plan.comparands)
    names = [spec.name for spec in specs if spec.source != "calendar"]
    return list(dict.fromkeys([*names, *(name for spec in plan.sequences for name in own_fields(plan, spec))]))


def own_fields(plan: Plan, spec: SequenceSpec) -> list[str]:
    """Return the application's fields that a sequence's last row is made of."""
    slots = plan.timelines[spec.timeline].fields.get(plan.application, ())
    sources = (source for field in spec.fields for source in field.sources if source.selection == spec.application)
    return list(dict.fromkeys(stored(slots[source.slot].field) for source in sources))


def key_names(plan: Plan) -> list[str]:
    """Return the application's fields that hold the keys of entities whose histories a plan looks at."""
    vias = [*(measure.via for measure in plan.measures), *(spec.via for spec in plan.sequences)]
    return list(dict.fromkeys(name for via in vias for name in via))


def composite_key(parts: Sequence[str | None]) -> str | None:
    """Return the key of an entity, or of a composite of several; null if a part is."""
    known = [part for part in parts if part is not None]
    return KEY_SEPARATOR.join(known) if len(known) == len(parts) else None


def source_keys(requests: Requests, via: Sequence[str]) -> pa.StringArray:
    """Return the key of each request's entity in the fields `via`."""
    return joined_keys([requests.entities[name] for name in via])


def split_keys(keys: pa.StringArray, parts: int) -> list[pa.StringArray]:
    """Return the parts of composite keys, null where the key is: `joined_keys` of them are the keys again.

    >>> [part.to_pylist() for part in split_keys(joined_keys([pa.array(["a", None]), pa.array(["b", "c"])]), 2)]
    [['a', None], ['b', None]]
    """
    lists = pc.split_pattern(keys, KEY_SEPARATOR)
    return [pc.list_element(lists, part) for part in range(parts)]


def _coded(value: object, spec: RequestValue | Slot) -> int:
    if value is None:
        return NULL
    if spec.coding == "integer":
        assert isinstance(value, int)
        return int(value)
    if spec.coding == "hash":
        return hash_text(str(value))
    values = spec.values or ()
    return values.index(str(value)) if value in values else len(values)


def _calendar(plan: Plan, name: str, as_of: Ints) -> Ints:
    if name == "as_of":
        return as_of
    local_s = local_seconds(plan.zone_offsets, as_of)
    if name == "hour":
        return local_s // _HOUR_S % 24
    days = local_s // DAY_S
    return (days + 3) % 7 if name == "day_of_week" else civil(days)[2]  # 1970-01-01 was a Thursday


def _numbers(plan: Plan, spec: RequestValue, as_of: Ints, coded: Ints) -> NDArray[np.float64]:
    """One request value of n rows, infinity beyond what is exact; `coded` is its field, ignored by calendars."""
    if spec.source == "calendar":
        return _calendar(plan, spec.name, as_of).astype(np.float64)
    null = coded == NULL
    if spec.source == "age":
        numbers = (as_of - np.where(null, as_of, coded)).astype(np.float64) / 1e6
    else:
        exact = (coded >= -INTEGER_MAX) & (coded <= INTEGER_MAX)
        numbers = np.where(exact, coded.astype(np.float64) / float(10**spec.scale), np.inf)
    return np.where(null, np.nan, numbers)


def _column(requests: Requests, spec: RequestValue) -> Ints:
    """Return a field's coded values, the instants for a calendar."""
    if spec.source == "calendar":
        return requests.as_of
    column = requests.fields.column(spec.name)
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    coded: Ints = code_column(array, Slot(field=spec.name, coding=spec.coding, values=spec.values))
    return coded


def request_values(plan: Plan, requests: Requests) -> NDArray[np.float64]:
    """Return the plan's request values, (n, values), NaN for null."""
    out = np.empty((len(requests), len(plan.requests)), np.float64)
    for i, spec in enumerate(plan.requests):
        out[:, i] = _numbers(plan, spec, requests.as_of, _column(requests, spec))
    return out


def request_row(plan: Plan, as_of: int, fields: Mapping[str, object]) -> NDArray[np.float64]:
    """Return the request values of one application, (1, values); `fields` are its stored fields, absent is null."""
    instant = np.array([as_of], np.int64)
    out = np.empty((1, len(plan.requests)), np.float64)
    for i, spec in enumerate(plan.requests):
        coded = instant if spec.source == "calendar" else np.array([_coded(fields.get(spec.name), spec)], np.int64)
        out[:, i] = _numbers(plan, spec, instant, coded)
    return out


def comparand_values(plan: Plan, requests: Requests) -> Ints:
    """Return the integers that conditions compare with, (n, comparands)."""
    out = np.empty((len(requests), len(plan.comparands)), np.int64)
    for i, spec in enumerate(plan.comparands):
        out[:, i] = _column(requests, spec)
    return out


def comparand_row(plan: Plan, as_of: int, fields: Mapping[str, object]) -> Ints:
    """Return the integers that conditions compare with, of one application, (1, comparands)."""
    row = [as_of if spec.source == "calendar" else _coded(fields.get(spec.name), spec) for spec in plan.comparands]
    return np.array(row, np.int64).reshape(1, len(row))


def slot_row(slots: Sequence[Slot], as_of: int, fields: Mapping[str, object]) -> Ints:
    """Return an application's fields by some slots' codings, (slots,), at an instant that stands for its event_time."""
    row = [_coded(fields.get(stored(slot.field)), slot) for slot in slots]
    delays = [slot.field.endswith(SUFFIX) for slot in slots]
    return np.array([as_of - x if delay and x != NULL else x for x, delay in zip(row, delays, strict=True)], np.int64)


def period_bounds(plan: Plan, periods: Sequence[tuple[Unit, int]], as_of: Ints) -> Ints:
    """Return where calendar periods begin and end for each instant, (n, periods, 2); the current one ends with it."""
    out = np.empty((len(as_of), len(periods), 2), np.int64)
    for i, (unit, back) in enumerate(periods):
        out[:, i, 0] = period_begin(plan.zone_offsets, unit, back, as_of)
        out[:, i, 1] = period_begin(plan.zone_offsets, unit, back - 1, as_of) if back else as_of
    return out
