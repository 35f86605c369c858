"""A task of a backfill: the questions to the entities in some buckets, answered on any machine.

Nothing is passed along but names: of the plan, of the view of the lake, of the questions, each a file of the run that
is named by its content. The answers are named by what they depend on (code, plan, log, cut, questions), so that a task
that is carried out twice writes the same file twice, and one that was carried out before need not be again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from obligor.errors import IntegrityError, NotFound, Problem
from obligor.features.backfill import Part, parts_of
from obligor.features.evaluate import evaluate
from obligor.features.files import Files
from obligor.features.lake_files import Range
from obligor.features.lake_timelines import Need
from obligor.features.pinned import OpenLake, pinned_table, read_named
from obligor.features.plan import Plan
from obligor.features.requests import Requests, split_keys
from obligor.features.timelines import Timelines, cut_array

__all__ = ["ANSWERS", "Answers", "Task", "carry_out", "read_answers", "write_questions"]

ANSWERS = "answers"
_PLANS_KEPT = 64
_CUT, _FIELD = "cut.", "field."

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task."""

    name: str  # of its answers
    files: str  # the address of the run's files
    code: str  # the hash of the code that is to carry it out
    plan: str  # the name of a plan that looks at one timeline under one key
    view: str
    table: str
    questions: str
    ranges: list[Range]  # of buckets, read one after the other
    cut: list[int]  # the greatest of any question's
    cuts: bool  # whether questions have cuts of their own
    need: tuple[bool, bool]  # see `Need`

    def text(self) -> str:
        """Return the task as what an engine carries."""
        return msgspec.json.encode(self).decode()


def write_questions(asked: Requests, keys: pa.StringArray, buckets: NDArray[np.int16], cuts: bool) -> bytes:
    """Return questions to entities, in the order of their buckets, as a Parquet file; `cuts`: with one each."""
    columns: dict[str, Any] = {"bucket": buckets, "key": keys, "as_of": asked.as_of}
    if (asked.self_root >= 0).any():
        columns["self_root"] = asked.self_root
    if cuts:
        columns |= {f"{_CUT}{shard}": asked.cuts[:, shard] for shard in range(asked.cuts.shape[1])}
    for name in asked.fields.column_names:
        column = asked.fields.column(name).combine_chunks()
        columns[_FIELD + name] = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd", use_dictionary=["key", "bucket"])
    return sink.getvalue()


def _read_questions(table: pa.Table, task: Task, part: Part) -> Requests:
    rows, via = table.num_rows, part.via
    names = [name for name in table.column_names if name.startswith(_CUT)]
    cuts = np.array([task.cut]) if not task.cuts else np.stack([table.column(n).to_numpy() for n in names], axis=1)
    keys = table.column("key").combine_chunks()
    held = "self_root" in table.column_names
    fields = [name for name in table.column_names if name.startswith(_FIELD)]
    return Requests(
        as_of=table.column("as_of").to_numpy(),
        cuts=cuts,
        self_root=table.column("self_root").to_numpy() if held else np.full(rows, -1, np.int64),
        entities={via[0]: keys} if len(via) == 1 else dict(zip(via, split_keys(keys, len(via)), strict=True)),
        fields=pa.table({name.removeprefix(_FIELD): table.column(name).combine_chunks() for name in fields}),
    )


@lru_cache(maxsize=_PLANS_KEPT)
def _plan(content: bytes) -> Plan:
    return Plan.load(json.loads(content))


def carry_out(task: Task, files: Files, open_lake: OpenLake) -> int:
    """Answer a task's questions and write the answers; return how many there are.

    Ranges of buckets are read, evaluated and forgotten one after the other. IntegrityError where other answers lie
    there under the same name.
    """
    plan = _plan(bytes(read_named(files, task.plan)))
    [part] = parts_of(plan)
    table = pq.read_table(pa.BufferReader(read_named(files, task.questions)))
    asked = _read_questions(table, task, part)
    buckets = table.column("bucket").to_numpy()
    view, end = pinned_table(task.view, task.table, (task.ranges[0][0], task.ranges[-1][1]), files, open_lake)
    cut, last = np.array(task.cut), cut_array(end)
    out: Floats = np.empty((len(asked), len(plan.features)), np.float64)
    problems: dict[int, Problem] = {}
    for one in task.ranges:
        start, stop = np.searchsorted(buckets, np.array([one[0], one[1] + 1], buckets.dtype)).tolist()
        if start == stop:
            continue
        timeline = view.timeline(plan, part.timeline, _narrowed(one, buckets[start:stop]), Need(*task.need))
        limits: dict[int, Problem] = {}
        timelines = Timelines({part.timeline: timeline}, cut, last)
        own = asked.take(np.arange(start, stop))
        out[start:stop] = evaluate(plan, timelines, own, 1, limits=limits)
        for row, problem in limits.items():
            problems[start + row] = Problem(problem.path.removeprefix(f"$[{row}]"), problem.message)
    _write(files, task.name, out, problems)
    return len(asked)


def _narrowed(one: Range, buckets: NDArray[np.int16]) -> Range:
    """Return the part of a range that questions lie in, where they are too few to need all of it."""
    return one if len(buckets) > one[1] - one[0] else (int(buckets[0]), int(buckets[-1]))


# ---- answers --------------------------------------------------------------------------------------------------------


class Answers(NamedTuple):
    """What a task has found."""

    features: Floats  # (n, features)
    problems: Mapping[int, Problem]  # by row; a path begins behind the row's number


def _write(files: Files, name: str, features: Floats, problems: Mapping[int, Problem]) -> None:
    """Write answers under the task's name: the same bytes whoever writes them, or an error."""
    told = {str(row): [problem.path, problem.message] for row, problem in problems.items()}
    columns = {str(i): np.ascontiguousarray(features[:, i]) for i in range(features.shape[1])}
    table = pa.table({**columns, "": np.zeros(len(features), np.int8)})  # so that it has rows without features, too
    table = table.replace_schema_metadata({"task": name, "problems": json.dumps(told, sort_keys=True)})
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table)
    content, path = sink.getvalue(), f"{ANSWERS}/{name}.arrow"
    try:
        held = files.read(path)
    except NotFound:
        files.write(path, content)
        return
    if bytes(held) != content:
        raise IntegrityError(
            f"{files.address}/{path}: this task has been answered otherwise before; nothing is written"
        )


def read_answers(files: Files, name: str, shape: tuple[int, int]) -> Answers:
    """Return a task's answers of the shape (questions, features); IntegrityError where they are not."""
    path = f"{ANSWERS}/{name}.arrow"
    table = pa.ipc.open_file(pa.BufferReader(files.read(path))).read_all()
    noted = table.schema.metadata or {}
    found = (table.num_rows, table.num_columns - 1)
    if noted.get(b"task") != name.encode() or found != shape:
        raise IntegrityError(f"{files.address}/{path}: expected the answers of {name}, {shape}, got {found}")
    columns: Sequence[Any] = [table.column(i).to_numpy() for i in range(shape[1])]
    features: Floats = np.stack(columns, axis=1) if columns else np.empty(shape, np.float64)
    problems = {int(row): Problem(*problem) for row, problem in json.loads(noted[b"problems"]).items()}
    return Answers(features, problems)
