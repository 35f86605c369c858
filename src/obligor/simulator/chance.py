"""Randomness inside the kernels: one splitmix64 stream a consumer, so that a life depends on the seed and nothing else.

A stream is an array of one uint64 that every draw advances. The stream of consumer i of a world is `stream(seed, i)`;
lives can therefore be simulated in any order, in any block size, and for longer, with the same beginning.
Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["Stream", "between", "chance", "exponential", "normal", "stream", "uniform", "whole"]

Stream = npt.NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_SCALE = 1.0 / 9007199254740992.0


@njit(cache=True, nogil=True)
def _mix(z: np.uint64) -> np.uint64:
    z = (z ^ (z >> _S30)) * _FIRST
    z = (z ^ (z >> _S27)) * _SECOND
    return z ^ (z >> _S31)


@njit(cache=True, nogil=True)
def stream(seed: int, index: int) -> Stream:
    """Return the stream of one consumer: both numbers are mixed, so that neighbours share nothing."""
    state = np.empty(1, np.uint64)
    state[0] = _mix(_mix(np.uint64(seed) + _GAMMA) + np.uint64(index) * _GAMMA)
    return state


@njit(cache=True, nogil=True)
def uniform(state: Stream) -> float:
    """Return a number in [0, 1)."""
    state[0] += _GAMMA
    return float(_mix(state[0]) >> _S11) * _SCALE


@njit(cache=True, nogil=True)
def between(state: Stream, low: float, high: float) -> float:
    """Return a number in [low, high)."""
    return low + (high - low) * uniform(state)


@njit(cache=True, nogil=True)
def chance(state: Stream, probability: float) -> bool:
    """Return whether something of that probability happens."""
    return uniform(state) < probability


@njit(cache=True, nogil=True)
def whole(state: Stream, low: int, high: int) -> int:
    """Return an integer from low to high, both possible."""
    return low + int(uniform(state) * (high - low + 1))


@njit(cache=True, nogil=True)
def exponential(state: Stream, mean: float) -> float:
    """Return an exponential number of that mean."""
    return -mean * math.log(1.0 - uniform(state))


@njit(cache=True, nogil=True)
def normal(state: Stream) -> float:
    """Return a standard normal number (Box and Muller, one of the pair)."""
    radius = math.sqrt(-2.0 * math.log(1.0 - uniform(state)))
    return radius * math.cos(2.0 * math.pi * uniform(state))
