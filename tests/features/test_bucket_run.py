"""Backfills in tasks: the bits of the backfill in process, whatever the cutting, the order and the failures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from tests.features.engine_runs import local_engine, run_on
from tests.features.lake_world import CONSUMERS, PLAN, SMALL_PLAN, History, Row, append, lake_of, new_log, plan_of
from tests.features.test_backfill import MANY, asked_of, take

from obligor.errors import IntegrityError, LimitError, NotFound, ObligorError, Problem
from obligor.events.log import EventLog
from obligor.features import lake_files
from obligor.features import request as asked
from obligor.features.backfill import backfill
from obligor.features.bucket_run import BucketRun
from obligor.features.bucket_task import Task
from obligor.features.engine import LocalEngine, Outcome
from obligor.features.lake import Lake
from obligor.features.plan import Plan
from obligor.stores.delta import S3Options, place_of
from obligor.worker import work_with


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    history = History(np.random.default_rng(2), consumers=MANY)
    log = new_log(tmp_path)
    for _ in range(10):
        append(log, history.chunk(200), history.tick())
    return log


@pytest.fixture
def lake(log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake in many small groups, with revisions that no compaction has written in, behind its log."""
    for name, rows in (("GROUP_ROWS", 50), ("FILE_ROWS", 300)):
        monkeypatch.setattr(lake_files, name, rows)
    for name, rows in (("UNIT_ROWS", 40), ("TASK_ROWS", 300), ("TASK_QUESTIONS", 60)):
        monkeypatch.setattr(f"obligor.features.bucket_run.{name}", rows)
    history = History(np.random.default_rng(9), consumers=MANY)
    history.clock = log.last_known_time
    lake = lake_of(tmp_path, log)
    lake.compact(whole=True)
    for _ in range(2):  # into the files, and only into the log
        append(log, [replace(row, id=f"x{row.id}") for row in history.chunk(150)], history.tick())
        if lake.status()[0].behind and lake.status()[0].revisions == 0:
            lake.update()
    assert any(one.revisions and one.behind and one.runs > 1 for one in lake.status())
    return lake


class Flaky(LocalEngine):
    """An engine that loses every task so many times, and counts what it carried out."""

    def __init__(self, losses: int) -> None:
        super().__init__(work_with(S3Options()), 2)
        self.losses, self.lost, self.done = losses, dict[str, int](), list[str]()

    def carry_out(self, tasks: Sequence[str]) -> Iterator[Outcome]:
        for place, task in enumerate(tasks):
            if self.lost.get(task, 0) < self.losses:
                self.lost[task] = self.lost.get(task, 0) + 1
                yield Outcome(place, None, "the worker died")
            else:
                self.done.append(task)
                yield Outcome(place, self._work(task), None)


@pytest.mark.parametrize("plan", [PLAN, SMALL_PLAN], ids=["two entities", "one"])
def test_it_gives_what_a_backfill_in_process_gives(plan: Plan, log: EventLog, lake: Lake, tmp_path: Path) -> None:
    head = log.head.sequence
    for requests in (asked_of(log), asked_of(log, cut=head), asked_of(log, cut=777)):
        nobody = replace(requests, self_root=np.full(len(requests), -1))
        for one in (requests, nobody):
            run = run_on(local_engine(), tmp_path)
            expected = backfill(plan, lake, one)
            assert run.backfill(log, plan, lake, one).tobytes() == expected.tobytes()
            assert len(run.reports) + run.skipped > 5, "there are several tasks"
        late = replace(requests, as_of=requests.as_of + 86_400_000_000)
        assert run_on(local_engine(), tmp_path).backfill(log, plan, lake, late).tobytes() != expected.tobytes()


def test_each_row_is_its_own_whatever_the_order(log: EventLog, lake: Lake, tmp_path: Path) -> None:
    requests = asked_of(log)
    expected = backfill(PLAN, lake, requests)
    order = np.random.default_rng(1).permutation(len(requests)).tolist()
    for rows in (order, [7], []):
        found = run_on(local_engine(), tmp_path).backfill(log, PLAN, lake, take(requests, rows))
        assert found.tobytes() == expected[rows].tobytes()
        assert found.shape == (len(rows), len(PLAN.features))


