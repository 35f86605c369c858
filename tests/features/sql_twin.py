"""The same plans in DuckDB's SQL: a second reading of the definitions, which shares nothing with the oracle but them.

The view is resolved from the facts' versions in SQL, windows by exact arithmetic in microseconds, and aggregates by
DuckDB's own functions where it has them. Integers must be equal; of the rest `Answer.noise` says how large the terms
are whose rounding it may carry. Sketches have no form in SQL. Texts stand for themselves here, not for hashes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
from tests.features.oracle import Fact, Limit, Request
from tests.features.plans import APPLICATION, COLUMNS, ENTITIES

__all__ = ["EXACT", "INTEGERS", "Answer", "Twin", "agree"]

EXACT = (
    "count", "sum", "min", "max", "first", "last", "nth_last", "time_since_first", "time_since_last", "longest_gap",
    "streak", "longest_streak", "distinct", "most_frequent", "top_share",
)  # fmt: skip
INTEGERS = ("sum", "min", "max", "first", "last", "nth_last", "most_frequent")  # which have a limit
_ZERO = ("count", "sum", "streak", "longest_streak", "decayed_count", "decayed_sum", "distinct")  # of none
_NEWEST = "ORDER BY event_time DESC, root DESC"
_MONTHS = {"month": 1, "quarter": 3, "year": 12}

# Of the rows in a window, w(id, as_of, event_time, root, v, kept): an aggregate, and how large the terms of it are.
_GROUPED = {
    "count": ("count(*)", "0"),
    "sum": ("sum(v)", "0"),
    "mean": ("avg(v)", "0"),
    "std": ("stddev_pop(v)", "0"),
    "sample_std": ("stddev_samp(v)", "0"),
    "min": ("min(v)", "0"),
    "max": ("max(v)", "0"),
    "first": ("arg_min(v, row(event_time, root)) FILTER (v IS NOT NULL)", "0"),
    "last": ("arg_max(v, row(event_time, root)) FILTER (v IS NOT NULL)", "0"),
    "nth_last": (f"list(v {_NEWEST}) FILTER (v IS NOT NULL)[{{0}}]", "0"),
    "time_since_first": ("(any_value(as_of) - min(event_time))::DOUBLE / 1e6", "0"),
    "time_since_last": ("(any_value(as_of) - max(event_time))::DOUBLE / 1e6", "0"),
    "streak": (f"coalesce(list_position(list(kept {_NEWEST}), false) - 1, count(*))", "0"),
    "longest_streak": (
        "list_max(list_transform("
        f"string_split(array_to_string(list(kept::INT {_NEWEST}), ''), '0'), lambda run: len(run)))",
        "0",
    ),
    "distinct": ("count(DISTINCT v)", "0"),
    "entropy": ("CASE WHEN count(v) > 0 THEN entropy(v) FILTER (v IS NOT NULL) END", "0"),
    "quantile": ("quantile_cont(v, {0})", "max(abs(v::DOUBLE))"),
}
_GAPS = {
    "mean_gap": "avg(gap) / 1e6",
    "std_gap": "stddev_pop(gap - least) / 1e6",  # less the least, so that close gaps keep their difference
    "longest_gap": "max(gap)::DOUBLE / 1e6",
}
_OUTER = {
    "count": ("count(*)", "0"),
    "sum": ("sum(number)", "sum(abs(number))"),
    "mean": ("avg(number)", "max(abs(number))"),
    "std": ("stddev_pop(number)", "max(abs(number))"),
    "min": ("min(number)", "0"),
    "max": ("max(number)", "0"),
}
_INNER = {
    "count": "count(*)::DOUBLE",
    "sum": "sum(v)::DOUBLE",
    "mean": "sum(v)::DOUBLE / nullif(count(v), 0)::DOUBLE",
    **{name: f"({_GROUPED[name][0]})::DOUBLE" for name in ("min", "max", "first", "last")},
    **{name: _GROUPED[name][0] for name in ("time_since_first", "time_since_last")},
}


class Answer(NamedTuple):
    """A number, and how large the terms are that its rounding is of; `noise` None: it is exact."""

    value: float
    noise: float | None


def agree(expected: float | Limit | None, answer: Answer | Limit | None, tolerance: float = 1e-9) -> bool:
    """Return whether the oracle's result (a Limit instead of one) is the twin's, as far as the twin can tell."""
    if isinstance(expected, Limit) or isinstance(answer, Limit):
        return isinstance(expected, Limit) and (isinstance(answer, Limit) or answer is None or answer.noise is not None)
    if expected is None or answer is None:
        return expected is None and answer is None
    if answer.noise is None:
        return expected == answer.value
    return math.isclose(expected, answer.value, rel_tol=tolerance, abs_tol=tolerance * answer.noise)


class Twin:
    """Facts and requests in a DuckDB of their own, and their views."""

    def __init__(self, facts: Sequence[Fact], requests: Sequence[Request]) -> None:
        self.connection = duckdb.connect()
        self.connection.execute("SET threads = 1")
        for name, table in {"versions": _versions(facts), "requests": _requests(requests)}.items():
            self.connection.register("source", table)
            self.connection.execute(f"CREATE TABLE {name} AS SELECT * FROM source")
            self.connection.unregister("source")
        self.connection.execute(_VIEW)

    def measured(self, plan: Mapping[str, Any], measure: Mapping[str, Any]) -> list[Answer | Limit | None]:
        """Return one measure of every request."""
        query = _over_keys(plan, measure) if measure["per"] is not None else _one_level(plan, measure)
        unnamed = " OR ".join(f'"e_{name}" IS NULL' for name in measure["via"])
        found = self.connection.execute(
            f"""WITH {query} SELECT CASE WHEN {unnamed} THEN NULL ELSE value END, noise
            FROM requests LEFT JOIN results USING (id) ORDER BY id"""
        ).fetchall()
        exact = measure["aggregate"] == "count" if measure["per"] is not None else measure["aggregate"] in EXACT
        integer = measure["per"] is None and measure["aggregate"] in INTEGERS
        answers: list[Answer | Limit | None] = []
        for value, noise in found:
            if value is None:
                answers.append(None)
            elif integer and abs(value) > 2**53:
                answers.append(Limit())
            else:
                divisor = float(10 ** measure["scale"])
                answers.append(Answer(float(value) / divisor, None if exact else float(noise or 0) / divisor))
        return answers


_VIEW = """
CREATE TABLE facts AS
WITH RECURSIVE chain AS (
    SELECT fact, place, "position" AS far, known AS late FROM versions WHERE parent IS NULL
    UNION ALL
    SELECT v.fact, v.place, greatest(v."position", c.far), greatest(v.known, c.late)
    FROM versions v JOIN chain c ON v.fact = c.fact AND v.parent = c.place
), winners AS (
    SELECT r.id, v.fact, arg_max(v.place, row(v.parent IS NOT NULL, v.known, v."position")) AS place
    FROM requests r, versions v JOIN chain USING (fact, place)
    WHERE chain.far <= r.cut AND chain.late <= r.as_of
    GROUP BY r.id, v.fact
)
SELECT r.id, v.* FROM winners JOIN versions v USING (fact, place) JOIN requests r USING (id)
WHERE NOT v.retracts AND v.event_time < r.as_of AND v.root <> r.self_root
    -- what names no entity of the request is in no row of it
    AND list_has_any([v.consumer, v.merchant, v.referrer], [r.e_consumer, r.e_merchant, r.e_referrer])
