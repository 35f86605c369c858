"""Fitting a tokenizer: vocabularies and edges from the rows of a view, which is that of the training cut-off.

Rows are counted part by part. A field's edges are order statistics of its values, exactly where there are at most
`sample` of them, else of a sample that is the same whatever the parts and their order: the rows whose root hashes
lowest. Nothing that is known later than the view enters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput
from obligor.features.calendar import DAY_S, civil, local_seconds
from obligor.features.kernels.compiling import entry
from obligor.features.kernels.integers import NULL
from obligor.features.kernels.values import log2
from obligor.features.narrowing import sequence_alone
from obligor.features.plan import Plan
from obligor.features.sequence_spec import BUILT_IN, SequenceField
from obligor.sequences.asked import Asked, Everyone, Source, in_order, parts
from obligor.sequences.numbers import DEFAULT, Numbers, kind_of, number_problems, unknown_numbers
from obligor.sequences.slices import find_slices
from obligor.sequences.tokens import KNOWN, TokenField, Tokenizer, magnitude

__all__ = ["TokenSettings", "edges_of", "fit_tokenizer", "known_values"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
COUNTED_BY_PLACE = 1 << 16  # values below are counted without sorting


@dataclass(frozen=True)
class TokenSettings:
    """How finely events are seen."""

    intervals: int = 32  # at most, between the edges of a number
    count_min: int = 5  # of a category's value, to be known
    values_max: int = 1000  # known of one category
    sample: int = 1 << 20  # values that edges are made of
    numbers: Numbers = DEFAULT  # how they are seen; those that are not named are seen as by default


def fit_tokenizer(
    plan: Plan, name: str, source: Source, at: Everyone, settings: TokenSettings | None = None, threads: int = 1
) -> Tokenizer:
    """Return the tokenizer of a plan's sequence, fitted on the rows of all entities in the view `at`.

    BadInput where the settings name a number that the sequence does not have, or see one as nothing does.
    """
    settings = settings or TokenSettings()
    alone = sequence_alone(plan, name)
    chosen = settings.numbers
    if problems := [*number_problems(chosen, "$.numbers"), *unknown_numbers(chosen, alone.sequences[0], "$.numbers")]:
        raise BadInput(problems)
    counted = _Counted(alone, settings)
    for seen in in_order(lambda part: _seen(alone, part()), parts(plan, name, source, at, threads), threads):
        counted.add(seen)
    return Tokenizer(alone.hash, counted.fields())


@dataclass(frozen=True)
class _Seen:
    """The visible rows of a part: what of them is counted, per field."""

    types: Ints
    time: Ints
    values: dict[str, Ints]  # of categories
    numbers: dict[str, tuple[Floats, NDArray[np.uint64]]]  # with the hash of each row


def _seen(alone: Plan, asked: Asked) -> _Seen:
    spec, rows = alone.sequences[0], asked.timeline.rows
    slices = find_slices(rows, asked.entity, asked.as_of, asked.self_root, asked.cuts, asked.last, spec.limit)
    sizes = slices.end - slices.start
    places = np.repeat(slices.start - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
    time, mask, chance = rows.event_time[places], rows.mask[places], _mixed(rows.root[places])
    before = np.empty(len(places), np.int64)
    before[1:] = time[:-1]
    before[np.cumsum(sizes) - sizes] = slices.previous
    types = np.full(len(places), len(spec.selections), np.int64)
    for number in reversed(range(len(spec.selections))):
        types[mask & (1 << spec.selections[number]) != 0] = number
    known = before != NULL
    values: dict[str, Ints] = {}
    numbers = {"gap": (_gaps_log2(time[known], before[known]), chance[known])}
    for one in spec.fields:
        coded, divisors, own = _field(alone, one, rows.values, places, types)
        if one.kind == "category":
            values[one.name] = coded
        else:
            numbers[one.name] = (_numbers(coded, divisors, one.kind == "magnitude"), chance[own])
    return _Seen(types, time, values, numbers)


def _field(alone: Plan, one: SequenceField, values: Ints, places: Ints, types: Ints) -> tuple[Ints, Floats, Ints]:
    """Return a field's values, without nulls and texts that are in no vocabulary, their divisors, and their rows."""
    spec = alone.sequences[0]
    timeline = alone.timelines[spec.timeline]
    found, divisors, own = [], [], []
    for source in one.sources:
        rows = np.flatnonzero(types == spec.selections.index(source.selection))
        coded = values[source.slot, places[rows]]
        slot = timeline.fields[timeline.selections[source.selection].event][source.slot]
        valid = coded != NULL
        if slot.coding == "vocabulary":
            valid &= coded != len(slot.values or ())
        found.append(coded[valid])
        own.append(rows[valid])
        divisors.append(np.full(len(found[-1]), float(10**source.scale)))
    return np.concatenate(found), np.concatenate(divisors), np.concatenate(own)


