"""Training sets: every application with what was known of it when it asked, and what became of it.

One row per application in its original version (the one that was decided on), as_of its known_time, features from the
snapshot's cut. Nothing is dropped: immature, declined and excluded rows stay with their status. Where a cut-off is
given, rows whose outcome had matured by then take it as it was known then; all others as known at seen_at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from obligor.credit.facts import texts
from obligor.credit.outcomes import evaluate_outcomes
from obligor.errors import BadInput, DefinitionError, Problem, did_you_mean
from obligor.events.fields import Money, parse_timestamp
from obligor.events.lineage import withheld
from obligor.features.backfill import backfill
from obligor.features.calendar import offset_seconds, utc_of_local
from obligor.features.evaluate import evaluate
from obligor.features.plan import FeatureSpec, Plan
from obligor.features.requests import Requests, cut_rows, key_names
from obligor.features.timelines import build_timelines

if TYPE_CHECKING:
    import polars

    from obligor.credit.definitions import Outcome
    from obligor.features.lake import Lake

__all__ = ["TrainingSet", "local_instant", "local_months", "training_set"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Progress = Callable[[str, int, int], None]

ROWS_MAX = 2**31 - 1  # applications in one training set
_LIMIT_STATUS = "excluded:feature limit"


@dataclass(frozen=True)
class TrainingSet:
    """n applications; `bad` is NaN unless the status is `matured`."""

    plan: Plan
    features: Floats  # (n, features), NaN for null
    root: Ints  # (n,) position of the application
    application_id: tuple[str, ...]  # (n,)
    as_of: Ints  # (n,) microseconds
    matured_at: Ints  # (n,) when the outcome is known
    status: NDArray[np.str_]  # (n,)
    bad: Floats  # (n,) 1, 0 or NaN
    weights: Floats  # (n,)
    fields: pa.Table  # (n rows) the application's stored fields, for segments
    limits: Mapping[int, Problem]  # row -> why it has no features
    score: FeatureSpec | None = None  # of a sequence, the last of the features, behind the plan's own

    def __post_init__(self) -> None:
        n = len(self.as_of)
        assert self.features.shape == (n, len(self.specs))
        assert len(self.root) == len(self.application_id) == len(self.matured_at) == n
        assert len(self.status) == len(self.bad) == len(self.weights) == self.fields.num_rows == n
        assert not np.isnan(self.bad[self.matured]).any()

    def __len__(self) -> int:
        return len(self.as_of)

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """What the features are: the plan's, and the score where there is one."""
        return self.plan.features if self.score is None else (*self.plan.features, self.score)

    @cached_property
    def matured(self) -> Bools:
        """Which rows have an outcome."""
        found: Bools = self.status == "matured"
        return found

    @cached_property
    def limited(self) -> Bools:
        """Which rows have no features, so that no score says anything of them."""
        found = np.zeros(len(self), np.bool_)
        found[list(self.limits)] = True
        return found

    @cached_property
    def names(self) -> list[str]:
        """The features' names."""
        return [spec.name for spec in self.specs]

    @cached_property
    def months(self) -> NDArray[np.str_]:
        """The month of each as_of in the plan's zone, such as `2026-01`."""
        return local_months(self.plan, self.as_of)

    @cached_property
    def sha256(self) -> str:
        """The hash of everything that is learned from: positions, instants, features, statuses, outcomes, weights."""
        digest = hashlib.sha256(self.plan.canonical)
        digest.update("\n".join(self.status.tolist()).encode())
        for array in (self.root, self.as_of, self.matured_at, self.features, self.bad, self.weights):
            digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    @cached_property
    def frame(self) -> polars.DataFrame:
        """The rows as a polars frame: ids, as_of, status, bad, days, weight, every feature; NaN shown as null."""
        import polars as pl

        columns: dict[str, Any] = {
            "application_id": list(self.application_id),
            "position": self.root,
            "as_of": pl.Series(self.as_of).cast(pl.Datetime("us", "UTC")),
            "status": self.status.tolist(),
            "bad": self.bad,
            "matured_at": pl.Series(self.matured_at).cast(pl.Datetime("us", "UTC")),
            "weight": self.weights,
            **{f"feature.{name}": self.features[:, i] for i, name in enumerate(self.names)},
        }
        return pl.DataFrame(columns).with_columns(pl.col(pl.Float64).fill_nan(None))

    def take(self, mask: Bools) -> TrainingSet:
        """Return the rows where the mask is true."""
        return self._rows(np.flatnonzero(mask))

    def in_time(self) -> TrainingSet:
        """Return the rows in the order of as_of, then of their ids.

        What is learned depends on the order of rows, in its last bits, and this one is the same whatever loads and
        shards brought the events.
        """
        asked = pa.table({"as_of": self.as_of, "id": pa.array(self.application_id, pa.string())})
        order = pc.sort_indices(asked, [("as_of", "ascending"), ("id", "ascending")]).to_numpy()
        return self if (np.diff(order) == 1).all() else self._rows(order)

    def _rows(self, rows: Ints) -> TrainingSet:
        place = {int(row): i for i, row in enumerate(rows)} if self.limits else {}
        return replace(
            self,
            features=self.features[rows],
            root=self.root[rows],
            application_id=tuple(self.application_id[row] for row in rows),
            as_of=self.as_of[rows],
            matured_at=self.matured_at[rows],
            status=self.status[rows],
            bad=self.bad[rows],
            weights=self.weights[rows],
            fields=self.fields.take(pa.array(rows)),
            limits={place[row]: problem for row, problem in self.limits.items() if row in place},
        )

    def with_score(self, score: FeatureSpec, values: Floats) -> TrainingSet:
        """Return the rows with a score behind the plan's features; values (n,)."""
        assert self.score is None
        return replace(self, features=np.column_stack([self.features, values]), score=score)

    def requests(self, cut: Mapping[int, int]) -> Requests:
        """Return the rows as what was asked at the snapshot's cut."""
        return _requests(self.plan, self.fields, self.as_of, self.root, cut)

    def segment(self, name: str) -> NDArray[np.str_] | Floats:
        """Return a feature (numbers, or a category's texts) or a field of the application, by name."""
        if name in self.names:
            index = self.names.index(name)
            spec, values = self.specs[index], self.features[:, index]
            return values if spec.type != "category" else _texts(values, spec.values or ())
        if name not in self.fields.column_names:
            valid = [*self.names, *self.fields.column_names]
            raise DefinitionError(f"segments: no feature or field {name!r}; {did_you_mean(name, valid)}")
        column = self.fields.column(name)
        if pa.types.is_integer(column.type):
            numbers: Floats = column.cast(pa.float64()).to_numpy()
            return numbers
        return np.array(pc.fill_null(column.cast(pa.string()), "(null)").to_pylist(), dtype=np.str_)


