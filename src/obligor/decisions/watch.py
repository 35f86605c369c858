"""The watch: a service's own proof of parity, round after round, in the background.

A round asks the online state about some entities (those of the newest events, those of old ones, and the next in the
state's own order, so that in time all are asked about) and takes the decisions since the last round and some old ones.
The state is asked on the writer's thread, which alone may read it, in bites of a millisecond between batches; the log
is read and everything computed again on the watch's own thread, within a share of one core.

Where a number differs it is a wrong number that a decision would have rested on, so the state is suspect at once:
decisions are refused, the log's chain is verified, the state is built anew and asked the same again. If it then agrees,
decisions go on. If it does not, or if it is the log that was changed, the state is lost: decisions are referred, on the
ladder's last rung, until somebody has looked. Events are taken all the while.
"""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np

from obligor.decisions.intake import Unavailable
from obligor.decisions.metrics import Metrics
from obligor.decisions.parity import Asking, Planned, Walk, check_decisions, compare_samples
from obligor.errors import ObligorError
from obligor.events.log import EventLog
from obligor.events.positions import Cut, pack, stretches
from obligor.events.store import LedgerRow
from obligor.features.parity import Comparison, Difference, Question, Sample
from obligor.features.questions import Instants, Pool, Together, questions, read_pool
from obligor.features.state import StagedState, TooLong

__all__ = ["BUDGET", "Budget", "State", "Watch", "giving_way"]

_log = logging.getLogger("obligor.parity")
T = TypeVar("T")
Task = Callable[[StagedState, Cut, int], T]

LOGGED_MAX = 20  # differences of one round that are logged in full
KNOWN_MAX = 10_000  # decisions that are known to differ, and not counted again
RUN = 20  # old events that are asked about together
SWITCH_S = 1e-4  # after which a round gives up the interpreter to a thread that waits for it
RETRY_S = 1.0  # until what could not be done about a difference is tried again
_USUAL_S = sys.getswitchinterval()
CHUNKS_MAX = 64  # of an entity that is not in memory: reading more would hold up the writer


@dataclass(frozen=True, slots=True)
class Budget:
    """What parity may take of a service."""

    events: int = 200  # of a round, whose entities are asked about: half new ones, half old
    walked: int = 20  # entities of each timeline that a round asks about in the state's own order
    decisions: int = 500  # of a round: the newest, and half as many old ones
    bite_s: float = 0.001  # of the writer's thread at once; the question under way is finished
    pause_s: float = 0.2  # between two bites
    share: float = 0.01  # of one core, on average, for computing again
    round_s: float = 60.0  # from the beginning of one round to that of the next, at least


BUDGET = Budget()


class State(Protocol):
    """The writer's side: the state that is watched."""

    def look(self, task: Task[T]) -> Future[T]:
        """Call `task` with the state, its cut and the present instant, in a pause of the writer."""

    def rebuild(self) -> Future[None]:
        """Build the state anew before anything else is taken."""

    def distrust(self) -> bool:
        """Refuse decisions from now on; False where nobody trusts the state any more."""

    def trust(self, sound: bool) -> None:
        """Let decisions rest on the state again, or refer them."""


