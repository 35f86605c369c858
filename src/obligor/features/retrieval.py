"""Features for people: what was known about these applicants at those moments, asked from a notebook or a script.

    project = obligor.open("my-lender")
    project.features.at(questions)                       a column `as_of`, or as_of="2026-01-31T09:30:00Z" for all rows
    project.features.at(questions, cut=1_200_000)        what the log held then, and nothing that came later

The numbers are those that a decision at that cut and as_of was taken on, to the bit: the same plan, the same kernels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Literal, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from obligor.errors import BadInput, LimitError, Problem, did_you_mean
from obligor.events.casting import plain
from obligor.events.fields import Integer
from obligor.events.log import EventLog
from obligor.events.positions import SHARD_MAX
from obligor.events.positions import Cut as Sequences
from obligor.events.schema import Event
from obligor.features.concerned import features_of
from obligor.features.frames import Frame, read_frame
from obligor.features.lake import Lake
from obligor.features.missing import why_missing
from obligor.features.narrowing import narrowed, without_sequences
from obligor.features.plan import Plan
from obligor.features.question_table import AsOf, read_columns, read_instants, read_integers
from obligor.features.requests import Requests, cut_rows, field_names, key_names
from obligor.features.typed import typed_column

__all__ = ["PREFIX", "Answered", "Cut", "Retrieval", "Through", "answered"]

Cut: TypeAlias = int | str | Mapping[int, int] | Mapping[str, int] | None
PREFIX: Final = "feature."
MISSING: Final = "missing."
APPLICATION: Final = "event_id"
PROBLEMS_MAX: Final = 20

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
T = TypeVar("T")
# Answers questions elsewhere: their features, and for rows that crossed a limit the message.
Through: TypeAlias = Callable[[EventLog, Plan, Requests, Lake | None], tuple[Floats, dict[int, str]]]


class Answered:
    """The features of n questions: `features` (n, features) with NaN for null, and why rows have none at all."""

    def __init__(self, plan: Plan, requests: Requests, features: Floats, limits: Mapping[int, str]) -> None:
        self.plan, self.requests, self.features, self.limits = plan, requests, features, limits


def answered(plan: Plan, log: EventLog, requests: Requests, threads: int = 2, lake: Lake | None = None) -> Answered:
    """Return the features of some questions from the facts about their entities, which a lake finds quicker."""
    features, limits = features_of(log, plan, requests, threads, lake)
    return Answered(plan, requests, features, limits)


class Retrieval:
    """The features of one plan, for questions about any moment; see `at`."""

    def __init__(
        self,
        plan: Plan,
        application: type[Event],
        open_log: Callable[[], AbstractContextManager[EventLog]],
        lake_of: Callable[[EventLog], Lake | None] = lambda log: None,
    ) -> None:
        """`open_log` opens the log for reading, which may be done beside a running service; `lake_of` its lake."""
        self.plan, self._application, self._open_log, self._lake_of = plan, application, open_log, lake_of

    def cut(self) -> Sequences:
        """Return the latest cut: all that the log holds now. Given to `at` it brings the same answers for ever."""
        with self._open_log() as log:
            return log.cut()

    def at(
        self,
        questions: Frame,
        as_of: AsOf = "as_of",
        *,
        cut: Cut = None,
        features: Sequence[str] | None = None,
        application: str | None = None,
        missing: bool = False,
        limits: Literal["raise", "null"] = "raise",
        prefix: str = PREFIX,
        threads: int = 2,
        through: Through | None = None,
    ) -> Frame:
        """Return the questions with a column for each feature, in a frame of the same kind, rows in the same order.

        `questions`: a pandas or polars DataFrame, a pyarrow Table or a DuckDB relation. Each row names entities in the
        columns that the application's fields are called, and gives the application's fields that the plan looks at.
        `as_of`: a zoned moment for all rows, or the name of a column of them; the moment itself is not seen.
        `cut`: None for all that is in the log, a sequence of it (or `{shard: sequence}`), or the name of a column of
        such: sequences of a log of one shard, or texts like `{"0": 71, "1": 64}`. What had been recorded by then.
        `features`: some of the plan's features, in this order; all by default.
        `application`: the column with the id of the application that a row is about, which is not among what it sees;
        by default `event_id` where there is such a column. Ids that the log does not know are of nobody.
        `missing`: a column `missing.<feature>` too, that says why a feature is null.
        `limits`: "raise" where a row holds more than can be computed exactly, or leave it null throughout.
        `through`: what answers the questions instead of `threads` of this process, such as a run on an engine.

        Raises BadInput with everything that is wrong, NotFound for features that do not exist.
        """
        _check_call(features, limits, threads)
        table, give_back = read_frame(questions)
        with self._open_log() as log:
            plan = without_sequences(self.plan) if features is None else narrowed(self.plan, features)
            requests = self.requests(log, table, as_of, cut=cut, application=application, plan=plan)
            lake = self._lake_of(log)

            def ask(part: Plan, some: Requests) -> Answered:
                if through is None:
                    return answered(part, log, some, threads, lake)
                return Answered(part, some, *through(log, part, some, lake))

            found = ask(plan, requests)
            if found.limits and limits == "raise":
                raise LimitError(_limit_problems(found.limits))
            columns = {
                f"{prefix}{spec.name}": typed_column(spec, found.features[:, i]) for i, spec in enumerate(plan.features)
            }
            if missing:
                reasons = _reasons(found, ask)
                columns |= {f"{MISSING}{name}": reason for name, reason in reasons.items()}
        taken = [name for name in columns if name in table.column_names]
        if taken:
            message = "the questions have a column of this name; give another prefix"
            raise BadInput(Problem(f"$.{name}", message) for name in taken)
        return give_back(pa.table(columns))

    def requests(
        self,
        log: EventLog,
        table: pa.Table,
        as_of: AsOf = "as_of",
        *,
        cut: Cut = None,
        application: str | None = None,
        plan: Plan | None = None,
    ) -> Requests:
        """Return what a table of questions asks of the plan, or of a part of it; BadInput with everything wrong."""
        problems: list[Problem] = []
        part = plan or without_sequences(self.plan)
        if not table.num_rows:  # pandas calls a column of nothing one of floats
            table = pa.table({name: pa.nulls(0) for name in table.column_names})
        columns = _read(lambda: read_columns(part, self._application, table), problems)
        instants = _read(lambda: read_instants(table, as_of), problems)
        cuts = _read(lambda: _cuts(table, cut, log), problems)
        ids = _read(lambda: _ids(table, application), problems)
        if problems or columns is None or instants is None or cuts is None:
            raise BadInput(problems)
        fields = {name: columns[name] for name in field_names(part)}
        return Requests(
            as_of=instants,
            cuts=cuts,
            self_root=_roots(log, part.application, ids, table.num_rows),
            entities={name: columns[name] for name in key_names(part)},
            fields=pa.table(fields),
        )


def _check_call(features: object, limits: object, threads: object) -> None:
    """Raise BadInput with everything that is wrong with how features are asked for."""
    problems = []
    if isinstance(features, str):  # which is a sequence too, of letters
        problems.append(Problem("$.features", f"expected a list of names, such as [{features!r}], got {features!r}"))
    if limits not in ("raise", "null"):
        problems.append(Problem("$.limits", f"expected 'raise' or 'null', got {limits!r}"))
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        problems.append(Problem("$.threads", f"expected at least 1 thread, got {threads!r}"))
    if problems:
        raise BadInput(problems)


def _read(reader: Callable[[], T], problems: list[Problem]) -> T | None:
    """Return what is read, or None once what is wrong with it is among the problems."""
    try:
        return reader()
    except BadInput as error:
        problems += error.problems
        return None


def _limit_problems(limits: Mapping[int, str]) -> list[Problem]:
    shown = [Problem(f"$[{row}]", message) for row, message in sorted(limits.items())[:PROBLEMS_MAX]]
    rows = "1 row" if len(limits) == 1 else f"{len(limits):,} rows"
    return [*shown, Problem("$.limits", f"{rows} in all; limits='null' leaves null what crosses a limit")]


def _reasons(found: Answered, ask: Callable[[Plan, Requests], Answered]) -> dict[str, pa.Array]:
    def parts_of(plan: Plan, rows: Ints) -> Floats:
        parts = ask(plan, found.requests.take(rows))
        assert not parts.limits, f"a part of a feature crossed a limit that the feature did not: {parts.limits}"
        return parts.features

    return why_missing(found.plan, found.features, list(found.limits), parts_of)


def _cuts(table: pa.Table, cut: Cut, log: EventLog) -> Ints:
    """Return the cuts as `Requests` have them: one for all rows, or one each; BadInput where nobody stood there."""
    found = _given_cuts(table, cut, log.cut())
    for row in np.unique(found, axis=0) if log.shards > 1 else ():
        log.refuse_open({shard: int(last) for shard, last in enumerate(row)})
    return found


def _given_cuts(table: pa.Table, cut: Cut, end: Sequences) -> Ints:
    if isinstance(cut, str):
        if cut not in table.column_names:
            message = f"expected the name of a column of sequences; {did_you_mean(cut, table.column_names)}"
            raise BadInput(Problem("$.cut", message))
        column = plain(table.column(cut))
        if len(end) > 1 and pa.types.is_string(column.type):
            return cut_rows([_sequences(_read_cut(one), end) for one in column.to_pylist()])
        return read_integers(cut, column, Integer(0, end[0]))[:, None]
    return cut_rows([end if cut is None else _sequences(cut, end)])


def _read_cut(text: str | None) -> Mapping[str, int]:
    try:
        found = json.loads(text or "")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadInput(Problem("$.cut", f'expected cuts such as {{"0": 71, "1": 64}}, got {text!r:.80}'))
    return found


def _sequences(cut: int | Mapping[int, int] | Mapping[str, int], end: Sequences) -> Sequences:
    """Return a cut as sequences by shard, none beyond where the log ends: later events would change its answers."""
    given = cut if isinstance(cut, Mapping) else {0: cut}
    found: Sequences = {}
    for shard, sequence in given.items():
        number = int(shard) if str(shard).isdecimal() else -1
        valid = isinstance(sequence, int) and not isinstance(sequence, bool)
        if not (0 <= number <= SHARD_MAX and valid and 0 <= sequence <= end.get(number, 0)):
            expected = f"expected {{shard: sequence}} within {end}, where the log ends"
            raise BadInput(Problem("$.cut", f"{expected}, got {cut!r:.80}"))
        found[number] = sequence
    return found


def _ids(table: pa.Table, application: str | None) -> pa.Array | None:
    """Return the ids of the applications that the questions are about, None where they are about none."""
    name = APPLICATION if application is None else application
    if name not in table.column_names:
        if application is None:
            return None
        hint = did_you_mean(application, table.column_names)
        raise BadInput(Problem("$.application", f"expected the name of a column of ids, got {application!r}; {hint}"))
    column = plain(table.column(name))
    if not (pa.types.is_string(column.type) or pa.types.is_null(column.type)):
        raise BadInput(Problem(f"$.{name}", f"expected the ids of applications as text, got {column.type}"))
    return column.cast(pa.string())


def _roots(log: EventLog, type_name: str, ids: pa.Array | None, rows: int) -> Ints:
    """Return the position of each question's own application, -1 for none."""
    if ids is None or ids.null_count == len(ids):
        return np.full(rows, -1, np.int64)
    facts = log.facts(type_name, columns=["event_id"]).rows
    places = pc.index_in(ids, value_set=plain(facts.column("event_id")))
    roots: Ints = pc.fill_null(facts.column("root").take(places), -1).to_numpy().astype(np.int64)
    return roots
