"""Pivots: facts split by the values of a category, a column for each value and window.

    spent = Purchase.by("consumer").pivot("kind").sum("amount", "30d", "90d")      spent_food_30d, spent_food_90d, ...
    spent["food"] / spent["travel"]
    spent / Purchase.by("consumer").sum("amount", "30d", "90d")                    each kind's share

Each value is a filter like any other, so it counts towards the selections of its timeline.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from obligor.errors import DefinitionError
from obligor.events.fields import Boolean, Category, Field
from obligor.events.predicates import Comparison, Predicate
from obligor.features.aggregates import Aggregates
from obligor.features.definitions import Axis
from obligor.features.expressions import Since, Source
from obligor.features.kinds import kind_of_field, one, vocabulary_of
from obligor.features.sources import narrowed

__all__ = ["Pivot", "label_in_names", "pivot_values"]


@dataclass(frozen=True, eq=False)
class Pivot(Aggregates):
    """Facts of one event type under one entity, split by the values of a field."""

    split: Mapping[str, Source]  # by value
    anchored: Since | None

    def where(self, *predicates: Predicate) -> Self:
        """Return the facts of each value for which all predicates are true too."""
        return replace(self, split={label: narrowed(one, predicates) for label, one in self.split.items()})

    def _sources(self) -> Mapping[tuple[str, ...], Source]:
        return {(label,): source for label, source in self.split.items()}

    @property
    def _axes(self) -> tuple[Axis, ...]:
        return ("value",)

    @property
    def _since(self) -> Since | None:
        return self.anchored


def pivot_values(field: Field, values: Sequence[str] | None) -> dict[str, Predicate]:
    """Return the filter of each value of a field, by the value's text; DefinitionError where it has no fixed values."""
    where = f"pivot: {field.event_name}.{field.name}"
    if not isinstance(field, Category | Boolean):
        raise DefinitionError(f"{where}: expected a category or a boolean, got {one(field.kind)}")
    vocabulary = kind_of_field(field, vocabulary_of(where, values), None).values
    predicates: dict[str, Predicate] = (
        {text: Comparison(field.name, "==", text == "true") for text in ("true", "false")}
        if vocabulary is None
        else {text: Comparison(field.name, "==", text) for text in vocabulary}
    )
    names: dict[str, str] = {}
    for text in predicates:
        other = names.setdefault(label_in_names(text), text)
        if other != text or not label_in_names(text):
            like = f"like that of {other!r}" if other != text else "of no letter or digit"
            raise DefinitionError(f"{where}: the value {text!r} would make a column name {like}")
    return predicates


def label_in_names(label: str) -> str:
    """Return a label as the names of columns spell it: small letters and digits, all else an underscore.

    >>> label_in_names("30d before 30d"), label_in_names("Bank Transfer")
    ('30d_before_30d', 'bank_transfer')
    """
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")
