"""Gated recurrent unit (Cho et al. 2014), in PyTorch's convention of gates: r, z, n.

    r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh);  n = tanh(W_in x + b_in + r * (W_hn h + b_hn));  h <- (1 - z) n + z h

With z = sigmoid(b) a unit forgets over 1 + e^b events. With small random biases a fresh encoder knows the last two or
three, and how often something happens leaves hardly a gradient. Asked to remember longer, units forget over spans
spread evenly up to that ("chrono initialisation", Tallec and Ollivier 2018); what lies in the order of a few events is
then learnt later.

On CPU the steps are gone through here instead of in torch's own: rows lie by step, longest first, so no step computes
padding, all that is no product is one pass over a step's rows (`kernels/gru_steps`), and neither values nor gradients
of all steps at once ever leave the cache for memory and come back. On a GPU cuDNN does it, on the same layout.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from obligor.sequences.kernels.gru_steps import gates, slopes
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
    """The steps, and their gradient: products are torch's, all else is one pass over a step's rows.

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
        products, written = (_array(ahead), _array(turned)), (_array(y), _array(inner), _array(kept))
        before, earlier, at = begin, 0, 0
        for rows, x_t in zip(counts, x.split(counts), strict=True):
            torch.addmm(bias_ih, x_t, from_x, out=ahead[:rows])
            torch.addmm(bias_hh, before[earlier : earlier + rows], from_h, out=turned[:rows])
            gates(*products, _array(before), earlier, *written, at, rows)
            before, earlier, at = y, at, at + rows
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
        of_x, slope = torch.empty_like(x), slope_end.clone(memory_format=torch.contiguous_format)
        of_ih, of_hh = torch.zeros_like(weight_ih), torch.zeros_like(weight_hh)
        ahead, turned = (x.new_empty(len(begin), 3 * h) for _ in range(2))
        biases = np.zeros(4 * h)  # of r, z and n in W_ih x, of n in W_hh h
        told, read, written = (
            (_array(slope), _array(slope_y)), (_array(inner), _array(kept)), (_array(ahead), _array(turned))
        )  # fmt: skip
        at = len(x)
        for step in range(len(counts) - 1, -1, -1):
            rows, at = counts[step], at - counts[step]
            before, earlier = (y, at - counts[step - 1]) if step else (begin, 0)
            slopes(*told, _array(before), earlier, *read, at, rows, *written, biases)
            a, b = ahead[:rows], turned[:rows]
            of_ih.addmm_(a.t(), x[at : at + rows])
            of_hh.addmm_(b.t(), before[earlier : earlier + rows])
            torch.mm(a, weight_ih, out=of_x[at : at + rows])
            slope[:rows].addmm_(b, weight_hh)
        of_biases = torch.from_numpy(biases).to(x.dtype)
        of_bias_hh = torch.cat((of_biases[: 2 * h], of_biases[3 * h :]))
        return of_x, of_ih, of_hh, of_biases[: 3 * h], of_bias_hh, slope, None


def _array(tensor: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = tensor.detach().contiguous().numpy()
    return found


def _ends(counts: list[int]) -> list[tuple[int, int, int]]:
    """Return of each step after which rows end: how many rows it has, how many the next one has, where it begins."""
    begins = itertools.accumulate(counts, initial=0)
    following = [*counts[1:], 0]
    return [(rows, left, at) for rows, left, at in zip(counts, following, begins, strict=False) if left < rows]
