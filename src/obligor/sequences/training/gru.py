"""Gated recurrent unit (Cho et al. 2014), in PyTorch's convention of gates: r, z, n.

    r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh);  n = tanh(W_in x + b_in + r * (W_hn h + b_hn));  h <- (1 - z) n + z h

With z = sigmoid(b) a unit forgets over 1 + e^b events. With small random biases a fresh encoder knows the last two or
three, and how often something happens leaves hardly a gradient. Asked to remember longer, units forget over spans
spread evenly up to that ("chrono initialisation", Tallec and Ollivier 2018); what lies in the order of a few events is
then learnt later.

On CPU the steps are gone through here instead of in torch's own: rows lie by step, longest first, so no step computes
padding, and neither values nor gradients of all steps at once ever leave the cache for memory and come back. On a GPU
cuDNN does it, on the same layout.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from obligor.sequences.training.ragged import Rows

__all__ = ["GRU"]


class GRU(nn.Module):
    """One layer; of a fresh one the slowest units forget over `memory_events` (0: all within a few)."""

    def __init__(self, width: int, hidden: int, generator: torch.Generator, memory_events: int = 0) -> None:
        super().__init__()
        self.hidden = hidden

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter((torch.rand(shape, generator=generator) * 2 - 1) / hidden**0.5)

        self.weight_ih, self.weight_hh = uniform(3 * hidden, width), uniform(3 * hidden, hidden)
        self.bias_ih, self.bias_hh = uniform(3 * hidden), uniform(3 * hidden)
        if memory_events:
            spans = 1 + torch.rand(hidden, generator=generator) * max(memory_events - 2, 0)  # events
            with torch.no_grad():
                self.bias_ih[hidden : 2 * hidden] = spans.log()
                self.bias_hh[hidden : 2 * hidden] = 0

    def zero(self, rows: int, like: Tensor) -> Tensor:
        """Return the state of rows that have seen nothing, (B, h)."""
        return like.new_zeros(rows, self.hidden)

    def forward(self, x: Tensor, rows: Rows, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden vector after each event (N, h), and the state after the last of each row (B, h)."""
        place, order, counts = rows.by_step
        if not counts:
            return x.new_zeros(0, self.hidden), state
        begin = state.index_select(0, order)  # (B, h), longest row first
        x = x.index_select(0, place)  # (N, d) by step
        if x.device.type == "cpu":
            weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
            y, end = _Steps.apply(x, *weights, begin, counts)  # type: ignore[no-untyped-call]
        else:
            y, end = self._fused(x, begin, counts)
        flat = torch.empty_like(place).scatter_(0, place, torch.arange(len(place), device=place.device))
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return y.index_select(0, flat), end.index_select(0, back)

    def _fused(self, x: Tensor, begin: Tensor, counts: list[int]) -> tuple[Tensor, Tensor]:
        parts = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        # cuDNN wants its weights one behind the other, and warns where they are not.
        whole, weights, begins = torch.cat([part.flatten() for part in parts]), [], 0
        for part in parts:
            weights.append(whole[begins : begins + part.numel()].view_as(part))
            begins += part.numel()
        live = counts[0]  # rows without events are no rows to torch
        sizes = torch.tensor(counts)
        y, end = torch.gru(x, sizes, begin[None, :live].contiguous(), weights, True, 1, 0.0, self.training, False)
        return y, torch.cat((end[0], begin[live:]))


