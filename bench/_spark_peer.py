"""The benchmark's question as Spark SQL is asked it, over the files of the lake's tables.

Both ways that were thought of are here, for each entity; none is known to be better. A late event is seen from its
known time on only, so that no window function answers the question; a join does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from bench._engine_data import CONSUMER_DAYS, DAY, MERCHANT_DAYS

__all__ = ["formulations"]


def _parts(days: Sequence[int], kinds: str) -> str:
    """Return the partial aggregates of each window; the longest needs no condition, the join has it already."""
    inside = {d: "true" if d == max(days) else f"event_time >= as_of - {d * DAY}L" for d in days}
    columns = {"n": "count_if({0})"}
    for kind, name in zip("slh", ("sum", "min", "max"), strict=True):
        columns[kind] = name + "(CASE WHEN {0} THEN amount END)"
    return ", ".join(f"{columns[kind].format(inside[d])} AS {kind}{d}" for d in days for kind in kinds)


def _rule(days: Sequence[int]) -> str:
    return f"""e.event_time < q.as_of AND e.event_time >= q.as_of - {max(days) * DAY}L AND e.known <= q.as_of
        AND (e.replaced_known IS NULL OR e.replaced_known > q.as_of)"""


def _joined(entity: str, days: Sequence[int], kinds: str) -> str:
    return f"""SELECT request, {_parts(days, kinds)} FROM questions q JOIN {entity}_rows e
        ON e.entity = q.{entity} AND {_rule(days)} GROUP BY request"""


def _in_stretches(entity: str, days: Sequence[int], kinds: str) -> str:
    """The same joined on stretches of time as long as the longest window too, so that few pairs are looked at."""
    length = f"{max(days) * DAY}L"
    return f"""SELECT request, {_parts(days, kinds)} FROM
        (SELECT *, explode(array(as_of div {length}, as_of div {length} - 1)) AS stretch FROM questions) q
        JOIN (SELECT *, event_time div {length} AS stretch FROM {entity}_rows) e
        ON e.entity = q.{entity} AND e.stretch = q.stretch AND {_rule(days)} GROUP BY request"""


def _query(consumer: str, merchant: str) -> str:
    kinds = ("coalesce({0}n{1}, 0)", "coalesce({0}s{1}, 0)", "{0}s{1} / {0}n{1}", "{0}l{1}", "{0}h{1}")
    columns = [kind.format("c.", d) for kind in kinds for d in CONSUMER_DAYS]
    columns += [kind.format("m.", d) for kind in (kinds[0], kinds[1], kinds[4]) for d in MERCHANT_DAYS]
    columns.append("coalesce(c.s30, 0) / nullif(m.s7 / m.n7, 0)")
    named = ", ".join(f"cast({column} AS double) AS c{i}" for i, column in enumerate(columns))
    return f"""SELECT q.request, {named} FROM questions q LEFT JOIN ({consumer}) c ON q.request = c.request
        LEFT JOIN ({merchant}) m ON q.request = m.request"""


def formulations(session: Any, files: dict[str, list[str]], questions: str) -> dict[str, str]:
    """Return the queries by name, once their tables are there: the lake's files, and the questions in memory."""
    for entity, paths in files.items():
        rows = session.read.parquet(*paths).selectExpr(
            "entity", "event_time", "known", "replaced_known", "`purchase.amount` AS amount"
        )
        rows.createOrReplaceTempView(f"{entity}_rows")
    session.read.parquet(questions).createOrReplaceTempView("questions")
    session.sql("CACHE TABLE questions")
    ways = {"join": _joined, "join on stretches of time": _in_stretches}
    return {
        f"consumers: {one}; merchants: {other}": _query(
            ways[one]("consumer", CONSUMER_DAYS, "nslh"), ways[other]("merchant", MERCHANT_DAYS, "nslh")
        )
        for one, other in product(ways, ways)
    }
