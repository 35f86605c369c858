"""Heads: readout to log-odds, over fitted means and scales and a hidden layer, its own or a mixture of experts'."""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.compiling import entry, inlined
from obligor.sequences.kernels.functions import exp, silu
from obligor.sequences.kernels.matrices import add_product

__all__ = ["head"]


@inlined
def _product(out: Any, weights: Any, bias: Any, x: Any) -> None:
    """Set out (outputs,) to bias + weights (inputs, outputs) x."""
    for j in range(out.shape[0]):
        out[j] = bias[j]
    add_product(out, weights, x, weights.shape[0], out.shape[0])


@inlined
def _shares(shares: Any, gate: Any, gate_bias: Any, x: Any) -> None:
    """Set shares (experts,) to the softmax of the gate's sums; the total goes over experts in ascending order."""
    _product(shares, gate, gate_bias, x)
    most, total = -np.inf, 0.0
    for e in range(shares.shape[0]):
        most = max(most, shares[e])
    for e in range(shares.shape[0]):
        shares[e] = exp(shares[e] - most)
        total += shares[e]
    for e in range(shares.shape[0]):
        shares[e] = shares[e] / total


@entry
def head(
    vector: Any, mean: Any, scale: Any, hidden: Any, hidden_bias: Any, gate: Any, gate_bias: Any,
    weights: Any, bias: Any, work: Any, out: Any,
) -> None:  # fmt: skip
    """Set out (o,) to weights b + bias, where b (u,) is the sum of silu(hidden_e r + hidden_bias_e) times the shares.

    r = (vector - mean) * scale (n,); hidden (experts, n, u), gate (n, experts) and weights (u, o) lie by input. One
    expert has the share 1, and a gate is not looked at. work (n + 2u + experts,) is scratch.
    """
    experts, n, units = hidden.shape
    scaled, inner, below, shares = work[:n], work[n : n + units], work[n + units : n + 2 * units], work[n + 2 * units :]
    for j in range(n):
        scaled[j] = (vector[j] - mean[j]) * scale[j]
    shares[0] = 1.0
    if experts > 1:
        _shares(shares, gate, gate_bias, scaled)
    for j in range(units):
        below[j] = 0.0
    for e in range(experts):
        _product(inner, hidden[e], hidden_bias[e], scaled)
        for j in range(units):
            below[j] += silu(inner[j]) * shares[e]
    _product(out, weights, bias, below)
