"""A backfill on an engine: what is asked is cut into tasks by bucket, and joined again in the order of the questions.

No event is moved: a task reads its buckets from the lake where they lie. Questions are routed for each entity type that
the plan looks at, written to the run's files beforehand, and their answers joined by row; the programs of a plan that
looks at several entities run at the end, on the measures. The numbers are those of `backfill`, to the bit.

A task that fails is tried again once all others have ended; those that are done stay done, also for another run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from obligor.errors import IntegrityError, LimitError, NotFound, ObligorError, Problem
from obligor.events.log import EventLog
from obligor.features.backfill import PROBLEMS_SHOWN, UNIT_ROWS, Part, joined, needed, parts_of
from obligor.features.bucket_task import ANSWERS, Answers, Task, read_answers, write_questions
from obligor.features.buckets import BUCKETS
from obligor.features.concerned import messages
from obligor.features.engine import Engine
from obligor.features.files import Files, digest, write_named
from obligor.features.lake import Lake, View
from obligor.features.lake_files import Range
from obligor.features.lake_routing import Routed, route
from obligor.features.lake_view import TableView
from obligor.features.narrowing import without_sequences
from obligor.features.pinned import OpenLake, pin
from obligor.features.plan import Plan
from obligor.features.requests import Requests, field_names, source_keys
from obligor.features.timelines import cut_array

__all__ = ["ATTEMPTS_MAX", "TASK_QUESTIONS", "TASK_ROWS", "BucketRun", "Progress", "Report", "asked_bytes"]

ATTEMPTS_MAX = 4  # at one task
TASK_ROWS = 1 << 20  # of the lake, in a large run
TASK_QUESTIONS = 1 << 17
_TASKS = 64  # of a table, where it has few rows
_RUN = "run.json"
_THREADS = 2  # that write questions and read answers

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Progress = Callable[[int, int], None]  # rows of the lake that are done, and those that there are
ERRORS: dict[str, type[ObligorError]] = {one.__name__: one for one in (IntegrityError, LimitError, NotFound)}


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker tells of a task."""

    rows: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0  # of its process so far
    worker: str = ""
    error: str = ""  # what no other attempt would mend
    kind: str = ""  # of error


def asked_bytes(plan: Plan, questions: pa.Table, as_of: object, cut: object) -> tuple[bytes, ...]:
    """Return what a run is asked, as bytes: the same for the same questions in the same order."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, questions.schema) as writer:
        writer.write_table(questions)
    return plan.canonical, sink.getvalue(), repr(as_of).encode(), repr(cut).encode()


class _Piece(NamedTuple):
    """Some questions of a part, and where they are to be answered."""

    ranges: list[Range]
    own: slice  # of the routed questions
    rows: int  # of the lake, about


@dataclass
class _Routing:
    """A part's questions by bucket, and its tasks."""

    part: Part
    routed: Routed
    pieces: list[_Piece]
    tasks: list[Task] = field(default_factory=list)


