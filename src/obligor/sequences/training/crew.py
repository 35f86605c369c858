"""Data-parallel training: several processes learn one model, each from batches of its own, their gradients averaged.

A step of a crew of W goes down the mean of the losses of W successive batches of the epoch: process r takes every W-th
batch from the r-th on. What else a step moves, such as a running mean, becomes the processes' mean; what a task sets
by the first batch that it meets, and then says by a buffer that is true, is set by the first process that meets one.
All hold the same weights and take the same steps, so that what they end with is one and the same, and a checkpoint that
the first one writes serves all of them.

The trainer needs to know nothing of that: it is given a task whose loss has the value and the gradient of the mean.
Each process draws the chance of its own batch, as one process that took the batches one by one would.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from obligor.sequences.batches import BatchSource
from obligor.sequences.training.chance import Chance
from obligor.sequences.training.trainer import Kind, Loss, Task

__all__ = ["Crew", "Portion", "Together"]


@dataclass(frozen=True)
class Crew:
    """One process of a crew, which torch's default process group joins."""

    rank: int
    size: int

    @classmethod
    def joined(cls) -> Crew:
        """Return this process's place in torch's default process group."""
        return cls(distributed.get_rank(), distributed.get_world_size())

    def summed(self, values: Tensor) -> Tensor:
        """Return the sum over all processes; all must ask."""
        distributed.all_reduce(values)
        return values

    def of_first(self, values: Tensor) -> Tensor:
        """Return what the first process gave; all must ask."""
        distributed.broadcast(values, 0)
        return values


class Portion(BatchSource[Kind]):
    """One process's batches of a source: as many in each epoch as any other's, the first again behind the last."""

    def __init__(self, source: BatchSource[Kind], crew: Crew) -> None:
        self.source, self.crew = source, crew

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many codes each field has."""
        return self.source.sizes

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which fields are periodic."""
        return self.source.periodic

    @property
    def slow(self) -> tuple[bool, ...]:
        """Which fields are known to be slow-moving identifiers."""
        return self.source.slow

    def __len__(self) -> int:
        """Return how many steps an epoch has."""
        return -(-len(self.source) // self.crew.size)

    def batches(self, seed: int, epoch: int | None, start: int = 0) -> Iterator[Kind]:
        """Yield this process's batches of an epoch from its own `start`-th on."""
        crew = self.crew
        own = itertools.islice(self._endless(seed, epoch, start * crew.size), crew.rank, None, crew.size)
        return itertools.islice(own, len(self) - start)

    def _endless(self, seed: int, epoch: int | None, begin: int) -> Iterator[Kind]:
        """Yield an epoch's batches from one on, and the epoch again and again."""
        if not len(self.source):
            return
        took = 0
        for batch in self.source.batches(seed, epoch, begin):
            took += 1
            yield batch
        again = itertools.chain.from_iterable(self.source.batches(seed, epoch) for _ in itertools.count())
        yield from itertools.islice(again, begin + took, None)


class Together(nn.Module):
    """A task of a crew: its loss is the mean of the processes', its score the first process's."""

    def __init__(self, task: Task[Any], crew: Crew) -> None:
        super().__init__()
        if not isinstance(task, nn.Module):
            raise TypeError(f"expected a torch module, got {type(task).__name__}")
        self.task, self.crew = task, crew

    def loss(self, batch: Any, chance: Chance) -> Loss | None:
        """Return the mean loss of those processes whose batch teaches something; nothing if none does."""
        crew = self.crew
        step = chance.step * crew.size + crew.rank
        self._begin(batch, Chance(chance.seed, step))
        found = self.task.loss(batch, Chance(chance.seed, step))
        weights = [weight for weight in self.parameters() if weight.requires_grad]
        follow = [buffer for buffer in self.buffers() if buffer.is_floating_point()]  # what each step moves too
        whole = crew.summed(_packed(found, weights, follow))
        taught, loss, events = whole[-3:].tolist()
        sizes = [weight.numel() + 1 for weight in weights] + [buffer.numel() for buffer in follow] + [3]
        parts = torch.split(whole, sizes)
        for buffer, values in zip(follow, parts[len(weights) :], strict=False):
            buffer.copy_(values.reshape(buffer.shape) / crew.size)
        if not taught:
            return None
        total = torch.tensor(loss / taught, device=weights[0].device)
        for weight, values in zip(weights, parts, strict=False):
            if values[-1]:  # it has a gradient anywhere in the crew
                slope = values[:-1].reshape(weight.shape).to(weight.device) / taught
                total = total + ((weight - weight.detach()) * slope).sum()  # 0, and its gradient is `slope`
        return Loss(total, found.parts if found is not None else {}, round(events))

    def _begin(self, batch: Any, chance: Chance) -> None:
        """Let all begin as the first process does whose batch says where; nothing once they have."""
        crew, begun = self.crew, [buffer for buffer in self.buffers() if buffer.dtype == torch.bool]
        if all(bool(one) for one in begun):
            return
        with torch.no_grad():
            self.task.loss(batch, chance)
            able = torch.zeros(crew.size)
            able[crew.rank] = all(bool(one) for one in begun)
            able = crew.summed(able)
            if not able.any():
                return
            values = [*self.parameters(), *begun]
            own = torch.cat([one.float().flatten().cpu() for one in values])
            given = crew.summed(own if crew.rank == int(able.nonzero()[0]) else torch.zeros_like(own))
            for one, part in zip(values, torch.split(given, [one.numel() for one in values]), strict=True):
                one.copy_(part.reshape(one.shape))

    def score(self) -> float | None:
        """Return the first process's score, which the others wait for: they hold the same weights."""
        score = self.task.score() if self.crew.rank == 0 else None
        told = self.crew.of_first(torch.tensor(math.nan if score is None else score, dtype=torch.float64)).item()
        return None if math.isnan(told) else float(told)


def _packed(found: Loss | None, weights: list[nn.Parameter], follow: list[Tensor]) -> Tensor:
    """Return one vector: each weight's gradient and 1 if it has one, the buffers, then 1, the loss and its events."""
    if found is None:
        slopes: tuple[Tensor | None, ...] = (None,) * len(weights)
        told = [0.0, 0.0, 0.0]
    else:
        slopes = torch.autograd.grad(found.total, weights, allow_unused=True)
        told = [1.0, found.total.item(), float(found.events)]
    parts = []
    for weight, slope in zip(weights, slopes, strict=True):
        parts += [torch.zeros(weight.numel() + 1)] if slope is None else [slope.float().flatten().cpu(), torch.ones(1)]
    return torch.cat([*parts, *(buffer.detach().float().flatten().cpu() for buffer in follow), torch.tensor(told)])