"""


def _versions(facts: Sequence[Fact]) -> pa.Table:
    columns = {name: type_ for fields in COLUMNS.values() for name, type_ in fields.items()}
    rows = [
        {
            **(version.fields or {}), "fact": number, "place": place, "type": fact.type,
            "retracts": version.fields is None,
            "position": version.position, "known": version.known, "parent": version.parent,
            "root": fact.versions[0].position,
        }
        for number, fact in enumerate(facts)
        for place, version in enumerate(fact.versions)
    ]  # fmt: skip
    integers = dict.fromkeys(("fact", "place", "position", "known", "parent", "root", "event_time"), pa.int64())
    return pa.Table.from_pylist(rows, pa.schema({**integers, "type": pa.string(), "retracts": pa.bool_(), **columns}))


def _requests(requests: Sequence[Request]) -> pa.Table:
    """Return the requests; entities' keys are columns e_*, the application's fields f_*."""
    rows = [
        {
            "id": i, "as_of": r.as_of, "cut": r.cut, "self_root": r.self_root,
            **{f"e_{name}": r.entities.get(name) for name in ENTITIES},
            **{f"f_{name}": r.fields.get(name) for name in APPLICATION},
        }
        for i, r in enumerate(requests)
    ]  # fmt: skip
    schema = {
        **dict.fromkeys(("id", "as_of", "cut", "self_root"), pa.int64()),
        **{f"e_{name}": pa.string() for name in ENTITIES},
        **{f"f_{name}": type_ for name, type_ in APPLICATION.items()},
    }
    return pa.Table.from_pylist(rows, pa.schema(schema))


def _literal(value: object) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def _coded(column: str, spec: Mapping[str, Any]) -> str:
    if spec["coding"] != "vocabulary":
        return column
    values = ", ".join(map(_literal, spec["values"]))
    place = f"coalesce(nullif(list_position([{values}], {column}), 0) - 1, {len(spec['values'])})"
    return f"CASE WHEN {column} IS NOT NULL THEN {place} END"


class _Source(NamedTuple):
    """A timeline under the application's keys, in SQL."""

    plan: Mapping[str, Any]
    measure: Mapping[str, Any]

    def value(self, selection: int, slot: int | None) -> str:
        """Return the expression of a slot."""
        if slot is None:
            return "NULL::BIGINT"
        timeline = self.plan["timelines"][self.measure["timeline"]]
        spec = timeline["fields"][timeline["selections"][selection]["event"]][slot]
        name = spec["field"].removesuffix(".delay")
        return f'event_time - "{name}"' if spec["field"] != name else _coded(f'"{name}"', spec)

    def selects(self, number: int) -> str:
        """Return the condition that a fact is in a selection under the application's keys."""
        selection = self.plan["timelines"][self.measure["timeline"]]["selections"][number]
        pairs = zip(selection["by"], self.measure["via"], strict=True)
        parts = [f"\"type\" = '{selection['event']}'", *(f'"{by}" = "e_{via}"' for by, via in pairs)]
        if (where := selection["where"]) is not None:
            parts.append(_predicate(where))
        return " AND ".join(parts)

    def condition(self, selection: int, one: Mapping[str, Any]) -> str:
        """Return a condition of `given`."""
        spec = self.plan["comparands"][one["comparand"]]
        wanted = "as_of" if spec["source"] == "calendar" else _coded(f'"f_{spec["name"]}"', spec)
        return f"({self.value(selection, one['slot'])}) {_operator(one['op'])} ({wanted})"

    def rows(self, selection: int, given: Sequence[Mapping[str, Any]], columns: str) -> str:
        """Return the query of a selection's rows for which the conditions are true."""
        where = [self.selects(selection), *(self.condition(selection, one) for one in given)]
        source = "facts JOIN requests USING (id)"
        return f"SELECT id, as_of, event_time, root, {columns} FROM {source} WHERE {' AND '.join(where)}"


