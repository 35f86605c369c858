"""Decisions as the ledger has them, with the applications that they were taken on: where replay and parity begin."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from obligor.decisions.decide import Application, Cached
from obligor.decisions.policy import RUNGS
from obligor.decisions.record import FORMAT
from obligor.errors import BadInput, DefinitionError, did_you_mean
from obligor.events.log import EventLog
from obligor.events.positions import SHARD_MAX, Cut, sequence_of, shows
from obligor.events.reading import fact_schema, read_rows
from obligor.events.schema import Event
from obligor.events.store import LedgerRow
from obligor.features.plan import Plan
from obligor.features.requests import Requests, cut_rows, field_names, key_names

__all__ = ["Applications", "Recorded", "Seen"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One ledger row, its record read."""

    row: LedgerRow
    record: Mapping[str, Any]

    @classmethod
    def read(cls, row: LedgerRow) -> Recorded:
        """Read the record; BadInput where it is not one of this format."""
        try:
            record = json.loads(row.record)
            _check(record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"the record cannot be read: {error}") from None
        return cls(row, dict(record))

    @property
    def cut(self) -> dict[int, int]:
        """The cut that it was taken at."""
        return _cut(self.record["cut"])

    @property
    def cached(self) -> Cached | None:
        """What its features are of, where they are older than it."""
        cached = self.record.get("cached")
        return None if cached is None else Cached(_cut(cached["cut"]), cached["as_of"])

    @property
    def seen(self) -> Seen:
        """What its features are of."""
        cached = self.cached
        return Seen(self.cut, None) if cached is None else Seen(dict(cached.cut), cached.as_of)


class Seen(NamedTuple):
    """The cut and the instant that an application's features are of."""

    cut: Cut
    as_of: int | None  # None: its own, when it was known


def _cut(recorded: Mapping[str, int]) -> dict[int, int]:
    return {int(shard): sequence for shard, sequence in recorded.items()}


def _check(record: Mapping[str, Any]) -> None:
    """Raise ValueError, KeyError, TypeError or AttributeError where a record is not of this format."""
    if record["format"] != FORMAT:
        raise ValueError(f"its format is {record['format']!r}, this version reads {FORMAT}")
    if record["rung"] not in RUNGS or not isinstance(record["bundle"], str) or not isinstance(record["seed"], int):
        raise ValueError("its rung, bundle or seed is not of the expected kind")
    bytes.fromhex(record["chain"])
    _check_cut(record["cut"])
    cached = record.get("cached")
    if (cached is not None) != (record["rung"] == "cached") or (cached and not isinstance(cached["as_of"], int)):
        raise ValueError(f"its rung is {record['rung']!r} and what is cached {cached!r}")
    if cached is not None:
        _check_cut(cached["cut"])


def _check_cut(cut: Mapping[str, Any]) -> None:
    for shard, sequence in cut.items():
        if not 0 <= int(shard) <= SHARD_MAX or not isinstance(sequence, int) or sequence < 0:
            raise ValueError(f"its cut is {cut!r}")


@dataclass(frozen=True, eq=False)
class Applications:
    """The original versions of applications, by position, with their fields by every name that a plan may know."""

    type: str
    table: pa.Table
    places: Mapping[int, int]
    rows: Sequence[Mapping[str, Any]]
    fields: frozenset[str]

    @classmethod
    def read(cls, log: EventLog, type_name: str, positions: Iterable[int]) -> Applications:
        """Read them; positions that hold no application of this type are left out."""
        ends = log.ends()
        held = sorted({p for p in positions if sequence_of(p) > 0 and shows(ends, p)})
        event, parts = log.registry[type_name], []
        for (name, version), table in log.reader.rows(held).items():
            if name == type_name:
                placed = [table.column(column) for column in ("position", "event_id", "known_time")]
                parts.append(pa.table([*placed, *read_rows(table, event, version).values()], schema=_columns(event)))
        table = pa.concat_tables(parts) if parts else _columns(event).empty_table()
        places = {position: i for i, position in enumerate(table.column("position").to_pylist())}
        return cls(type_name, table, places, table.to_pylist(), frozenset(fact_schema(event).names))

    def application(self, position: int, type_name: str) -> tuple[Application, int]:
        """Return the application at a position and its as_of."""
        row = self.rows[self.places[position]]
        fields = {name: value for name, value in row.items() if name in self.fields}
        return Application(row["event_id"], type_name, position, fields), row["known_time"]

    def requests(self, plan: Plan, positions: Sequence[int], at: Sequence[Seen]) -> Requests:
        """Return what to ask of the plan for the applications at these positions, each at its cut and instant."""
        table = self.table.take(pa.array([self.places[position] for position in positions], pa.int64()))
        known = table.column("known_time").to_pylist()
        return Requests(
            as_of=np.array(
                [own if one.as_of is None else one.as_of for own, one in zip(known, at, strict=True)], np.int64
            ),
            cuts=cut_rows([one.cut for one in at]),
            self_root=_int64s(table, "position"),
            entities={name: self._column(table, name).combine_chunks() for name in key_names(plan)},
            fields=pa.table({name: self._column(table, name) for name in field_names(plan)}),
        )

    def _column(self, table: pa.Table, name: str) -> pa.ChunkedArray:
        if name not in self.fields:
            hint = did_you_mean(name, sorted(self.fields))
            raise DefinitionError(f"no version of {self.type} has a field {name!r}; {hint}")
        return table.column(name)


def _columns(event: type[Event]) -> pa.Schema:
    """Return the columns of applications."""
    return pa.schema(
        [("position", pa.int64()), ("event_id", pa.string()), ("known_time", pa.int64()), *fact_schema(event)]
    )


def _int64s(table: pa.Table, name: str) -> Any:
    return np.ascontiguousarray(table.column(name).to_numpy(), np.int64)
