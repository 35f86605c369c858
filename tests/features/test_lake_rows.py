"""What a stretch of the log adds to a table: under whom, what is left out, and that stretches add up."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.features.lake_world import DAY, REGISTRY, START, History, Row, append, new_log

from obligor.events.batch import CORRECTION
from obligor.events.log import EventLog
from obligor.features.buckets import bucket_of
from obligor.features.lake_rows import Additions, additions, read_stretch, staircase
from obligor.features.lake_tables import STANDARD, lake_table

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=8)


@given(POINTS, st.tuples(st.integers(0, 7), st.integers(0, 7)))
def test_a_staircase_says_no_less_than_all_its_points(points: list[tuple[int, int]], at: tuple[int, int]) -> None:
    found = staircase(points)
    assert any(p <= at[0] and k <= at[1] for p, k in found) == any(p <= at[0] and k <= at[1] for p, k in points)
    assert [k for _, k in found] == sorted({k for _, k in found})
    assert [p for p, _ in found] == sorted({p for p, _ in found}, reverse=True)
    assert set(found) <= set(points)


def added(log: EventLog, entities: tuple[str, ...], after: int = 0, upto: int | None = None) -> Additions:
    table = lake_table(REGISTRY, entities)
    return additions(table, read_stretch(log, table.events, {0: after}, log.cut() if upto is None else {0: upto}))


def short(rows: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in rows.select(names).to_pylist()]


def test_a_fact_lies_under_each_entity_it_names_once(tmp_path: Path) -> None:
    def transfer(id: str, sender: str, receiver: str) -> Row:
        return Row(id, "transfer", START, fields={"sender": sender, "receiver": receiver, "amount": 1})

    with new_log(tmp_path) as log:
        append(log, [transfer("t-1", "a", "b"), transfer("t-2", "c", "c")], START)
        rows = added(log, ("consumer",)).rows
        assert sorted(short(rows, "entity", "root")) == [("a", 1), ("b", 1), ("c", 2)]
        assert {row["bucket"] for row in rows.to_pylist() if row["entity"] == "a"} == {bucket_of(["consumer"], "a")}


def test_a_composite_key_is_its_parts_joined_and_none_where_one_is_missing(tmp_path: Path) -> None:
    def sale(id: str, consumer: str | None) -> Row:
        fields = {"merchant": "m", "consumer": consumer, "price": 1, "price.currency": "NGN"}
        return Row(id, "sale", START, fields=fields)

    with new_log(tmp_path) as log:
        append(log, [sale("s-1", "a"), sale("s-2", None)], START)
        rows = added(log, ("consumer", "merchant")).rows
        assert short(rows, "entity", "root", "sale.price.currency") == [("a\x1fm", 1, "NGN")]
        assert rows["bucket"].to_pylist() == [bucket_of(["consumer", "merchant"], "a\x1fm")]
        assert short(added(log, ("merchant",)).rows, "entity", "root") == [("m", 1), ("m", 2)]


def test_rows_are_sorted_by_bucket_entity_time_and_root(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)
    history = History(chance, consumers=[f"c-{i}" for i in range(40)])
    with new_log(tmp_path) as log:
        for _ in range(6):
            append(log, history.chunk(40), history.tick())
        rows = added(log, ("consumer",)).rows
        keys = short(rows, "bucket", "entity", "event_time", "root")
        assert keys == sorted(keys)
        assert len({key[1] for key in keys}) == 40
        assert rows.schema.field("bucket") == STANDARD.field("bucket")


def repayment(id: str, consumer: str = "a", **more: Any) -> Row:
    fields = {"consumer": consumer, "loan": "l", "amount": 1}
    return Row(id, "repayment", START, fields=fields, **more)


def test_a_version_that_no_view_shows_is_left_out(tmp_path: Path) -> None:
    with new_log(tmp_path) as log:
        append(log, [repayment("k-1", "b", kind=CORRECTION, target="r-1")], START)
        assert added(log, ("consumer",)).rows.num_rows == 0, "its original has not arrived"
        append(log, [repayment("r-1", "a")], START + 5)
        rows = added(log, ("consumer",)).rows
        assert short(rows, "entity", "position", "known", "root") == [("b", 2, START + 5, 2)]
        assert short(added(log, ("consumer",), 1).rows, "entity", "root") == [("b", 2)], "the same in two stretches"


def test_what_replaces_an_older_row_is_a_revision_under_that_rows_entity(tmp_path: Path) -> None:
    with new_log(tmp_path) as log:
        append(log, [repayment("r-1", "a")], START)
        append(log, [repayment("k-1", "b", kind=CORRECTION, target="r-1")], START + DAY)
        rows, revisions = added(log, ("consumer",), 1)
        assert short(rows, "entity", "root", "position", "replaced_known") == [("b", 1, 2, None)]
        assert revisions.to_pylist() == [
            {"bucket": bucket_of(["consumer"], "a"), "entity": "a", "root": 1, "position": 1, "known": START,
             "replaced_position": 2, "replaced_known": START + DAY}
        ]  # fmt: skip


def test_several_that_replace_a_row_are_all_kept_where_one_is_known_and_another_visible_first(tmp_path: Path) -> None:
    def corrected(id: str, known: int) -> Row:
        return repayment(id, kind=CORRECTION, target="r-1", known=known)

    with new_log(tmp_path) as log:
        append(
            log, [repayment("r-1", known=START), corrected("k-1", START + 9), corrected("k-2", START + 5)], START + 9
        )
        rows = added(log, ("consumer",)).rows
        assert short(rows, "position", "replaced_position", "replaced_known", "replaced_more") == [
            (1, 3, START + 5, [{"position": 2, "known": START + 9}]),
            (2, None, None, None),
            (3, 2, START + 9, None),
        ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("entities", [("consumer",), ("merchant",), ("consumer", "merchant")])
def test_stretches_add_up_to_the_whole(seed: int, entities: tuple[str, ...], tmp_path: Path) -> None:
    chance = np.random.default_rng(seed)
    history = History(chance)
    with new_log(tmp_path) as log:
        for _ in range(10):
            append(log, history.chunk(20), history.tick())
        whole = added(log, entities)
        assert whole.revisions.num_rows == 0
        edges = [0, *sorted(chance.integers(0, 200, 4).tolist()), 200]
        parts = [added(log, entities, a, b) for a, b in pairwise(edges)]
        assert _resolved([whole]) == _resolved(parts)
        assert sum(part.revisions.num_rows for part in parts) > 0, "the test revises rows"
        unrevised = [Additions(part.rows, part.revisions.slice(0, 0)) for part in parts]
        assert _resolved([whole]) != _resolved(unrevised)


def _resolved(parts: list[Additions]) -> Counter[tuple[str, ...]]:
    """All rows with all that replaces them, whenever it came."""
    revised: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
    for part in parts:
        for row in part.revisions.to_pylist():
            key = tuple(row[name] for name in ("bucket", "entity", "root", "position", "known"))
            revised.setdefault(key, []).append((row["replaced_position"], row["replaced_known"]))
    found: Counter[tuple[str, ...]] = Counter()
    for part in parts:
        for row in part.rows.to_pylist():
            pairs = [(row.pop("replaced_position"), row.pop("replaced_known"))]
            pairs += [(pair["position"], pair["known"]) for pair in row.pop("replaced_more") or ()]
            key = tuple(row[name] for name in ("bucket", "entity", "root", "position", "known"))
            above = staircase([pair for pair in pairs if pair[1] is not None] + revised.get(key, []))
            found[(*map(repr, row.items()), repr(above))] += 1
    return found
