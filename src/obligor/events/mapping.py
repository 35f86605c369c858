"""A mapping: how a row of a lender's file or frame becomes one event. Several mappings make several events of a row.

    Mapping(
        event=Repayment,
        id=columns("systemloanid"),                  # or field("event_id"), or row
        event_time="firstrepaiddate",
        columns={"consumer": "customerid", "loan": "systemloanid", "amount": "totaldue"},
        units={"amount": "major"},                   # 13000.00 naira rather than kobo
        zone="Africa/Lagos",
        lag="1d",                                    # for declared history: known a day after event_time
    )

A field that is not mentioned takes the column of its own name. Nothing else is guessed: ids, zones and units are
declared. The same in TOML (`[[mapping]]` tables, `load_mappings`) with `id = "row"`, `{ columns = [...] }` or
`{ field = "..." }`.
"""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping as Map
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

import msgspec

from obligor.errors import BadInput, DefinitionError, ObligorError, Problem, did_you_mean
from obligor.events.fields import Decimal, Field, Integer, Money, Timestamp, parse_timestamp
from obligor.events.schema import Event, Registry, parse_duration
from obligor.events.zones import zone_named

__all__ = ["Id", "Mapping", "columns", "field", "load_mappings", "row"]

_MONEY_UNITS: Final = ("minor", "major")
_TIME_UNITS: Final = ("s", "ms", "us", "ns")


@dataclass(frozen=True, slots=True)
class Id:
    """How event ids come about: from columns, from one column as it is, or from the file's content and the row.

    `prefix` stands before ids made of columns or rows; it is the event's name unless given, so that several events of
    one source row have different ids.
    """

    kind: Literal["columns", "field", "row"]
    names: tuple[str, ...] = ()
    prefix: str | None = None


def columns(*names: str, prefix: str | None = None) -> Id:
    """Return ids made of the values of one or more columns: `repayment:301682320`."""
    if not names:
        raise DefinitionError("id = columns(...) needs at least one column")
    return Id("columns", names, prefix)


def field(name: str) -> Id:
    """Return ids that one column holds as they are."""
    return Id("field", (name,))


