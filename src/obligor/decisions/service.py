"""The service without HTTP: a log, its online state and one bundle at a time behind the one writer.

`start` returns at once; the writer thread first brings the state to the end of the log and warms the kernels, and until
then every request is refused as unavailable. What is read (a decision, a replay) comes from the log alone.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypeVar, cast

from obligor.decisions.intake import Intake, Unavailable
from obligor.decisions.items import ApplicationItem, Decided, EventsItem, Item, Result
from obligor.decisions.metrics import Metrics
from obligor.decisions.move import FAILURES, REMAINDER_EVENTS_MAX, Move, Mover, Sources
from obligor.decisions.policy import load_policy
from obligor.decisions.replay import Verdict, replay
from obligor.decisions.routes import Routes
from obligor.decisions.watch import BUDGET, Budget, Task, Watch
from obligor.decisions.writer import Writer
from obligor.errors import BadInput, IntegrityError, ObligorError, Problem
from obligor.events.batch import Batch
from obligor.events.log import ClockSkew, EventLog
from obligor.events.schema import Registry
from obligor.events.staging import Appended
from obligor.events.store import OffsetStep
from obligor.features.plan import Plan
from obligor.features.state import OnlineState
from obligor.features.timelines import build_timelines
from obligor.models.bundle import Bundle

__all__ = ["Service"]

T = TypeVar("T")
_log = logging.getLogger("obligor.service")
FOLLOW_S = 0.05  # how often an idle writer looks what other shards have committed
LOOK_PATIENCE_S = 1.0  # how long a look at the state waits for a pause


class _Watched:
    """One writer and the queue before it, as the watch knows them; once the writer was exchanged nothing is done."""

    def __init__(self, service: Service, writer: Writer) -> None:
        self._service, self._writer = service, writer

    def look(self, task: Task[T]) -> Future[T]:
        return self._errand(lambda: self._writer.look(task), LOOK_PATIENCE_S)

    def rebuild(self) -> Future[None]:
        return self._errand(self._writer.rebuild, 0.0)

    def _errand(self, run: Callable[[], T], patience_s: float) -> Future[T]:
        def current() -> T:
            if self._service._writer is not self._writer:
                raise Unavailable("another bundle decides now")
            return run()

        return self._service._intake.errand(current, patience_s=patience_s)

    def distrust(self) -> bool:
        if self._service._writer is not self._writer:
            return False
        if self._writer.trust == "sound":
            self._writer.trust = "suspect"
        return self._writer.trust == "suspect"

    def trust(self, sound: bool) -> None:
        self._writer.trust = "sound" if sound else "lost"


class Service:
    """Takes events and applications, answers when they are durable."""

    def __init__(
        self,
        log: EventLog,
        state: OnlineState,
        bundle: Bundle,
        *,
        bundles: Mapping[str, Bundle] | None = None,
        clock: Callable[[], int],
        metrics: Metrics | None = None,
        ready: Callable[[], None] = lambda: None,
        parity: Budget | None = BUDGET,
        sources: Sources | None = None,
        routes: Routes | None = None,
    ) -> None:
        """`log` is open for writing and `state` is of the bundle's plan; both are closed by `stop`.

        `bundles` are those that replay may need, by hash; `clock` gives microseconds since 1970 in UTC; `ready` is
        called on the writer's thread when requests are about to be taken; `parity` is what the proof of parity may
        take in the background, None for none; `sources` is where `move` finds what it moves to; `routes` says which
        shard decides an application, where the log has several.
        """
        self.registry: Registry = log.registry
        self.application: str = bundle.plan.application
        self.commitment_key: bytes = log.commitment_key
        self.metrics = metrics or Metrics()
        self._log, self._clock, self._on_ready = log, clock, ready
        self._routes = routes
        self._bundles = {**(bundles or {}), bundle.hash: bundle}
        self.bundle, self._state, self._writer = bundle, state, self._new_writer(bundle, state)
        self._intake: Intake[Item, Result] = Intake(
            self._process,
            prepare=self._prepare,
            settle=self._settle,
            ready=self._started,
            tick=self._follow,
            tick_s=FOLLOW_S if log.shards > 1 else None,
        )
        self._watch: Watch | None = None
        if parity is not None:
            watched = _Watched(self, self._writer)
            self._watch = Watch(
                log, bundle.plan, self._bundles, watched, metrics=self.metrics, clock=clock, budget=parity
            )
        self._mover = None if sources is None else Mover(log, sources, self, self.metrics)
        self.metrics.deciding(bundle.hash, bundle.plan.hash)
        self._watch_gauges()

    def _new_writer(self, bundle: Bundle, state: OnlineState) -> Writer:
        """Return a writer that decides with `bundle`; DefinitionError where its policy does not fit."""
        application = self.registry[self.application].describe(readable=True)
        return Writer(
            self._log,
            state,
            plan=bundle.plan,
            scorer=bundle,
            policy=load_policy(bundle.policy, bundle.described, application),
            bundle=bundle.hash,
            clock=self._clock,
            metrics=self.metrics,
            routes=self._routes,
        )

    def start(self) -> None:
        """Start the writer's thread and the watch."""
        self._intake.start()
        if self._watch is not None:
            self._watch.start()

    def stop(self) -> None:
        """Finish what waits, then close the state and the log."""
        if self._mover is not None:
            self._mover.stop()
        if self._watch is not None:
            self._watch.stop()
        self._intake.stop()
        self._writer.stop()
        self._state.close()
        self._log.close()

    @property
    def ready(self) -> bool:
        """Whether requests are taken: false while the state is built or in doubt, and after the writer failed."""
        return self._intake.ready and self._writer.trust != "suspect"

    @property
    def failed(self) -> bool:
        """Whether the writer failed for good: the process is to be started again."""
        return self._intake.failed

    def _prepare(self) -> None:
        self._writer.catch_up()
        self._writer.warm_up()
        if self._watch is not None:
            self._watch.warm_up()
        gc.collect()
        gc.freeze()  # what lives now lives on: later collections need not look at it, which is where pauses came from

    def _started(self) -> None:
        if self._mover is not None:
            self._mover.start()
        self._on_ready()

    def _process(self, items: Sequence[Item]) -> Sequence[Result | ObligorError]:
        return self._writer.process(items)

    def _settle(self) -> None:
        self._writer.settle()

    def _follow(self) -> None:
        try:
            self._writer.follow()
        except ClockSkew as error:  # requests are refused with it; here it is tried again
            _log.error("%s", error)

    # -- another bundle

    def move(self) -> None:
        """Move to the bundle that is to decide now, beside all else; returns at once, and `last_move` says how it went.

        It may be called in a signal's handler.
        """
        assert self._mover is not None, "a service that moves is made with its sources"
        self._mover.ask()

    @property
    def last_move(self) -> Move | None:
        """What became of the last request to move; None where there was nothing to do."""
        return None if self._mover is None else self._mover.last

    def check(self, bundle: Bundle) -> None:
        """Raise ObligorError where this service could not decide with `bundle`: see `Movable`."""
        if bundle.plan.application != self.application:
            expected = f"expected an application of type {self.application!r}, as this service takes it"
            raise BadInput(Problem("$.plan.application", f"{expected}, got {bundle.plan.application!r}; start another"))
        self._new_writer(bundle, self._state)
        build_timelines(bundle.plan, self._log, {0: 0})  # of nothing: every type and field is known

    def shared(self, plan: Plan) -> OnlineState | None:
        """Return the state in use where it serves this plan too."""
        return self._state if self._state.serves(plan) else None

    def exchange(self, bundle: Bundle, state: OnlineState) -> Future[OnlineState]:
        """Have `bundle` decide on `state` from the next batch on: see `Movable`."""
        return self._intake.errand(partial(self._exchange, bundle, state), patience_s=LOOK_PATIENCE_S)

    def _exchange(self, bundle: Bundle, state: OnlineState) -> OnlineState:
        """Bring the state to the end of the log, rehearse, exchange; on the writer's thread, between two batches.

        While one of the two states is gone there is no exchange: what brings a state back runs beside the writer that
        lost it, and a state is handed over with nobody else at it.
        """
        started_s = time.perf_counter()
        self._writer.settle()
        self._writer.regain()
        self._writer.follow()
        if self._writer.trust == "lost":
            raise IntegrityError("decisions are referred, because a state or the log is in doubt; start it again first")
        if self._writer.trust == "suspect":
            raise Unavailable("the online state is in doubt and being rebuilt")
        if self._writer.state_gone:
            raise Unavailable("the online state is gone and being brought back")
        writer = self._new_writer(bundle, state)
        try:
            self._rehearse(writer, state)
        except BaseException:
            writer.stop()
            raise
        before = self._state
        self._bundles[bundle.hash] = bundle
        self.bundle, self._state, self._writer = bundle, state, writer
        if self._watch is not None:
            self._watch.follow(bundle.plan, _Watched(self, writer))
        self.metrics.deciding(bundle.hash, bundle.plan.hash)
        self.metrics.step("exchange", time.perf_counter() - started_s)
        return before

    def _rehearse(self, writer: Writer, state: OnlineState) -> None:
        """Have a new writer do all that it will have to; an ObligorError where it cannot."""
        try:
            behind = state.behind(self._log)
            if behind > REMAINDER_EVENTS_MAX:
                raise Unavailable(f"the new state is {behind} events behind the log")
            writer.catch_up()
            writer.warm_up()
        except ObligorError:
            raise
        except FAILURES as error:  # of what is new; it must not end the thread that decides
            raise ObligorError(f"the rehearsal failed: {type(error).__name__}: {error}") from error
        if writer.state_gone:
            raise Unavailable("the new state went away")

    # -- gauges and requests

    def _watch_gauges(self) -> None:
        watch = self.metrics.watch
        watch("obligor_queue_items", lambda: float(self._intake.items))
        watch("obligor_queue_events", lambda: float(self._intake.weight))
        watch("obligor_log_sequence", lambda: float(self._log.head.sequence))
        watch(
            "obligor_state_lag_events",
            lambda: float(sum(self._log.cut().values()) - sum(self._writer.applied.values())),
        )
        watch("obligor_newest_event_age_seconds", lambda: (self._clock() - self._log.head.known_time) / 1e6)
        watch("obligor_ready", lambda: float(self.ready))
        watch("obligor_state_gone", lambda: float(self._writer.state_gone))
        watch("obligor_cached_applicants", lambda: float(self._writer.cached))
        watch("obligor_state_suspect", lambda: float(self._writer.trust != "sound"))

    @property
    def log(self) -> EventLog:
        """The log, for reading."""
        return self._log

    def submit_events(self, batch: Batch, steps: Sequence[OffsetStep] = ()) -> Future[Appended]:
        """Queue events; the future ends when they are durable. Unavailable where they cannot be taken.

        `steps`: they come from a stream, and how far it was read becomes durable with them (see `EventsItem`).
        """
        return cast("Future[Appended]", self._intake.submit(EventsItem(batch, time.perf_counter(), steps)))

    def submit_application(self, batch: Batch) -> Future[Decided]:
        """Queue the one application in `batch`; the future ends when it and its decision are durable."""
        assert batch.size == 1, "one application at a time"
        assert [name for name, _ in batch.parts] == [self.application], "an application of the bundle's type"
        return cast("Future[Decided]", self._intake.submit(ApplicationItem(batch, time.perf_counter())))

    def record(self, decision_id: str) -> bytes:
        """Return the canonical record of a decision; NotFound if there is none."""
        return self._log.decision(decision_id).record

    def replay(self, decision_id: str) -> Verdict:
        """Compute a decision again from the log through the offline path; NotFound if there is none."""
        self.record(decision_id)
        verdicts = replay(self._log, self._bundles, [decision_id])
        if not verdicts:
            raise Unavailable(f"the decision {decision_id!r:.80} could not be read again; try again later")
        return verdicts[0]
