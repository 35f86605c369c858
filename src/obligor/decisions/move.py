"""The move: a running service goes over to another bundle between two batches, and nobody waits for it.

The state of the new bundle's plan is built by another process, so that the interpreter of this one is left to
decisions. Here the last events are applied on the mover's own thread, then, on the writer's thread between two batches,
the very last ones; the new bundle is rehearsed there, and state and writer are exchanged in one step. Whatever fails
before that leaves the service as it was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, NamedTuple, Protocol

from obligor.decisions.intake import Unavailable
from obligor.decisions.metrics import Metrics
from obligor.errors import LimitError, ObligorError
from obligor.events.log import EventLog
from obligor.features.state import OnlineState
from obligor.models.bundle import Bundle

__all__ = ["FAILURES", "REMAINDER_EVENTS_MAX", "Movable", "Move", "Mover", "Sources"]

_log = logging.getLogger("obligor.move")

ROUNDS_MAX = 10  # of building, and of handing over
NEAR_EVENTS = 20_000  # that may be missing when a builder is done; they are applied on the mover's thread
REMAINDER_EVENTS_MAX = 2_000  # that may be missing at the exchange; as many as one batch may hold
PAUSE_S = 0.2  # until an exchange for which it was not the time is tried again

# What a bundle or a state that is of no use can raise.
FAILURES = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, ObligorError, OSError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip


class Move(NamedTuple):
    """What became of the last request to move."""

    bundle: str  # the hash of the one asked for; empty where none was found
    status: Literal["building", "moved", "failed"]
    error: str = ""  # its class; what it says is in the log


class Sources(Protocol):
    """Where bundles and the states of their plans come from."""

    def find(self) -> Path:
        """Return the folder, named by its hash, of the bundle that is to decide."""

    def build(self, bundle: str, stopping: Callable[[], bool]) -> None:
        """Bring the state of a bundle's plan near the end of the log, in another process.

        ObligorError where that fails, and soon after `stopping` says so.
        """

    def open(self, bundle: Bundle) -> OnlineState:
        """Open the state of a bundle's plan, and of what is folded for it, for writing."""


class Movable(Protocol):
    """The service that moves."""

    @property
    def bundle(self) -> Bundle:
        """The bundle that decides."""

    def check(self, bundle: Bundle) -> None:
        """Raise ObligorError where the service could not decide with this bundle."""

    def shared(self, bundle: Bundle) -> OnlineState | None:
        """Return the state in use where it serves this bundle too: its plan, and the same fold."""

    def exchange(self, bundle: Bundle, state: OnlineState) -> Future[OnlineState]:
        """Have `bundle` decide on `state` from the next batch on; the future gives the state that was used before.

        It fails with Unavailable where this is not the time, and with another ObligorError where it cannot be.
        """


class Mover:
    """Moves a service, on a thread of its own, whenever it is asked to."""

    def __init__(self, log: EventLog, sources: Sources, service: Movable, metrics: Metrics) -> None:
        self._log, self._sources, self._service, self._metrics = log, sources, service, metrics
        self.last: Move | None = None
        self._asked: SimpleQueue[bool] = SimpleQueue()  # its `put` may be called in a signal's handler
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="obligor-move", daemon=True)

    def ask(self) -> None:
        """Ask for a move to the bundle that is to decide; returns at once."""
        self._asked.put(True)

    def start(self) -> None:
        """Start the thread; what was asked before is done now."""
        self._thread.start()

    def stop(self) -> None:
        """Give up the move under way and end the thread."""
        self._stopping.set()
        self._asked.put(False)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while self._asked.get() and not self._stopping.is_set():
            while not self._asked.empty() and not self._stopping.is_set():
                self._asked.get()  # asked again before the first was begun
            if not self._stopping.is_set():
                self.move()

    def move(self) -> Move | None:
        """Move to the bundle that is to decide; None where it does already. What fails is logged and counted."""
        started_s = time.perf_counter()
        name = ""
        try:
            path = self._sources.find()
            name = path.name
            if name == self._service.bundle.hash:
                _log.info("the bundle %s decides already", name)
                self.last = None
            else:
                self.last = Move(name, "building")
                self._move(path)
                seconds = time.perf_counter() - started_s
                self._metrics.move("moved", seconds)
                _log.warning("the bundle %s decides from now on; the move took %.1f s", name, seconds)
                self.last = Move(name, "moved")
        except FAILURES as error:
            self._metrics.move("failed")
            decides = self._service.bundle.hash
            _log.error("the move to bundle %s failed, %s goes on deciding: %s", name or "?", decides, _words(error))
            self.last = Move(name, "failed", type(error).__name__)
        return self.last

    def _move(self, path: Path) -> None:
        bundle = Bundle.load(path)
        self._service.check(bundle)
        shared = self._service.shared(bundle)
        if shared is not None:  # what is kept in memory of it stays
            self._hand_over(bundle, shared, lambda: None)
            return
        state = self._built(bundle)
        try:
            before = self._hand_over(bundle, state, lambda: state.catch_up(self._log))
        except BaseException:
            _close(state)
            raise
        _close(before)

    def _built(self, bundle: Bundle) -> OnlineState:
        """Return the state of the bundle's plan, open, with little missing."""
        for _ in range(ROUNDS_MAX):
            self._sources.build(bundle.hash, self._stopping.is_set)
            state = self._sources.open(bundle)
            try:
                if state.behind(self._log) <= NEAR_EVENTS:
                    return state
            except BaseException:
                _close(state)
                raise
            _close(state)
        raise LimitError(f"after {ROUNDS_MAX} builds the state is still more than {NEAR_EVENTS} events behind the log")

    def _hand_over(self, bundle: Bundle, state: OnlineState, catch_up: Callable[[], object]) -> OnlineState:
        """Exchange as soon as it is the time for it; return the state that was used before."""
        for _ in range(ROUNDS_MAX):
            catch_up()
            try:
                return self._service.exchange(bundle, state).result()
            except Unavailable as error:
                _log.info("the exchange has to wait: %s", error)
                if self._stopping.wait(PAUSE_S):
                    break
        raise Unavailable("the service had no time for the exchange, or is stopping")


def _close(state: OnlineState) -> None:
    try:
        state.close()
    except OSError as error:  # nobody needs it now, and it is derived
        _log.warning("a state could not be closed cleanly: %s", error)


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, ObligorError) else f"{type(error).__name__}: {error}"
