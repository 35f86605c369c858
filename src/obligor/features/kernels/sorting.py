"""Sorting and selection in place, without memory of their own: what ranks and quantiles need."""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.compiling import kernel

__all__ = ["place_rank", "sort"]

_FEW = 24


@kernel
def _insert(keys: Any, low: Any, high: Any) -> None:
    """Sort [low, high) by insertion."""
    for i in range(low + 1, high):
        key, j = keys[i], i - 1
        while j >= low and keys[np.uint64(j)] > key:
            keys[np.uint64(j + 1)] = keys[np.uint64(j)]
            j -= 1
        keys[j + 1] = key


@kernel
def _partition(keys: Any, low: Any, high: Any) -> Any:
    """Split [low, high) round a pivot; return (i, j): up to j none is greater, from i on none is less."""
    middle = (low + high) >> 1
    a, b, c = keys[low], keys[middle], keys[high - 1]
    pivot = max(min(a, b), min(max(a, b), c))
    i, j = low, high - 1
    while i <= j:
        while keys[np.uint64(i)] < pivot:
            i += 1
        while keys[np.uint64(j)] > pivot:
            j -= 1
        if i <= j:
            keys[i], keys[j] = keys[j], keys[i]
            i += 1
            j -= 1
    return i, j


@kernel
def place_rank(keys: Any, n: Any, rank: Any) -> None:
    """Order keys[:n] just so far that keys[rank] is where it would be sorted, with nothing greater before it."""
    low, high = 0, n
    while high - low > _FEW:
        i, j = _partition(keys, low, high)
        if rank <= j:
            high = j + 1
        elif rank >= i:
            low = i
        else:
            return
    _insert(keys, low, high)


@kernel
def sort(keys: Any, n: Any, bounds: Any) -> None:
    """Sort keys[:n] ascending; `bounds` (128,) holds parts that wait: the larger ones, so 64 suffice."""
    waiting, low, high = 0, 0, n
    while True:
        while high - low > _FEW:
            i, j = _partition(keys, low, high)
            if j + 1 - low < high - i:
                bounds[waiting], bounds[waiting + 1] = i, high
                high = j + 1
            else:
                bounds[waiting], bounds[waiting + 1] = low, j + 1
                low = i
            waiting += 2
        _insert(keys, low, high)
        if waiting == 0:
            return
        waiting -= 2
        low, high = bounds[waiting], bounds[waiting + 1]
