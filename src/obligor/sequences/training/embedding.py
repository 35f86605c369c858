"""Token embedding: an event's vector is the sum of its fields' table rows, between two rows where a number lies so.

    x_t = sum over fields f of (1 - part) * T_f[code] + part * T_f[code + 1]        the second only where part != 0

Piecewise-linear codes as in Gorishniy, Rubachev and Babenko (2022), on one position an event. No bias and no norm: the
sum is linear, so that serving may fold the encoder's input matrix into the tables. All tables are one matrix here.

A field that an event does not have adds nothing: row 0 of every table is 0 and stays so. So what most fields of most
events are costs nothing, and a token has the same size whatever fields other kinds of events have. Fields to which the
encoder is blind have tables of zeros, which serving then adds: they say nothing there either.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from obligor.sequences.training.ragged import Ragged

__all__ = ["TokenEmbedding"]

PRESENT: Final = 8.0  # fields that an event is expected to have: a fresh token's numbers have about unit variance


class TokenEmbedding(nn.Module):
    """Tables of all fields, one below another."""

    def __init__(
        self, sizes: tuple[int, ...], width: int, generator: torch.Generator, blind: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.sizes, self.blind = sizes, blind
        table = torch.randn(sum(sizes), width, generator=generator) * PRESENT**-0.5  # (V, d)
        first = torch.from_numpy(np.cumsum([0, *sizes[:-1]]))  # (F,)
        table[first] = 0
        for field in blind:
            table[first[field] : first[field] + sizes[field]] = 0
        self.table = nn.Parameter(table)
        read = torch.tensor([field for field in range(len(sizes)) if field not in blind], dtype=torch.int64)
        self.register_buffer("read", read, persistent=False)
        self.register_buffer("first", first[read].to(torch.int32), persistent=False)

    def forward(self, tokens: Ragged) -> Tensor:
        """Return the vector of each event, (N, d)."""
        codes, parts = tokens.codes, tokens.parts  # (N, F)
        if self.blind:
            read = self.get_buffer("read")
            codes, parts = codes.index_select(1, read), parts.index_select(1, read)
        index = codes + self.get_buffer("first")
        between = parts.ne(0)
        return self._sum(index, codes.ne(0), 1 - parts) + self._sum(index + 1, between, parts)

    def _sum(self, index: Tensor, there: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted sum of each event's rows, (N, d), over the fields that are there."""
        counts = there.sum(dim=1)
        begins = counts.cumsum(0) - counts
        weights = weights[there].to(self.table.dtype)
        return nn.functional.embedding_bag(
            index[there].long(), self.table, begins, mode="sum", per_sample_weights=weights
        )  # (N, d)

    def tables(self) -> list[Tensor]:
        """Return the table of each field, (rows, d)."""
        return list(torch.split(self.table.detach(), list(self.sizes)))
