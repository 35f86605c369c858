"""Predicates as the plan holds them: read from JSON, evaluated over columns with SQL's three values.

A result is a pair of masks (true, false); a row in neither is null, which a selection reads as "not selected". Keeping
both masks makes null propagate through and, or and not without a special case (Kleene's logic).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from obligor.errors import BadInput
from obligor.events.fields import INT64_MAX
from obligor.events.predicates import And, Comparison, Not, Or, Predicate, Relation

__all__ = ["Columns", "comparisons", "evaluate", "flattened", "parse_predicate"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Ints: TypeAlias = npt.NDArray[np.int64]

DEPTH_MAX = 32  # nesting of a predicate
_ORDERED = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}
_OPERATORS = ("==", "!=", "in", "is_null", "not_null", *_ORDERED)


class Columns(Protocol):
    """What a predicate is evaluated over: integer columns, and texts coded as integers."""

    def integers(self, field: str) -> tuple[Ints, Bools]:
        """Return the values of a field and where it is not null; texts as their codes."""
        ...

    def code(self, field: str, text: str) -> int:
        """Return the code that `integers` gives to a text of this field."""
        ...


def parse_predicate(data: object, depth: int = 0) -> Predicate:
    """Return the predicate of its JSON form; BadInput when it is none.

    >>> parse_predicate({"field": "channel", "op": "==", "value": "app"})
    Comparison(field='channel', op='==', value='app')
    """
    if depth > DEPTH_MAX:
        raise BadInput(f"a predicate nests deeper than {DEPTH_MAX}")
    match data:
        case {"and": [*parts], **rest} if parts and not rest:
            return And(tuple(parse_predicate(part, depth + 1) for part in parts))
        case {"or": [*parts], **rest} if parts and not rest:
            return Or(tuple(parse_predicate(part, depth + 1) for part in parts))
        case {"not": part, **rest} if not rest:
            return Not(parse_predicate(part, depth + 1))
        case {"field": str(field), "op": str(op), "value": value, **rest} if op in _OPERATORS and not rest:
            if _fits(op, value):
                return Comparison(field, op, tuple(value) if op == "in" else value)  # type: ignore[arg-type]
    raise BadInput(f"expected a predicate, got {data!r:.200}")


def _fits(op: str, value: object) -> bool:
    if op in ("is_null", "not_null"):
        return value is None
    if op in _ORDERED:
        return _stored(value) and not isinstance(value, str | bool)
    if op == "in":
        return isinstance(value, list | tuple) and all(map(_stored, value))
    return _stored(value)


def _stored(value: object) -> bool:
    """Whether a field can hold the value: among integers beyond 64 bits numpy would compare floats."""
    return isinstance(value, str) or (isinstance(value, int) and abs(value) <= INT64_MAX)


def comparisons(predicate: Predicate) -> Iterator[Comparison]:
    """Yield every comparison in a predicate; DefinitionError for one with the application, which filters no facts."""
    match predicate:
        case Comparison():
            yield predicate
        case Relation():
            predicate.to_json()
        case Not(part):
            yield from comparisons(part)
        case And(parts) | Or(parts):
            for part in parts:
                yield from comparisons(part)


def flattened(predicate: Predicate) -> Predicate:
    """Return the predicate with `a & (b & c)` as one `and` of three, so that long chains do not nest."""
    match predicate:
        case Not(part):
            return Not(flattened(part))
        case And(parts):
            flat = [flattened(part) for part in parts]
            return And(tuple(p for one in flat for p in (one.parts if isinstance(one, And) else (one,))))
        case Or(parts):
            flat = [flattened(part) for part in parts]
            return Or(tuple(p for one in flat for p in (one.parts if isinstance(one, Or) else (one,))))
    return predicate


def evaluate(predicate: Predicate, columns: Columns) -> tuple[Bools, Bools]:
    """Return where the predicate is true and where it is false; null is neither."""
    match predicate:
        case Comparison():
            return _compare(predicate, columns)
        case Not(part):
            true, false = evaluate(part, columns)
            return false, true
        case And(parts):
            masks = [evaluate(part, columns) for part in parts]
            return np.logical_and.reduce([t for t, _ in masks]), np.logical_or.reduce([f for _, f in masks])
        case Or(parts):
            masks = [evaluate(part, columns) for part in parts]
            return np.logical_or.reduce([t for t, _ in masks]), np.logical_and.reduce([f for _, f in masks])
    raise AssertionError(f"a predicate of unknown form: {predicate!r}")


def _compare(comparison: Comparison, columns: Columns) -> tuple[Bools, Bools]:
    values, valid = columns.integers(comparison.field)
    if comparison.op in ("is_null", "not_null"):
        return (~valid, valid) if comparison.op == "is_null" else (valid, ~valid)
    wanted = comparison.value if isinstance(comparison.value, tuple) else (comparison.value,)
    numbers = [columns.code(comparison.field, v) if isinstance(v, str) else int(v or 0) for v in wanted]
    if comparison.op in _ORDERED:
        true = _ORDERED[comparison.op](values, numbers[0])
    elif comparison.op == "in":
        true = np.isin(values, numbers)
    else:
        true = (values == numbers[0]) if comparison.op == "==" else (values != numbers[0])
    return true & valid, ~true & valid
