"""Parity: what the online state answered, computed again offline at the cut and instant of the time, bit by bit.

The two sides share the kernels and the projection of rows; they do not share how rows come to lie where they are read.
Online that is a history of edits of tails, chunks and tiles; offline one sort of all versions of all facts, and the
view of the cut. So a difference is a row that was lost, doubled, left behind or changed, or a tile that was not told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.errors import LimitError
from obligor.events.positions import Cut
from obligor.events.reading import fact_schema
from obligor.events.schema import Event
from obligor.features.concerned import compute, timelines_of
from obligor.features.history import TimelineReader
from obligor.features.online import evaluate_one
from obligor.features.plan import Plan
from obligor.features.requests import Requests, cut_rows, field_names, key_names
from obligor.features.timelines import FactsSource

__all__ = [
    "DAMAGE",
    "REFUSAL",
    "Answers",
    "Comparison",
    "Difference",
    "Question",
    "Sample",
    "answer",
    "answers",
    "compare",
    "difference",
]

AT_ONCE = 65_536  # answers that are computed again at once; bounds memory
DIFFERENCES_MAX = 1_000  # that a comparison holds in full
REFUSAL = "(refusal)"  # in place of a feature's name: one side computed nothing, or for another reason

Floats = NDArray[np.float64]

# What reading a damaged state can raise: it is an answer too, and differs from the one that the log gives.
DAMAGE = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)


class Question(NamedTuple):
    """Whom to look at, as an application would name them."""

    entities: Mapping[str, str | None]  # by the application's field
    fields: Mapping[str, object]  # the application's other stored fields that the plan uses


class Sample(NamedTuple):
    """One question and what the state answered; `values` is None where it refused, and `refusal` says why."""

    question: Question
    cut: Cut
    as_of: int
    values: Floats | None  # (features,)
    refusal: str = ""


class Difference(NamedTuple):
    """One number that is not the same."""

    feature: str  # its name, or REFUSAL
    online: float | str
    offline: float | str
    as_of: int
    cut: Cut
    entities: Mapping[str, str | None]
    name: str  # of the decision that recorded it; "" for a question to the state


@dataclass(frozen=True)
class Answers:
    """n answers, of the state or of recorded decisions."""

    requests: Requests
    values: Sequence[Floats | None]  # n times (features,)
    refusals: Sequence[str]
    names: Sequence[str]  # of decisions, "" for others

    def __len__(self) -> int:
        return len(self.requests)


@dataclass
class Comparison:
    """How many answers were computed again, and what was not the same."""

    checked: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # numbers that differ, by feature
    found: list[Difference] = field(default_factory=list)  # the first DIFFERENCES_MAX
    rows: list[int] = field(default_factory=list)  # the answers that differ anywhere

    @property
    def differences(self) -> int:
        """How many numbers differ."""
        return self.counts.total()

    def join(self, other: Comparison) -> None:
        """Add another comparison; its rows are not those of this one and are left out."""
        self.checked += other.checked
        self.counts += other.counts
        self.found += other.found[: DIFFERENCES_MAX - len(self.found)]

    def add(self, row: int, difference: Difference) -> None:
        """Add a difference of answer `row`."""
        self.counts[difference.feature] += 1
        if not self.rows or self.rows[-1] != row:
            self.rows.append(row)
        if len(self.found) < DIFFERENCES_MAX:
            self.found.append(difference)


def answer(plan: Plan, reader: TimelineReader, question: Question, cut: Cut, as_of: int) -> Sample:
    """Ask a state that stands at `cut`."""
    try:
        values = evaluate_one(plan, reader, as_of, -1, question.entities, question.fields)
    except LimitError as error:
        return Sample(question, cut, as_of, None, str(error))
    except DAMAGE as error:
        return Sample(question, cut, as_of, None, f"{type(error).__name__}: {error}")
    return Sample(question, cut, as_of, values)


def answers(plan: Plan, samples: Sequence[Sample], application: type[Event]) -> Answers:
    """Return samples as columns; `application` is the event type of the plan's application."""
    columns = fact_schema(application)
    asked = [one.question for one in samples]
    requests = Requests(
        as_of=np.array([one.as_of for one in samples], np.int64),
        cuts=cut_rows([one.cut for one in samples]),
        self_root=np.full(len(samples), -1, np.int64),
        entities={name: pa.array([q.entities.get(name) for q in asked], pa.string()) for name in key_names(plan)},
        fields=pa.table(
            {
                name: pa.array([q.fields.get(name) for q in asked], columns.field(name).type)
                for name in field_names(plan)
            }
        ),
    )
    return Answers(requests, [one.values for one in samples], [one.refusal for one in samples], [""] * len(samples))


def compare(plan: Plan, log: FactsSource, given: Answers, threads: int = 1) -> Comparison:
    """Compute every answer again from the log, at its own cut and instant, and compare the bits."""
    comparison = Comparison(len(given))
    if not len(given):
        return comparison
    timelines = timelines_of(log, plan, given.requests)
    for start in range(0, len(given), AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, len(given)))
        features, limits = compute(plan, timelines, given.requests.take(rows), threads)
        for row, feature, online, offline in _unequal(plan, given, start, features, limits):
            comparison.add(row, difference(given, row, feature, online, offline))
    return comparison


def _unequal(
    plan: Plan, given: Answers, start: int, features: Floats, limits: Mapping[int, str]
) -> Iterator[tuple[int, str, float | str, float | str]]:
    """Yield (row, feature, online, offline) of what differs among the answers from `start` on."""
    online = np.full_like(features, np.nan)
    apart = []
    for i in range(len(features)):
        values, refusal = given.values[start + i], given.refusals[start + i]
        if values is None or i in limits:
            if (values is None, refusal) != (i in limits, limits.get(i, "")):
                apart.append((i, refusal or "numbers", limits.get(i, "numbers")))
            features[i] = np.nan
        else:
            online[i] = values
    for i, one, other in apart:
        yield start + i, REFUSAL, one, other
    for i, column in np.argwhere(_bits(online) != _bits(features)).tolist():
        yield start + i, plan.names[column], float(online[i, column]), float(features[i, column])


def _bits(values: Floats) -> NDArray[np.int64]:
    """Return the bits of numbers, with one zero and one null."""
    return np.where(np.isnan(values), np.nan, values + 0.0).view(np.int64)


def difference(given: Answers, row: int, feature: str, online: float | str, offline: float | str) -> Difference:
    """Return a number that differs, with whom and when it is of."""
    requests = given.requests
    entities = {name: keys[row].as_py() for name, keys in requests.entities.items()}
    cut = dict(enumerate(requests.cuts[row if len(requests.cuts) > 1 else 0].tolist()))
    return Difference(feature, online, offline, int(requests.as_of[row]), cut, entities, given.names[row])
