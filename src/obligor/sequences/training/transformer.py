"""Causal Transformer over the last events (Vaswani et al. 2017), pre-norm, with rotary positions in time.

The rotary embedding (Su et al. 2021) turns pair (2j, 2j+1) of a head by (t_i - t_last) in days times 2 pi / P_j, where
P_j runs geometrically from two hours to two years: attention sees how much time lies between two events, and daily,
weekly and monthly rhythms, not how many events. t_last is the newest event of the slice.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from obligor.sequences.training.ragged import Rows

__all__ = ["Transformer", "turns"]

PERIOD_DAYS_MIN: Final = 1 / 12
PERIOD_DAYS_MAX: Final = 730.0
DAY_US: Final = 86_400e6
NORM_FLOOR: Final = 1e-5


class Transformer(nn.Module):
    """Some layers of attention and perceptron."""

    def __init__(self, width: int, hidden: int, layers: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden, self.heads = hidden, heads
        self.inlet = _normal(hidden, width, generator)
        self.layer = nn.ModuleList(_Layer(hidden, heads, layers, generator) for _ in range(layers))
        self.final_norm = nn.Parameter(torch.ones(hidden))

    def forward(self, x: Tensor, rows: Rows, time: NDArray[np.int64]) -> Tensor:
        """Return the hidden vector of each event, (N, h)."""
        if rows.longest == 0:
            return x.new_zeros(0, self.hidden)
        y = rows.padded(nn.functional.linear(x, self.inlet), rows.longest)  # (B, L, h)
        angle = rows.padded(rows.tensor(turns(time, rows, self.hidden // self.heads)), rows.longest)  # (B, L, size/2)
        cos, sin = angle.cos().to(y.dtype)[:, None], angle.sin().to(y.dtype)[:, None]  # (B, 1, L, size/2)
        for layer in self.layer:
            y = layer(y, cos, sin)
        return rows.flat(_rms(y, self.final_norm))


class _Layer(nn.Module):
    def __init__(self, hidden: int, heads: int, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.Parameter(torch.ones(hidden)), nn.Parameter(torch.ones(hidden))
        self.qkv, self.up = _normal(3 * hidden, hidden, generator), _normal(4 * hidden, hidden, generator)
        # What a layer adds to the residual stream starts the smaller the more layers there are (Radford et al. 2019).
        self.out = _normal(hidden, hidden, generator, (2 * layers) ** -0.5)
        self.down = _normal(hidden, 4 * hidden, generator, (2 * layers) ** -0.5)

    def forward(self, y: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        linear = nn.functional.linear
        qkv = linear(_rms(y, self.norm1), self.qkv).reshape(*y.shape[:2], 3, self.heads, -1)  # (B, L, 3, heads, size)
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(dim=2))  # (B, heads, L, size)
        query, key = _turned(query, cos, sin), _turned(key, cos, sin)
        seen = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        y = y + linear(seen.transpose(1, 2).flatten(2), self.out)  # (B, L, h)
        return y + linear(nn.functional.silu(linear(_rms(y, self.norm2), self.up)), self.down)


def turns(time: NDArray[np.int64], rows: Rows, size: int) -> NDArray[np.float64]:
    """Return the angle of each event and pair of a head, (N, size / 2), in [0, 2 pi)."""
    last = time[np.maximum(rows.start + rows.length - 1, 0).clip(max=max(len(time) - 1, 0))]  # (B,)
    days = (time - np.repeat(last, rows.length)) / DAY_US  # (N,)
    periods = np.geomspace(PERIOD_DAYS_MIN, PERIOD_DAYS_MAX, size // 2)
    # Whole turns are taken off in float64: thousands of them would leave float32 no digits for the rest.
    return np.asarray(2 * np.pi * np.mod(days[:, None] / periods, 1.0))


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def _rms(y: Tensor, weight: Tensor) -> Tensor:
    return y * torch.rsqrt(y.square().mean(dim=-1, keepdim=True) + NORM_FLOOR) * weight


def _normal(outputs: int, inputs: int, generator: torch.Generator, scale: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.randn(outputs, inputs, generator=generator) * scale / inputs**0.5)
