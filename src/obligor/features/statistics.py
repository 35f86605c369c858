"""How a feature is distributed over some questions: how often it is missing, its quantiles, a small picture.

Quantiles interpolate linearly, as everywhere. The picture has equal steps between the 1% and the 99% quantile, and what
lies beyond in its first and last step, so that one outlier does not flatten it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from obligor.features.plan import FeatureSpec
from obligor.features.typed import UNKNOWN

__all__ = ["QUANTILES", "Distribution", "distribution", "picture"]

QUANTILES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
STEPS: Final = 12  # of a picture
_BARS: Final = " ▁▂▃▄▅▆▇█"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Distribution:
    """One feature over some questions: of numbers `quantiles` and `mean`, of the others `shares` of those known."""

    rows: int
    missing: int
    quantiles: Mapping[str, float] | None  # by their percentage: "5%"
    mean: float | None
    shares: Mapping[str, float] | None  # by value
    steps: tuple[int, ...]  # how many known values lie in each step of the picture
    edges: tuple[float, float] | None  # where the picture begins and ends


def distribution(spec: FeatureSpec, numbers: Floats) -> Distribution:
    """Return how one feature's numbers, NaN for null, are distributed."""
    known = numbers[~np.isnan(numbers)]
    rows, missing = len(numbers), len(numbers) - len(known)
    if spec.type in ("boolean", "category"):
        names = ["no", "yes"] if spec.type == "boolean" else [*(spec.values or ()), UNKNOWN]
        counts = np.bincount(known.astype(np.int64), minlength=len(names)).tolist()
        shares = {name: count / len(known) for name, count in zip(names, counts, strict=True)} if len(known) else {}
        return Distribution(rows, missing, None, None, shares, tuple(counts), None)
    if not len(known):
        return Distribution(rows, missing, None, None, None, (), None)
    found = {f"{q:.0%}": float(value) for q, value in zip(QUANTILES, np.quantile(known, QUANTILES), strict=True)}
    low, high = (float(value) for value in np.quantile(known, (0.01, 0.99)))
    steps, _ = np.histogram(
        np.clip(known, low, high), STEPS if low < high else 1, (low, high if low < high else low + 1)
    )
    return Distribution(rows, missing, found, float(known.mean()), None, tuple(steps.tolist()), (low, high))


def picture(steps: tuple[int, ...]) -> str:
    """Return counts as bars; the smallest bar is for what is there at all.

    >>> picture((0, 1, 500, 1000))
    ' ▁▄█'
    """
    most = max(steps, default=0)
    last = len(_BARS) - 1
    return "".join(_BARS[0 if not step else max(1, round(step / most * last))] for step in steps)
