"""Aggregates: what can be computed of a history, the same for a stream of facts and for one that is split by value.

Everything about the field is checked here, where the definition is written: its kind, its currency, its vocabulary.
The exact meaning of each aggregate stands in `plan`; those that are made of others (range, share, median, ...) are made
here and nowhere else.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self, Unpack

from obligor.errors import DefinitionError
from obligor.events.fields import Field
from obligor.events.predicates import Predicate
from obligor.features.definitions import AXES, Axis, Feature, Notes, Remarks, feature
from obligor.features.expressions import Node, Since, Source
from obligor.features.kinds import Kind, TimeUnit, time_unit, vocabulary_of
from obligor.features.measures import Aggregate
from obligor.features.recipes import Recipe, accepted, check_decay, decay, place
from obligor.features.windows import Fixed, parse_windows

__all__ = ["Aggregates"]

PLACES_MAX = 20  # columns of a ranking


class Aggregates:
    """The aggregates. Each takes windows (see `windows`); none means the lifetime, several give a column each.

    Nulls are skipped. Counts, sums and numbers of distinct values of nothing are 0, streaks too; all else is null.
    """

    @abstractmethod
    def _sources(self) -> Mapping[tuple[str, ...], Source]:
        """Return the facts to look at by their label: one source without a label, or one for each value of a pivot."""

    @abstractmethod
    def where(self, *predicates: Predicate) -> Self:
        """Return the facts for which all predicates are true too."""

    @property
    def _axes(self) -> tuple[Axis, ...]:
        return ()

    @property
    def _since(self) -> Since | None:
        return None

    # ---- of the facts themselves ------------------------------------------------------------------------------------

    def count(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the number of facts."""
        return self._feature(Recipe("count", None, Kind("integer", "events")), windows, notes)

    def decayed_count(self, half_life: str, *windows: str, step: str = "1d", **notes: Unpack[Notes]) -> Feature:
        """Return the number of facts, each half as much for every `half_life` of age, counted in whole steps."""
        recipe = Recipe("decayed_count", None, Kind("real", "events"), parameters=decay(half_life, step))
        return self._feature(recipe, windows, notes)

    def time_since_first(self, *windows: str, unit: TimeUnit = "seconds", **remarks: Unpack[Remarks]) -> Feature:
        """Return the time from the earliest fact to as_of."""
        return self._time("time_since_first", windows, unit, remarks)

    def time_since_last(self, *windows: str, unit: TimeUnit = "seconds", **remarks: Unpack[Remarks]) -> Feature:
        """Return the time from the latest fact to as_of."""
        return self._time("time_since_last", windows, unit, remarks)

    def mean_gap(self, *windows: str, unit: TimeUnit = "seconds", **remarks: Unpack[Remarks]) -> Feature:
        """Return the mean time between neighbouring facts; null of fewer than two."""
        return self._time("mean_gap", windows, unit, remarks)

    def std_gap(self, *windows: str, unit: TimeUnit = "seconds", **remarks: Unpack[Remarks]) -> Feature:
        """Return the standard deviation (the population's) of the times between neighbouring facts."""
        return self._time("std_gap", windows, unit, remarks)

    def longest_gap(self, *windows: str, unit: TimeUnit = "seconds", **remarks: Unpack[Remarks]) -> Feature:
        """Return the longest time between neighbouring facts; null of fewer than two."""
        return self._time("longest_gap", windows, unit, remarks)

    # ---- of a condition ---------------------------------------------------------------------------------------------

    def streak(self, predicate: Predicate, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return how many facts in a row, counted from the newest back, meet a condition."""
        return self._runs("streak", predicate, windows, notes)

    def longest_streak(self, predicate: Predicate, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the longest run of facts that meet a condition."""
        return self._runs("longest_streak", predicate, windows, notes)

    def any(self, predicate: Predicate, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return whether a fact meets a condition; of no facts, none does."""
        return feature(self.where(predicate).count(*windows) > 0, **notes)

    def all(self, predicate: Predicate, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return whether every fact meets a condition (one with null is not met); of no facts, null."""
        return feature(self.share(predicate, *windows) == 1, **notes)

    def share(self, predicate: Predicate, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the share of the facts that meet a condition; of no facts, null."""
        return feature(self.where(predicate).count(*windows) / self.count(*windows), **notes)

    # ---- of a field -------------------------------------------------------------------------------------------------

    def sum(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the exact sum of a field."""
        return self._of("sum", field, windows, notes)

    def mean(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the mean of a field; of a boolean, the share of the true."""
        return self._of("mean", field, windows, notes)

    def std(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the population's standard deviation of a field."""
        return self._of("std", field, windows, notes)

    def sample_std(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the sample's standard deviation of a field (over n - 1); null of fewer than two values."""
        return self._of("sample_std", field, windows, notes)

    def min(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the least value of a field."""
        return self._of("min", field, windows, notes)

    def max(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the greatest value of a field."""
        return self._of("max", field, windows, notes)

    def range(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the greatest less the least value of a field."""
        accepted(self._one, "range", field)
        return feature(self.max(field, *windows) - self.min(field, *windows), **notes)

    def median(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the median of a field: the mean of the middle two of an even number of values."""
        return self.quantile(field, 0.5, *windows, **notes)

    def quantile(self, field: str | Field, q: float, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the value below which the share `q` of a field's values lies, linear between the two nearest."""
        if isinstance(q, bool) or not isinstance(q, int | float) or not 0 <= q <= 1:
            raise DefinitionError(f"quantile: expected a share from 0 to 1, such as 0.9, got {q!r}")
        return self._of("quantile", field, windows, notes, parameters=(float(q),))

    def slope(self, field: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return by how much a field grows in a day: the slope of the least squares line over time."""
        return self._of("slope", field, windows, notes)

    def decayed_sum(
        self, field: str | Field, half_life: str, *windows: str, step: str = "1d", **notes: Unpack[Notes]
    ) -> Feature:
        """Return the sum of a field, each value half as much for every `half_life` of age, counted in whole steps."""
        return self._of("decayed_sum", field, windows, notes, parameters=decay(half_life, step))

    # ---- of a field, one value of many ------------------------------------------------------------------------------

    def first(
        self, field: str | Field, *windows: str, values: Sequence[str] | None = None, **notes: Unpack[Notes]
    ) -> Feature:
        """Return the earliest value; `values` freezes the vocabulary of an open category."""
        return self._of("first", field, windows, notes, values)

    def last(
        self, field: str | Field, *windows: str, values: Sequence[str] | None = None, **notes: Unpack[Notes]
    ) -> Feature:
        """Return the latest value; `values` freezes the vocabulary of an open category."""
        return self._of("last", field, windows, notes, values)

    def nth(
        self, field: str | Field, n: int, *windows: str, values: Sequence[str] | None = None, **notes: Unpack[Notes]
    ) -> Feature:
        """Return the n-th latest value, 1 for the last; null of fewer values."""
        return self._of("nth_last", field, windows, notes, values, (place("nth", n, 4096),))

    def last_k(
        self, field: str | Field, k: int, *windows: str, values: Sequence[str] | None = None, **notes: Unpack[Notes]
    ) -> Feature:
        """Return the k latest values, a column each: `_1` the last, `_2` the one before it."""
        return self._ranked("nth_last", field, place("last_k", k, PLACES_MAX), windows, notes, values)

    def distinct(
        self, field: str | Field, *windows: str, values: Sequence[str] | None = None, **notes: Unpack[Notes]
    ) -> Feature:
        """Return the number of distinct values; `values` freezes a vocabulary, beyond which all count as one value."""
        return self._of("distinct", field, windows, notes, values)

    def most_frequent(
        self, field: str | Field, *windows: str, values: Sequence[str] | None = None, **notes: Unpack[Notes]
    ) -> Feature:
        """Return the most frequent value, of equally frequent ones the one seen first."""
        return self._of("most_frequent", field, windows, notes, values, (1,))

    def top_k(
        self, field: str | Field, k: int, *windows: str, values: Sequence[str] | None = None, **notes: Unpack[Notes]
    ) -> Feature:
        """Return the k most frequent values, a column each: `_1` the most frequent."""
        return self._ranked("most_frequent", field, place("top_k", k, PLACES_MAX), windows, notes, values)

    def top_share(
        self,
        field: str | Field,
        *windows: str,
        k: int = 1,
        values: Sequence[str] | None = None,
        **notes: Unpack[Notes],
    ) -> Feature:
        """Return the share of the values that are among the k most frequent."""
        return self._of("top_share", field, windows, notes, values, (place("top_share", k, 4096),))

    def entropy(
        self, field: str | Field, *windows: str, values: Sequence[str] | None = None, **notes: Unpack[Notes]
    ) -> Feature:
        """Return how evenly the values are spread: the entropy of their frequencies in bits, 0 where all are equal."""
        return self._of("entropy", field, windows, notes, values)

    # ---- how they are made ------------------------------------------------------------------------------------------

    def _of(
        self,
        aggregate: Aggregate,
        name: str | Field,
        windows: tuple[str, ...],
        notes: Notes,
        values: Sequence[str] | None = None,
        parameters: tuple[int | float, ...] = (),
    ) -> Feature:
        field = accepted(self._one, aggregate, name)
        vocabulary = vocabulary_of(f"{field.event_name}.{field.name}", values)
        recipe = Recipe(aggregate, field, None, vocabulary, parameters)
        return self._feature(recipe, windows, notes)

    def _ranked(
        self,
        aggregate: Aggregate,
        name: str | Field,
        k: int,
        windows: tuple[str, ...],
        notes: Notes,
        values: Sequence[str] | None,
    ) -> Feature:
        """Return the first, second, ... k-th of an aggregate that takes a place, side by side."""
        places = [self._of(aggregate, name, windows, notes, values, (n + 1,)) for n in range(k)]
        axes = [axis for axis in AXES if axis == "place" or axis in places[0].axes]
        where = axes.index("place")
        columns = {
            (*labels[:where], str(n + 1), *labels[where:]): node
            for n, one in enumerate(places)
            for labels, node in one.columns.items()
        }
        return Feature(columns, notes, axes)

    def _time(self, aggregate: Aggregate, windows: tuple[str, ...], unit: TimeUnit, remarks: Remarks) -> Feature:
        return self._feature(Recipe(aggregate, None, Kind("real", time_unit(unit))), windows, remarks)

    def _runs(self, aggregate: Aggregate, predicate: Predicate, windows: tuple[str, ...], notes: Notes) -> Feature:
        meeting = self.where(predicate)._sources()
        if any(len(meeting[label].given) > len(source.given) for label, source in self._sources().items()):
            raise DefinitionError(f"{aggregate}: its condition looks at the facts alone; put the application in where")
        return self._feature(Recipe(aggregate, None, Kind("integer", "events")), windows, notes, meeting)

    def _feature(
        self,
        recipe: Recipe,
        windows: tuple[str, ...],
        notes: Notes | Remarks,
        conditions: Mapping[tuple[str, ...], Source] | None = None,
    ) -> Feature:
        """Return a column for each source and window."""
        spans = self._windows(windows)
        if recipe.aggregate.startswith("decayed"):
            check_decay(recipe, spans.values())
        columns: dict[tuple[str, ...], Node] = {}
        for label, source in self._sources().items():
            condition = None if conditions is None else conditions[label]
            for window, span in spans.items():
                columns[(*label, window) if len(spans) > 1 else label] = recipe.of(source, span, condition)
        return Feature(columns, notes, [*self._axes, *(["window"] if len(spans) > 1 else [])])  # type: ignore[list-item]

    def _windows(self, windows: tuple[str, ...]) -> Mapping[str, Fixed | Since]:
        if self._since is None:
            return parse_windows(windows)
        if windows:
            raise DefinitionError(f"a window since an event takes no other, got {', '.join(map(repr, windows))}")
        return {"": self._since}

    @property
    def _one(self) -> Source:
        return next(iter(self._sources().values()))
