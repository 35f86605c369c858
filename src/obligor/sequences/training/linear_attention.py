"""Gated linear attention (Yang et al. 2024): a recurrent encoder whose state is a matrix for each head.

    q, k, v = W x;  g = sigmoid(W_decay x + b) ^ (1/16), for each key dimension
    S <- diag(g) S + k v^T;  o = (q / sqrt(h/heads))^T S;  o <- o / sqrt(mean(o^2) + 1e-5) * norm
    y = W_out (o * silu(W_gate x))

Events are gone through in chunks: within one the sums are matrix products, from one to the next the state goes on.
Decays within a chunk are taken from its middle, so that neither they nor their inverses leave float32.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from obligor.sequences.training.ragged import Rows

__all__ = ["LinearAttention"]

CHUNK: Final = 16  # events whose products are formed at once
DECAY_ROOT: Final = 16
NORM_FLOOR: Final = 1e-5
BIAS_MAX: Final = 6.0  # fresh decays lie between sigmoid(0) and sigmoid(6), to the power of 1/16: 0.958 to 0.9998


class LinearAttention(nn.Module):
    """One layer."""

    def __init__(self, width: int, hidden: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden, self.heads = hidden, heads

        def normal(outputs: int, inputs: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(outputs, inputs, generator=generator) / inputs**0.5)

        self.query, self.key, self.value = normal(hidden, width), normal(hidden, width), normal(hidden, width)
        self.decay, self.gate, self.out = normal(hidden, width), normal(hidden, width), normal(hidden, hidden)
        self.decay_bias = nn.Parameter(torch.linspace(0.0, BIAS_MAX, hidden // heads).repeat(heads))
        self.norm = nn.Parameter(torch.ones(hidden))

    def zero(self, rows: int, like: Tensor) -> Tensor:
        """Return the state of rows that have seen nothing, (B, heads, h / heads, h / heads)."""
        size = self.hidden // self.heads
        return like.new_zeros(rows, self.heads, size, size)

    def forward(self, x: Tensor, rows: Rows, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden vector after each event (N, h), and the state after the last of each row."""
        linear = nn.functional.linear
        if rows.longest == 0:
            return x.new_zeros(0, self.hidden), state
        width = -(-rows.longest // CHUNK) * CHUNK
        size = self.hidden // self.heads
        query = self._by_head(linear(x, self.query) / size**0.5, rows, width)  # (B, heads, chunks, CHUNK, size)
        key = self._by_head(linear(x, self.key), rows, width)  # no key beyond a row's end,
        value = self._by_head(linear(x, self.value), rows, width)
        decay = nn.functional.logsigmoid(linear(x, self.decay, self.decay_bias)) / DECAY_ROOT
        log_decay = self._by_head(decay, rows, width)  # and no decay there: the state stays as it is
        read, state = _chunks(query, key, value, log_decay.cumsum(dim=3), state)
        read = rows.flat(read.permute(0, 2, 3, 1, 4).flatten(1, 2))  # (N, heads, size)
        read = read * torch.rsqrt(read.square().mean(dim=2, keepdim=True) + NORM_FLOOR)
        gated = read.flatten(1) * self.norm * nn.functional.silu(linear(x, self.gate))
        return linear(gated, self.out), state  # (N, h)

    def _by_head(self, flat: Tensor, rows: Rows, width: int) -> Tensor:
        block = rows.padded(flat, width).reshape(len(rows.length), width // CHUNK, CHUNK, self.heads, -1)
        return block.permute(0, 3, 1, 2, 4)


def _chunks(query: Tensor, key: Tensor, value: Tensor, gone: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return what each event reads, (B, heads, chunks, CHUNK, size), and the last state.

    `gone` is the log of how much a chunk's events up to and including each have let the state decay.
    """
    middle, whole = gone[:, :, :, CHUNK // 2, None], gone[:, :, :, -1:]
    within = (query * (gone - middle).exp()) @ (key * (middle - gone).exp()).transpose(-1, -2)
    causal = torch.ones(CHUNK, CHUNK, dtype=torch.bool, device=query.device).tril()
    read = within.masked_fill(~causal, 0.0) @ value
    added = (key * (whole - gone).exp()).transpose(-1, -2) @ value  # (B, heads, chunks, size, size)
    kept = whole.exp().transpose(-1, -2)  # (B, heads, chunks, size, 1)
    states = []
    for chunk in range(query.shape[2]):
        states.append(state)
        state = kept[:, :, chunk] * state + added[:, :, chunk]
    return read + (query * gone.exp()) @ torch.stack(states, dim=2), state
