"""Replay: every decision computed again from the log, through the offline path, and compared byte by byte.

The inputs that a record holds (cut, bundle, seed, rung, the cut and instant of cached features, the chain's hash) are
taken from it; everything else comes from the log: the application and its as_of, the features (timelines and the
backfill kernels, never the online state), the score, the offer, the reasons, the derived id. The verdict is
`identical`, `differs` with the names of the fields, or `not replayable` with the reason. A broken chain is reported by
`audit` and stops nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol

from obligor.decisions.decide import Scorer, decide
from obligor.decisions.policy import Policy, load_policy
from obligor.decisions.record import encode
from obligor.decisions.recorded import Applications, Recorded
from obligor.decisions.vectors import Planned, vectors_of
from obligor.errors import BadInput, ObligorError
from obligor.events.chain import BrokenLink
from obligor.events.log import EventLog
from obligor.events.positions import Cut
from obligor.events.store import LedgerRow
from obligor.features.lake import Lake

__all__ = ["Audit", "Deployed", "Verdict", "audit", "replay"]

DECISIONS_MAX = 20_000  # replayed from one reading of the log; bounds memory
Progress = Callable[[int], None]


class Deployed(Scorer, Planned, Protocol):
    """What replay needs of a bundle: a scorer with what it scores and its policy's bytes."""

    @property
    def described(self) -> Mapping[str, Any]:
        """The plan's data with all features, a sequence's score the last."""

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


class _Batch:
    """Decisions that are replayed from one reading of the log, bundle by bundle."""

    def __init__(
        self, log: EventLog, bundles: Mapping[str, Deployed], at: Cut | None, threads: int, lake: Lake | None
    ) -> None:
        self._log, self._bundles, self._at, self._threads, self._lake = log, bundles, at, threads, lake
        self._verdicts: dict[int, Verdict] = {}  # by ledger sequence

    def replay(self, rows: Sequence[LedgerRow]) -> list[Verdict]:
        by_bundle: dict[str, list[Recorded]] = {}
        for row in rows:
            try:
                one = Recorded.read(row)
            except BadInput as error:
                self._refuse([row], str(error))
            else:
                by_bundle.setdefault(one.record["bundle"], []).append(one)
        for name, taken in by_bundle.items():
            self._bundle(name, taken)
        return [self._verdicts[row.sequence] for row in rows]

    def _refuse(self, rows: Iterable[LedgerRow], why: str) -> None:
        for row in rows:
            self._verdicts[row.sequence] = Verdict(row.decision_id, "not replayable", (), why)

    def _bundle(self, name: str, taken: Sequence[Recorded]) -> None:
        rows = [one.row for one in taken]
        if name not in self._bundles:
            return self._refuse(rows, f"the bundle {name} is not here")
        bundle = self._bundles[name]
        try:
            application = self._log.registry[bundle.plan.application]
            policy = load_policy(bundle.policy, bundle.described, application.describe(readable=True))
            found = Applications.read(self._log, bundle.plan.application, [r.application_position for r in rows])
            here = [one for one in taken if one.row.application_position in found.places]
            self._refuse((r for r in rows if r.application_position not in found.places), "its application is missing")
            seen = [one.seen if self._at is None else one.seen._replace(cut=self._at) for one in here]
            requests = found.requests(bundle.plan, [one.row.application_position for one in here], seen)
            features, limits = vectors_of(self._log, bundle, requests, self._threads, self._lake)
        except ObligorError as error:
            return self._refuse(rows, str(error))
        for i, one in enumerate(here):
            vector, limit = (None, limits[i]) if i in limits else (features[i], "")
            self._verdicts[one.row.sequence] = _judge(self._log, bundle, policy, found, one, vector, limit)
        return None


def _judge(
    log: EventLog,
    bundle: Deployed,
    policy: Policy,
    found: Applications,
    taken: Recorded,
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
            cached=taken.cached,
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
