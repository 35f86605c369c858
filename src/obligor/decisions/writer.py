"""The writer: a batch of requests becomes one durable commit of events, applications, decisions and ledger rows.

In the order of the items: events are staged; an application is staged, its features are computed from the state with
everything staged before it, it is decided, and its decision is staged as an event, so that the next application of the
same consumer meets the exposure of this one. Then the log commits, and only then does anybody hear of it. The state
follows with the log's position, before the next item is looked at. An item that fails is undone alone.

Where the log has several shards this writes one of them, and before each batch takes in what the others have committed:
a decision's cut is what its state stands for, in all shards.

Where the state is gone (a store that is far away may be) the writer does not wait for it: what is under way is taken
again without it, events go on, applications are decided on the ladder's lower rungs, and a `Recovery` brings it back.

`as_of` is the application's known_time, which the log assigns; the clock is given, never chosen by callers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from obligor.decisions.cached import Cache
from obligor.decisions.decide import Application, Cached, Decision, Scorer, decide
from obligor.decisions.decided import decided_batch
from obligor.decisions.intake import Unavailable
from obligor.decisions.items import ApplicationItem, Decided, EventsItem, Item, Misdirected, NotTaken, Result
from obligor.decisions.metrics import Metrics
from obligor.decisions.openapi import example
from obligor.decisions.policy import Policy, Rung
from obligor.decisions.record import decision_id, derive_seed, encode
from obligor.decisions.recovery import Recovery
from obligor.decisions.rehearsal import Rehearsal
from obligor.decisions.routes import Routes
from obligor.errors import BadInput, Conflict, LimitError, ObligorError, Problem
from obligor.events.batch import Batch
from obligor.events.changes import Changes
from obligor.events.fields import Entity
from obligor.events.log import ClockSkew, EventLog
from obligor.events.positions import Cut, is_within
from obligor.events.reading import read_rows
from obligor.events.records import parse_records
from obligor.events.store import IdTaken
from obligor.events.transaction import Transaction
from obligor.features.online import evaluate_one, fetch, finish_one
from obligor.features.plan import Plan
from obligor.features.state import Head, OnlineState, StagedState, StateMisfit
from obligor.features.state_store import StateGone
from obligor.features.tails import warm_up
from obligor.sequences.coalitions import Coalitions

if TYPE_CHECKING:
    from obligor.sequences.online import OnlineScore
    from obligor.sequences.score import SequenceScore

__all__ = [
    "REBUILDS_MAX",
    "Application",
    "Trust",
    "Writer",
]

_log = logging.getLogger("obligor.state")

REBUILDS_MAX = 3  # of the state, in one writer's life
TAKEN_MAX = 3  # times that a batch is begun again because other shards took its ids meanwhile

UNSEEN_MAX = 10_000  # requests whose freshness is measured once the state is back
EXPIRY_ENTRIES = 256  # of the state, that are looked at together
EXPIRY_PAUSE_S = 1.0  # until the next are

# What computing one item can raise; anything else (the disk, memory) is the writer's own failure and stops it.
_ITEM_FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, ObligorError, TypeError, ValueError)
_FINE = frozenset({"accepted", "duplicate"})

# Whether decisions rest on the state. While it is suspect they are refused, so that callers ask again once it has been
# rebuilt; once it is lost, because a rebuilt one differs too, they are referred on the ladder's last rung.
Trust = Literal["sound", "suspect", "lost"]
T = TypeVar("T")


class _Grounds(NamedTuple):
    """What a decision rests on."""

    rung: Rung
    features: list[float] | None = None
    limit: str = ""  # the one that was crossed while computing them
    cached: Cached | None = None


@dataclass
class _Staged:
    """One batch under way."""

    tx: Transaction
    state: StagedState | None  # None while it is gone
    decided: dict[str, Decided] = field(default_factory=dict)
    taken: list[Decision] = field(default_factory=list)


class Writer:
    """The one writer of a log and its online state."""

    def __init__(
        self,
        log: EventLog,
        state: OnlineState,
        *,
        plan: Plan,
        scorer: Scorer,
        policy: Policy,
        bundle: str,
        clock: Callable[[], int],
        metrics: Metrics,
        sequence: SequenceScore | None = None,
        routes: Routes | None = None,
    ) -> None:
        """`bundle` is the hash of what plan, scorer and policy come from; `clock` gives microseconds since 1970.

        `sequence` is the score behind the plan's features, if the scorer sees one; then its encoder's states are folded
        in the state. `routes` says which shard an application is to be decided by; None: this one decides all.
        """
        self._log, self._state, self._clock, self._metrics = log, state, clock, metrics
        self._plan, self._scorer, self._policy, self._bundle = plan, scorer, policy, bundle
        self._sequence = sequence
        self._online = None if sequence is None else _online(sequence, plan)
        self._routes = routes
        self._application = log.registry[plan.application]
        readable = self._application.readable
        self._entities = [name for name, one in readable.items() if isinstance(one, Entity)]
        self.applied: Cut = {}  # what the state stands for
        self.trust: Trust = "sound"
        self._rebuilds = 0
        self._unseen: list[float] = []  # when what is durable and not yet in the state was accepted
        self._unsettled: StagedState | None = None  # its log transaction is durable, `_trailing` is to be applied
        self._trailing: Changes
        self._expired_s = time.monotonic()  # when rows that no window reaches were last looked for
        self._recovery: Recovery | None = None  # while the state is gone
        self._cache = None if policy.caching is None else Cache(plan, policy.caching, self._online)
        self._to_keep: list[Application] = []  # decided by the last batch in full

    # -- state

    @property
    def cached(self) -> int:
        """How many applicants the rung `cached` is there for."""
        return 0 if self._cache is None else len(self._cache)

    @property
    def state_gone(self) -> bool:
        """Whether decisions are taken without the state, because it cannot be reached or is being brought back."""
        return self._recovery is not None

    def catch_up(self, *, from_lake: bool = True) -> None:
        """Bring the state to the end of the log; from the start where it is of another log or of none."""
        try:
            with self._timed("catch_up"):
                self.applied = self._state.catch_up(self._log, from_lake=from_lake)
            self._seen()
        except StateGone as error:
            self._lose(error)

    def _lose(self, error: StateGone) -> None:
        """Go on without the state until it has been brought back."""
        self._metrics.failure(type(error).__name__)
        _log.error("decisions go on without online state: %s", error)
        self._recovery = Recovery(self._log, self._state)

    def regain(self) -> None:
        """Take the state back where it has been brought back; what is missing yet is little."""
        if self._recovery is None or not self._recovery.done:
            return
        reached, self._recovery = self._recovery.reached, None
        try:
            head = self._state.head
        except StateGone as error:
            self._lose(error)
            return
        if head is not None and is_within(reached, head.cut):
            self.catch_up()
        else:  # it went again: building it takes long, and is nothing for the writer
            self._recovery = Recovery(self._log, self._state)

    def stop(self) -> None:
        """End what runs beside the writer, before the state is anybody else's."""
        if self._recovery is not None:
            self._recovery.stop()

    def follow(self) -> None:
        """Take in what the other shards have committed; ClockSkew where one's clock is far ahead."""
        if self._log.shards == 1:
            return
        self.settle()
        before = self._log.cut()
        if self._log.follow(self._clock()):
            try:
                self._take_in(before)
            except StateGone as error:
                self._lose(error)
            except StateMisfit as error:
                self._metrics.failure(type(error).__name__)
                self._rebuild()
        if self._log.arrived:  # what corrections of this shard waited for
            self._batch_or_without([])
            self.settle()

    def _take_in(self, before: Cut) -> None:
        """Have the state, and what is cached, follow what other shards have committed since a cut."""
        if self._recovery is not None:
            for changes in self._log.changes(before) if self._cache is not None else ():
                self._follow(None, changes)
            return
        for changes in self._log.changes(self.applied):
            with self._state.begin() as state, self._timed("follow"):
                self._follow(state, changes)
                state.commit(Head.at(self._log, changes.cut, changes.chains))
            self.applied = changes.cut

    def _seen(self) -> None:
        """Measure how long it took until decisions see what was accepted."""
        now_s = time.perf_counter()
        for accepted_s in self._unseen:
            self._metrics.freshness(now_s - accepted_s)
        self._unseen.clear()

    def look(self, task: Callable[[StagedState, Cut, int], T]) -> T:
        """Call `task` with the state as it stands, its cut, and the present instant, after everything in the log.

        What the task does to the state is dropped. Unavailable where the state is behind the log.
        """
        self.settle()
        self.regain()
        if self._recovery is not None or self.applied != self._log.cut():
            raise Unavailable("the online state is behind the log")
        try:
            with self._state.begin() as staged:
                return task(staged, self.applied, max(self._clock(), self._log.last_seen_us))
        except StateGone as error:
            self._lose(error)
            raise Unavailable("the online state is gone") from error

    def rebuild(self) -> None:
        """Build the state anew, within the bound on how often; for when what it holds is in doubt."""
        self.settle()
        self._rebuild()

    def _rebuild(self) -> None:
        """Build the state anew, from the log, because the lake may be what it was wrong with.

        Not again and again: what a new state does not fit is the item's fault.
        """
        if self._cache is not None:
            self._cache.clear()
        if self._rebuilds < REBUILDS_MAX and self._recovery is None:
            self._rebuilds += 1
            try:
                self._state.clear()
            except StateGone as error:
                self._lose(error)
            else:
                self.catch_up(from_lake=False)

    def warm_up(self) -> None:
        """Compute once all that a decision needs and forget it, so that no request waits for code to load."""
        record = example(self._application) | {"event_id": "warm-up of the writer"}
        batch, problems = parse_records(self._log.registry, record, commitment_key=self._log.commitment_key)
        assert not problems, f"an example that is no valid event: {problems}"
        warm_up()
        for kept in (False, True):
            nobody = Rehearsal.of(self._plan, kept)
            evaluate_one(self._plan, nobody, 1, -1, dict.fromkeys(self._entities, "nobody"), {})
        if self._online is not None:
            self._online.warm_up()
        try:
            self._rehearse(batch)
        except StateGone as error:
            self._lose(error)

    def _rehearse(self, batch: Batch) -> None:
        """Decide on an application and drop all of it."""
        rehearsal = Writer(
            self._log,
            self._state,
            plan=self._plan,
            scorer=self._scorer,
            policy=self._policy,
            bundle=self._bundle,
            clock=self._clock,
            metrics=Metrics(),
            sequence=self._sequence,
        )
        with ExitStack() as undo:
            tx = undo.enter_context(self._log.begin(self._clock()))
            staged = _Staged(tx, self._begun(undo))
            rehearsal._item(staged, ApplicationItem(batch))
            rehearsal._apply(staged)

    # -- batches

    def process(self, items: Sequence[Item]) -> list[Result | ObligorError]:
        """Commit the items and return a result for each; an error is the result of an item that was refused.

        Raises what is not an item's failure: then nothing may be assumed about any of them. The state's last step is
        left for `settle`, which is to be called when the results are out.
        """
        self.settle()
        self.regain()
        try:
            self.follow()
        except ClockSkew as error:
            self._metrics.failure(type(error).__name__)
            return [Unavailable(f"nothing was written: {error}") for _ in items]
        if self.applied != self._log.cut() and self._recovery is None:
            self.catch_up()
        try:
            return self._batch_or_without(items)
        except StateMisfit as error:
            self._metrics.failure(type(error).__name__)
            self._rebuild()
        except _ITEM_FAILURES as error:
            self._metrics.failure(type(error).__name__)
        return [self._alone(item) for item in items]

    def _alone(self, item: Item) -> Result | ObligorError:
        """Commit one item of a batch that failed as a whole, so that the others do not pay for it."""
        self.settle()
        try:
            return self._batch_or_without([item])[0]
        except _ITEM_FAILURES as error:
            self._metrics.failure(type(error).__name__)
            return _refused(error)

    def _batch_or_without(self, items: Sequence[Item]) -> list[Result | ObligorError]:
        """Commit a batch; where the state goes away in the middle, nothing is durable and it is taken again without."""
        try:
            return self._batch(items)
        except StateGone as error:
            self._lose(error)
            return self._batch(items)

    def _begun(self, undo: ExitStack) -> StagedState | None:
        return undo.enter_context(self._state.begin()) if self._recovery is None else None

    def _batch(self, items: Sequence[Item]) -> list[Result | ObligorError]:
        """Commit the items; where another shard takes one of their ids meanwhile it is looked up again."""
        for _ in range(TAKEN_MAX):
            try:
                return self._committed(items)
            except IdTaken as error:
                self._metrics.failure(type(error).__name__)
        return self._committed(items)

    def _committed(self, items: Sequence[Item]) -> list[Result | ObligorError]:
        with ExitStack() as undo:
            tx = undo.enter_context(self._log.begin(self._clock()))
            batch = _Staged(tx, self._begun(undo))
            results = [self._item(batch, item) for item in items]
            if batch.state is None or not items or isinstance(items[-1], EventsItem):
                self._apply(batch)  # what the state refuses must not become durable
            if batch.state is not None:
                self._trailing = tx.changes()
            with self._timed("commit"):
                tx.commit()
            undo.pop_all()
        self._unsettled = batch.state
        self._to_keep = [one.application for one in batch.taken if one.rung == "full" and not one.limit]
        durable = (one for one, result in zip(items, results, strict=True) if not isinstance(result, ObligorError))
        accepted_s = [one.accepted_s for one in durable if one.accepted_s is not None]
        self._unseen += accepted_s[: UNSEEN_MAX - len(self._unseen)]
        self._metrics.batch(len(items))
        for decision in batch.taken:
            self._metrics.decision(decision.outcome, decision.rung)
        return results

    def settle(self) -> None:
        """Bring the state after the log: what the last application of a batch changed, and the position.

        It is no part of a batch's results: the log is durable, and a state that fails here catches up later.
        """
        state, self._unsettled = self._unsettled, None
        if state is None:
            return
        cut = self._log.cut()
        try:
            with state, self._timed("commit_state"):
                self._follow(state, self._trailing)
                self._keep(state, self._log.last_seen_us + 1)
                state.commit(Head.at(self._log, cut, self._log.links()))
            self.applied = cut
            self._seen()
            self._expire()
        except StateGone as error:
            self._lose(error)
        except (OSError, StateMisfit) as error:
            self._metrics.failure(type(error).__name__)
            if isinstance(error, StateMisfit):
                self._rebuild()

    def _keep(self, state: StagedState, as_of: int) -> None:
        """Keep what those who were decided on would be decided on next, where the state may go away."""
        if self._cache is not None and state.far and self._to_keep:
            with self._timed("cache"):
                self._cache.keep(state, [one.fields for one in self._to_keep], self._log.cut(), as_of)

    def _expire(self) -> None:
        """Drop some rows of the state that no window reaches any more, now and then."""
        now_s = time.monotonic()
        if now_s - self._expired_s >= EXPIRY_PAUSE_S:
            self._expired_s = now_s
            with self._timed("expire"):
                self._state.expire(self._log.head.known_time, EXPIRY_ENTRIES)

    def _item(self, batch: _Staged, item: Item) -> Result | ObligorError:
        """Stage one item; what it staged is undone when it fails."""
        if isinstance(item, ApplicationItem):
            if self.trust == "suspect":
                return Unavailable(
                    "the online state is in doubt and being rebuilt; nothing was written, try again later"
                )
            self._apply(batch)  # the features see everything before
        mark = batch.tx.mark()
        try:
            if isinstance(item, ApplicationItem):
                return self._decide(batch, item)
            with self._timed("append"):
                appended = batch.tx.append(item.batch, clock_us=self._clock())
                for step in item.steps:
                    batch.tx.advance(step)
            if item.steps and not _FINE.issuperset(appended.status):
                raise NotTaken(appended)
            return appended
        except StateMisfit:  # what the state holds is no item's fault
            raise
        except _ITEM_FAILURES as error:
            batch.tx.undo(mark)
            self._metrics.failure(type(error).__name__)
            return _refused(error)

    def _apply(self, batch: _Staged) -> None:
        """Apply to the state, and to what is cached, what has been staged in the log since the last time."""
        if batch.state is None and self._cache is None:
            return
        with self._timed("state"):
            changes = batch.tx.changes()
            if changes.size:
                self._follow(batch.state, changes)

    def _follow(self, state: StagedState | None, changes: Changes) -> None:
        """Have the state follow the log, and forget what is cached of those who are concerned."""
        if self._cache is None:
            assert state is not None, "there is something that follows"
            state.apply(changes)
        elif state is None:
            self._cache.drop_changed(changes)
        else:
            state.apply(changes, self._cache.drop)

    # -- decisions

    def _decide(self, batch: _Staged, item: ApplicationItem) -> Decided | ObligorError:
        (((_, version), row),) = item.batch.parts.items()
        event_id: str = row["event_id"][0].as_py()
        if self._routes is not None:
            shard, name = self._routes.of_application(self._application.event_name, row)
            if shard != self._log.shard:
                message = (
                    f"the applications of this {self._routes.entity} are shard {shard}'s, this is {self._log.shard}"
                )
                return Misdirected(Problem(f"$.{name}", message))
        name = decision_id(self._log.id, event_id)
        with self._timed("append"):
            appended = batch.tx.append(item.batch, clock_us=self._clock())
        status, _, why = appended.status[0].partition(":")
        if status == "duplicate":
            return self._repeated(batch, name, int(appended.position[0]))
        if status == "conflict":
            return Conflict(Problem("$.event_id", f"{event_id!r} is known with other content; use a new id"))
        if status != "accepted":
            return BadInput(Problem("$", why.strip()))
        fields = {name: one[0].as_py() for name, one in read_rows(row, self._application, version).items()}
        application = Application(event_id, self._application.event_name, int(appended.position[0]), fields)
        decision = self._taken(batch, application, int(appended.known_time[0]), row["event_time"][0].as_py())
        with self._timed("record"):
            record = encode(decision, log_id=self._log.id, bundle=self._bundle, chain=batch.tx.head.chain)
            status = batch.tx.append(decided_batch(self._application, decision, name)).status[0]
            assert status == "accepted", f"a decision's event was {status}"
            batch.tx.record(name, application.position, record)
        batch.decided[name] = Decided(name, record, True)
        batch.taken.append(decision)
        return Decided(name, record, False)

    def _taken(self, batch: _Staged, application: Application, as_of: int, event_time: int) -> Decision:
        """Return the decision on a staged application, with everything staged before it."""
        with self._timed("features"):
            grounds = self._grounds(batch, application, as_of, event_time)
        with self._timed("decide"):
            return decide(
                application,
                grounds.features,
                self._scorer,
                self._policy,
                as_of=as_of,
                cut=batch.tx.cut,
                seed=derive_seed(self._log.id, application.event_id),
                rung=grounds.rung,
                limit=grounds.limit,
                cached=grounds.cached,
                coalitions=None if self._online is None else lambda: self._coalitions(batch, application, as_of),
            )

    def _grounds(self, batch: _Staged, application: Application, as_of: int, event_time: int) -> _Grounds:
        """Return what a decision rests on: the state, what is cached while that is gone, or nothing."""
        if self.trust == "lost":
            return _Grounds("refer")
        if batch.state is None:
            return self._from_cache(application, as_of)
        try:
            return _Grounds("full", self._features(batch.state, application, as_of, event_time))
        except LimitError as error:
            return _Grounds("full", None, str(error))

    def _from_cache(self, application: Application, as_of: int) -> _Grounds:
        found = None if self._cache is None else self._cache.find(application.fields, as_of)
        if found is None:
            return _Grounds("refer")
        try:
            features = finish_one(self._plan, found.measured, found.at.as_of, application.fields).tolist()
            if self._online is not None and found.before is not None:
                features.append(self._online.finish(found.before, found.at.as_of, application.fields))
        except LimitError as error:
            return _Grounds("cached", None, str(error), found.at)
        return _Grounds("cached", list(features), "", found.at)

    def _features(self, state: StagedState, application: Application, as_of: int, event_time: int) -> list[float]:
        """Return the features from the state, a sequence's score behind them; LimitError where a limit was crossed."""
        entities = {name: application.fields.get(name) for name in self._entities}
        fetch(self._plan, state, as_of, entities)
        fields, root = application.fields, application.position
        found = list(evaluate_one(self._plan, state, as_of, root, entities, fields, self_time=event_time).tolist())
        if self._online is not None:
            with self._timed("sequence"):  # the application itself is staged, and not in the state yet
                found.append(self._online.score_one(state.folds(), as_of, -1, entities, fields))
        return found

    def _coalitions(self, batch: _Staged, application: Application, as_of: int) -> Coalitions:
        """Return the sequence's score without some of its events, for reasons on the rung `full`."""
        assert batch.state is not None, "the rung is 'full'"
        assert self._online is not None, "there is a sequence"
        entities, fields = {name: application.fields.get(name) for name in self._entities}, application.fields
        with self._timed("reasons"):
            return self._online.coalitions(batch.state.folds(), as_of, -1, entities, fields)

    def _repeated(self, batch: _Staged, name: str, position: int) -> Decided | ObligorError:
        """Return the decision on an application that the log has already, in this batch or before it."""
        if name in batch.decided:
            return batch.decided[name]
        row = self._log.decision_for(position)
        if row is None:
            message = "known as an event that came without asking for a decision; use a new id"
            return Conflict(Problem("$.event_id", message))
        return Decided(row.decision_id, row.record, True)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._metrics.step(step, time.perf_counter() - started)


def _online(score: SequenceScore, plan: Plan) -> OnlineScore:
    from obligor.sequences.online import OnlineScore  # kernels that no other bundle needs

    return OnlineScore(score, plan)


def _refused(error: Exception) -> ObligorError:
    """Return an item's failure as an ObligorError, which its caller gets."""
    if isinstance(error, ObligorError):
        return error
    refusal = ObligorError(f"this could not be carried out and was undone: {type(error).__name__}: {error}")
    refusal.__cause__ = error
    return refusal