row = Id("row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """One event type of a source's rows; see the module. Raises DefinitionError with all that is wrong."""

    event: type[Event]
    id: Id
    file: str | None = None  # only files of this name or pattern, such as "repayment*.parquet"; None: every source
    event_time: str = "event_time"  # source column; or, in `constants`, a moment with a zone
    columns: Map[str, str] = dataclass_field(default_factory=dict)  # field -> source column
    constants: Map[str, Any] = dataclass_field(default_factory=dict)  # field (or event_time) -> JSON value
    currencies: Map[str, str] = dataclass_field(default_factory=dict)  # money field -> column of its currency
    units: Map[str, str] = dataclass_field(default_factory=dict)  # money: minor (default), major; times: s, ms, us, ns
    values: Map[str, Map[str, Any]] = dataclass_field(default_factory=dict)  # field -> source text -> JSON value
    nulls: Sequence[str] = ()  # what means null, as it is written: "NA", "-999"; an empty CSV cell does
    zone: str | Map[str, str] | None = None  # of timestamps without one: for all columns, or by source column
    ambiguous: Literal["reject", "earliest", "latest"] = "reject"  # a local time that was passed twice
    nonexistent: Literal["reject", "next"] = "reject"  # a local time that was skipped
    lag: str | Map[str, str] | None = None  # declared history: event_time + lag, or {"column": lag}; else the type's
    corrects: str | None = None  # column with the id that the row corrects
    retracts: str | None = None  # column with the id that the row retracts
    where: Map[str, Any] = dataclass_field(default_factory=dict)  # only rows whose source column has this value
    skip_null: Sequence[str] = ()  # rows in which one of these source columns is null are skipped, not rejected

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise DefinitionError(
                [Problem(p.path, f"mapping of {self.event.event_name}: {p.message}") for p in problems]
            )

    def takes(self, source: str) -> bool:
        """Whether the mapping is for the source of this name."""
        return self.file is None or fnmatch.fnmatchcase(source, self.file)

    def source_of(self, name: str) -> str:
        """Return the source column of a field."""
        return self.columns.get(name, name)

    def zone_of(self, column: str) -> str | None:
        """Return the declared zone of a source column's local times."""
        return self.zone if isinstance(self.zone, str) or self.zone is None else self.zone.get(column)

    def unit_of(self, field: Field) -> str:
        """Return the declared unit of a field's source values ("" where none applies)."""
        return self.units.get(field.name, "minor" if isinstance(field, Money) else "")

    def lag_of(self) -> tuple[str | None, int]:
        """Return (source column that the lag counts from or None for event_time, microseconds)."""
        if isinstance(self.lag, Map):
            (column, length), *_ = self.lag.items()
            return column, parse_duration(length)
        return None, self.event.lag_us if self.lag is None else parse_duration(self.lag)

    def source_columns(self) -> dict[str, str]:
        """Return every source column that the mapping names, with what names it (fields' own names not included)."""
        named = {column: f"columns.{name}" for name, column in self.columns.items()}
        named |= {column: f"currencies.{name}" for name, column in self.currencies.items()}
        named |= dict.fromkeys(self.id.names, "id")
        named |= dict.fromkeys(self.where, "where")
        named |= dict.fromkeys(self.skip_null, "skip_null")
        named |= {column: "corrects" for column in (self.corrects,) if column}
        named |= {column: "retracts" for column in (self.retracts,) if column}
        if isinstance(self.lag, Map):
            named |= dict.fromkeys(self.lag, "lag")
        if "event_time" not in self.constants:
            named[self.event_time] = "event_time"
        return named


def _problems(mapping: Mapping) -> list[Problem]:
    """Return what is wrong with a mapping by itself, before any source is seen."""
    event, found = mapping.event, []
    for part in ("columns", "constants", "currencies", "units", "values"):
        for name in getattr(mapping, part):
            if name not in event.fields and not (name == "event_time" and part in ("constants", "units")):
                hint = did_you_mean(name, list(event.fields))
                found.append(Problem(f"$.{part}.{name}", f"{event.event_name} has no field {name!r}; {hint}"))
    for name, value in mapping.constants.items():
        found += _constant_problems(mapping, name, value)
    for name, unit in mapping.units.items():
        found += _unit_problems(event.fields.get(name), name, unit)
    for name, currency in mapping.currencies.items():
        if name in event.fields and not isinstance(event.fields[name], Money):
            found.append(Problem(f"$.currencies.{name}", f"{name} is no money, got column {currency!r}"))
    for zone in [mapping.zone] if isinstance(mapping.zone, str) else (mapping.zone or {}).values():
        found += _raised("$.zone", zone_named, zone)
    if isinstance(mapping.lag, Map) and len(mapping.lag) != 1:
        found.append(Problem("$.lag", f"expected one column with its lag, got {sorted(mapping.lag)}"))
    for length in mapping.lag.values() if isinstance(mapping.lag, Map) else [mapping.lag] if mapping.lag else []:
        found += _raised("$.lag", parse_duration, length)
    return found


def _raised(path: str, check: Any, value: Any) -> list[Problem]:
    try:
        check(value)
    except (ObligorError, ValueError) as error:
        return [Problem(path, str(error))]
    return []


def _constant_problems(mapping: Mapping, name: str, value: Any) -> list[Problem]:
    if name in mapping.columns:
        return [Problem(f"$.constants.{name}", f"{name} is mapped to column {mapping.columns[name]!r} as well")]
    if name == "event_time":
        return _raised("$.constants.event_time", parse_timestamp, value)
    if name in mapping.event.fields:
        return _raised(f"$.constants.{name}", mapping.event.fields[name].parse, value)
    return []


def _unit_problems(one: Field | None, name: str, unit: str) -> list[Problem]:
    if one is None and name != "event_time":
        return []
    if isinstance(one, Timestamp) or one is None:
        valid: tuple[str, ...] = _TIME_UNITS
    elif isinstance(one, Money):
        valid = _MONEY_UNITS
    else:
        kind = one.kind if isinstance(one, Integer | Decimal) else f"{one.kind} field"
        return [Problem(f"$.units.{name}", f"a unit is for money and timestamps, and {name} is a {kind}")]
    return [] if unit in valid else [Problem(f"$.units.{name}", f"expected one of {', '.join(valid)}, got {unit!r}")]


class _Table(TypedDict, total=False):
    """The forms of a TOML table's values."""

    file: str
    event_time: str
    columns: dict[str, str]
    constants: dict[str, Any]
    currencies: dict[str, str]
    units: dict[str, str]
    values: dict[str, dict[str, Any]]
    nulls: list[str]
    zone: str | dict[str, str]
    ambiguous: Literal["reject", "earliest", "latest"]
    nonexistent: Literal["reject", "next"]
    lag: str | dict[str, str]
    corrects: str
    retracts: str
    where: dict[str, Any]
    skip_null: list[str]


def load_mappings(path: Path | str, registry: Registry) -> list[Mapping]:
    """Return the mappings of a TOML file, in order; BadInput or DefinitionError with all that is wrong with it."""
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path.name} is not TOML: {error}") from None
    tables = data.get("mapping")
    if not isinstance(tables, list) or not tables or set(data) != {"mapping"}:
        raise BadInput(f"{path.name}: expected one or more [[mapping]] tables and nothing else, got {sorted(data)}")
    problems: list[Problem] = []
    mappings = []
    for i, table in enumerate(tables):
        try:
            mappings.append(_from_toml(table, registry))
        except DefinitionError as error:
            problems += [Problem(f"$.mapping[{i}]{p.path[1:]}", p.message) for p in error.problems]
    if problems:
        raise DefinitionError(problems)
    return mappings


def _from_toml(table: dict[str, Any], registry: Registry) -> Mapping:
    valid = [one.name for one in dataclass_fields(Mapping)]
    problems = [
        Problem(f"$.{name}", f"unknown key; {did_you_mean(name, valid)}") for name in table if name not in valid
    ]
    for name in ("event", "id"):
        if name not in table:
            problems.append(Problem(f"$.{name}", "missing"))
    if problems:
        raise DefinitionError(problems)
    if registry.is_platform_type(str(table["event"])):
        raise DefinitionError(Problem("$.event", f"only the platform appends {table['event']!r}"))
    event = registry[str(table["event"])]
    rest = {key: value for key, value in table.items() if key not in ("event", "id")}
    try:
        checked = msgspec.convert(rest, _Table)
    except msgspec.ValidationError as error:
        raise DefinitionError(str(error)) from None
    return Mapping(event=event, id=_id_from_toml(table["id"]), **checked)


def _id_from_toml(value: Any) -> Id:
    match value:
        case "row":
            return row
        case {"row": str(prefix)}:
            return Id("row", (), prefix)
        case {"field": str(name)}:
            return field(name)
        case {"columns": [*names]} if names and all(isinstance(n, str) for n in names) and set(value) == {"columns"}:
            return columns(*names)
        case {"columns": [*names], "prefix": str(prefix)} if names and all(isinstance(n, str) for n in names):
            return columns(*names, prefix=prefix)
    expected = 'id = "row", { columns = ["a", "b"] } or { field = "event_id" }'
    raise DefinitionError(Problem("$.id", f"expected {expected}, got {value!r}"))
