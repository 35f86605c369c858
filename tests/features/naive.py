"""The aggregates, each straight from its definition in `obligor.features.plan`, in Python's own integers.

Where a result is a float64, the definition fixes every operation and their order: equality here means equality of bits.
`faults` plants one wrong rule; AGGREGATE_FAULTS says which ones an aggregate has.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TypeAlias

from obligor.features.portable import exp, log

DISTINCT_MAX = 4096
ORDERED_MAX = 16_384
AGE_MAX = 4096  # steps; what is older does not count
LN2 = 0.6931471805599453
ZERO_OF_NONE = (
    "count", "sum", "streak", "longest_streak", "decayed_count", "decayed_sum", "distinct", "distinct_sketch",
)  # fmt: skip
SCALED = (
    "sum", "mean", "std", "sample_std", "min", "max", "first", "last", "nth_last", "slope", "decayed_sum",
    "most_frequent", "quantile", "quantile_sketch",
)  # fmt: skip

AGGREGATE_FAULTS: dict[str, tuple[str, ...]] = {
    "count": (),
    "sum": (),
    "mean": ("nulls",),
    "std": ("nulls", "sample"),
    "sample_std": ("nulls", "population", "lone"),
    "min": ("nulls",),
    "max": ("nulls",),
    "first": ("nulls", "ties"),
    "last": ("nulls", "ties"),
    "nth_last": ("nulls", "ties", "nth"),
    "time_since_first": ("other end",),
    "time_since_last": ("other end",),
    "mean_gap": ("lone", "rows"),
    "std_gap": ("lone", "sample"),
    "longest_gap": ("lone", "open"),
    "slope": ("nulls", "nearest second", "no slope"),
    "streak": ("ties", "oldest"),
    "longest_streak": ("ties", "newest"),
    "decayed_count": ("age", "old", "last step"),
    "decayed_sum": ("age", "old", "last step"),
    "distinct": ("nulls",),
    "most_frequent": ("nulls", "ties", "nth", "later"),
    "top_share": ("nulls", "one more"),
    "entropy": ("nulls", "nats"),
    "quantile": ("nulls", "lower", "rank"),
    "distinct_sketch": ("nulls", "leading zeros", "no counting"),
    "quantile_sketch": ("nulls", "lower end", "no sign", "coarse"),
}  # besides "none" of all: null where 0 is right, and the other way round

Faults: TypeAlias = Collection[str]
Parameters: TypeAlias = Sequence[int | float]


class Limit(Exception):
    """A result has no exact form."""


@dataclass(frozen=True)
class Rows:
    """The rows of a measure in their order."""

    times: Sequence[int]
    values: Sequence[int | None]  # of the slot; none where the aggregate looks at rows only
    kept: Sequence[bool]  # whether the row is also in the selection `condition`
    as_of: int


_Function: TypeAlias = Callable[[Rows, list[int], Parameters, Faults], float | None]


def exact(value: int) -> float:
    """Return an integer result as a float."""
    if abs(value) > 2**53:
        raise Limit
    return float(value)


def aggregate(name: str, rows: Rows, parameters: Parameters, of_rows: bool, faults: Faults = ()) -> float | None:
    """Return one aggregate of the rows' values (`of_rows`: of the rows themselves), before its scale."""
    values = [v or 0 for v in rows.values] if "nulls" in faults else [v for v in rows.values if v is not None]
    if not (rows.times if of_rows else values):
        return 0.0 if (name in ZERO_OF_NONE) != ("none" in faults) else None
    return _FUNCTIONS[name](rows, values, parameters, faults)


def _spread(values: Sequence[int]) -> int:
    """n * sum of squares - square of sum, which n * n divides to the variance."""
    squares = len(values) * sum(v * v for v in values)
    if squares >= 2**127:
        raise Limit
    return squares - sum(values) ** 2


def _population(values: Sequence[int]) -> float:
    return math.sqrt(float(_spread(values)) / float(len(values) ** 2))


def _sample(values: Sequence[int]) -> float | None:
    n = len(values)
    return math.sqrt(float(_spread(values)) / (float(n) * float(n - 1))) if n > 1 else None


