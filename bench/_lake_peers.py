"""The benchmark's question as DuckDB and polars are asked it, over the files of the lake's table.

Every way that was thought of is here; none is known to be better. A formulation is a function that reads the files and
returns the request and its twenty columns; the instants are in memory before it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
from bench._lake_data import DAY, WINDOWS

__all__ = ["Formulations", "duckdb_formulations", "duckdb_loaded", "polars_formulations"]

Formulations = dict[str, Callable[[], pa.Table]]
LONGEST_US = max(WINDOWS) * DAY

# ---- DuckDB ---------------------------------------------------------------------------------------------------------

_RULE = f"""e.consumer = r.consumer AND e.event_time < r.as_of AND e.event_time >= r.as_of - {LONGEST_US}
    AND e.known <= r.as_of AND (e.replaced_known IS NULL OR e.replaced_known > r.as_of)"""
_JOIN = f"requests r JOIN events e ON {_RULE}"


def _sums(inside: str, parts: tuple[str, ...], style: str) -> str:
    """The count, sum, least and most of each window; the longest needs no condition, the rule has it already."""
    columns = []
    for place, days in enumerate(WINDOWS):
        condition = inside.format(us=days * DAY, place=place)
        for name, part in zip("nslh", parts, strict=True):
            function, _, argument = part.rstrip(")").partition("(")
            if days == max(WINDOWS):
                value = part
            elif style == "filter":
                value = f"{part} FILTER (WHERE {condition})"
            elif argument == "*":
                value = f"count(CASE WHEN {condition} THEN 1 END)"
            else:
                value = f"{function}(CASE WHEN {condition} THEN {argument} END)"
            columns.append(f"{value} AS {name}{days}")
    return ", ".join(columns)


def _all_requests(found: str) -> str:
    """The twenty columns of every request, those without events too."""
    kinds = ("coalesce(n{0}, 0)", "coalesce(s{0}, 0)", "s{0} / n{0}", "l{0}", "h{0}")
    columns = [f"({kind.format(days)})::DOUBLE" for kind in kinds for days in WINDOWS]
    named = ", ".join(f"{column} AS c{i}" for i, column in enumerate(columns))
    return f"WITH found AS ({found}) SELECT r.request, {named} FROM requests r LEFT JOIN found USING (request)"


def _queries() -> dict[str, str]:
    inside, plain = "event_time >= as_of - {us}", ("count(*)", "sum(amount)", "min(amount)", "max(amount)")
    rung = " ".join(f"WHEN event_time >= as_of - {days * DAY} THEN {i}" for i, days in enumerate(WINDOWS))
    partial_sums = ("sum(n)", "sum(s)", "min(l)", "max(h)")
    in_buckets = f"""(SELECT *, unnest([as_of // {LONGEST_US}, as_of // {LONGEST_US} - 1]) AS part FROM requests) r
        JOIN (SELECT *, event_time // {LONGEST_US} AS part FROM events) e ON {_RULE} AND r.part = e.part"""
    return {
        "join, group with CASE": f"SELECT request, {_sums(inside, plain, 'case')} FROM {_JOIN} GROUP BY request",
        "join, group with FILTER": f"SELECT request, {_sums(inside, plain, 'filter')} FROM {_JOIN} GROUP BY request",
        "join, group by window, group": f"""
            SELECT request, {_sums("rung <= {place}", partial_sums, "filter")} FROM (
                SELECT request, CASE {rung} END AS rung, count(*) n, sum(amount) s, min(amount) l, max(amount) h
                FROM {_JOIN} GROUP BY ALL) GROUP BY request""",
        "join on stretches of time, group with CASE": f"""
            SELECT request, {_sums(inside, plain, "case")} FROM {in_buckets} GROUP BY request""",
    }


def _connect(requests: Path, threads: int) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": threads, "preserve_insertion_order": False})
    connection.execute(f"CREATE TABLE requests AS SELECT * FROM read_parquet('{requests}')")
    return connection


def _rows(files: Sequence[str]) -> str:
    return f"""SELECT entity AS consumer, event_time, known, replaced_known, "repayment.amount" AS amount
        FROM read_parquet({list(files)})"""


def duckdb_formulations(files: Sequence[str], requests: Path, threads: int) -> Formulations:
    """Return the ways to ask DuckDB: each query over the files, and over a table that is loaded from them first."""
    connection, rows = _connect(requests, threads), _rows(files)

    def over_files(query: str) -> pa.Table:
        connection.execute(f"CREATE OR REPLACE TEMP VIEW events AS {rows}")
        return connection.sql(_all_requests(query)).to_arrow_table()

    def over_table(query: str) -> pa.Table:
        connection.execute("DROP VIEW IF EXISTS events")
        connection.execute(f"CREATE OR REPLACE TEMP TABLE loaded AS {rows}")
        return connection.sql(
            _all_requests(query.replace("events e", "loaded e").replace("events)", "loaded)"))
        ).to_arrow_table()

    found: Formulations = {}
    for name, query in _queries().items():
        found[f"over the files: {name}"] = partial(over_files, query)
        found[f"loaded, then {name}"] = partial(over_table, query)
    return found


def duckdb_loaded(files: Sequence[str], requests: Path, threads: int) -> Formulations:
    """Return the same over a table that is in memory already, in the order of the files."""
    connection = _connect(requests, threads)
    connection.execute("SET preserve_insertion_order = true")
    connection.execute(f"CREATE TABLE events AS {_rows(files)}")

    def ask(query: str) -> pa.Table:
        return connection.sql(_all_requests(query)).to_arrow_table()

    return {name: partial(ask, query) for name, query in _queries().items()}


# ---- polars ---------------------------------------------------------------------------------------------------------

Inside = Callable[[int], pl.Expr]


def _holds() -> pl.Expr:
    event_time, as_of = pl.col("event_time"), pl.col("as_of")
    replaced = pl.col("replaced_known")
    in_time = (event_time < as_of) & (event_time >= as_of - LONGEST_US)
    return in_time & (pl.col("known") <= as_of) & (replaced.is_null() | (replaced > as_of))


def _inside(days: int) -> pl.Expr:
    return pl.col("event_time") >= pl.col("as_of") - days * DAY


def _windows(amount: Callable[[int], pl.Expr]) -> list[pl.Expr]:
    kinds: tuple[Callable[[pl.Expr], pl.Expr], ...] = (
        lambda one: one.count().cast(pl.Float64), lambda one: one.sum().cast(pl.Float64), lambda one: one.mean(),
        lambda one: one.min().cast(pl.Float64), lambda one: one.max().cast(pl.Float64),
    )  # fmt: skip
    return [
        kind(amount(days)).alias(f"c{k * len(WINDOWS) + w}")
        for k, kind in enumerate(kinds)
        for w, days in enumerate(WINDOWS)
    ]


def _filtered(days: int) -> pl.Expr:
    return pl.col("amount") if days == max(WINDOWS) else pl.col("amount").filter(_inside(days))


def _chosen(days: int) -> pl.Expr:
    return pl.col("amount") if days == max(WINDOWS) else pl.when(_inside(days)).then(pl.col("amount"))


def _by_rung() -> list[pl.Expr]:
    columns: list[pl.Expr] = []
    held = [(pl.col("rung") <= i) for i in range(len(WINDOWS))]
    columns += [pl.col("n").filter(one).sum().cast(pl.Float64).alias(f"c{i}") for i, one in enumerate(held)]
    columns += [pl.col("s").filter(one).sum().cast(pl.Float64).alias(f"c{4 + i}") for i, one in enumerate(held)]
    columns += [
        (pl.col("s").filter(one).sum() / pl.col("n").filter(one).sum()).alias(f"c{8 + i}") for i, one in enumerate(held)
    ]
    columns += [pl.col("l").filter(one).min().cast(pl.Float64).alias(f"c{12 + i}") for i, one in enumerate(held)]
    columns += [pl.col("h").filter(one).max().cast(pl.Float64).alias(f"c{16 + i}") for i, one in enumerate(held)]
    return columns


def polars_formulations(files: Sequence[str], requests: Path) -> Formulations:
    """Return the ways to ask polars, each in both of its engines."""
    asked = pl.read_parquet(requests)
    events = pl.scan_parquet(list(files)).select(
        pl.col("entity").alias("consumer"), "event_time", "known", "replaced_known",
        pl.col("repayment.amount").alias("amount"),
    )  # fmt: skip
    joined = asked.lazy().join(events, on="consumer").filter(_holds())
    rung = pl.when(_inside(1)).then(0).when(_inside(7)).then(1).when(_inside(30)).then(2).otherwise(3)
    amount = pl.col("amount")
    partial_sums = (pl.len().alias("n"), amount.sum().alias("s"), amount.min().alias("l"), amount.max().alias("h"))
    parts = [asked.lazy().with_columns((pl.col("as_of") // LONGEST_US - k).alias("part")) for k in (0, 1)]
    in_parts = pl.concat(parts).join(
        events.with_columns((pl.col("event_time") // LONGEST_US).alias("part")), on=["consumer", "part"]
    )
    ways = {
        "join, group with filter": joined.group_by("request").agg(_windows(_filtered)),
        "join, group with when": joined.group_by("request").agg(_windows(_chosen)),
        "join, group by window, group": joined.with_columns(rung.cast(pl.Int8).alias("rung"))
        .group_by("request", "rung")
        .agg(partial_sums)
        .group_by("request")
        .agg(_by_rung()),
        "join on stretches of time, group with when": in_parts.filter(_holds())
        .group_by("request")
        .agg(_windows(_chosen)),
    }
    none = pl.col([f"c{i}" for i in range(2 * len(WINDOWS))]).fill_null(0.0)

    def run(found: pl.LazyFrame, engine: Any) -> pa.Table:
        whole = asked.lazy().select("request").join(found, on="request", how="left").with_columns(none)
        names = ["request", *(f"c{i}" for i in range(5 * len(WINDOWS)))]
        return whole.select(names).collect(engine=engine).to_arrow()

    return {
        f"{engine}: {name}": partial(run, found, engine)
        for name, found in ways.items()
        for engine in ("streaming", "in-memory")
    }