@dataclass
class BucketRun:
    """Runs backfills on an engine.

    `lake` is the address of the lake as workers find it, `code` the hash of the code that they run; `attempts` at each
    task. `reports` are those of all tasks that were carried out.
    """

    engine: Engine
    files: Files
    open_lake: OpenLake
    lake: str
    code: str
    progress: Progress = lambda done, total: None
    attempts: int = ATTEMPTS_MAX
    reports: list[Report] = field(default_factory=list)
    skipped: int = 0  # tasks that had been done before
    failures: list[str] = field(default_factory=list)  # that another attempt has mended

    def backfill(
        self, log: EventLog, plan: Plan, lake: Lake, requests: Requests, *, limits: dict[int, Problem] | None = None
    ) -> Floats:
        """Return the features of every request, (n, features), and raise, as `backfill` does.

        ObligorError where a task fails time and again: what is done is kept, and another run goes on with the rest.
        """
        plan = without_sequences(plan)
        cut = {shard: int(last) for shard, last in enumerate(requests.cuts.max(axis=0, initial=0))}
        view = lake.view(plan, cut)
        document = pin(view, log.registry, self.lake, self.files, self.open_lake) if plan.measures else ""
        routings = [self._routed(part, view, requests) for part in parts_of(plan)]
        ends = {shard: min(last, cut.get(shard, 0)) for shard, last in log.ends().items()}
        chains = [chain for _, chain in sorted(log.chains(ends).items())]
        known = digest(self.code.encode(), log.id, *chains, json.dumps(sorted(cut.items())).encode())
        with ThreadPoolExecutor(_THREADS) as pool:
            for routing in routings:
                self._write(routing, view, document, known, cut_array(cut).tolist(), requests, pool)
            self._run(routings)
            found: dict[int, Problem] = {}
            by_plan = {routing.part.plan.hash: routing for routing in routings}

            def measured(part: Part, problems: dict[int, Problem]) -> Floats:
                return self._answers(by_plan[part.plan.hash], len(requests), problems, pool)

            out = joined(plan, requests, measured, found, pool.map)
        if found and limits is None:
            raise LimitError([found[row] for row in sorted(found)[:PROBLEMS_SHOWN]])
        if limits is not None:
            limits.update(found)
        return out

    def features_of(
        self, log: EventLog, plan: Plan, requests: Requests, lake: Lake | None
    ) -> tuple[Floats, dict[int, str]]:
        """Return the features, and for rows that crossed a limit the message; such a row is null throughout."""
        assert lake is not None, "a run on an engine reads the lake"
        problems: dict[int, Problem] = {}
        features = self.backfill(log, plan, lake, requests, limits=problems)
        return features, messages(problems)

    def pinned_cut(self, log: EventLog) -> dict[int, int]:
        """Return the cut of this run: all that the log held when it was begun, also where it goes on later."""
        try:
            held = json.loads(bytes(self.files.read(_RUN)))
        except NotFound:
            held = {str(shard): last for shard, last in log.cut().items()}
            self.files.write(_RUN, json.dumps(held).encode())
        return {int(shard): last for shard, last in held.items()}

    def _routed(self, part: Part, view: View, requests: Requests) -> _Routing:
        table = view.table(part.timeline)
        with ThreadPoolExecutor(_THREADS) as pool:
            keys = source_keys(requests, part.via)
            routed = route(requests, keys, table.table.entities, _THREADS, pool.map)
        return _Routing(part, routed, list(_pieces(table, routed)))

    def _write(
        self, routing: _Routing, view: View, document: str, known: str, cut: list[int], requests: Requests,
        pool: ThreadPoolExecutor,
    ) -> None:  # fmt: skip
        """Write a part's plan and the questions of its tasks."""
        part, routed = routing.part, routing.routed
        plan = write_named(self.files, "plans", part.plan.canonical, ".json")
        fields = requests.fields.select(field_names(part.plan)).combine_chunks()
        bucket = np.repeat(np.arange(BUCKETS, dtype=np.int16), np.diff(routed.start))
        need = needed(requests, cut_array(view.end))
        several = len(requests.cuts) > 1
        held = self.files.names("questions")

        def write(piece: _Piece) -> Task:
            own = piece.own
            asked = Requests(routed.as_of[own], requests.cuts, routed.self_root[own], {}, fields)
            asked = _with_rows(asked, routed.row[own])
            content = write_questions(asked, pc.run_end_decode(routed.keys[own]), bucket[own], several)
            questions = f"questions/{digest(content)}.parquet"
            if questions not in held:
                self.files.write(questions, content)
            return Task(
                name=digest(known.encode(), plan.encode(), questions.encode()),
                files=self.files.address, code=self.code, plan=plan, view=document,
                table=view.table(part.timeline).table.name, questions=questions, ranges=piece.ranges, cut=cut,
                cuts=several, need=(need.position, need.root),
            )  # fmt: skip

        routing.tasks = list(pool.map(write, routing.pieces))

    def _run(self, routings: Sequence[_Routing]) -> None:
        """Carry out the tasks that are not done, those that fail once more, and raise where that is of no use."""
        every = [(t, piece.rows) for one in routings for t, piece in zip(one.tasks, one.pieces, strict=True)]
        held = self.files.names(ANSWERS)
        left = [(task, rows) for task, rows in every if _answers_of(task) not in held]
        self.skipped += len(every) - len(left)
        total = sum(rows for _, rows in every)
        done = total - sum(rows for _, rows in left)
        self.progress(done, total)
        for attempt in range(1, self.attempts + 1):
            failed: list[tuple[Task, int]] = []
            for outcome in self.engine.carry_out([task.text() for task, _ in left]):
                if outcome.report is None:
                    failed.append(left[outcome.place])
                    self.failures.append(f"attempt {attempt}: {outcome.failure}")
                    continue
                self._reported(msgspec.json.decode(outcome.report, type=Report))
                done += left[outcome.place][1]
                self.progress(done, total)
            answered = self.files.names(ANSWERS) if failed else frozenset()
            left = [(task, rows) for task, rows in failed if _answers_of(task) not in answered]
            if len(left) < len(failed):
                done += sum(rows for _, rows in failed) - sum(rows for _, rows in left)
                self.progress(done, total)
            if not left:
                return
        message = f"{len(left)} of {len(every)} tasks failed {self.attempts} times on {self.engine.name}"
        kept = f"what is done is kept in {self.files.address}, and another run goes on with the rest"
        raise ObligorError(f"{message}; the last failure: {self.failures[-1]}; {kept}")

    def _reported(self, report: Report) -> None:
        if report.error:
            raise ERRORS.get(report.kind, ObligorError)(f"{report.worker}: {report.error}")
        self.reports.append(report)

    def _answers(self, routing: _Routing, rows: int, problems: dict[int, Problem], pool: ThreadPoolExecutor) -> Floats:
        """Return a part's answers in the order of the questions."""
        features = len(routing.part.plan.features)
        out: Floats = np.empty((rows, features), np.float64)

        def read(place: int) -> tuple[slice, Answers]:
            own = routing.pieces[place].own
            return own, read_answers(self.files, routing.tasks[place].name, (own.stop - own.start, features))

        for own, answers in pool.map(read, range(len(routing.tasks))):
            places = routing.routed.row[own]
            out[places] = answers.features
            for row, problem in answers.problems.items():
                problems[int(places[row])] = Problem(f"$[{places[row]}]{problem.path}", problem.message)
        return out


