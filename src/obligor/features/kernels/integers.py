"""Exact integers beyond 64 bits, and their one rounding to float64.

A sum is kept as sums of upper and lower halves (96 bits), a sum of squares as three words (192 bits), a signed sum of
products as two (128 bits). So results do not depend on order, tiles, threads or the CPU's vector extensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from obligor.features.kernels.compiling import inlined, kernel

__all__ = [
    "INT64_MAX",
    "INTEGER_MAX",
    "NULL",
    "ONE",
    "SMALL",
    "ZERO",
    "add_signed",
    "add_square",
    "bits",
    "exact",
    "multiply",
    "signed_product",
    "spread",
    "to_float",
    "total",
]  # fmt: skip

INTEGER_MAX = 2**53  # results that are integers must be exact in float64
INT64_MAX = 2**63 - 1
NULL = -(2**63)  # null of an int64 slot; no field can hold it, since values are within -(2**63 - 1) .. 2**63 - 1
SMALL = 2**31

_LOW = np.uint64(0xFFFFFFFF)
_32, _63 = np.uint64(32), np.uint64(63)
ZERO, ONE = np.uint64(0), np.uint64(1)
_POWERS = 2.0 ** np.arange(129)


@intrinsic
def _leading_zeros(typing: Any, x: Any) -> Any:
    """How many of the 64 bits before the first one are zero, 64 of zero: one instruction, or its exact equivalent."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctlz(arguments[0], context.get_constant(types.boolean, False))

    return types.uint64(types.uint64), generate


@inlined
def bits(x: Any) -> Any:
    """How many bits a uint64 has, 0 of zero."""
    return 64 - np.int64(_leading_zeros(x))  # type: ignore[call-arg]


@kernel
def multiply(a: Any, b: Any) -> Any:
    """The product of two uint64 as (high, low)."""
    a0, a1, b0, b1 = a & _LOW, a >> _32, b & _LOW, b >> _32
    p00, p01, p10, p11 = a0 * b0, a0 * b1, a1 * b0, a1 * b1
    middle = (p00 >> _32) + (p01 & _LOW) + (p10 & _LOW)
    return p11 + (p01 >> _32) + (p10 >> _32) + (middle >> _32), (p00 & _LOW) | (middle << _32)


@kernel
def to_float(high: Any, low: Any) -> Any:
    """The float64 nearest to an unsigned 128-bit integer, ties to even."""
    if high == ZERO:
        return np.float64(low)
    shift = 64
    while high >> _63 == ZERO:
        high = (high << ONE) | (low >> _63)
        low = low << ONE
        shift -= 1
    if low != ZERO:
        high = high | ONE  # 64 leading bits and whether anything follows: one rounding gives the right result
    return np.float64(high) * _POWERS[shift]


@kernel
def _magnitude(high: Any, low: Any) -> Any:
    """A signed 128-bit integer (int64, uint64) as (negative, high, low) of its magnitude."""
    if high >= 0:
        return False, np.uint64(high), low
    low = ~low + ONE
    return True, ~np.uint64(high) + (ONE if low == ZERO else ZERO), low


@kernel
def total(sum_high: Any, sum_low: Any) -> Any:
    """A sum kept as sums of upper and lower halves: (negative, high, low) of its magnitude."""
    low = np.uint64(sum_high) << _32
    added = low + np.uint64(sum_low)
    high = sum_high >> 32
    if added < low:
        high += 1
    return _magnitude(high, added)


@kernel
def add_square(state: Any, at: Any, high: Any, low: Any) -> None:
    """Add a 128-bit product to the 192-bit sum in state[at : at + 3], most significant word first."""
    low_before = np.uint64(state[at + 2])
    low_sum = low_before + low
    carry = ONE if low_sum < low_before else ZERO
    high_before = np.uint64(state[at + 1])
    high_sum = high_before + high
    over = 1 if high_sum < high_before else 0
    high_sum_carried = high_sum + carry
    over += 1 if high_sum_carried < high_sum else 0
    state[at + 2], state[at + 1] = np.int64(low_sum), np.int64(high_sum_carried)
    state[at] += over


@kernel
def add_signed(state: Any, at: Any, high: Any, low: Any) -> None:
    """Add a signed 128-bit integer (int64, uint64) to the one in state[at : at + 2]; it is known not to overflow."""
    before = np.uint64(state[at + 1])
    low_sum = before + low
    state[at + 1] = np.int64(low_sum)
    state[at] += high + (1 if low_sum < before else 0)


@kernel
def signed_product(a: Any, b: Any) -> Any:
    """The product of two int64 as a signed 128-bit integer (int64, uint64)."""
    high, low = multiply(np.uint64(abs(a)), np.uint64(abs(b)))
    if (a < 0) != (b < 0):
        low = ~low + ONE
        high = ~high + (ONE if low == ZERO else ZERO)
    return np.int64(high), low


@kernel
def scaled(high: Any, low: Any, n: Any) -> Any:
    """A signed 128-bit integer times a non-negative int64: (negative, high, low, whether it left 127 bits)."""
    negative, high, low = _magnitude(high, low)
    over, scaled_high = multiply(high, np.uint64(n))
    carry, scaled_low = multiply(low, np.uint64(n))
    scaled_high += carry
    return negative, scaled_high, scaled_low, over != ZERO or scaled_high < carry or scaled_high >> _63 != ZERO


@kernel
def spread(squares_2: Any, squares_1: Any, squares_0: Any, sum_high: Any, sum_low: Any, n: Any) -> Any:
    """n * sum of squares - square of sum, as float64; infinity where a part leaves 127 bits."""
    _, high, low = total(sum_high, sum_low)
    over, scaled_high = multiply(np.uint64(squares_1), np.uint64(n))
    carry, scaled_low = multiply(np.uint64(squares_0), np.uint64(n))
    scaled_high += carry
    if squares_2 != 0 or high != ZERO or over != ZERO or scaled_high < carry or scaled_high >> _63 != ZERO:
        return np.inf
    mean_high, mean_low = multiply(low, low)
    rest_low = scaled_low - mean_low
    rest_high = scaled_high - mean_high - (ONE if scaled_low < mean_low else ZERO)
    return to_float(rest_high, rest_low)


@kernel
def difference(a_negative: Any, a_high: Any, a_low: Any, b_negative: Any, b_high: Any, b_low: Any) -> Any:
    """a - b of two signed magnitudes below 2**127, as float64 correctly rounded; +0 of equal ones."""
    negative = a_negative
    if a_negative != b_negative:
        low = a_low + b_low
        high = a_high + b_high + (ONE if low < a_low else ZERO)
    elif a_high > b_high or (a_high == b_high and a_low >= b_low):
        low = a_low - b_low
        high = a_high - b_high - (ONE if a_low < b_low else ZERO)
    else:
        negative = not a_negative
        low = b_low - a_low
        high = b_high - a_high - (ONE if b_low < a_low else ZERO)
    return to_float(high, low) if not negative or (high | low) == ZERO else -to_float(high, low)


@inlined
def exact(value: Any) -> Any:
    """An integer as float64, infinity beyond what is exact."""
    return np.float64(value) if -INTEGER_MAX <= value <= INTEGER_MAX else np.inf
