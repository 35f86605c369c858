"""exp, sigmoid, tanh, silu, sine and cosine without branches, so that a loop over an array becomes vector code.

An element goes through the same + - * / whatever the vector's width, so the bits do not depend on it. `exp` and
`sigmoid` give the bits of obligor.features.portable within their bounds. Sources: fdlibm (e_exp.c, k_sin.c, k_cos.c,
e_rem_pio2.c) and, for tanh near zero, the rational function of Cephes (tanh.c). The arguments are finite.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from obligor.features.kernels.compiling import inlined
from obligor.features.portable import POWER_MIN, POWERS

__all__ = ["EXP_MAX", "cos", "exp", "rounded", "sigmoid", "silu", "sin", "tanh"]

EXP_MAX: Final = 700.0  # exp takes a larger argument for this one, and a smaller one for its negative
_ROUND: Final = 6755399441055744.0  # 1.5 * 2**52: adding and subtracting it rounds to an integer
_INVERSE_LN2: Final = 1.44269504088896338700e00
_LN2_HIGH: Final = 6.93147180369123816490e-01
_LN2_LOW: Final = 1.90821492927058770002e-10
_P1: Final = 1.66666666666666019037e-01
_P2: Final = -2.77777777770155933842e-03
_P3: Final = 6.61375632143793436117e-05
_P4: Final = -1.65339022054652515390e-06
_P5: Final = 4.13813679705723846039e-08

_TANH_SMALL: Final = 0.625
_TANH_ONE: Final = 22.0  # from here on tanh is 1 to the last bit
_T0: Final = -9.64399179425052238628e-1
_T1: Final = -9.92877231001918586564e1
_T2: Final = -1.61468768441708447952e3
_U0: Final = 1.12811678491632931402e2
_U1: Final = 2.23548839060100448583e3
_U2: Final = 4.84406305325125486048e3

_INVERSE_HALF_PI: Final = 6.36619772367581382433e-01
# Pi / 2 in three parts, the first two of 33 bits: their products with a number of up to 20 bits are exact.
_HALF_PI_1: Final = 1.57079632673412561417e00
_HALF_PI_2: Final = 6.07710050630396597660e-11
_HALF_PI_3: Final = 2.02226624879595063154e-21
_S1: Final = -1.66666666666666324348e-01
_S2: Final = 8.33333333332248946124e-03
_S3: Final = -1.98412698298579493134e-04
_S4: Final = 2.75573137070700676789e-06
_S5: Final = -2.50507602534068634195e-08
_S6: Final = 1.58969099521155010221e-10
_C1: Final = 4.16666666666666019037e-02
_C2: Final = -1.38888888888741095749e-03
_C3: Final = 2.48015872894767294178e-05
_C4: Final = -2.75573143513906633035e-07
_C5: Final = 2.08757232129817482790e-09
_C6: Final = -1.13596475577881948265e-11


@inlined
def exp(x: Any) -> Any:
    """e**x to less than one unit in the last place; beyond EXP_MAX on either side what it is there."""
    x = min(max(x, -EXP_MAX), EXP_MAX)
    k = (x * _INVERSE_LN2 + _ROUND) - _ROUND
    high = x - k * _LN2_HIGH
    low = k * _LN2_LOW
    r = high - low
    t = r * r
    c = r - t * (_P1 + t * (_P2 + t * (_P3 + t * (_P4 + t * _P5))))
    return (1.0 - ((low - (r * c) / (2.0 - c)) - high)) * POWERS[np.uint64(np.int64(k) - POWER_MIN)]


@inlined
def sigmoid(x: Any) -> Any:
    """1 / (1 + e**-x), from the side on which nothing overflows."""
    e = exp(-abs(x))
    return (1.0 if x >= 0.0 else e) / (1.0 + e)


@inlined
def silu(x: Any) -> Any:
    """x times its sigmoid."""
    return x * sigmoid(x)


@inlined
def tanh(x: Any) -> Any:
    """The hyperbolic tangent to less than two units in the last place."""
    a = min(abs(x), _TANH_ONE)
    e = exp(-2.0 * a)
    s = a * a
    small = a + a * s * (((_T0 * s + _T1) * s + _T2) / (((s + _U0) * s + _U1) * s + _U2))
    y = small if a < _TANH_SMALL else (1.0 - e) / (1.0 + e)
    return y if x >= 0.0 else -y


@inlined
def rounded(x: Any) -> Any:
    """The nearest integer, the even one of two; |x| up to 2**51."""
    return (x + _ROUND) - _ROUND


@inlined
def _quarter(x: Any, ahead: Any) -> Any:
    """The sine of x and `ahead` quarters of a turn."""
    n = (x * _INVERSE_HALF_PI + _ROUND) - _ROUND
    r = ((x - n * _HALF_PI_1) - n * _HALF_PI_2) - n * _HALF_PI_3
    z = r * r
    sine = r + r * z * (_S1 + z * (_S2 + z * (_S3 + z * (_S4 + z * (_S5 + z * _S6)))))
    cosine = 1.0 - (0.5 * z - z * z * (_C1 + z * (_C2 + z * (_C3 + z * (_C4 + z * (_C5 + z * _C6))))))
    quarter = (np.int64(n) + ahead) & 3
    y = cosine if quarter & 1 else sine
    return -y if quarter & 2 else y


@inlined
def sin(x: Any) -> Any:
    """The sine of x radians, within 3e-16 for |x| up to 1.6 million (2**20 quarters of a turn)."""
    return _quarter(x, 0)


@inlined
def cos(x: Any) -> Any:
    """The cosine of x radians, as exact as the sine."""
    return _quarter(x, 1)