class _Counted:
    """What has been counted so far."""

    def __init__(self, alone: Plan, settings: TokenSettings) -> None:
        self._alone, self._settings = alone, settings
        self._counts: dict[str, tuple[Ints, Ints]] = {}
        self._kept: dict[str, tuple[Floats, NDArray[np.uint64]]] = {}

    def add(self, seen: _Seen) -> None:
        """Count the rows of a part."""
        local_s = local_seconds(self._alone.zone_offsets, seen.time)
        days = local_s // DAY_S
        self._count("type", seen.types)
        self._count("hour", local_s // 3_600 % 24)
        self._count("weekday", (days + 3) % 7)
        self._count("day_of_month", civil(days)[2])
        for name, values in seen.values.items():
            self._count(name, values)
        for name, (numbers, chance) in seen.numbers.items():
            self._keep(name, numbers, chance)

    def _count(self, name: str, values: Ints) -> None:
        old, counts = self._counts.get(name, (np.empty(0, np.int64), np.empty(0, np.int64)))
        new, more = _counts(values)
        both, place = np.unique(np.concatenate([old, new]), return_inverse=True)
        summed = np.zeros(len(both), np.int64)
        np.add.at(summed, place, np.concatenate([counts, more]))
        self._counts[name] = (both, summed)

    def _keep(self, name: str, numbers: Floats, chance: NDArray[np.uint64]) -> None:
        if name in self._kept:
            numbers = np.concatenate([self._kept[name][0], numbers])
            chance = np.concatenate([self._kept[name][1], chance])
        most = self._settings.sample
        if len(numbers) > most:
            lowest = chance <= np.partition(chance, most - 1)[most - 1]  # both sides of a fact have one hash
            numbers, chance = numbers[lowest], chance[lowest]
            if len(numbers) > most:
                kept = np.lexsort((numbers, chance))[:most]
                numbers, chance = numbers[kept], chance[kept]
        self._kept[name] = (numbers, chance)

    def fields(self) -> tuple[TokenField, ...]:
        """Return the fields of the tokenizer."""
        built_in = [
            self._number("gap", False) if name == "gap" else self._category(name, False, 1) for name in BUILT_IN
        ]
        own = [
            self._category(one.name, one.slow, self._settings.count_min)
            if one.kind == "category"
            else self._number(one.name, one.slow)
            for one in self._alone.sequences[0].fields
        ]
        return (*built_in, *own)

    def _category(self, name: str, slow: bool, count_min: int) -> TokenField:
        values = known_values(*self._counts[name], count_min, self._settings.values_max)
        return TokenField(name=name, kind="category", size=KNOWN + len(values), slow=slow, values=values, edges=None)

    def _number(self, name: str, slow: bool) -> TokenField:
        edges = edges_of(self._kept[name][0], self._settings.intervals)
        kind = kind_of(self._settings.numbers, name)
        return TokenField(name=name, kind=kind, size=1 + len(edges), slow=slow, values=None, edges=edges)


def known_values(values: Ints, counts: Ints, count_min: int, values_max: int) -> tuple[int, ...]:
    """Return the values that are known, the most frequent first, the smaller first of equals.

    >>> known_values(np.array([4, 5, 6]), np.array([1, 7, 7]), 2, 10)
    (5, 6)
    """
    order = np.lexsort((values, -counts))
    order = order[counts[order] >= count_min][:values_max]
    return tuple(values[order].tolist())


def edges_of(numbers: Floats, intervals: int) -> tuple[float, ...]:
    """Return the different ones among n values' order statistics floor(i (n - 1) / intervals), least and most too.

    >>> edges_of(np.array([3.0, 1.0, 1.0, 9.0]), 2)
    (1.0, 9.0)
    """
    if not len(numbers):
        return ()
    ordered = np.sort(numbers)
    places = np.arange(intervals + 1) * (len(ordered) - 1) // intervals
    return tuple(np.unique(ordered[places]).tolist())


def _counts(values: Ints) -> tuple[Ints, Ints]:
    """Return the different values, ascending, and how often each is there."""
    if len(values) and values.min() >= 0 and values.max() < COUNTED_BY_PLACE:
        counts = np.bincount(values)
        found = np.flatnonzero(counts)
        return found, counts[found]
    return np.unique(values, return_counts=True)


def _mixed(roots: Ints) -> NDArray[np.uint64]:
    """Return a hash of each root (the finaliser of splitmix64)."""
    x = roots.astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _gaps_log2(time: Ints, previous: Ints) -> Floats:
    """Return log2(1 + seconds) between rows."""
    found = np.empty(len(time), np.float64)
    _write_gaps(time, previous, found)
    return found


def _numbers(values: Ints, divisors: Floats, logarithmic: bool) -> Floats:
    """Return values divided, and their magnitudes where that is wanted."""
    found = np.empty(len(values), np.float64)
    _write_numbers(values, divisors, logarithmic, found)
    return found


@entry
def _write_gaps(time: Any, previous: Any, found: Any) -> None:
    for i in range(time.shape[0]):
        found[i] = log2(1.0 + (time[i] - previous[i]) / 1e6)


@entry
def _write_numbers(values: Any, divisors: Any, logarithmic: bool, found: Any) -> None:
    for i in range(values.shape[0]):
        x = values[i] / divisors[i]
        found[i] = magnitude(x) if logarithmic else x