def _mean(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float:
    return float(sum(values)) / float(len(values))


def _std(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float | None:
    return _sample(values) if "sample" in faults else _population(values)


def _sample_std(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float | None:
    if len(values) == 1:
        return 0.0 if "lone" in faults else None
    return _population(values) if "population" in faults else _sample(values)


def _nth_last(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float | None:
    n = int(parameters[0]) + ("nth" in faults)
    return exact(values[-n]) if len(values) >= n else None


def _since(place: int) -> _Function:
    def since(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float:
        return float(rows.as_of - rows.times[-1 - place if "other end" in faults else place]) / 1e6

    return since


def _gaps(name: str) -> _Function:
    def of_gaps(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float | None:
        gaps = [after - before for before, after in pairwise(rows.times)]
        if not gaps:
            return 0.0 if "lone" in faults else None
        if name == "mean_gap":
            return float(sum(gaps)) / float(len(gaps) + ("rows" in faults)) / 1e6
        if name == "longest_gap":
            return float(max([*gaps, rows.as_of - rows.times[-1]] if "open" in faults else gaps)) / 1e6
        spread = _sample(gaps) if "sample" in faults else _population(gaps)
        return None if spread is None else spread / 1e6

    return of_gaps


def _slope(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float | None:
    half = 500_000 if "nearest second" in faults else 0
    times = [
        (t + half) // 1_000_000
        for t, v in zip(rows.times, rows.values, strict=True)
        if v is not None or "nulls" in faults
    ]
    n = len(values)
    below = n * sum(t * t for t in times) - sum(times) ** 2
    above = n * sum(t * v for t, v in zip(times, values, strict=True)) - sum(times) * sum(values)
    if below == 0:
        return 0.0 if "no slope" in faults else None
    return float(above) / float(below) * 86400.0


def _streak(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float:
    runs = [(kept, len(list(run))) for kept, run in groupby(rows.kept)]
    kept, length = runs[0 if "oldest" in faults else -1]
    return float(length if kept else 0)


def _longest_streak(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float:
    if "newest" in faults:
        return _streak(rows, values, parameters, ())
    return float(max((len(list(run)) for kept, run in groupby(rows.kept) if kept), default=0))


def _decayed(rows: Rows, counts: Sequence[int | None], parameters: Parameters, faults: Faults) -> float:
    half_life, step = (int(p) for p in parameters)
    by_age: dict[int, int] = {}
    for time, count in zip(rows.times, counts, strict=True):
        age = (rows.as_of - time) // step if "age" in faults else rows.as_of // step - time // step
        if count is not None and (age <= AGE_MAX - ("last step" in faults) or "old" in faults):
            by_age[age] = by_age.get(age, 0) + count
    decay = float(exp(-LN2 * float(step) / float(half_life)))
    total, weight = 0.0, 1.0
    for age in range(max(by_age, default=-1) + 1):  # from the newest step to the oldest
        total += float(by_age.get(age, 0)) * weight
        weight *= decay
    return total


def _decayed_count(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float:
    return _decayed(rows, [1] * len(rows.times), parameters, faults)


def _decayed_sum(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float:
    return _decayed(rows, rows.values, parameters, faults)


def _ranked(values: Sequence[int], later: bool = False) -> list[tuple[int, int]]:
    """The distinct values and how often each occurs, the most frequent first, ties by the earlier first row."""
    counts = Counter(values)
    if len(counts) > DISTINCT_MAX:
        raise Limit
    first = {value: place for place, value in reversed(list(enumerate(values)))}
    return sorted(counts.items(), key=lambda one: (-one[1], -first[one[0]] if later else first[one[0]]))


def _distinct(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float:
    if len(set(values)) > DISTINCT_MAX:
        raise Limit
    return float(len(set(values)))


def _most_frequent(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float | None:
    ranked, n = _ranked(values, "later" in faults), int(parameters[0]) + ("nth" in faults)
    return exact(ranked[n - 1][0]) if len(ranked) >= n else None


def _top_share(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float:
    k = int(parameters[0]) + ("one more" in faults)
    return float(sum(count for _, count in _ranked(values)[:k])) / float(len(values))


def _log2(x: int, faults: Faults) -> float:
    return float(log(float(x))) / (1.0 if "nats" in faults else LN2)


def _entropy(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float:
    counts = sorted(count for _, count in _ranked(values))
    if len(counts) == 1:
        return 0.0
    weighted = 0.0
    for count in counts:
        weighted += float(count) * _log2(count, faults)
    return _log2(len(values), faults) - weighted / float(len(values))


def _between(ranked: Sequence[int], q: float, faults: Faults) -> float:
    """The quantile of values in ascending order; only the ranks that it lies between must be exact."""
    position = min(q * float(len(ranked) - ("rank" not in faults)), float(len(ranked) - 1))
    rank = math.floor(position)
    part = position - float(rank)
    low = exact(ranked[rank])
    return low if part == 0 or "lower" in faults else low + (exact(ranked[rank + 1]) - low) * part


def _quantile(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float:
    if len(values) > ORDERED_MAX:
        raise Limit
    return _between(sorted(values), float(parameters[0]), faults)


def middle(value: int, faults: Faults = ()) -> float:
    """Return what stands for a value in a sketch of quantiles: the middle of its bucket, exact in float64."""
    shift = max(0, abs(value).bit_length() - (2 if "coarse" in faults else 6))
    found = abs(value) >> shift << shift
    if shift and "lower end" not in faults:
        found += (1 << shift) // 2
    return float(found if value >= 0 or "no sign" in faults else -found)


def _quantile_sketch(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float:
    ranked = sorted(middle(value, faults) for value in values)
    position = float(parameters[0]) * float(len(ranked) - 1)
    rank = math.floor(position)
    above = ranked[min(rank + 1, len(ranked) - 1)]
    return ranked[rank] + (above - ranked[rank]) * (position - float(rank))


def mixed(value: int) -> int:
    """Return a value's 64 bits, mixed by the finaliser of splitmix64."""
    x = value % 2**64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def _distinct_sketch(rows: Rows, values: list[int], parameters: Parameters, faults: Faults) -> float:
    size, ranks = 2048, dict[int, int]()
    for value in values:
        register, rest = divmod(mixed(value), 2**53)
        rank = 53 - rest.bit_length() + ("leading zeros" not in faults)
        ranks[register] = max(ranks.get(register, 0), rank)
    counts = Counter(ranks.values())
    counts[0] += size - len(ranks)
    total = 0.0
    for rank in range(max(counts) + 1):
        total += float(counts[rank]) * 2.0**-rank
    m, zeros = float(size), counts[0]
    estimate = 0.7213 / (1.0 + 1.079 / m) * m * m / total
    if estimate <= 2.5 * m and zeros and "no counting" not in faults:
        return m * float(log(m / float(zeros)))
    return estimate


_FUNCTIONS: dict[str, _Function] = {
    "count": lambda rows, values, parameters, faults: float(len(rows.times)),
    "sum": lambda rows, values, parameters, faults: exact(sum(values)),
    "mean": _mean,
    "std": _std,
    "sample_std": _sample_std,
    "min": lambda rows, values, parameters, faults: exact(min(values)),
    "max": lambda rows, values, parameters, faults: exact(max(values)),
    "first": lambda rows, values, parameters, faults: exact(values[0]),
    "last": lambda rows, values, parameters, faults: exact(values[-1]),
    "nth_last": _nth_last,
    "time_since_first": _since(0),
    "time_since_last": _since(-1),
    "mean_gap": _gaps("mean_gap"),
    "std_gap": _gaps("std_gap"),
    "longest_gap": _gaps("longest_gap"),
    "slope": _slope,
    "streak": _streak,
    "longest_streak": _longest_streak,
    "decayed_count": _decayed_count,
    "decayed_sum": _decayed_sum,
    "distinct": _distinct,
    "most_frequent": _most_frequent,
    "top_share": _top_share,
    "entropy": _entropy,
    "quantile": _quantile,
    "distinct_sketch": _distinct_sketch,
    "quantile_sketch": _quantile_sketch,
}


def outer(name: str, numbers: Sequence[float], faults: Faults = (), whole: bool = False) -> float | None:
    """Return an aggregate over the keys of their numbers; a sum of `whole` ones stays where each integer is exact."""
    ranked = sorted(numbers, reverse="descending" in faults)
    n, total = float(len(ranked)), 0.0
    if name == "count":
        return n
    for i, x in enumerate(ranked):
        total += x
        if name == "sum" and whole and abs(total) >= 2**53 and (i or len(ranked) > 1):
            raise Limit
    if name == "sum":
        return total
    if not ranked:
        return 0.0 if "none" in faults else None
    if name in ("min", "max"):
        return min(ranked) if name == "min" else max(ranked)
    squares = 0.0
    for x in ranked:
        squares += (x - total / n) * (x - total / n)
    return total / n if name == "mean" else math.sqrt(squares / n)