class Watch:
    """Rounds of comparisons on a thread of its own, from `start` to `stop`."""

    def __init__(
        self,
        log: EventLog,
        bundle: Planned,
        bundles: Mapping[str, Planned],
        state: State,
        *,
        metrics: Metrics,
        clock: Callable[[], int],
        budget: Budget,
    ) -> None:
        """`bundle` is whose state it is, `bundles` are those that decisions may have been taken under.

        `clock` gives microseconds since 1970.
        """
        self._log, self._bundles = log, bundles
        self._metrics, self._clock, self._budget = metrics, clock, budget
        self._chance = random.Random(sum(log.cut().values()))  # so that a service started again asks about others
        self._next: tuple[Planned, State] | None = None  # what is watched from the next round on
        self._cut, self._ledger = log.cut(), log.head.ledger_sequence  # where the last round ended
        self._known: set[str] = set()
        self._take_up(bundle, state)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="obligor-parity", daemon=True)

    def warm_up(self) -> None:
        """Compute something of nothing, so that no decision waits while the code of the offline path is loaded."""
        width = len(self._bundle.plan.features) + (self._bundle.sequence is not None)
        nobody = Sample(Question({}, {}), {0: 0}, 0, np.full(width, np.nan), kept="-")
        compare_samples(self._log, self._bundle, [nobody])

    def start(self) -> None:
        """Start the thread; the first round comes after `round_s`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after what it is computing."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        wait_s = self._budget.round_s
        while not self._stopping.wait(wait_s):
            started_s, busy_s = time.monotonic(), time.thread_time()
            try:
                with giving_way():
                    self.round()
            except ObligorError as error:  # the writer is busy or stopping
                _log.info("a round of parity was cut short and will be tried again: %s", error)
            busy_s = time.thread_time() - busy_s
            wait_s = max(busy_s / self._budget.share, self._budget.round_s) - (time.monotonic() - started_s)
            wait_s = max(RETRY_S if self._differing else wait_s, self._budget.pause_s)

    def follow(self, bundle: Planned, state: State) -> None:
        """Watch another bundle's state from the next round on; `state` before it refuses what is asked of it."""
        self._next = bundle, state

    def _take_up(self, bundle: Planned, state: State) -> None:
        self._bundle, self._state, self._asking = bundle, state, Asking(bundle)
        self._instants, self._walk = Instants(bundle.plan, self._chance), Walk(bundle.plan)
        self._differing: list[Question] = []  # what differed, until something has been done about it

    def _turn(self) -> None:
        """Take up what is to be followed; what was found of the state before it concerns nobody any more."""
        following, self._next = self._next, None
        if following is not None:
            self._take_up(*following)

    def round(self) -> Comparison:
        """Compare once; what differs is logged, counted and acted upon."""
        self._turn()
        if self._differing:  # what was to be done about the last round's could not be finished
            self._heal()
        samples = self._samples(list(self._questions()), self._budget.pause_s)
        asked = compare_samples(self._log, self._bundle, samples)
        self._metrics.parity("state", asked.checked, asked.differences)
        taken = check_decisions(self._log, self._bundles, self._decisions()).comparison
        self._metrics.parity("decisions", taken.checked, taken.differences)
        self._metrics.parity_run(self._clock())
        self._known.update(one.name for one in taken.found[: KNOWN_MAX - len(self._known)])
        self._differing = [samples[row].question for row in asked.rows]
        self._differing += [Question(one.entities, {}) for one in taken.found]
        asked.join(taken)
        if self._differing:
            self._report(asked)
            self._heal()
        return asked

    # ---- what is asked

    def _questions(self) -> Iterator[Question]:
        cut, before = self._log.cut(), self._cut
        self._cut = cut
        half = self._budget.events // 2
        parts = [range(first + 1, last + 1) for first, last in stretches({}, cut)]
        if parts:
            fresh = [range(first + 1, last + 1) for first, last in stretches(before, cut)] or [
                one[-1:] for one in parts
            ]
            wanted = {self._chance.choice(self._drawn(fresh)) for _ in range(half)}
            for _ in range(-(-half // RUN)):  # old ones in runs, because a block is read as a whole
                part = self._drawn(parts)
                first = self._chance.choice(part)
                wanted.update(range(first, min(first + RUN, part.stop)))
            plan = self._bundle.plan
            pool = read_pool(plan, self._log, wanted)
            walked = self._await(self._state.look(self._step))
            yield from questions(plan, Pool([*pool.together, *walked], pool.applications), self._chance)

    def _drawn(self, parts: Sequence[range]) -> range:
        """Return one of the parts, larger ones oftener."""
        return self._chance.choices(parts, [len(one) for one in parts])[0]

    def _step(self, staged: StagedState, cut: Cut, now: int) -> list[Together]:
        return self._walk.next(staged, self._budget.walked)

    def _decisions(self) -> list[LedgerRow]:
        """Return the newest decisions since the last round, and a run of old ones."""
        last, before = self._log.head.ledger_sequence, self._ledger
        self._ledger = last
        count = self._budget.decisions
        own = pack(self._log.shard, 0)  # each shard's writer looks at its own decisions
        newest = list(islice(self._log.decisions(own + max(before, last - count)), count))
        old = list(islice(self._log.decisions(own + self._chance.randrange(last)), count // 2)) if last else []
        rows = {row.sequence: row for row in [*newest, *old] if row.decision_id not in self._known}
        return list(rows.values())

    def _samples(self, asked: Sequence[Question], pause_s: float = 0.0) -> list[Sample]:
        """Ask the state, bite by bite."""
        samples: list[Sample] = []
        left = iter(asked)
        while (bite := self._await(self._state.look(lambda *state: self._bite(left, *state)))) is not None:
            samples += bite
            if self._stopping.wait(pause_s):
                raise Unavailable("the service is stopping")
        return samples

    def _bite(self, left: Iterator[Question], staged: StagedState, cut: Cut, now: int) -> list[Sample] | None:
        """Answer some questions on the writer's thread; None when none are left."""
        until_s = time.perf_counter() + self._budget.bite_s
        reader = staged.glancing(CHUNKS_MAX)
        found: list[Sample] = []
        for question in left:
            try:
                as_of = self._instants.draw(reader, question, now)
                found.append(self._asking.answer(staged, question, cut, as_of, CHUNKS_MAX))
            except TooLong:  # left to `obligor parity`, which holds up nobody
                pass
            if time.perf_counter() >= until_s:
                return found
        return found or None

    def _await(self, future: Future[T]) -> T:
        """Return what the writer's thread found, however long it is busy; Unavailable when it ends."""
        return future.result()

    # ---- what is done about it

    def _report(self, comparison: Comparison) -> None:
        for one in comparison.found[:LOGGED_MAX]:
            _log.error("online and offline differ: %s", _words(one))
        if comparison.differences > LOGGED_MAX:
            _log.error("%d numbers differ in all, by feature: %s", comparison.differences, dict(comparison.counts))

    def _heal(self) -> None:
        """Take the state out of use, build it anew, and trust it again only if it then agrees."""
        if self._state.distrust():
            broken = self._log.verify()
            if broken:
                _log.critical("the log was changed, decisions are referred from now on: %s", broken[0])
            self._state.trust(not broken and self._rebuilt())
        self._differing = []

    def _rebuilt(self) -> bool:
        """Have the state built anew and say whether it then agrees."""
        _log.error("the online state is in doubt: decisions are refused while it is built anew from the log")
        self._await(self._state.rebuild())
        again = compare_samples(self._log, self._bundle, self._samples(self._differing))
        if again.differences:
            self._report(again)
            _log.critical("a state that was built anew differs too; decisions are referred until this is resolved")
        else:
            _log.error("the online state was built anew and agrees with the log; decisions rest on it again")
        return not again.differences


@contextmanager
def giving_way() -> Iterator[None]:
    """Let other threads have the interpreter sooner than usual.

    A decision asks for it at each of its many steps; waiting Python's 5 ms every time would cost it tens of them.
    Of two threads that do so the first to end sets it back for both.
    """
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(_USUAL_S)


def _words(one: Difference) -> str:
    whose = f"decision {one.name}" if one.name else f"state of {dict(one.entities)}"
    place = f"at cut {dict(one.cut)}, as of {one.as_of}"
    return f"{one.feature} of the {whose} {place}: {one.online!r}, offline {one.offline!r}"
