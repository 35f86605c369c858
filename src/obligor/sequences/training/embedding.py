"""Token embedding: an event's vector is the sum of its fields' table rows, between two rows where a number lies so.

    x_t = sum over fields f of (1 - part) * T_f[code] + part * T_f[code + 1]        the second only where part != 0

Piecewise-linear codes as in Gorishniy, Rubachev and Babenko (2022), on one position an event. No bias and no norm: the
sum is linear, so that serving may fold the encoder's input matrix into the tables. All tables are one matrix here.

A periodic field is the same paper's (section 3.3): of a number x and frequencies c, which are learnt from N(0, TURNS)
on, sin(2 pi c_j x) and cos(2 pi c_j x) are the shares of the rows of its table, a linear map. Turns are taken in
float64 and whole ones left out before the sine, as serving does: so what is far out is as exact as what is near.

A field that an event does not have adds nothing: row 0 of every table is 0 and stays so. So what most fields of most
events are costs nothing, and a token has the same size whatever fields other kinds of events have. Fields to which the
encoder is blind have tables of zeros, which serving then adds: they say nothing there either.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from obligor.sequences.training.ragged import Ragged

__all__ = ["WAVES", "TokenEmbedding"]

PRESENT: Final = 8.0  # fields that an event is expected to have: a fresh token's numbers have about unit variance
WAVES: Final = 8  # frequencies of a periodic field
TURNS: Final = 0.5  # deviation of a fresh frequency: turns from the first quarter of a number's values to the last


class TokenEmbedding(nn.Module):
    """Tables of all fields, one below another, and the frequencies of those that are periodic."""

    def __init__(
        self,
        rows: tuple[int, ...],  # of each field's table
        width: int,
        generator: torch.Generator,
        blind: tuple[int, ...] = (),
        waves: tuple[int, ...] = (),  # frequencies of each field; (): none is periodic
    ) -> None:
        super().__init__()
        self.rows, self.blind = rows, blind
        self.waves = {field: count for field, count in enumerate(waves) if count}
        table = torch.randn(sum(rows), width, generator=generator) * PRESENT**-0.5  # (V, d)
        first = torch.from_numpy(np.cumsum([0, *rows[:-1]]))  # (F,)
        table[first] = 0
        for field, count in self.waves.items():
            table[first[field] : first[field] + rows[field]] *= count**-0.5  # squares of a sine and its cosine add to 1
        for field in blind:
            table[first[field] : first[field] + rows[field]] = 0
        self.table = nn.Parameter(table)
        if self.waves:
            self.frequencies = nn.Parameter(torch.randn(sum(waves), generator=generator) * TURNS)
        tabled = [field for field in range(len(rows)) if field not in blind and field not in self.waves]
        read = torch.tensor(tabled, dtype=torch.int64)
        self.register_buffer("read", read, persistent=False)
        self.register_buffer("first", first[read].to(torch.int32), persistent=False)

    def forward(self, tokens: Ragged) -> Tensor:
        """Return the vector of each event, (N, d)."""
        codes, parts = tokens.codes, tokens.parts  # (N, F)
        if self.blind or self.waves:
            read = self.get_buffer("read")
            codes, parts = codes.index_select(1, read), parts.index_select(1, read)
        index = codes + self.get_buffer("first")
        between = parts.ne(0)
        x = self._sum(index, codes.ne(0), 1 - parts) + self._sum(index + 1, between, parts)
        if self.waves:
            tables = torch.split(self.table, list(self.rows))
            for field, own in self._by_field(self.frequencies).items():
                if field not in self.blind:
                    there = tokens.codes[:, field].nonzero().squeeze(1)  # (n,)
                    made = _waves(tokens.parts[:, field].index_select(0, there), own) @ tables[field][1:]  # (n, d)
                    x = x.index_add(0, there, made.to(x.dtype))
        return x

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
        return list(torch.split(self.table.detach(), list(self.rows)))

    def turns(self) -> dict[int, Tensor]:
        """Return the frequencies of each periodic field, (k,)."""
        return self._by_field(self.frequencies.detach()) if self.waves else {}

    def _by_field(self, frequencies: Tensor) -> dict[int, Tensor]:
        return dict(zip(self.waves, torch.split(frequencies, list(self.waves.values())), strict=True))


def _waves(numbers: Tensor, frequencies: Tensor) -> Tensor:
    """Return sines and cosines of numbers (n,) at frequencies (k,), (n, 2k)."""
    turns = numbers.double()[:, None] * frequencies.double()  # (n, k)
    angle = (turns - turns.detach().round()).float() * (2 * math.pi)
    return torch.cat((angle.sin(), angle.cos()), dim=1)
