"""What is no product in the steps that a gated recurrent unit is trained by, float32, each step in one pass.

PyTorch would go through a step's vectors once an operation, of which it has seven and its gradient seventeen. Here an
event's numbers are read and written once. The equations are those of `gru`, which serves; trained weights are the same
on one machine only, as with any library for products.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir as _ir
from numba import types as _types
from numba.extending import intrinsic

from obligor.features.kernels.compiling import entry, inlined

__all__ = ["gates", "slopes"]

ir: Any = _ir  # which have no types
types: Any = _types

_ONE, _TWO, _BOUND = np.float32(1), np.float32(2), np.float32(87)  # e**87 is still finite
_ROUND: Final = np.float32(12582912)  # 1.5 * 2**23: adding and subtracting it rounds to an integer
_INVERSE_LN2, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504088896341), np.float32(0.693359375), np.float32(-2.12194440e-4)
# Cephes, expf.c
_P0, _P1, _P2 = np.float32(1.9875691500e-4), np.float32(1.3981999507e-3), np.float32(8.3334519073e-3)
_P3, _P4, _P5 = np.float32(4.1665795894e-2), np.float32(1.6666665459e-1), np.float32(5.0000001201e-1)
_EXPONENT, _BIAS = np.int32(23), np.int32(127)


def _as_float(typing: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


# The float32 whose bits are those of an int32.
_float_of: Any = intrinsic(_as_float)


@inlined
def _exp(x: Any) -> Any:
    x = min(max(x, -_BOUND), _BOUND)  # in this order, so that what is no number stays none
    k = (x * _INVERSE_LN2 + _ROUND) - _ROUND
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    p = ((((_P0 * r + _P1) * r + _P2) * r + _P3) * r + _P4) * r + _P5
    return (p * (r * r) + r + _ONE) * _float_of(np.int32((np.int32(k) + _BIAS) << _EXPONENT))


@inlined
def _sigmoid(x: Any) -> Any:
    return _ONE / (_ONE + _exp(-x))


@inlined
def _tanh(x: Any) -> Any:
    return _TWO / (_ONE + _exp(-_TWO * x)) - _ONE


@entry
def gates(
    ahead: Any, turned: Any, before: Any, earlier: Any, y: Any, inner: Any, kept: Any, at: Any, rows: Any
) -> None:  # fmt: skip
    """Write the vectors y (N, h) after one step, of so many rows, from row `at` on; those before it begin at `earlier`.

    ahead (B, 3h): W x + b; turned (B, 3h): U h + c. Kept for the gradient: the gates r, z, n (N, 3h), and of U h + c
    the part `inner` (N, h) of n.
    """
    h = y.shape[1]
    for i in range(rows):
        a, b, was = ahead[i], turned[i], before[earlier + i]
        now, of_n, gate = y[at + i], inner[at + i], kept[at + i]
        for j in range(2 * h):
            gate[j] = _sigmoid(a[j] + b[j])
        for j in range(h):
            n = _tanh(a[2 * h + j] + gate[j] * b[2 * h + j])
            of_n[j], gate[2 * h + j] = b[2 * h + j], n
            now[j] = n + gate[h + j] * (was[j] - n)


@entry
def slopes(
    slope: Any, slope_y: Any, before: Any, earlier: Any, inner: Any, kept: Any, at: Any, rows: Any, ahead: Any,
    turned: Any, biases: Any,
) -> None:  # fmt: skip
    """Go one step back: from the slope (B, h) of what comes later, and slope_y (N, h), to that of what came before.

    Written are the slopes of W x + b and of U h + c, (B, 3h) each, and of h the part that z keeps; what U h brings is
    for the caller to add. Added up over rows in biases (4h,), float64: the slopes of r, z, n in `ahead`, n in `turned`.
    """
    h = slope.shape[1]
    for i in range(rows):
        left, later, was = slope[i], slope_y[at + i], before[earlier + i]
        of_n, gate, a, b = inner[at + i], kept[at + i], ahead[i], turned[i]
        for j in range(h):
            now, r, z, n = left[j] + later[j], gate[j], gate[h + j], gate[2 * h + j]
            new = now * (_ONE - z) * (_ONE - n * n)
            old = new * r
            forget = now * (was[j] - n) * z * (_ONE - z)
            reset = old * of_n[j] * (_ONE - r)
            a[j], a[h + j], a[2 * h + j] = reset, forget, new
            b[j], b[h + j], b[2 * h + j] = reset, forget, old
            left[j] = now * z
            biases[j] += reset
            biases[h + j] += forget
            biases[2 * h + j] += new
            biases[3 * h + j] += old
