"""What an engine is: something that carries tasks out, each anywhere, and tells of each when it has ended.

A task is a text, and so is its report; what lies between is `Work`, the same on every engine. An engine that loses a
task (its process or its machine dies, say) reports that as a failure and goes on with the others; who gave it the tasks
decides what is tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import NamedTuple, Protocol, TypeAlias

__all__ = ["Engine", "LocalEngine", "Outcome", "Work"]

Work: TypeAlias = Callable[[str], str]  # a task to its report


class Outcome(NamedTuple):
    """How a task ended: its report, or why there is none."""

    place: int  # among the tasks
    report: str | None
    failure: str | None


class Engine(Protocol):
    """Carries out tasks."""

    @property
    def name(self) -> str:
        """Its name, such as `ray`."""

    @property
    def slots(self) -> int:
        """How many tasks it carries out at once."""

    def carry_out(self, tasks: Sequence[str]) -> Iterator[Outcome]:
        """Yield the outcome of each task, in the order in which they end."""


class LocalEngine:
    """The engine in this process: threads, for the kernels hold no lock of the interpreter.

    What a disk or a storage refuses is a failure, which another attempt may mend; anything else is raised.
    """

    name = "local"

    def __init__(self, work: Work, threads: int) -> None:
        self._work, self.slots = work, max(1, threads)

    def carry_out(self, tasks: Sequence[str]) -> Iterator[Outcome]:
        """Yield the outcome of each task."""
        with ThreadPoolExecutor(self.slots) as pool:
            places = {pool.submit(self._work, task): place for place, task in enumerate(tasks)}
            try:
                for done in as_completed(places):
                    try:
                        yield Outcome(places[done], done.result(), None)
                    except OSError as error:
                        yield Outcome(places[done], None, str(error))
            finally:
                pool.shutdown(cancel_futures=True)