def test_a_lost_task_is_tried_again_and_a_hopeless_one_is_told(log: EventLog, lake: Lake, tmp_path: Path) -> None:
    requests = asked_of(log)
    expected = backfill(PLAN, lake, requests)
    seen: list[tuple[int, int]] = []
    run = run_on(Flaky(3), tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert run.backfill(log, PLAN, lake, requests).tobytes() == expected.tobytes()
    assert len(run.failures) == 3 * len(run.reports)
    assert seen == sorted(seen)
    assert seen[0][0] == 0 < seen[-1][0] == seen[-1][1]
    place_of(tmp_path / "work").clear()
    with pytest.raises(ObligorError, match=r"tasks failed 4 times on local; the last failure: attempt 4: the worker"):
        run_on(Flaky(4), tmp_path).backfill(log, PLAN, lake, requests)


def test_what_is_done_is_not_done_again(log: EventLog, lake: Lake, tmp_path: Path) -> None:
    requests = asked_of(log)
    expected = backfill(PLAN, lake, requests)

    class Stopped(Flaky):
        def carry_out(self, tasks: Sequence[str]) -> Iterator[Outcome]:
            for number, outcome in enumerate(super().carry_out(tasks)):
                yield outcome
                if number == 6:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_on(Stopped(0), tmp_path).backfill(log, PLAN, lake, requests)
    lake.update()
    lake.compact(whole=True)  # it lies in other files now
    rest = Flaky(0)
    run = run_on(rest, tmp_path)
    assert run.backfill(log, PLAN, lake, requests).tobytes() == expected.tobytes()
    again = run_on(Flaky(0), tmp_path)
    assert again.backfill(log, PLAN, lake, requests).tobytes() == expected.tobytes()
    assert (again.reports, again.skipped) == ([], len(run.reports) + run.skipped)
    other = run_on(Flaky(0), tmp_path)
    other.code = "0" * 64
    with pytest.raises(IntegrityError, match="expected code 000000000000 to carry the task out"):
        other.backfill(log, PLAN, lake, requests)


def test_a_stopped_run_goes_on_where_it_was(log: EventLog, lake: Lake, tmp_path: Path) -> None:
    requests = asked_of(log)
    first = run_on(Flaky(0), tmp_path)
    first.backfill(log, SMALL_PLAN, lake, requests)
    answers = sorted((tmp_path / "work" / "answers").iterdir())
    for path in answers[::2]:
        path.unlink()
    run = run_on(Flaky(0), tmp_path)
    assert run.backfill(log, SMALL_PLAN, lake, requests).tobytes() == backfill(SMALL_PLAN, lake, requests).tobytes()
    assert (len(run.reports), run.skipped) == (len(answers[::2]), len(answers[1::2]))


def test_other_answers_of_the_same_task_are_never_written(log: EventLog, lake: Lake, tmp_path: Path) -> None:
    requests = asked_of(log)
    engine = Flaky(0)
    run_on(engine, tmp_path).backfill(log, SMALL_PLAN, lake, requests)
    [path, *_] = sorted((tmp_path / "work" / "answers").iterdir())
    held = path.read_bytes()
    for task in engine.done:
        assert "error" not in engine._work(task) or '"error":""' in engine._work(task), "the same again is no harm"
    path.write_bytes(held[:-40] + bytes([held[-40] ^ 1]) + held[-39:])
    told = [engine._work(task) for task in engine.done if path.stem in task]
    assert "answered otherwise" in told[0]
    path.write_bytes(sorted((tmp_path / "work" / "answers").iterdir())[1].read_bytes())
    with pytest.raises(IntegrityError, match="expected the answers of"):
        run_on(engine, tmp_path).backfill(log, SMALL_PLAN, lake, requests)


def test_files_of_the_run_that_were_changed_are_refused(log: EventLog, lake: Lake, tmp_path: Path) -> None:
    requests = asked_of(log, 50)
    for folder in ("plans", "views", "questions", "revisions"):
        place_of(tmp_path / "work").clear()

        class Tampering(Flaky):
            def carry_out(self, tasks: Sequence[str]) -> Iterator[Outcome]:
                for path in (tmp_path / "work" / folder).iterdir():  # noqa: B023
                    path.write_bytes(path.read_bytes() + b" ")
                return super().carry_out(tasks)

        with pytest.raises(IntegrityError, match="does not hold what it was written with"):
            run_on(Tampering(0), tmp_path).backfill(log, SMALL_PLAN, lake, requests)


@pytest.mark.parametrize("task_rows", [300, 100_000], ids=["a few ranges a task", "all of them in one"])
def test_a_row_that_crosses_a_limit_is_named_as_everywhere(
    log: EventLog, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task_rows: int
) -> None:
    for name in ("TASK_ROWS", "TASK_QUESTIONS"):
        monkeypatch.setattr(f"obligor.features.bucket_run.{name}", task_rows)
    monkeypatch.setattr("obligor.features.bucket_run._TASKS", 1)
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
        values = backfill(plan, lake, requests, limits=expected)
        found: dict[int, Problem] = {}
        run = run_on(local_engine(), tmp_path)
        assert run.backfill(log, plan, lake, requests, limits=found).tobytes() == values.tobytes()
        assert found == expected != {}
        with pytest.raises(LimitError) as raised:
            run.backfill(log, plan, lake, requests)
        with pytest.raises(LimitError) as wanted:
            backfill(plan, lake, requests)
        assert str(raised.value) == str(wanted.value)


def test_a_plan_without_measures_needs_no_task(log: EventLog, lake: Lake, tmp_path: Path) -> None:
    plan = plan_of({"amount": asked("amount")})
    run = run_on(local_engine(), tmp_path)
    requests = asked_of(log, 20)
    assert run.backfill(log, plan, lake, requests).tobytes() == backfill(plan, lake, requests).tobytes()
    assert (run.reports, run.skipped) == ([], 0)


def test_files_that_a_vacuum_deleted_are_told(log: EventLog, lake: Lake, tmp_path: Path) -> None:
    class Vacuumed(Flaky):
        def carry_out(self, tasks: Sequence[str]) -> Iterator[Outcome]:
            lake.update()
            lake.compact(whole=True)
            lake.vacuum(0)
            return super().carry_out(tasks)

    requests = asked_of(log)
    with pytest.raises(NotFound, match="open the lake again"):
        run_on(Vacuumed(0), tmp_path).backfill(log, SMALL_PLAN, lake, requests)
    run: BucketRun = run_on(local_engine(), tmp_path)
    assert run.backfill(log, SMALL_PLAN, lake, requests).tobytes() == backfill(SMALL_PLAN, lake, requests).tobytes()


def test_a_task_says_by_name_what_it_needs(log: EventLog, lake: Lake, tmp_path: Path) -> None:
    engine = Flaky(0)
    run_on(engine, tmp_path).backfill(log, SMALL_PLAN, lake, asked_of(log, 50))
    tasks = [msgspec.json.decode(text, type=Task) for text in engine.done]
    assert len({task.name for task in tasks}) == len(tasks)
    for task in tasks:
        for name in (task.plan, task.view, task.questions):
            assert (tmp_path / "work" / name).is_file()
        assert len(task.text()) < 1_000 + 12 * len(task.ranges), "no rows go along"
