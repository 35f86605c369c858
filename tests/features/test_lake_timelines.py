"""The lake read by DuckDB and polars, without Obligor: the facts that hold; and what timelines read of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from tests.features.lake_world import PLAN, REGISTRY, SMALL_PLAN, START, History, append, lake_of, new_log

from obligor.events.log import EventLog
from obligor.features.lake_tables import lake_table
from obligor.features.lake_timelines import Need, Reading, _valid

HOLDS = "known <= {t} AND event_time < {t} AND (replaced_known IS NULL OR replaced_known > {t})"
UNREVISED = """NOT EXISTS (SELECT 1 FROM revisions r WHERE r.entity = rows.entity AND r.root = rows.root
    AND r.position = rows.position AND r.known = rows.known AND r.replaced_known <= {t})"""


@pytest.fixture(params=[False, True], ids=["measured", "declared"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, EventLog]:
    """A log and its lake, up to date, in several files and with revisions."""
    history = History(np.random.default_rng(11), declared=request.param)
    log = new_log(tmp_path)
    for i in range(30):
        append(log, history.chunk(20), history.tick())
        if i % 7 == 6:
            lake_of(tmp_path, log).update()
    lake_of(tmp_path, log).update()
    return tmp_path, log


def instants(log: EventLog) -> list[int]:
    known = sorted(set(log.facts("repayment", columns=[]).rows["known"].to_pylist()))
    return [START - 1, *known[:: max(1, len(known) // 12)], known[-1], known[-1] + 10**12]


def expected(log: EventLog, as_of: int) -> dict[str, list[tuple[Any, ...]]]:
    """Return the facts that hold by the log, under the consumer they name."""
    found = {}
    for name, by in (("repayment", "consumer"), ("sale", "consumer"), ("purchase", "consumer")):
        column = {"repayment": "amount", "sale": "price", "purchase": "amount"}[name]
        rows = log.facts(name).view(log.cut(), as_of)
        found[name] = sorted((row[by], row["root"], row[column]) for row in rows.to_pylist() if row[by] is not None)
    return found


def read(table: pl.DataFrame) -> dict[str, list[tuple[Any, ...]]]:
    columns = {"repayment": "repayment.amount", "sale": "sale.price", "purchase": "purchase.amount"}
    return {
        name: sorted(table.filter(pl.col("event") == name).select("entity", "root", column).iter_rows())
        for name, column in columns.items()
    }


def files_of(folder: Path) -> str:
    """Return the files of a Delta table as DuckDB takes them, from the table's own list."""
    from deltalake import DeltaTable

    return str(DeltaTable(str(folder)).file_uris())


def test_sql_over_a_compacted_table_sees_the_facts_that_hold(world: tuple[Path, EventLog]) -> None:
    folder, log = world
    lake_of(folder, log).compact(whole=True)
    table = pl.scan_delta(str(folder / "lake" / "consumer"))
    connection = duckdb.connect()
    connection.execute(f"CREATE VIEW rows AS SELECT * FROM read_parquet({files_of(folder / 'lake' / 'consumer')})")
    changed = set()
    for as_of in instants(log):
        wanted = expected(log, as_of)
        holds = HOLDS.format(t=as_of)
        assert read(table.filter(pl.sql_expr(holds)).collect()) == wanted
        assert read(connection.sql(f"SELECT * FROM rows WHERE {holds}").pl()) == wanted
        changed.add(str(wanted))
        without = table.filter(pl.sql_expr(holds.partition(" AND (replaced")[0])).collect()
        changed.discard(str(read(without)))
    assert len(changed) > 3, "the test has facts that are replaced"


def test_sql_over_an_updated_table_asks_its_revisions_too(world: tuple[Path, EventLog]) -> None:
    folder, log = world
    connection = duckdb.connect()
    for name in ("consumer", "consumer.revisions"):
        view = name.replace("consumer.", "").replace("consumer", "rows")
        connection.execute(f"CREATE VIEW {view} AS SELECT * FROM read_parquet({files_of(folder / 'lake' / name)})")
    differences = 0
    for as_of in instants(log):
        wanted = expected(log, as_of)
        holds = HOLDS.format(t=as_of)
        found = connection.sql(f"SELECT * FROM rows WHERE {holds} AND {UNREVISED.format(t=as_of)}").pl()
        assert read(found) == wanted
        differences += read(connection.sql(f"SELECT * FROM rows WHERE {holds}").pl()) != wanted
    assert differences, "the test has rows that are replaced after they were written"


def test_nothing_personal_or_protected_lies_in_a_table(world: tuple[Path, EventLog]) -> None:
    folder, _ = world
    for file in (folder / "lake").rglob("*.parquet"):
        names = set(pl.scan_parquet(file).collect_schema().names())
        assert not {name for name in names if name.endswith((".phone", ".gender"))}


def test_only_what_a_plan_looks_at_is_read() -> None:
    small = Reading(SMALL_PLAN, "consumer", lake_table(REGISTRY, ["consumer"]))
    assert small.columns(Need(position=False, root=False)) == [
        "event_time", "known", "replaced_known", "replaced_more", "repayment.amount",
    ]  # fmt: skip
    every = small.columns(Need(position=True, root=True))
    assert {"position", "root", "replaced_position"} <= set(every)
    large = Reading(PLAN, "consumer", lake_table(REGISTRY, ("consumer",)))
    columns = large.columns(Need(position=False, root=False))
    assert {"repayment.loan", "repayment.channel", "sale.price.currency", "repayment.due_at"} <= set(columns)
    assert "repayment.consumer" not in columns, "the lake knows whose row it is"
    assert {"transfer.sender", "transfer.receiver"} <= set(columns), "but not by which of two fields"


def test_numbers_are_found_among_nulls_in_any_slice() -> None:
    known = np.random.default_rng(4).random(300) < 0.2
    column = pa.array(np.arange(300), mask=~known)
    for start in (0, 1, 7, 8, 63, 64, 130):
        for count in (0, 1, 7, 8, 9, 170):
            expected = np.flatnonzero(known[start : start + count])
            assert _valid(column[start : start + count]).tolist() == expected.tolist()