def training_set(
    plan: Plan,
    outcome: Outcome,
    log: Any,
    *,
    cut: Mapping[int, int] | None = None,
    seen_at: int,
    cutoff_us: int | None = None,
    threads: int = 2,
    progress: Progress = lambda step, done, total: None,
    lake: Lake | None = None,
) -> TrainingSet:
    """Return the training set of a snapshot, in time: the log up to `cut` (None: all), outcomes as known at `seen_at`.

    Timelines are read from the `lake` where it has tables for the plan's entities, else made from the log, in memory.
    """
    if outcome.application.event_name != plan.application:
        raise DefinitionError(
            f"the plan is for {plan.application!r}, the outcome for {outcome.application.event_name!r}"
        )
    snapshot = dict(log.cut() if cut is None else cut)
    progress("outcomes", 0, 4)
    status, bad, known = _outcomes(outcome, log, snapshot, seen_at, cutoff_us)
    progress("applications", 1, 4)
    facts = log.facts(plan.application, snapshot, _disclosed(outcome))
    fields = _original_rows(facts, known.column("root"))
    progress("timelines", 2, 4)
    requests = _requests(plan, fields, _ints(known, "as_of"), _ints(known, "root"), snapshot)
    limits: dict[int, Problem] = {}
    if lake is not None and lake.covers(plan):
        features = backfill(plan, lake, requests, threads, limits=limits)
    else:
        timelines = build_timelines(plan, log, snapshot)
        progress("features", 3, 4)
        features = evaluate(plan, timelines, requests, threads, limits=limits)
    status[list(limits)], bad[list(limits)] = _LIMIT_STATUS, np.nan
    progress("features", 4, 4)
    return TrainingSet(
        plan=plan,
        features=features,
        root=requests.self_root,
        application_id=tuple(known.column("event_id").to_pylist()),
        as_of=requests.as_of,
        matured_at=_ints(known, "matured_at"),
        status=status.astype(np.str_),
        bad=bad,
        weights=np.ones(len(known)),
        fields=fields.drop_columns([c for c in _PLATFORM if c in fields.column_names]),
        limits=limits,
    ).in_time()


def _requests(plan: Plan, fields: pa.Table, as_of: Ints, root: Ints, cut: Mapping[int, int]) -> Requests:
    """Return applications as what was asked of a plan at one cut."""
    return Requests(
        as_of=as_of,
        cuts=cut_rows([cut]),
        self_root=root,
        entities={name: texts(fields, name) for name in key_names(plan)},
        fields=fields,
    )


