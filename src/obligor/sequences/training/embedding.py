"""Token embedding: an event's vector is the sum of its fields' table rows, between two rows where a number lies so.

    x_t = sum over fields f of (1 - part) * T_f[code] + part * T_f[code + 1]        the second only where part != 0

Piecewise-linear codes as in Gorishniy, Rubachev and Babenko (2022), on one position an event. No bias and no norm: the
sum is linear, so that serving may fold the encoder's input matrix into the tables. All tables are one matrix here.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from obligor.sequences.training.ragged import Ragged

__all__ = ["TokenEmbedding"]

SPREAD: Final = 2.0  # standard deviation of a fresh token vector: enough for an untrained state to tell events apart


class TokenEmbedding(nn.Module):
    """Tables of all fields, one below another."""

    def __init__(self, sizes: tuple[int, ...], width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.sizes = sizes
        spread = SPREAD / len(sizes) ** 0.5
        self.table = nn.Parameter(torch.randn(sum(sizes), width, generator=generator) * spread)  # (V, d)
        first = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
        self.register_buffer("first", torch.from_numpy(first), persistent=False)  # (F,)

    def forward(self, tokens: Ragged) -> Tensor:
        """Return the vector of each event, (N, d)."""
        first: Tensor = self.get_buffer("first")
        index, parts = tokens.codes + first, tokens.parts  # (N, F)
        between = parts.ne(0)
        numbers = between.any(dim=0).nonzero().squeeze(1)  # the fields that lie between two rows anywhere: (P,)
        second = index[:, numbers] + between[:, numbers]
        index = torch.cat((index, second), dim=1)  # (N, F + P)
        weights = torch.cat((1 - parts, parts[:, numbers]), dim=1).to(self.table.dtype)
        return nn.functional.embedding_bag(index, self.table, mode="sum", per_sample_weights=weights)  # (N, d)

    def tables(self) -> list[Tensor]:
        """Return the table of each field, (rows, d)."""
        return list(torch.split(self.table.detach(), list(self.sizes)))
