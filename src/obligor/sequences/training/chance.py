"""Chance of one step of training: a pure function of seed and step, so a run that goes on draws what it would have."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

__all__ = ["Chance"]


@dataclass(frozen=True)
class Chance:
    """The random numbers of one step."""

    seed: int
    step: int

    @cached_property
    def numpy(self) -> np.random.Generator:
        """Return numpy's generator of this step."""
        return np.random.default_rng((self.seed, self.step))

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """Return `x` with a share of its coordinates set to 0 and the others scaled up."""
        if rate == 0:
            return x
        generator = torch.Generator(device=x.device).manual_seed(int(self.numpy.integers(2**62)))
        kept = torch.rand(x.shape, generator=generator, device=x.device) >= rate
        return x * kept / (1 - rate)