def _predicate(where: Mapping[str, Any]) -> str:
    for op in ("and", "or"):
        if op in where:
            return "(" + f" {op} ".join(map(_predicate, where[op])) + ")"
    if "not" in where:
        return f"(NOT {_predicate(where['not'])})"
    if where["op"] in ("is_null", "not_null"):
        return f'("{where["field"]}" IS {"" if where["op"] == "is_null" else "NOT "}NULL)'
    if where["op"] == "in":
        return f'("{where["field"]}" IN ({", ".join(map(_literal, where["value"]))}))'
    return f'("{where["field"]}" {_operator(where["op"])} {_literal(where["value"])})'


def _operator(op: str) -> str:
    return {"==": "=", "!=": "<>"}.get(op, op)


def _windowed(source: _Source, window: Mapping[str, Any], rows: str) -> str:
    """Return common tables that end with w, the rows of a query within a window."""
    match window["kind"]:
        case "rows":
            last = f"QUALIFY row_number() OVER (PARTITION BY id {_NEWEST}) <= {window['rows']}"
            return f"s AS ({rows}), w AS (SELECT * FROM s {last})"
        case "since":
            anchors = source.rows(window["anchor"], (), "NULL")
            return f"""s AS ({rows}), anchors AS (SELECT id, max(event_time) AS anchor FROM ({anchors}) GROUP BY id),
                w AS (SELECT s.* FROM s JOIN anchors USING (id) WHERE event_time >= anchor)"""
        case "calendar":
            inside = "event_time >= period_start AND event_time < period_end"
            return f"""s AS ({rows}), {_periods(source.plan, window)},
                w AS (SELECT s.* FROM s JOIN p USING (id) WHERE {inside})"""
    end = f"as_of - {window['offset_us']}"
    start = "" if window["length_us"] is None else f" AND event_time >= {end} - {window['length_us']}"
    return f"s AS ({rows}), w AS (SELECT * FROM s WHERE event_time < {end}{start})"