def _answers_of(task: Task) -> str:
    return f"{ANSWERS}/{task.name}.arrow"


def _with_rows(asked: Requests, rows: Ints) -> Requests:
    """Return routed questions with what lies in the order of the questions: cuts and fields."""
    cuts = asked.cuts if len(asked.cuts) == 1 else asked.cuts[rows]
    fields = asked.fields.take(pa.array(rows)) if asked.fields.num_columns else asked.fields
    return Requests(asked.as_of, cuts, asked.self_root, asked.entities, fields)


def _pieces(table: TableView, routed: Routed) -> Iterator[_Piece]:
    """Yield what each task is to do: whole ranges with about so many rows and questions; many of one range are cut."""
    weight = _weights(table)
    most = min(TASK_ROWS, max(UNIT_ROWS, int(weight.sum()) // _TASKS))
    ranges: list[Range] = []
    rows, start, stop = 0, 0, 0

    def piece() -> _Piece:
        return _Piece(ranges, slice(start, stop), rows)

    for one in table.ranges(UNIT_ROWS):
        own, held = routed.of(one), int(weight[one[0] : one[1] + 1].sum())
        if own.start == own.stop:
            continue
        if ranges and (rows + held > most or own.stop - start > TASK_QUESTIONS):
            yield piece()
            ranges, rows, start = [], 0, own.start
        if not ranges:
            start = own.start
        ranges, rows, stop = [*ranges, one], rows + held, own.stop
        while stop - start > TASK_QUESTIONS:
            yield _Piece(ranges, slice(start, start + TASK_QUESTIONS), rows)
            start += TASK_QUESTIONS
    if ranges:
        yield piece()


def _weights(table: TableView) -> Floats:
    """Return about how many rows each bucket has, (BUCKETS,), as if a file's were spread evenly."""
    weight = np.zeros(BUCKETS)
    for one in table.files:
        weight[one.first : one.last + 1] += one.rows / (one.last + 1 - one.first)
    return weight
