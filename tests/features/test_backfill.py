"""Backfill from the lake: what evaluation over whole timelines gives, whatever the ranges, threads and order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier, get_ident

import numpy as np
import pyarrow as pa
import pytest
from tests.features.lake_world import (
    CONSUMERS,
    PLAN,
    SMALL_PLAN,
    History,
    Repayment,
    Row,
    Sale,
    append,
    lake_of,
    new_log,
    plan_of,
    requests_at,
)

from obligor.errors import LimitError, NotFound, Problem
from obligor.events.log import EventLog
from obligor.features import lake_files
from obligor.features import request as asked
from obligor.features.backfill import _helped, backfill
from obligor.features.evaluate import evaluate
from obligor.features.lake import Lake
from obligor.features.lake_view import TableView
from obligor.features.plan import Plan
from obligor.features.requests import Requests
from obligor.features.timelines import build_timelines

PLAN_SALES = Sale.by("merchant").count("9d")
MANY = [f"c-{i}" for i in range(300)]


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    history = History(np.random.default_rng(2), consumers=MANY)
    log = new_log(tmp_path)
    for _ in range(10):
        append(log, history.chunk(200), history.tick())
    return log


@pytest.fixture
def lake(log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A compacted lake in many small groups."""
    monkeypatch.setattr(lake_files, "GROUP_ROWS", 50)
    monkeypatch.setattr(lake_files, "FILE_ROWS", 300)
    monkeypatch.setattr("obligor.features.backfill.UNIT_ROWS", 100)
    monkeypatch.setattr("obligor.features.evaluate.BLOCK_ROWS_MIN", 2)  # so that threads share ranges
    lake = lake_of(tmp_path, log)
    lake.update()
    lake.compact(whole=True)
    return lake


def asked_of(log: EventLog, number: int = 500, cut: int | None = None) -> Requests:
    return requests_at(log, np.random.default_rng(5), number, cut=cut, consumers=MANY)


def take(requests: Requests, rows: list[int]) -> Requests:
    places = np.array(rows, np.int64)
    return Requests(
        requests.as_of[places], requests.cuts if len(requests.cuts) == 1 else requests.cuts[places],
        requests.self_root[places], {name: keys.take(pa.array(places)) for name, keys in requests.entities.items()},
        requests.fields.take(pa.array(places)),
    )  # fmt: skip


@pytest.mark.parametrize("plan", [PLAN, SMALL_PLAN], ids=["two entities", "one"])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_it_gives_what_whole_timelines_give(plan: Plan, threads: int, log: EventLog, lake: Lake) -> None:
    whole = build_timelines(plan, log, log.cut())
    for requests in (asked_of(log), asked_of(log, cut=log.head.sequence), asked_of(log, cut=777)):
        expected = evaluate(plan, whole, requests)
        assert backfill(plan, lake, requests, threads).tobytes() == expected.tobytes()
        nobody = replace(requests, self_root=np.full(len(requests), -1))
        assert backfill(plan, lake, nobody, threads).tobytes() == evaluate(plan, whole, nobody).tobytes()
        late = replace(requests, as_of=requests.as_of + 86_400_000_000)
        assert backfill(plan, lake, late, threads).tobytes() != expected.tobytes()


def test_each_row_is_its_own_whatever_the_order(log: EventLog, lake: Lake) -> None:
    requests = asked_of(log)
    expected = backfill(PLAN, lake, requests)
    order = np.random.default_rng(1).permutation(len(requests)).tolist()
    assert backfill(PLAN, lake, take(requests, order)).tobytes() == expected[order].tobytes()
    one = backfill(PLAN, lake, take(requests, [7]))
    assert one.tobytes() == expected[[7]].tobytes()
    assert backfill(PLAN, lake, take(requests, [])).shape == (0, len(PLAN.features))