def _periods(plan: Mapping[str, Any], window: Mapping[str, Any]) -> str:
    """Return common tables that end with p, start and end of each request's calendar period.

    A period starts at the first instant at which the zone's clock shows its beginning or more.
    """
    starts = [int(entry[0]) for entry in plan["zone_offsets"]]
    ends = [*starts[1:], 2**63 - 1]
    offsets = [int(entry[1]) * 1_000_000 for entry in plan["zone_offsets"]]
    entries = ", ".join(
        f"({a}::BIGINT, {b}::BIGINT, {c}::BIGINT)" for a, b, c in zip(starts, ends, offsets, strict=True)
    )
    unit, back = window["unit"], window["back"]
    step = f"INTERVAL {_MONTHS[unit]} MONTH" if unit in _MONTHS else f"INTERVAL {7 if unit == 'week' else 1} DAY"
    return f"""zone(since, until, shift) AS (VALUES {entries}),
        clock AS (SELECT id, as_of, date_trunc('{unit}', make_timestamp(as_of + shift)) AS now
            FROM requests JOIN zone ON since <= as_of AND as_of < until),
        edges AS (SELECT id, as_of, k, epoch_us(now - k * {step}) AS shown
            FROM clock, (VALUES ({back}), ({back - 1})) t(k)),
        instants AS (SELECT id, as_of, k, min(greatest(since, shown - shift)) AS instant
            FROM edges JOIN zone ON greatest(since, shown - shift) < until GROUP BY id, as_of, k),
        p AS (SELECT id, min(instant) FILTER (k = {back}) AS period_start,
            min(CASE WHEN {back} = 0 THEN as_of ELSE instant END) FILTER (k = {back - 1}) AS period_end
            FROM instants GROUP BY id)"""


def _one_level(plan: Mapping[str, Any], measure: Mapping[str, Any]) -> str:
    source, name, selection = _Source(plan, measure), measure["aggregate"], measure["selection"]
    kept = (
        "NULL::BOOLEAN" if measure["condition"] is None else f"coalesce({source.selects(measure['condition'])}, false)"
    )
    columns = f"({source.value(selection, measure['slot'])}) AS v, ({kept}) AS kept"
    rows = source.rows(selection, measure["given"], columns)
    tables = _windowed(source, measure["window"], rows)
    none = "CASE WHEN value IS NULL THEN 0 ELSE value END" if name in _ZERO else "value"
    asked = "SELECT id FROM anchors" if measure["window"]["kind"] == "since" else "SELECT id FROM requests"
    return f"""{tables}, grouped AS ({_grouped(name, measure["parameters"])}),
        results AS (SELECT id, {none} AS value, noise FROM ({asked}) LEFT JOIN grouped USING (id))"""


def _grouped(name: str, parameters: Sequence[int | float]) -> str:
    """Return the query (id, value, noise) of an aggregate of w."""
    if name in _GAPS:
        gaps = "SELECT id, event_time - lag(event_time) OVER (PARTITION BY id ORDER BY event_time, root) AS gap FROM w"
        least = f"SELECT *, min(gap) OVER (PARTITION BY id) AS least FROM ({gaps}) WHERE gap IS NOT NULL"
        return f"SELECT id, {_GAPS[name]} AS value, 0 AS noise FROM ({least}) GROUP BY id"
    if name == "slope":
        # Seconds since the first row, so that their squares keep their last digits; what correlates as little as
        # rounding does is no slope.
        second = _floor("event_time", 1_000_000)
        seconds = f"SELECT *, {second} - min({second}) OVER (PARTITION BY id) AS t FROM w"
        return f"""SELECT id, CASE WHEN count(DISTINCT t) = 1 THEN NULL WHEN abs(corr(v, t)) < 1e-12 THEN 0
            ELSE regr_slope(v, t) * 86400 END AS value, 0 AS noise FROM ({seconds}) WHERE v IS NOT NULL GROUP BY id"""
    if name.startswith("decayed"):
        half_life, step = parameters
        counted = "1" if name == "decayed_count" else "v"
        aged = f"SELECT *, {_floor('as_of', step)} - {_floor('event_time', step)} AS age FROM w"
        part = f"{counted} * pow(2.0, -(age * {step}::DOUBLE / {half_life}))"
        weighted = f"SELECT id, {part} AS part FROM ({aged}) WHERE age <= 4096"
        return f"SELECT id, sum(part) AS value, sum(abs(part)) AS noise FROM ({weighted}) GROUP BY id"
    if name in ("most_frequent", "top_share"):
        by_count = "ORDER BY count(*) DESC, min(row(event_time, root))"
        ranked = f"""SELECT id, v, count(*) AS n, row_number() OVER (PARTITION BY id {by_count}) AS place
            FROM w WHERE v IS NOT NULL GROUP BY id, v"""
        value = f"max(v) FILTER (place = {parameters[0]})"
        if name == "top_share":
            value = f"sum(n) FILTER (place <= {parameters[0]})::DOUBLE / sum(n)::DOUBLE"
        return f"SELECT id, {value} AS value, 0 AS noise FROM ({ranked}) GROUP BY id"
    value, noise = (part.format(*parameters) for part in _GROUPED[name])
    return f"SELECT id, {value} AS value, {noise} AS noise FROM w GROUP BY id"


