"""Replay: every decision computed again from the log, through the offline path, and compared byte by byte.

The inputs that a record holds (cut, bundle, seed, rung, the chain's hash) are taken from it; everything else comes from
the log: the application and its as_of, the features (timelines and the backfill kernels, never the online state), the
score, the offer, the reasons, the derived id. The verdict is `identical`, `differs` with the names of the fields, or
`not replayable` with the reason. A broken chain is reported by `audit` and stops nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obligor.decisions.decide import Application, Scorer, decide
from obligor.decisions.policy import RUNGS, Policy, load_policy
from obligor.decisions.record import FORMAT, encode
from obligor.errors import ObligorError, Problem
from obligor.events.chain import BrokenLink
from obligor.events.facts import Facts
from obligor.events.log import EventLog
from obligor.events.positions import SHARD_MAX, Cut, cut_array, sequence_of
from obligor.events.store import LedgerRow
from obligor.features.backfill import backfill
from obligor.features.evaluate import evaluate
from obligor.features.lake import Lake
from obligor.features.plan import Plan
from obligor.features.requests import Requests
from obligor.features.timelines import build_timelines

__all__ = ["Audit", "Deployed", "Verdict", "audit", "replay"]

DECISIONS_MAX = 20_000  # replayed from one reading of the log; bounds memory
Progress = Callable[[int], None]


class Deployed(Scorer, Protocol):
    """What replay needs of a bundle: a scorer with its plan and its policy's bytes."""

    @property
    def plan(self) -> Plan:
        """What is computed of an applicant."""

    @property
    def policy(self) -> bytes:
        """The policy's TOML."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What replay found of one decision; `fields` name what differs (`features.repaid_30d`, `offer.amount`)."""

    decision_id: str
    verdict: Literal["identical", "differs", "not replayable"]
    fields: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class Audit:
    """A replay with the state of the chains: what was changed, and what it changes."""

    broken: tuple[BrokenLink, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def clean(self) -> bool:
        """Whether no link is broken and every decision is identical."""
        return not self.broken and all(one.verdict == "identical" for one in self.verdicts)


def audit(
    log: EventLog, bundles: Mapping[str, Deployed], *, threads: int = 2, progress: Progress | None = None
) -> Audit:
    """Verify the chains of log and ledger, then replay every decision, whatever the chains say.

    Each record also holds the log's link at the time: whoever rewrites the log and all its links after it breaks that.
    """
    broken = (*log.verify(), *_unanchored(log))
    return Audit(broken, tuple(replay(log, bundles, threads=threads, progress=progress)))


def _unanchored(log: EventLog) -> Iterator[BrokenLink]:
    """Yield the decisions whose recorded link is not that of the last block before their application."""
    for row in log.decisions():
        try:
            recorded = bytes.fromhex(json.loads(row.record)["chain"])
        except (ValueError, KeyError, TypeError):
            continue  # the record cannot be read, and replay says so
        if log.chain(row.application_position - 1) != recorded:
            message = f"the log before decision {row.decision_id!r} is not the one it was taken on"
            yield BrokenLink("ledger", row.sequence, message)


def replay(
    log: EventLog,
    bundles: Mapping[str, Deployed],
    decision_ids: Sequence[str] | None = None,
    *,
    at: Cut | None = None,
    threads: int = 2,
    progress: Progress | None = None,
    lake: Lake | None = None,
) -> list[Verdict]:
    """Return the verdict on each decision, by default on all in the ledger's order; NotFound for an unknown id.

    `bundles` by hash; a decision whose bundle is not among them is not replayable. With `at`, features are taken at
    that cut in place of the recorded one: what then differs is what later loads of history changed, which a training
    set at that cut sees and the decision did not. `progress` is told the number of decisions done since the last time.
    With a `lake` that has tables for a bundle's entities their facts are read from it, which is quicker for a few.
    """
    rows = log.decisions() if decision_ids is None else iter([log.decision(one) for one in decision_ids])
    verdicts: list[Verdict] = []
    while batch := list(islice(rows, DECISIONS_MAX)):
        verdicts += _Batch(log, bundles, at, threads, lake).replay(batch)
        if progress is not None:
            progress(len(batch))
    return verdicts


@dataclass(frozen=True, slots=True)
class _Taken:
    """One ledger row, its record read."""

    row: LedgerRow
    record: Mapping[str, Any]

    @property
    def cut(self) -> dict[int, int]:
        return {int(shard): sequence for shard, sequence in self.record["cut"].items()}


class _Batch:
    """Decisions that are replayed from one reading of the log, bundle by bundle."""

    def __init__(
        self, log: EventLog, bundles: Mapping[str, Deployed], at: Cut | None, threads: int, lake: Lake | None
    ) -> None:
        self._log, self._bundles, self._at, self._threads, self._lake = log, bundles, at, threads, lake
        self._verdicts: dict[int, Verdict] = {}  # by ledger sequence

    def replay(self, rows: Sequence[LedgerRow]) -> list[Verdict]:
        by_bundle: dict[str, list[_Taken]] = {}
        for row in rows:
            record = self._read(row)
            if record is not None:
                by_bundle.setdefault(record["bundle"], []).append(_Taken(row, record))
        for name, taken in by_bundle.items():
            self._bundle(name, taken)
        return [self._verdicts[row.sequence] for row in rows]

    def _read(self, row: LedgerRow) -> Mapping[str, Any] | None:
        """Return the record, or None once the verdict is that it cannot be read."""
        try:
            record = json.loads(row.record)
            _check(record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._refuse([row], f"the record cannot be read: {error}")
            return None
        return dict(record)

    def _refuse(self, rows: Iterable[LedgerRow], why: str) -> None:
        for row in rows:
            self._verdicts[row.sequence] = Verdict(row.decision_id, "not replayable", (), why)

    def _bundle(self, name: str, taken: Sequence[_Taken]) -> None:
        rows = [one.row for one in taken]
        if name not in self._bundles:
            return self._refuse(rows, f"the bundle {name} is not here")
        bundle = self._bundles[name]
        try:
            application = self._log.registry[bundle.plan.application]
            policy = load_policy(bundle.policy, bundle.plan.data, application.describe())
            found = _Applications.read(self._log, bundle.plan.application, [r.application_position for r in rows])
            here = [one for one in taken if one.row.application_position in found.places]
            self._refuse((r for r in rows if r.application_position not in found.places), "its application is missing")
            cuts = [one.cut if self._at is None else self._at for one in here]
            requests = found.requests(bundle.plan, [one.row.application_position for one in here], cuts)
            features, limits = _features(self._log, self._lake, bundle.plan, requests, self._threads)
        except ObligorError as error:
            return self._refuse(rows, str(error))
        for i, one in enumerate(here):
            vector, limit = (None, limits[i]) if i in limits else (features[i], "")
            self._verdicts[one.row.sequence] = _judge(self._log, bundle, policy, found, one, vector, limit)
        return None


def _check(record: Mapping[str, Any]) -> None:
    """Raise ValueError, KeyError, TypeError or AttributeError where a record is not of this format."""
    if record["format"] != FORMAT:
        raise ValueError(f"its format is {record['format']!r}, this version reads {FORMAT}")
    if record["rung"] not in RUNGS or not isinstance(record["bundle"], str) or not isinstance(record["seed"], int):
        raise ValueError("its rung, bundle or seed is not of the expected kind")
    bytes.fromhex(record["chain"])
    for shard, sequence in record["cut"].items():
        if not 0 <= int(shard) <= SHARD_MAX or not isinstance(sequence, int) or sequence < 0:
            raise ValueError(f"its cut is {record['cut']!r}")


@dataclass(frozen=True, eq=False)
class _Applications:
    """The original versions of applications, by position."""

    table: pa.Table
    places: Mapping[int, int]
    rows: Sequence[Mapping[str, Any]]
    fields: frozenset[str]

    @classmethod
    def read(cls, log: EventLog, type_name: str, positions: Iterable[int]) -> _Applications:
        """Read them; positions that hold no application of this type are left out."""
        last = log.head.sequence
        sequences = sorted({sequence_of(p) for p in positions if 0 < sequence_of(p) <= last})
        table = log.reader.rows(sequences).get(type_name, pa.table({"sequence": pa.array([], pa.int64())}))
        table = table.append_column("position", table.column("sequence"))  # shard 0
        places = {position: i for i, position in enumerate(table.column("position").to_pylist())}
        return cls(table, places, table.to_pylist(), frozenset(log.registry[type_name].fields))

    def application(self, position: int, type_name: str) -> tuple[Application, int]:
        """Return the application at a position and its as_of."""
        row = self.rows[self.places[position]]
        fields = {name: value for name, value in row.items() if name.partition(".")[0] in self.fields}
        return Application(row["event_id"], type_name, position, fields), row["known_time"]

    def requests(self, plan: Plan, positions: Sequence[int], at: Sequence[Cut]) -> Requests:
        """Return what to ask of the plan for the applications at these positions, each at its cut."""
        table = self.table.take(pa.array([self.places[position] for position in positions], pa.int64()))
        bounds = [cut_array(cut) for cut in at]
        cuts = np.zeros((len(at), max(map(len, bounds), default=1)), np.int64)
        for i, bound in enumerate(bounds):
            cuts[i, : len(bound)] = bound
        names = dict.fromkeys(spec.name for spec in plan.requests if spec.source != "calendar")
        return Requests(
            as_of=_int64s(table, "known_time"),
            cuts=cuts,
            self_root=_int64s(table, "position"),
            entities={via: _column(table, via).cast(pa.string()).combine_chunks() for via in _vias(plan)},
            fields=pa.table({name: _column(table, name) for name in names}),
        )


def _int64s(table: pa.Table, name: str) -> Any:
    return np.ascontiguousarray(table.column(name).to_numpy(), np.int64)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column, all null where the blocks of these rows were written before the field existed."""
    if name in table.column_names:
        return table.column(name)
    return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])


def _vias(plan: Plan) -> dict[str, str]:
    """Return the timeline that each of the application's key fields leads to."""
    return {measure.via: measure.timeline for measure in plan.measures}


def _features(
    log: EventLog, lake: Lake | None, plan: Plan, requests: Requests, threads: int
) -> tuple[Any, dict[int, str]]:
    """Return the features of decisions, (n, features), and for rows that crossed a limit its message.

    Decisions that computed none (rung `refer`) have a row like the others; nobody looks at it.
    """
    problems: dict[int, Problem] = {}
    if lake is not None and lake.covers(plan):
        features = backfill(plan, lake, requests, threads, limits=problems)
    else:
        cut = {shard: int(last) for shard, last in enumerate(requests.cuts.max(axis=0, initial=0))}
        timelines = build_timelines(plan, _Concerned(log, plan, requests), cut)
        features = evaluate(plan, timelines, requests, threads, limits=problems)
    return features, {
        row: str(Problem("$" + p.path.removeprefix(f"$[{row}]"), p.message)) for row, p in problems.items()
    }


class _Concerned:
    """The log's facts about the entities of some requests only, so that one replay need not sort the whole log."""

    def __init__(self, log: EventLog, plan: Plan, requests: Requests) -> None:
        self._log = log
        keys: dict[str, list[pa.Array]] = {}
        for via, timeline in _vias(plan).items():
            keys.setdefault(timeline, []).append(requests.entities[via])
        values = {name: pc.drop_null(pc.unique(pa.concat_arrays(arrays))) for name, arrays in keys.items()}
        self._entrances: dict[str, dict[str, list[pa.Array]]] = {}
        for name, spec in plan.timelines.items():
            for selection in spec.selections:
                by_field = self._entrances.setdefault(selection.event, {}).setdefault(selection.by, [])
                by_field.append(values.get(name, pa.array([], pa.string())))

    def facts(self, type_name: str, cut: dict[int, int] | None = None, columns: list[str] | None = None) -> Facts:
        """Return the log's facts of a type, reduced to those about the entities."""
        facts = self._log.facts(type_name, cut, columns)
        concerned = np.zeros(facts.rows.num_rows, np.bool_)
        for by, values in self._entrances[type_name].items():
            names = facts.rows.column(by).cast(pa.string())
            for value_set in values:
                concerned |= pc.is_in(names, value_set=value_set).to_numpy()
        return Facts(facts.rows.filter(pa.array(concerned)), facts.version[concerned], facts.versions)


def _judge(
    log: EventLog,
    bundle: Deployed,
    policy: Policy,
    found: _Applications,
    taken: _Taken,
    vector: Any,
    limit: str,
) -> Verdict:
    """Decide again and compare."""
    row, record = taken.row, taken.record
    application, as_of = found.application(row.application_position, bundle.plan.application)
    computed = record["rung"] != "refer"
    try:
        decision = decide(
            application,
            vector if computed else None,
            bundle,
            policy,
            as_of=as_of,
            cut=taken.cut,
            seed=record["seed"],
            rung=record["rung"],
            limit=limit if computed else "",
        )
        again = encode(decision, log_id=log.id, bundle=record["bundle"], chain=bytes.fromhex(record["chain"]))
    except (ObligorError, AssertionError) as error:
        return Verdict(row.decision_id, "not replayable", (), f"it can no longer be decided: {error}")
    fields = [] if again == row.record else list(_differences(record, json.loads(again), policy.feature_names))
    if json.loads(again)["decision_id"] != row.decision_id and "decision_id" not in fields:
        fields.append("decision_id")
    if again != row.record and not fields:
        fields = ["encoding"]
    return Verdict(row.decision_id, "differs" if fields else "identical", tuple(fields))


def _differences(record: Mapping[str, Any], again: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """Yield the paths at which two records differ; features by name."""
    for key in sorted(record.keys() | again.keys()):
        one, other = record.get(key), again.get(key)
        if _same(one, other):
            continue
        if key == "features" and isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            same = [_same(a, b) for a, b in zip(one, other, strict=True)]
            yield from (f"features.{name}" for name, equal in zip(names, same, strict=False) if not equal)
        elif isinstance(one, dict) and isinstance(other, dict):
            inner = sorted(one.keys() | other.keys())
            yield from (f"{key}.{part}" for part in inner if not _same(one.get(part), other.get(part)))
        else:
            yield key


def _same(one: object, other: object) -> bool:
    """Whether two values have the same JSON; 1 and 1.0 do not."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
