"""A crew of threads: what torch's process group does for processes, so that a test need not start any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from obligor.sequences.training.crew import Crew

Found = TypeVar("Found")


@dataclass
class _Table:
    size: int
    barrier: threading.Barrier
    laid: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ThreadCrew(Crew):
    """One thread of a crew."""

    table: _Table

    def _all(self, values: Tensor) -> list[Tensor]:
        self.table.laid[self.rank] = values.clone()
        self.table.barrier.wait()
        found = [self.table.laid[rank] for rank in range(self.size)]
        self.table.barrier.wait()
        return found

    def summed(self, values: Tensor) -> Tensor:
        return torch.stack(self._all(values)).sum(dim=0)

    def of_first(self, values: Tensor) -> Tensor:
        return self._all(values)[0]


def together(size: int, do: Callable[[Crew], Found]) -> list[Found]:
    """Return what each of so many threads of a crew gives; what one raises stops all."""
    table = _Table(size, threading.Barrier(size, timeout=60))

    def member(rank: int) -> Found:
        torch.set_num_threads(1)
        try:
            return do(ThreadCrew(rank, size, table))
        except BaseException:
            table.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        members = [pool.submit(member, rank) for rank in range(size)]
    errors = [one.exception() for one in members]
    for error in errors:
        if error is not None and not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [one.result() for one in members]
