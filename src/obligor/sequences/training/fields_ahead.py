"""Prediction of an event's fields from a hidden vector: of the next event, or of those that were masked in this one.

One linear map gives the logits of all fields. A field's loss is the cross entropy of its code: its category, or the bin
that its number or gap lies in. A field that the event does not have (code 0) teaches nothing: the type says so already.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from obligor.sequences.training.chance import Chance
from obligor.sequences.training.ragged import Rows

__all__ = ["FieldsAhead", "masked_codes", "with_next"]

POSITIONS_MAX: Final = 4096  # events of a step that are predicted; more of them cost more than they teach
ABSENT: Final = 0


class FieldsAhead(nn.Module):
    """Logits of the codes of some fields."""

    def __init__(self, sizes: tuple[int, ...], hidden: int, kept: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        self.kept = kept  # the fields that are predicted
        self.sizes = [sizes[f] for f in kept]
        self.weight = nn.Parameter(torch.randn(sum(self.sizes), hidden, generator=generator) * 0.02)
        self.bias = nn.Parameter(torch.zeros(sum(self.sizes)))

    def forward(self, y: Tensor, codes: Tensor, chance: Chance) -> Tensor:
        """Return the mean over fields of their mean cross entropy; `y` is (n, h), `codes` (n, F), 0 where not asked."""
        if len(y) > POSITIONS_MAX:
            some = torch.from_numpy(chance.numpy.choice(len(y), POSITIONS_MAX, replace=False)).to(y.device)
            y, codes = y.index_select(0, some), codes.index_select(0, some)
        logits = torch.split(nn.functional.linear(y, self.weight, self.bias).float(), self.sizes, dim=1)
        losses = []
        for field, scores in zip(self.kept, logits, strict=True):
            code = codes[:, field].long()
            if bool((code != ABSENT).any()):
                losses.append(nn.functional.cross_entropy(scores, code, ignore_index=ABSENT))
        return torch.stack(losses).mean() if losses else y.sum() * 0.0


def with_next(rows: Rows) -> Tensor:
    """Return the flat places of the events that have a next one in their row."""
    final = rows.start + rows.length - 1
    keep = torch.ones(int(rows.length.sum()), dtype=torch.bool)
    keep[torch.from_numpy(final[rows.length > 0])] = False
    return keep.nonzero().squeeze(1).to(rows.device)


def masked_codes(codes: Tensor, parts: Tensor, share: float, chance: Chance) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes and parts with a share of the fields made absent, and the codes of those alone (0 elsewhere)."""
    hidden = torch.from_numpy(chance.numpy.random(tuple(codes.shape)) < share).to(codes.device)
    return codes.masked_fill(hidden, ABSENT), parts.masked_fill(hidden, 0.0), codes.masked_fill(~hidden, ABSENT)
