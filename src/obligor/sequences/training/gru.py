"""Gated recurrent unit (Cho et al. 2014), in PyTorch's convention of gates: r, z, n.

    r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh);  n = tanh(W_in x + b_in + r * (W_hn h + b_hn));  h <- (1 - z) n + z h

On CPU the steps are gone through here instead of in torch's own: rows lie by step, longest first, so no step computes
padding, each step is one matrix product, and the gradient of the weights is one product over all steps at once. On a
GPU cuDNN does it, on the same layout.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from obligor.sequences.training.ragged import Rows

__all__ = ["GRU"]


class GRU(nn.Module):
    """One layer."""

    def __init__(self, width: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = hidden

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter((torch.rand(shape, generator=generator) * 2 - 1) / hidden**0.5)

        self.weight_ih, self.weight_hh = uniform(3 * hidden, width), uniform(3 * hidden, hidden)
        self.bias_ih, self.bias_hh = uniform(3 * hidden), uniform(3 * hidden)

    def zero(self, rows: int, like: Tensor) -> Tensor:
        """Return the state of rows that have seen nothing, (B, h)."""
        return like.new_zeros(rows, self.hidden)

    def forward(self, x: Tensor, rows: Rows, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden vector after each event (N, h), and the state after the last of each row (B, h)."""
        place, order, counts = rows.by_step
        if not counts:
            return x.new_zeros(0, self.hidden), state
        begin = state.index_select(0, order)  # (B, h), longest row first
        if x.device.type == "cpu":
            gates = nn.functional.linear(x.index_select(0, place), self.weight_ih, self.bias_ih)  # (N, 3h) by step
            y, end = _Steps.apply(gates, self.weight_hh, self.bias_hh, begin, counts)  # type: ignore[no-untyped-call]
        else:
            y, end = self._fused(x.index_select(0, place), begin, counts)
        flat = torch.empty_like(place).scatter_(0, place, torch.arange(len(place), device=place.device))
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return y.index_select(0, flat), end.index_select(0, back)

    def _fused(self, x: Tensor, begin: Tensor, counts: list[int]) -> tuple[Tensor, Tensor]:
        weights: list[Tensor] = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        live = counts[0]  # rows without events are no rows to torch
        sizes = torch.tensor(counts)
        y, end = torch.gru(x, sizes, begin[None, :live].contiguous(), weights, True, 1, 0.0, self.training, False)
        return y, torch.cat((end[0], begin[live:]))


class _Steps(torch.autograd.Function):
    """The steps, and their gradient."""

    @staticmethod
    def forward(
        context: Any, gates: Tensor, weight: Tensor, bias: Tensor, begin: Tensor, counts: list[int]
    ) -> tuple[Tensor, Tensor]:
        h = weight.shape[1]
        y, before = gates.new_empty(len(gates), h), gates.new_empty(len(gates), h)  # the state after and before
        rzn, inner = torch.empty_like(gates), gates.new_empty(len(gates), h)  # gates, and W_hn h + b_hn
        transposed = weight.t().contiguous()  # (h, 3h)
        state, at = begin.clone(), 0
        for rows in counts:
            here, now = slice(at, at + rows), state[:rows]
            before[here] = now
            turned = torch.addmm(bias, now, transposed)  # (rows, 3h)
            inner[here] = turned[:, 2 * h :]
            rz = torch.add(gates[here, : 2 * h], turned[:, : 2 * h], out=rzn[here, : 2 * h]).sigmoid_()
            n = torch.addcmul(gates[here, 2 * h :], rz[:, :h], turned[:, 2 * h :], out=rzn[here, 2 * h :]).tanh_()
            torch.lerp(n, now, rz[:, h:], out=y[here])  # (1 - z) n + z h
            state[:rows] = y[here]
            at += rows
        context.save_for_backward(before, rzn, inner, weight)
        context.counts = counts
        return y, state

    @staticmethod
    def backward(context: Any, *given: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        slope_y, slope_end = given
        before, rzn, inner, weight = context.saved_tensors
        h = weight.shape[1]
        r, z, n = rzn.split(h, dim=1)
        # What a change of h_t does to each gate's argument, for all steps at once; the steps then only scale it.
        of_n = (1 - z) * (1 - n * n)
        of_z = (before - n) * z * (1 - z)
        of_r = inner * r * (1 - r)
        inputs, turned = torch.empty_like(rzn), torch.empty_like(rzn)
        slope, at = slope_end.clone(), len(rzn)
        for rows in reversed(context.counts):
            here = slice(at - rows, at)
            now = slope[:rows]
            now += slope_y[here]
            down = torch.mul(now, of_n[here], out=inputs[here, 2 * h :])
            torch.mul(now, of_z[here], out=inputs[here, h : 2 * h])
            torch.mul(down, of_r[here], out=inputs[here, :h])
            turned[here, : 2 * h] = inputs[here, : 2 * h]
            torch.mul(down, r[here], out=turned[here, 2 * h :])
            now *= z[here]
            now.addmm_(turned[here], weight)
            at -= rows
        return inputs, turned.t() @ before, turned.sum(dim=0), slope, None
