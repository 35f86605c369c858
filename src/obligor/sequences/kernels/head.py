"""A head: readout to log-odds, over fitted means and scales and one hidden layer."""

from __future__ import annotations

from typing import Any

from obligor.features.kernels.compiling import entry
from obligor.sequences.kernels.functions import silu
from obligor.sequences.kernels.matrices import add_product

__all__ = ["head"]


@entry
def head(
    vector: Any, mean: Any, scale: Any, hidden: Any, hidden_bias: Any, weights: Any, bias: Any, work: Any, out: Any
) -> None:
    """Set out (o,) to weights silu(hidden r + hidden_bias) + bias with r = (vector - mean) * scale.

    hidden (5h + 2, u) and weights (u, o) lie by input; work (5h + 2 + u,) is scratch.
    """
    n, units = hidden.shape
    scaled, inner = work[:n], work[n : n + units]
    for j in range(n):
        scaled[j] = (vector[j] - mean[j]) * scale[j]
    for j in range(units):
        inner[j] = hidden_bias[j]
    add_product(inner, hidden, scaled, n, units)
    for j in range(units):
        inner[j] = silu(inner[j])
    for j in range(out.shape[0]):
        out[j] = bias[j]
    add_product(out, weights, inner, units, out.shape[0])
