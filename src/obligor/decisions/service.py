"""The service without HTTP: a log, its online state and one bundle behind the one writer.

`start` returns at once; the writer thread first brings the state to the end of the log and warms the kernels, and until
then every request is refused as unavailable. What is read (a decision, a replay) comes from the log alone.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import TypeVar, cast

from obligor.decisions.intake import Intake, Unavailable
from obligor.decisions.metrics import Metrics
from obligor.decisions.policy import load_policy
from obligor.decisions.replay import Verdict, replay
from obligor.decisions.watch import BUDGET, Budget, Task, Watch
from obligor.decisions.writer import ApplicationItem, Decided, EventsItem, Item, Result, Writer
from obligor.events.batch import Batch
from obligor.events.log import EventLog
from obligor.events.schema import Registry
from obligor.events.staging import Appended
from obligor.features.state import OnlineState
from obligor.models.bundle import Bundle

__all__ = ["Service"]

T = TypeVar("T")
LOOK_PATIENCE_S = 1.0  # how long a look at the state waits for a pause


class _Watched:
    """The writer and its queue, as the watch knows them."""

    def __init__(self, writer: Writer, intake: Intake[Item, Result]) -> None:
        self._writer, self._intake = writer, intake

    def look(self, task: Task[T]) -> Future[T]:
        return self._intake.errand(partial(self._writer.look, task), patience_s=LOOK_PATIENCE_S)

    def rebuild(self) -> Future[None]:
        return self._intake.errand(self._writer.rebuild, patience_s=0.0)

    def distrust(self) -> bool:
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
    ) -> None:
        """`log` is open for writing and `state` is of the bundle's plan; both are closed by `stop`.

        `bundles` are those that replay may need, by hash; `clock` gives microseconds since 1970 in UTC; `ready` is
        called on the writer's thread when requests are about to be taken; `parity` is what the proof of parity may
        take in the background, None for none.
        """
        self.registry: Registry = log.registry
        self.application: str = bundle.plan.application
        self.commitment_key: bytes = log.commitment_key
        self.metrics = metrics or Metrics()
        self._log, self._state, self._clock = log, state, clock
        self._bundles = {**(bundles or {}), bundle.hash: bundle}
        application = log.registry[self.application]
        self._writer = Writer(
            log,
            state,
            plan=bundle.plan,
            scorer=bundle,
            policy=load_policy(bundle.policy, bundle.plan.data, application.describe(readable=True)),
            bundle=bundle.hash,
            clock=clock,
            metrics=self.metrics,
        )
        self._intake: Intake[Item, Result] = Intake(
            self._writer.process, prepare=self._prepare, settle=self._writer.settle, ready=ready
        )
        self._watch: Watch | None = None
        if parity is not None:
            watched = _Watched(self._writer, self._intake)
            self._watch = Watch(
                log, bundle.plan, self._bundles, watched, metrics=self.metrics, clock=clock, budget=parity
            )
        self._watch_gauges()

    def start(self) -> None:
        """Start the writer's thread and the watch."""
        self._intake.start()
        if self._watch is not None:
            self._watch.start()

    def stop(self) -> None:
        """Finish what waits, then close the state and the log."""
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

    def _watch_gauges(self) -> None:
        watch = self.metrics.watch
        watch("obligor_queue_items", lambda: float(self._intake.items))
        watch("obligor_queue_events", lambda: float(self._intake.weight))
        watch("obligor_log_sequence", lambda: float(self._log.head.sequence))
        watch("obligor_state_lag_events", lambda: float(self._log.head.sequence - self._writer.applied))
        watch("obligor_newest_event_age_seconds", lambda: (self._clock() - self._log.head.known_time) / 1e6)
        watch("obligor_ready", lambda: float(self.ready))
        watch("obligor_state_gone", lambda: float(self._writer.state_gone))
        watch("obligor_state_suspect", lambda: float(self._writer.trust != "sound"))

    def submit_events(self, batch: Batch) -> Future[Appended]:
        """Queue events; the future ends when they are durable. Unavailable where they cannot be taken."""
        return cast("Future[Appended]", self._intake.submit(EventsItem(batch, time.perf_counter())))

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
