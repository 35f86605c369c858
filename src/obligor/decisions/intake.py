"""The intake: a bounded queue before the one writer thread, which takes what waits as one batch.

Callers get a future at once or `Unavailable` when the queue is full; nothing waits without a bound. While a batch is
being made durable the next one gathers, so that under load many requests share one sync (group commit). What is only
looked at, on the same thread because nothing else may, is an errand: it waits for a pause between batches.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from obligor.errors import ObligorError

__all__ = ["Intake", "Unavailable", "Weighed"]


class Unavailable(ObligorError):
    """Nothing was done, and trying again later is right: not ready, too busy, or stopped."""


ERRANDS_MAX = 4
_GIVE_WAY_S = 0.001
_UNKNOWN = "the writer failed and whether this was written is unknown; send it again with the same id"


class Weighed(Protocol):
    """Something that waits; `weight` is the number of its events."""

    @property
    def weight(self) -> int:
        """The number of events."""
        ...


T = TypeVar("T")
I = TypeVar("I", bound=Weighed)  # noqa: E741 - an item
R = TypeVar("R")


class _Errand(NamedTuple):
    run: Callable[[], Any]
    done: Future[Any]
    due_s: float  # on the monotonic clock: from when on it waits for no pause


class Intake(Generic[I, R]):
    """Feeds `process` with batches on one thread of its own.

    `process` returns one result an item, an ObligorError as the result of an item that was refused. When it raises, the
    whole batch failed: its callers get Unavailable, and so does everybody after them, until a new intake is made.
    """

    def __init__(
        self,
        process: Callable[[Sequence[I]], Sequence[R | ObligorError]],
        *,
        prepare: Callable[[], None] = lambda: None,
        settle: Callable[[], None] = lambda: None,
        ready: Callable[[], None] = lambda: None,
        tick: Callable[[], None] = lambda: None,
        tick_s: float | None = None,
        items_max: int = 1_024,
        weight_max: int = 200_000,
        batch_items_max: int = 128,
        batch_weight_max: int = 2_000,
    ) -> None:
        """`prepare` runs first on the thread, `ready` once requests are taken, `settle` after each batch's results.

        `tick` is called when nothing has come for `tick_s` seconds.

        The `*_max` bound what waits and what one batch takes.
        """
        self._process, self._prepare, self._settle, self._on_ready = process, prepare, settle, ready
        self._items_max, self._weight_max = items_max, weight_max
        self._batch_items_max, self._batch_weight_max = batch_items_max, batch_weight_max
        self._waiting: deque[tuple[I, Future[R]]] = deque()
        self._weight = 0
        self._errands: deque[_Errand] = deque()
        self._tick, self._tick_s = tick, tick_s
        self._changed = threading.Condition()
        self._state = "preparing"
        self._thread = threading.Thread(target=self._run, name="obligor-writer", daemon=True)

    def start(self) -> None:
        """Start the thread; requests wait for nothing until `prepare` is done, they are refused."""
        self._thread.start()

    def stop(self) -> None:
        """Refuse new requests, finish those that wait, end the thread."""
        with self._changed:
            if self._state != "failed":
                self._state = "stopping"
            self._changed.notify()
        self._thread.join()

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self._state == "ready"

    @property
    def failed(self) -> bool:
        """Whether the thread ended by a failure; only a new process helps."""
        return self._state == "failed"

    @property
    def items(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    @property
    def weight(self) -> int:
        """How many events wait."""
        return self._weight

    def submit(self, item: I) -> Future[R]:
        """Queue `item`; its future ends when it is durable. Raises Unavailable at once where it cannot be taken."""
        with self._changed:
            if self._state != "ready":
                raise Unavailable(f"the writer is {self._state}; nothing was written, try again later")
            if len(self._waiting) >= self._items_max or self._weight + item.weight > self._weight_max:
                raise Unavailable(
                    f"too busy: {len(self._waiting)} requests with {self._weight} events wait; nothing was written, "
                    "try again later"
                )
            future: Future[R] = Future()
            self._waiting.append((item, future))
            self._weight += item.weight
            self._changed.notify()
        return future

    def errand(self, run: Callable[[], T], *, patience_s: float) -> Future[T]:
        """Have `run` called on the thread when nothing waits, or between two batches once `patience_s` are over.

        An ObligorError that it raises is its future's; anything else is the thread's end, as with `process`.
        """
        done: Future[T] = Future()
        with self._changed:
            if self._state != "ready" or len(self._errands) >= ERRANDS_MAX:
                raise Unavailable(f"the writer is {self._state} and {len(self._errands)} errands wait for it")
            self._errands.append(_Errand(run, done, time.monotonic() + patience_s))
            self._changed.notify()
        return done

    def _run_errand(self) -> None:
        """Run the errand that has waited longest, where there is time for it."""
        with self._changed:
            if not self._errands or (self._waiting and time.monotonic() < self._errands[0].due_s):
                return
            errand = self._errands.popleft()
        if not errand.done.set_running_or_notify_cancel():
            return
        try:
            errand.done.set_result(errand.run())
        except ObligorError as error:
            errand.done.set_exception(error)
        except BaseException as error:
            errand.done.set_exception(error)
            raise

    def _take(self) -> list[tuple[I, Future[R]]]:
        """Wait for requests and take a batch of them; none when stopping or when those that waited were given up."""
        with self._changed:
            while not self._waiting and not self._errands and self._state == "ready":
                if not self._changed.wait(self._tick_s):
                    break
            batch: list[tuple[I, Future[R]]] = []
            weight = 0
            while self._waiting and len(batch) < self._batch_items_max:
                if batch and weight + self._waiting[0][0].weight > self._batch_weight_max:
                    break
                item, future = self._waiting.popleft()
                self._weight -= item.weight
                if future.set_running_or_notify_cancel():  # else nobody waits for it any more
                    batch.append((item, future))
                    weight += item.weight
            return batch

    def _give_way(self) -> None:
        """Let the threads that answer go first where nothing waits: settling takes the interpreter from them."""
        with self._changed:
            if not self._waiting and self._state == "ready":
                self._changed.wait(_GIVE_WAY_S)

    def _run(self) -> None:
        taken: list[tuple[I, Future[R]]] = []
        try:
            self._prepare()
            with self._changed:
                if self._state == "preparing":
                    self._state = "ready"
            self._on_ready()
            while self._state == "ready" or self._waiting:
                taken = self._take()
                results = self._process([item for item, _ in taken]) if taken else []
                if not taken:
                    self._tick()
                for (_, future), result in zip(taken, results, strict=True):
                    if isinstance(result, ObligorError):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
                taken = []
                self._give_way()
                self._settle()
                self._run_errand()
        finally:
            self._end(taken)

    def _end(self, taken: list[tuple[I, Future[R]]]) -> None:
        """Leave nobody waiting: after a failure everything that was taken or waits is refused."""
        with self._changed:
            failed = self._state != "stopping" or bool(taken)
            self._state = "failed" if failed else "stopped"
            left = [*taken, *self._waiting]
            self._waiting.clear()
            self._weight = 0
            errands = list(self._errands)
            self._errands.clear()
        for _, future in left:
            if not future.done():
                future.set_exception(Unavailable(_UNKNOWN))
        for errand in errands:
            if not errand.done.done():
                errand.done.set_exception(Unavailable("the writer has ended"))