class _Steps(torch.autograd.Function):
    """The steps, and their gradient.

    All that a step computes fits into the processor's cache; what is kept for the gradient is four vectors an event.
    The state before a step is the head of what the step before has written, because rows only ever end.
    """

    @staticmethod
    def forward(context: Any, *given: Any) -> tuple[Tensor, Tensor]:
        x, weight_ih, weight_hh, bias_ih, bias_hh, begin, counts = given
        h = weight_hh.shape[1]
        y, inner, kept = (x.new_empty(len(x), width) for width in (h, h, 3 * h))  # kept: r, z, n; inner: W_hn h + b_hn
        from_x, from_h = weight_ih.t().contiguous(), weight_hh.t().contiguous()  # (d, 3h), (h, 3h)
        ahead, turned = (x.new_empty(len(begin), 3 * h) for _ in range(2))
        now, steps = (
            begin,
            zip(counts, x.split(counts), y.split(counts), inner.split(counts), kept.split(counts), strict=True),
        )
        for rows, x_t, y_t, inner_t, kept_t in steps:
            a = torch.addmm(bias_ih, x_t, from_x, out=ahead[:rows])
            b = torch.addmm(bias_hh, now[:rows], from_h, out=turned[:rows])
            inner_t.copy_(b[:, 2 * h :])
            rz = a[:, : 2 * h].add_(b[:, : 2 * h]).sigmoid_()
            # tanh(v) = 2 sigmoid(2 v) - 1: torch has a sigmoid of vectors, and a tanh of one number at a time.
            n = a[:, 2 * h :].addcmul_(rz[:, :h], b[:, 2 * h :]).mul_(2).sigmoid_().mul_(2).sub_(1)
            kept_t.copy_(a)
            now = torch.lerp(n, now[:rows], rz[:, h:], out=y_t)  # (1 - z) n + z h
        state = begin.clone()
        for rows, following, at in _ends(counts):
            state[following:rows] = y[at + following : at + rows]
        context.save_for_backward(x, weight_ih, weight_hh, begin, y, inner, kept)
        context.counts = counts
        return y, state

    @staticmethod
    def backward(context: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        slope_y, slope_end = given
        x, weight_ih, weight_hh, begin, y, inner, kept = context.saved_tensors
        h, counts = weight_hh.shape[1], context.counts
        of_x, slope = torch.empty_like(x), slope_end.clone()
        of_ih, of_hh = torch.zeros_like(weight_ih), torch.zeros_like(weight_hh)
        of_bias_ih, of_bias_hh = x.new_zeros(3 * h), x.new_zeros(3 * h)
        ahead, turned = (x.new_empty(len(begin), 3 * h) for _ in range(2))
        one, other = (x.new_empty(len(begin), h) for _ in range(2))
        earlier = (begin, *y.split(counts)[:-1])
        parts = (t.split(counts) for t in (x, of_x, inner, kept, slope_y))
        for rows, before, x_t, of_x_t, inner_t, kept_t, slope_t in reversed(
            list(zip(counts, earlier, *parts, strict=True))
        ):
            before = before[:rows]
            now = slope[:rows].add_(slope_t)
            r, z, n = kept_t.split(h, dim=1)
            a, b = ahead[:rows], turned[:rows]
            left, squared = torch.sub(1, z, out=one[:rows]), torch.mul(n, n, out=other[:rows])
            # now * (1 - z) * (1 - n^2)
            torch.mul(left, now, out=a[:, 2 * h :]).addcmul_(a[:, 2 * h :], squared, value=-1)
            # now * (before - n) * z * (1 - z)
            torch.sub(before, n, out=other[:rows]).mul_(left).mul_(z)
            torch.mul(other[:rows], now, out=a[:, h : 2 * h])
            # what comes through n, times inner * r * (1 - r)
            torch.mul(a[:, 2 * h :], r, out=b[:, 2 * h :])
            torch.sub(1, r, out=one[:rows]).mul_(inner_t)
            torch.mul(b[:, 2 * h :], one[:rows], out=a[:, :h])
            b[:, : 2 * h] = a[:, : 2 * h]
            of_bias_ih += a.sum(dim=0)
            of_bias_hh += b.sum(dim=0)
            of_ih.addmm_(a.t(), x_t)
            of_hh.addmm_(b.t(), before)
            torch.mm(a, weight_ih, out=of_x_t)
            now.mul_(z).addmm_(b, weight_hh)
        return of_x, of_ih, of_hh, of_bias_ih, of_bias_hh, slope, None


def _ends(counts: list[int]) -> list[tuple[int, int, int]]:
    """Return of each step after which rows end: how many rows it has, how many the next one has, where it begins."""
    begins = itertools.accumulate(counts, initial=0)
    following = [*counts[1:], 0]
    return [(rows, left, at) for rows, left, at in zip(counts, following, begins, strict=False) if left < rows]
