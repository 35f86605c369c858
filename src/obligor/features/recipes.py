"""Recipes: what to compute, of whichever facts and in whichever window.

Which kinds of field an aggregate takes, of what kind its result is, how the field's values are stored for it, and the
bounds of its parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from obligor.errors import DefinitionError
from obligor.events.fields import Category, Entity, Field
from obligor.events.schema import parse_duration
from obligor.features.expressions import Aggregated, Since, Source
from obligor.features.kinds import Kind, kind_of_field, only_currency, per_day, withheld
from obligor.features.measures import (
    DECAY_STEPS_MAX,
    DENSE_VALUES_MAX,
    HALF_LIFE_STEPS_MAX,
    Aggregate,
    Coding,
    TimeWindow,
)
from obligor.features.sources import fitting_field
from obligor.features.windows import Fixed

__all__ = ["Recipe", "accepted", "check_decay", "decay", "field_kind", "place"]

_NUMBERS = ("money", "decimal", "integer", "boolean")
_MEASURED = ("money", "decimal", "integer")
_COUNTED = (*_NUMBERS, "category", "entity")
_ACCEPTED: dict[str, tuple[str, ...]] = {
    "sum": _NUMBERS,
    "mean": _NUMBERS,
    "std": _NUMBERS,
    "sample_std": _NUMBERS,
    "min": (*_NUMBERS, "timestamp"),
    "max": (*_NUMBERS, "timestamp"),
    "first": (*_NUMBERS, "timestamp", "category"),
    "last": (*_NUMBERS, "timestamp", "category"),
    "nth_last": (*_NUMBERS, "timestamp", "category"),
    "range": _MEASURED,
    "slope": _NUMBERS,
    "quantile": _MEASURED,
    "decayed_sum": _NUMBERS,
    "distinct": (*_COUNTED, "timestamp"),
    "most_frequent": (*_NUMBERS, "category"),
    "top_share": _COUNTED,
    "entropy": _COUNTED,
}
_CALLED = {"nth_last": "nth"}


@dataclass(frozen=True)
class Recipe:
    """What to compute, of whichever facts and in whichever window."""

    aggregate: Aggregate
    field: Field | None
    kind: Kind | None  # None: it follows from the field
    values: tuple[str, ...] | None = None  # a vocabulary for an open category
    parameters: tuple[int | float, ...] = ()

    def of(self, source: Source, window: Fixed | Since, condition: Source | None) -> Aggregated:
        """Return the node over one source and window."""
        name = None if self.field is None else self.field.name
        kind, coding, values = self._kind(source)
        return Aggregated(
            source, self.aggregate, name, coding, window, kind, values, self.parameters, condition=condition
        )

    def _kind(self, source: Source) -> tuple[Kind, Coding, tuple[str, ...] | None]:
        """Return the kind of the result, and how the field's values are stored."""
        if self.field is None:
            assert self.kind is not None
            return self.kind, "integer", None
        currency = only_currency(self.field.name, source.where)
        if self.aggregate in ("distinct", "top_share", "entropy"):
            coding, values = _counted_coding(self.field, self.values, currency)
            unit = {"distinct": "values", "top_share": "ratio", "entropy": "bits"}[self.aggregate]
            return Kind("integer" if self.aggregate == "distinct" else "real", unit), coding, values
        stored = kind_of_field(self.field, self.values, currency)
        return field_kind(self.aggregate, stored), stored.coding, stored.values


def field_kind(aggregate: Aggregate, stored: Kind) -> Kind:
    """Return the kind of an aggregate of values of a kind.

    >>> field_kind("sum", Kind("boolean")).unit, field_kind("slope", Kind("integer", "EUR minor units")).unit
    ('events', 'EUR minor units per day')
    """
    if aggregate in ("mean", "std", "sample_std", "quantile"):
        return Kind("real", stored.unit, None, stored.scale)
    if aggregate == "slope":
        return Kind("real", per_day(stored.unit), None, stored.scale)
    if aggregate in ("sum", "decayed_sum"):
        unit = "events" if stored.type == "boolean" else stored.unit
        return Kind("integer" if aggregate == "sum" and not stored.scale else "real", unit, None, stored.scale)
    return stored


def accepted(source: Source, aggregate: str, name: str | Field) -> Field:
    """Return the field that an aggregate is asked of; DefinitionError where it is of no kind that it takes."""
    return fitting_field(source, _CALLED.get(aggregate, aggregate), name, _ACCEPTED[aggregate])


def _counted_coding(
    field: Field, values: tuple[str, ...] | None, currency: str | None
) -> tuple[Coding, tuple[str, ...] | None]:
    """Return how values that are only told apart are stored: a small vocabulary as such, other texts by their hash."""
    text = isinstance(field, Entity) or (isinstance(field, Category) and not field.values)
    if text and values is None:
        withheld(field, f"{field.event_name}.{field.name}")
        return "hash", None
    kind = kind_of_field(field, values, currency)
    if values is None and kind.values is not None and len(kind.values) > DENSE_VALUES_MAX:
        return "hash", None
    return kind.coding, kind.values


def place(what: str, n: int, most: int) -> int:
    """Return a place in an order, from 1; DefinitionError where it is none."""
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= most:
        raise DefinitionError(f"{what}: expected a whole number from 1 to {most}, got {n!r}")
    return n


def decay(half_life: str, step: str) -> tuple[int, int]:
    """Return a half-life and a step in microseconds."""
    half_life_us, step_us = parse_duration(half_life), parse_duration(step)
    if not half_life_us or not step_us:
        raise DefinitionError(f"expected a half-life and a step above 0, got {half_life!r} and {step!r}")
    return half_life_us, step_us


def check_decay(recipe: Recipe, windows: Iterable[Fixed | Since]) -> None:
    """Raise DefinitionError where what decays would reach back too many steps."""
    half_life_us, step_us = recipe.parameters
    for window in windows:
        if not isinstance(window, TimeWindow):
            raise DefinitionError(f"{recipe.aggregate}: expected windows of time, such as '365d' or 'lifetime'")
        if window.length_us is None and half_life_us > HALF_LIFE_STEPS_MAX * step_us:
            raise DefinitionError(
                f"{recipe.aggregate}: over a lifetime the half-life is at most {HALF_LIFE_STEPS_MAX} steps, so that "
                f"what is older than {DECAY_STEPS_MAX} steps weighs nothing; take a longer step= or a window"
            )
        if window.length_us is not None and window.length_us + window.offset_us > DECAY_STEPS_MAX * step_us:
            raise DefinitionError(
                f"{recipe.aggregate}: the window reaches back more than {DECAY_STEPS_MAX} steps; take a longer step="
            )
