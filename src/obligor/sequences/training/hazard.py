"""The likelihood of lives (see `lived`): over the months that a loan has lived, and no further.

So an immature loan teaches what it can, and no outcome is made up for the months that are still to come.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from obligor.sequences.lived import OPEN

__all__ = ["lived_loss"]


def lived_loss(logits: Tensor, months: Tensor, ended: Tensor) -> Tensor:
    """Return the negative log-likelihood of each row, (B,).

    `logits` (B, M, 2) are log-odds of default and repayment against neither. What comes after month M is not seen.
    """
    horizon = logits.shape[1]
    neither = logits.new_zeros(*logits.shape[:2], 1)
    log_chance = nn.functional.log_softmax(torch.cat((neither, logits), dim=2), dim=2)  # (B, M, 3)
    month = torch.arange(1, horizon + 1, device=logits.device)
    at_end = (month == months[:, None]) & (ended[:, None] != OPEN)  # (B, M)
    outcome = torch.where(at_end, ended[:, None], OPEN)
    told = log_chance.gather(2, outcome[:, :, None]).squeeze(2)
    return -torch.where(month <= months[:, None], told, 0.0).sum(dim=1)