def test_many_requests_take_more_of_the_lake_at_once(
    log: EventLog, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    true = TableView.ranges

    def ranges(view: TableView, rows: int) -> list[lake_files.Range]:
        sizes.append(rows)
        return true(view, rows)

    monkeypatch.setattr(TableView, "ranges", ranges)
    few = asked_of(log)
    expected = backfill(SMALL_PLAN, lake, few, 1)
    many = take(few, list(range(len(few))) * 10)
    assert backfill(SMALL_PLAN, lake, many, 1).tobytes() == np.tile(expected, (10, 1)).tobytes()
    assert backfill(SMALL_PLAN, lake, many, 16).tobytes() == np.tile(expected, (10, 1)).tobytes()
    assert sizes == [100, 300, 100]


def test_threads_that_have_nothing_else_to_do_help() -> None:
    together = Barrier(3, timeout=30)

    def task(number: int) -> int:
        together.wait()  # for two others
        return number**2

    with ThreadPoolExecutor(3) as pool:
        assert pool.submit(_helped(pool, 3), task, range(6)).result() == [0, 1, 4, 9, 16, 25]
    with ThreadPoolExecutor(1) as pool:  # nobody else
        assert pool.submit(_helped(pool, 3), abs, [-1, 2, -3]).result() == [1, 2, 3]


@pytest.mark.parametrize("fails_in_helper", [True, False])
def test_what_fails_in_a_thread_that_helps_fails(fails_in_helper: bool) -> None:
    both = Barrier(2, timeout=30)
    caller: list[int] = []

    def task(number: int) -> None:
        both.wait()
        if (get_ident() != caller[0]) is fails_in_helper:
            raise ValueError(f"task {number}")

    def call() -> None:
        caller.append(get_ident())
        _helped(pool, 2)(task, range(2))

    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="task"):
        pool.submit(call).result()


def test_a_row_that_crosses_a_limit_is_named_as_everywhere(log: EventLog, lake: Lake) -> None:
    huge = {"consumer": "c-1", "loan": "l", "amount": 2**62}
    sale = {"merchant": "m-0", "consumer": "c-2", "price": 2**62, "price.currency": "NGN"}
    rows = [Row("huge", "repayment", log.last_known_time, fields=huge)]
    append(log, [*rows, Row("sold", "sale", log.last_known_time, fields=sale)], log.last_known_time + 1)
    requests = asked_of(log, 400, cut=log.head.sequence)
    consumers = pa.array([CONSUMERS[i % 4] for i in range(400)])
    requests = replace(
        requests, as_of=np.full(400, log.last_known_time + 5), entities={**requests.entities, "consumer": consumers}
    )
    for plan in (PLAN, SMALL_PLAN):
        expected: dict[int, Problem] = {}
        values = evaluate(plan, build_timelines(plan, log), requests, limits=expected)
        found: dict[int, Problem] = {}
        assert backfill(plan, lake, requests, limits=found).tobytes() == values.tobytes()
        assert found == expected
        assert 50 < len(expected) < 400
        with pytest.raises(LimitError) as raised:
            backfill(plan, lake, requests)
        with pytest.raises(LimitError) as wanted:
            evaluate(plan, build_timelines(plan, log), requests)
        assert str(raised.value) == str(wanted.value)


def test_a_program_that_leaves_the_numbers_is_named(log: EventLog, lake: Lake) -> None:
    repaid = Repayment.by("consumer").sum("amount", "lifetime")
    plan = plan_of({"far": repaid * 1e300 * 1e300, "sold": PLAN_SALES, "amount": asked("amount")})
    requests = asked_of(log, 50, cut=log.head.sequence)
    expected: dict[int, Problem] = {}
    values = evaluate(plan, build_timelines(plan, log), requests, limits=expected)
    found: dict[int, Problem] = {}
    assert backfill(plan, lake, requests, limits=found).tobytes() == values.tobytes()
    assert found == expected != {}


def test_a_plan_without_measures_needs_no_table(log: EventLog, tmp_path: Path) -> None:
    plan = plan_of({"amount": asked("amount")})
    requests = asked_of(log, 20)
    expected = evaluate(plan, build_timelines(plan, log), requests)
    lake = lake_of(tmp_path, log, plan)
    assert backfill(plan, lake, requests).tobytes() == expected.tobytes()


def test_a_lake_without_the_table_is_refused(log: EventLog, tmp_path: Path) -> None:
    empty = lake_of(tmp_path / "elsewhere", log, plan_of({"amount": asked("amount")}))
    with pytest.raises(NotFound, match="obligor lake update"):
        backfill(SMALL_PLAN, empty, asked_of(log, 5))


def test_ranges_that_nobody_asks_about_are_not_read(log: EventLog, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from obligor.stores.delta.files import ParquetReader

    requests = take(asked_of(log, cut=log.head.sequence), [0, 1])
    read: list[int] = []
    original = ParquetReader.read

    def counted(self: ParquetReader, groups: list[int], columns: list[str]) -> pa.Table:
        read.extend(groups)
        return original(self, groups, columns)

    monkeypatch.setattr(ParquetReader, "read", counted)
    backfill(SMALL_PLAN, lake, requests)
    assert 0 < len(read) <= 2 * 3, "of some fifty groups"