_PLATFORM = ("position", "known", "root", "event_time", "event_id")


def _disclosed(outcome: Outcome) -> list[str]:
    """Return the application's columns that may leave the log: neither personal nor protected, under no name."""
    names: list[str] = []
    for name, field in outcome.application.readable.items():
        if not withheld(outcome.application, name):
            several = isinstance(field, Money) and len(field.currencies) > 1
            names += [name, f"{name}.currency"] if several else [name]
    return names


def _outcomes(
    outcome: Outcome, log: Any, cut: Mapping[int, int], seen_at: int, cutoff_us: int | None
) -> tuple[NDArray[np.object_], Floats, pa.Table]:
    """Return status, bad and the table of outcomes; what had matured by the cut-off as it was known then."""
    table = evaluate_outcomes(outcome, log, cut=cut, seen_at=seen_at)
    if not len(table):
        raise BadInput("no application was known by then: ingest some first (obligor ingest)")
    if len(table) > ROWS_MAX:
        raise BadInput(f"expected at most {ROWS_MAX:,} applications known by then, got {len(table):,}")
    status, bad = _status_and_bad(table)
    if cutoff_us is not None and cutoff_us < seen_at:
        then = evaluate_outcomes(outcome, log, cut=cut, seen_at=cutoff_us)
        old = _ints(then, "matured_at") <= cutoff_us
        place = np.searchsorted(_ints(table, "root"), _ints(then, "root")[old])  # both are in the order of roots
        status_then, bad_then = _status_and_bad(then)
        status[place], bad[place] = status_then[old], bad_then[old]
    return status, bad, table


def _status_and_bad(table: pa.Table) -> tuple[NDArray[np.object_], Floats]:
    status = np.array(table.column("status").to_pylist(), dtype=object)
    bad: Floats = table.column("bad").cast(pa.float64()).to_numpy().copy()
    return status, bad


def _original_rows(facts: Any, roots: pa.ChunkedArray) -> pa.Table:
    """Return the original version of each application, in the order of `roots`.

    An original stands at its root's position. So does a correction that arrived before it; the original ranks lowest,
    so of the two it is the one with more versions above.
    """
    rows = facts.rows
    version = np.asarray(facts.version, dtype=np.int64)
    above = np.zeros(len(rows), dtype=np.int64)
    versioned = version >= 0
    above[versioned] = (facts.versions.end - facts.versions.start)[version[versioned]]
    at_root = np.flatnonzero(np.asarray(pc.equal(rows.column("position"), rows.column("root"))))
    root = _ints(rows, "root")[at_root]
    order = at_root[np.lexsort((-above[at_root], root))]
    ranked = _ints(rows, "root")[order]
    first = np.searchsorted(ranked, np.asarray(roots), side="left")
    assert (ranked[first] == np.asarray(roots)).all(), "an outcome without its application"
    return rows.take(pa.array(order[first]))


def _ints(table: pa.Table, column: str) -> Ints:
    values: Ints = np.ascontiguousarray(table.column(column).to_numpy(), dtype=np.int64)
    return values


def _texts(codes: Floats, values: tuple[str, ...]) -> NDArray[np.str_]:
    names = np.array([*values, "(unknown)", "(null)"], dtype=np.str_)
    found: NDArray[np.str_] = names[np.where(np.isnan(codes), len(values) + 1, codes).astype(np.int64)]
    return found


def local_months(plan: Plan, moments_us: Ints) -> NDArray[np.str_]:
    """Return the month of each moment in the plan's zone, such as `2026-01`."""
    local = moments_us + 1_000_000 * offset_seconds(plan.zone_offsets, moments_us)
    return np.datetime_as_string(local.astype("datetime64[us]"), unit="M")


def local_instant(plan: Plan, text: str) -> int:
    """Return microseconds UTC of a date (midnight in the plan's zone) or of an RFC 3339 timestamp.

    >>> local_instant(Plan.empty("loan_application"), "1970-01-02")
    86400000000
    """
    if "T" in text:
        try:
            return parse_timestamp(text)
        except ValueError as error:
            raise DefinitionError(str(error)) from None
    try:
        local_s = (date.fromisoformat(text) - date(1970, 1, 1)) // timedelta(seconds=1)  # numpy knows a "today"
    except ValueError:
        raise DefinitionError(f"expected a date such as 2026-01-31 or an RFC 3339 timestamp, got {text!r}") from None
    return int(utc_of_local(plan.zone_offsets, np.array([local_s]))[0])