def _floor(column: str, divisor: int | float) -> str:
    """Return an integer division that rounds down, where SQL's rounds towards zero."""
    return f"(({column} - (({column} % {divisor}) + {divisor}) % {divisor}) // {divisor})"


def _over_keys(plan: Mapping[str, Any], measure: Mapping[str, Any]) -> str:
    """Return common tables that end with the results of a two-level measure."""
    source, per = _Source(plan, measure), measure["per"]
    tables, joins, numbers = [], "", []
    for i, inner in enumerate(per["inner"]):
        selection, name = inner["selection"], inner["aggregate"]
        columns = f"{source.value(selection, inner['key'])} AS key, {source.value(selection, inner['slot'])} AS v"
        windowed = _windowed(source, inner["window"], source.rows(selection, inner["given"], columns))
        value = f"{_INNER[name]} / {float(10 ** inner['scale'])!r}"
        tables.append(
            f"n{i} AS (WITH {windowed} SELECT id, key, {value} AS x{i} FROM w WHERE key IS NOT NULL GROUP BY id, key)"
        )
        joins += f" LEFT JOIN n{i} USING (id, key)"
        numbers.append(f"coalesce(x{i}, 0)" if name in ("count", "sum") else f"x{i}")
    keys = " UNION ".join(f"SELECT id, key FROM n{i}" for i in range(len(per["inner"])))
    tables.append(f"by_key AS (SELECT id, {_program(per['program'], numbers)} AS number FROM ({keys}){joins})")
    value, noise = _OUTER[measure["aggregate"]]
    tables.append(
        f"grouped AS (SELECT id, {value} AS value, {noise} AS noise FROM by_key WHERE number IS NOT NULL GROUP BY id)"
    )
    none = "coalesce(value, 0)" if measure["aggregate"] in ("count", "sum") else "value"
    tables.append(f"results AS (SELECT id, {none} AS value, noise FROM requests LEFT JOIN grouped USING (id))")
    return ", ".join(tables)


_STEPS = {
    "add": "({a} + {b})", "subtract": "({a} - {b})", "multiply": "({a} * {b})", "divide": "({a} / nullif({b}, 0))",
    "minimum": "(CASE WHEN {a} <= {b} THEN {a} WHEN {b} < {a} THEN {b} END)",
    "maximum": "(CASE WHEN {a} >= {b} THEN {a} WHEN {b} > {a} THEN {b} END)",
    "less": "({a} < {b})::INT::DOUBLE", "less_equal": "({a} <= {b})::INT::DOUBLE",
    "greater": "({a} > {b})::INT::DOUBLE", "greater_equal": "({a} >= {b})::INT::DOUBLE",
    "equal": "({a} = {b})::INT::DOUBLE", "not_equal": "({a} <> {b})::INT::DOUBLE",
}  # fmt: skip


def _program(program: Sequence[Sequence[Any]], numbers: Sequence[str]) -> str:
    """Return a program as one expression."""
    stack: list[str] = []
    for op, *rest in program:
        if op == "measure":
            stack.append(numbers[rest[0]])
        elif op == "constant":
            stack.append(f"{float(rest[0])!r}::DOUBLE")
        elif op == "fill":
            stack.append(f"coalesce({stack.pop()}, {float(rest[0])!r}::DOUBLE)")
        else:
            b, a = stack.pop(), stack.pop()
            stack.append(_STEPS[op].format(a=a, b=b))
    [expression] = stack
    return expression
