"""Discrete-time hazard of default per month, with prepayment as a competing risk (Tutz and Schmid 2016).

In month j of a loan that is still open, default, prepayment and neither have the probabilities of a softmax over
(a_j, b_j, 0). A loan's likelihood goes over the months that it has lived and no further: so an immature loan teaches
what it can, and no outcome is made up for the months that are still to come.

    PD(m) = sum over j <= m of S(j - 1) * h_default(j),   S(j) = S(j - 1) * (1 - h_default(j) - h_prepay(j))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from obligor.errors import BadInput, Problem

__all__ = ["DEFAULTED", "OPEN", "PREPAID", "Lived", "hazards", "lived_loss", "pd_by"]

OPEN: Final = 0  # neither default nor prepayment by the last month lived
DEFAULTED: Final = 1
PREPAID: Final = 2

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Lived:
    """What is known of each loan: how many months it has lived in full view, and how the last of them ended."""

    months: NDArray[np.int64]  # (n,) 0: nothing is known; a default in the first month is months = 1
    ended: NDArray[np.int64]  # (n,) OPEN, DEFAULTED or PREPAID

    def __post_init__(self) -> None:
        wrong = []
        if self.months.shape != self.ended.shape or self.months.ndim != 1:
            raise BadInput(Problem("$.ended", f"expected shape {self.months.shape}, got {self.ended.shape}"))
        for row in np.flatnonzero((self.ended < OPEN) | (self.ended > PREPAID))[:1]:
            wrong.append(Problem(f"$.ended[{row}]", f"expected 0, 1 or 2, got {self.ended[row]}"))
        for row in np.flatnonzero((self.months < 0) | ((self.months == 0) & (self.ended != OPEN)))[:1]:
            wrong.append(
                Problem(f"$.months[{row}]", f"expected at least 1 where a loan has ended, got {self.months[row]}")
            )
        if wrong:
            raise BadInput(wrong)


def lived_loss(logits: Tensor, months: Tensor, ended: Tensor) -> Tensor:
    """Return the negative log-likelihood of each row, (B,).

    `logits` (B, M, 2) are log-odds of default and prepayment against neither. What comes after month M is not seen.
    """
    horizon = logits.shape[1]
    neither = logits.new_zeros(*logits.shape[:2], 1)
    log_chance = nn.functional.log_softmax(torch.cat((neither, logits), dim=2), dim=2)  # (B, M, 3)
    month = torch.arange(1, horizon + 1, device=logits.device)
    at_end = (month == months[:, None]) & (ended[:, None] != OPEN)  # (B, M)
    outcome = torch.where(at_end, ended[:, None], OPEN)
    told = log_chance.gather(2, outcome[:, :, None]).squeeze(2)
    return -torch.where(month <= months[:, None], told, 0.0).sum(dim=1)


def hazards(log_odds: Floats) -> tuple[Floats, Floats]:
    """Return the hazard of default and of prepayment in each month, (n, M) each, from log-odds (n, M, 2)."""
    top = np.maximum(log_odds.max(axis=2, keepdims=True), 0.0)
    weight = np.exp(log_odds - top)
    whole = weight.sum(axis=2) + np.exp(-top[:, :, 0])
    return weight[:, :, 0] / whole, weight[:, :, 1] / whole


def pd_by(log_odds: Floats) -> Floats:
    """Return the probability of default within 1, 2, ... M months, (n, M), from log-odds (n, M, 2).

    >>> pd_by(np.log([[[0.1 / 0.7, 0.2 / 0.7], [0.1 / 0.7, 0.2 / 0.7]]])).round(4)
    array([[0.1 , 0.17]])
    """
    default, prepay = hazards(log_odds)
    open_after = np.cumprod(1.0 - default - prepay, axis=1)  # (n, M)
    open_before = np.concatenate((np.ones((len(default), 1)), open_after[:, :-1]), axis=1)
    return np.cumsum(open_before * default, axis=1)
