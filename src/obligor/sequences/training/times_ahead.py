"""Prediction of when each kind of event comes next, from the hidden vector of an event: time-to-event pretraining.

A kind is one value of a category that has few: the type itself, a screen, a cause of failure. For each kind and span of
time the log-odds are given that it comes within the span if it has not come before, a discrete-time hazard; an event
that lies beyond what was seen of a row teaches as much as was seen (Steinberg et al. 2023, "MOTOR: A Time To Event
Foundation Model For Structured Medical Records"). What comes next is mostly what is frequent; when what is rare comes
(a failed payment, a dispute) tells far more of who it is, so each kind counts alike: its loss is a share of what the
loss would be if only its rate in the batch were known.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from obligor.sequences.training.chance import Chance
from obligor.sequences.training.ragged import Ragged

__all__ = ["TimesAhead", "kinds", "waits"]

VALUES_MAX: Final = 16  # rows of a table whose values are kinds
POSITIONS_MAX: Final = 1024  # events of a step that are asked
DAY_US: Final = 86_400e6
SPANS_DAYS: Final = (1 / 24, 0.25, 1.0, 3.0, 7.0, 14.0, 30.0, 60.0)  # where each span ends
ENTROPY_MIN: Final = 1e-3  # a kind that hardly ever comes is not blown up


class TimesAhead(nn.Module):
    """Log-odds of each kind and span."""

    def __init__(self, sizes: tuple[int, ...], hidden: int, kept: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        self.kinds = kinds(sizes, kept)
        outputs = len(self.kinds) * len(SPANS_DAYS)
        self.weight = nn.Parameter(torch.randn(outputs, hidden, generator=generator) * 0.02)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def forward(self, y: Tensor, tokens: Ragged, chance: Chance) -> Tensor:
        """Return the mean over kinds of their loss, as a share of that of their rate; `y` is (N, h)."""
        n = len(tokens.time)
        place = np.sort(chance.numpy.choice(n, min(n, POSITIONS_MAX), replace=False))  # (n,)
        wait, seen = waits(tokens, place, self.kinds)  # (n, K), (n,)
        ends = np.array(SPANS_DAYS) * DAY_US
        begins = np.append(0.0, ends[:-1])
        came = wait[:, :, None] <= ends
        asked = (wait[:, :, None] > begins) & (came | (seen[:, None, None] >= ends))  # (n, K, spans)
        asks = tokens.rows.tensor(asked).float()  # whatever the products' precision: they are counted
        comes = tokens.rows.tensor(asked & came).float()
        rate = (comes.sum(dim=0) + 0.5) / (asks.sum(dim=0) + 1.0)  # (K, spans)
        level = torch.logit(rate)
        if not bool(self.get_buffer("begun")):
            with torch.no_grad():
                self.bias.copy_(level.flatten())
                self.get_buffer("begun").fill_(True)
        index = tokens.rows.tensor(place)
        logits = nn.functional.linear(y.index_select(0, index), self.weight, self.bias).float().reshape(asks.shape)
        loss = (nn.functional.softplus(logits) * asks - logits * comes).sum(dim=(0, 2))  # (K,)
        known = (nn.functional.softplus(level) * asks - level * comes).sum(dim=(0, 2))
        there = comes.sum(dim=(0, 2)) > 0
        if not bool(there.any()):
            return y.sum() * 0.0
        return (loss[there] / known[there].clamp(min=ENTROPY_MIN * len(place))).mean()


def kinds(sizes: tuple[int, ...], kept: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the field and the code of each kind; the type's, field 0, are among them however many there are.

    >>> kinds((3, 40, 2), (0, 1, 2))
    ((0, 1), (0, 2), (2, 1))
    """
    return tuple((f, code) for f in kept if f == 0 or sizes[f] <= VALUES_MAX for code in range(1, sizes[f]))


def waits(
    tokens: Ragged, place: NDArray[np.int64], asked: tuple[tuple[int, int], ...]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return from each of some events how long until each kind comes in its row, (n, K), and how long was seen, (n,).

    In microseconds; infinite where it does not come. `place` are flat places, ascending.
    """
    rows, time, n = tokens.rows, tokens.time, len(tokens.time)
    row = np.repeat(np.arange(len(rows.length)), rows.length)[place]
    stop = (rows.start + rows.length)[row]
    codes = tokens.codes.cpu().numpy()
    wait = np.full((len(place), len(asked)), np.inf)
    for k, (field, code) in enumerate(asked):
        there = np.append(np.flatnonzero(codes[:, field] == code), n)
        following = there[np.searchsorted(there, place, side="right")]
        comes = following < stop
        wait[comes, k] = (time[following[comes]] - time[place[comes]]).astype(np.float64)
    return wait, tokens.as_of[row] - time[place]
