"""exp, log, sigmoid and logit that give the same bits on every machine.

libm and numpy choose other code by CPU, so a replay elsewhere could differ in the last bit. These use only + - * / on
float64 in one fixed order (Numba without fastmath emits no fused multiply-add), after the algorithms of Sun's fdlibm
(e_exp.c, e_log.c), whose error is below one unit in the last place. Scaling by powers of two goes through a table.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit

__all__ = ["POWERS", "POWER_MIN", "exp", "log", "logit", "sigmoid"]

_LN2_HIGH: Final = 6.93147180369123816490e-01
_LN2_LOW: Final = 1.90821492927058770002e-10
_INVERSE_LN2: Final = 1.44269504088896338700e00
_OVERFLOW: Final = 7.09782712893383973096e02
_UNDERFLOW: Final = -7.45133219101941108420e02
_SQRT2: Final = 1.41421356237309514547
_P1: Final = 1.66666666666666019037e-01
_P2: Final = -2.77777777770155933842e-03
_P3: Final = 6.61375632143793436117e-05
_P4: Final = -1.65339022054652515390e-06
_P5: Final = 4.13813679705723846039e-08
_L1: Final = 6.666666666666735130e-01
_L2: Final = 3.999999999940941908e-01
_L3: Final = 2.857142874366239149e-01
_L4: Final = 2.222219843214978396e-01
_L5: Final = 1.818357216161805012e-01
_L6: Final = 1.531383769920937332e-01
_L7: Final = 1.479819860511658591e-01

# 2.0**k for k = -1022 .. 1023, exact; the table is a constant of the compiled code.
POWER_MIN: Final = -1022
POWERS: Final = np.array([math.ldexp(1.0, k) for k in range(POWER_MIN, 1024)], dtype=np.float64)


@njit(cache=True, nogil=True, fastmath=False)
def _scale(x: float, k: int) -> float:
    """Return x * 2**k; two steps where 2**k itself is not a normal number."""
    scaled: float = x
    if k > 1023:
        scaled = scaled * POWERS[1023 - POWER_MIN] * POWERS[k - 1023 - POWER_MIN]
    elif k < POWER_MIN:
        scaled = scaled * POWERS[k + 1000 - POWER_MIN] * POWERS[-1000 - POWER_MIN]
    else:
        scaled = scaled * POWERS[k - POWER_MIN]
    return scaled


@njit(cache=True, nogil=True, fastmath=False)
def exp(x: float) -> float:
    """Return e**x, correct to less than one unit in the last place; inf above 709.78, 0 below -745.13.

    >>> exp(1.0)
    2.7182818284590455
    """
    if x != x:
        return x
    if x > _OVERFLOW:
        return math.inf
    if x < _UNDERFLOW:
        return 0.0
    k = int(_INVERSE_LN2 * x + (0.5 if x >= 0.0 else -0.5))
    high = x - k * _LN2_HIGH
    low = k * _LN2_LOW
    r = high - low
    t = r * r
    c = r - t * (_P1 + t * (_P2 + t * (_P3 + t * (_P4 + t * _P5))))
    if k == 0:
        return 1.0 - ((r * c) / (c - 2.0) - r)
    return _scale(1.0 - ((low - (r * c) / (2.0 - c)) - high), k)


@njit(cache=True, nogil=True, fastmath=False)
def _reduce(x: float) -> tuple[float, int]:
    """Return (m, k) with x = m * 2**k and sqrt(1/2) <= m < sqrt(2); every step is exact."""
    k = 0
    m = x
    step = 512
    while step >= 1:
        while m >= POWERS[step - POWER_MIN]:
            m = m * POWERS[-step - POWER_MIN]
            k = k + step
        while m < POWERS[-step - POWER_MIN]:
            m = m * POWERS[step - POWER_MIN]
            k = k - step
        step = step // 2
    if m >= _SQRT2:
        m = m * 0.5
        k = k + 1
    elif m < 0.5 * _SQRT2:
        m = m * 2.0
        k = k - 1
    return m, k


@njit(cache=True, nogil=True, fastmath=False)
def log(x: float) -> float:
    """Return the natural logarithm, correct to less than one unit in the last place; nan below zero, -inf at zero.

    >>> log(10.0)
    2.302585092994046
    """
    if x != x or x < 0.0:
        return math.nan
    if x == 0.0:
        return -math.inf
    if x == math.inf:
        return x
    m, k = _reduce(x)
    f = m - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    t1 = w * (_L2 + w * (_L4 + w * _L6))
    t2 = z * (_L1 + w * (_L3 + w * (_L5 + w * _L7)))
    r = t2 + t1
    half = 0.5 * f * f
    if k == 0:
        return f - (half - s * (half + r))
    return k * _LN2_HIGH - ((half - (s * (half + r) + k * _LN2_LOW)) - f)


@njit(cache=True, nogil=True, fastmath=False)
def sigmoid(x: float) -> float:
    """Return 1 / (1 + e**-x), without overflow on either side.

    >>> sigmoid(0.0)
    0.5
    """
    if x >= 0.0:
        return 1.0 / (1.0 + exp(-x))
    e = exp(x)
    return e / (1.0 + e)


@njit(cache=True, nogil=True, fastmath=False)
def logit(p: float) -> float:
    """Return log(p / (1 - p)) for 0 < p < 1.

    >>> logit(0.5)
    0.0
    """
    return log(p / (1.0 - p))
