"""Features as a lender writes them: expressions with notes, one column per window.

    repaid = Repayment.by("consumer").sum("amount", "30d", "90d", reason="REPAYMENT", monotone="decreasing")
    asked = request("amount")
    reach = feature(asked / repaid["90d"], reason="REQUEST_SIZE", description="Amount asked for over amount repaid")

The name of a feature is the variable's; with several windows there is a column for each, `repaid_30d`, `repaid_90d`.
Arithmetic works window by window. Nothing is computed here: `compile_plan` turns definitions into data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeAlias, TypedDict, Unpack, get_args

from obligor.errors import DefinitionError, did_you_mean
from obligor.features.expressions import (
    Age,
    Binary,
    Calendar,
    Constant,
    Elapsed,
    Filled,
    Label,
    Node,
    Requested,
    TimeUnit,
    kind_of,
    time_unit,
)
from obligor.features.plan import Op

__all__ = [
    "Feature",
    "Monotone",
    "Notes",
    "Remarks",
    "as_of",
    "definitions",
    "feature",
    "maximum",
    "minimum",
    "request",
]

Monotone: TypeAlias = Literal["increasing", "decreasing"]
Operand: TypeAlias = "Feature | int | float"


class Remarks(TypedDict, total=False):
    """What may be said of a feature, by keyword, wherever one is made."""

    reason: str  # the code under which it is disclosed when it counted against an applicant
    monotone: Monotone  # how the risk of default may move when the value grows; default: either way
    description: str  # one sentence for people who do not read code
    scored: bool  # False: for policy rules only, no model sees it; default True


class Notes(Remarks, total=False):
    """Remarks, and a unit in place of the derived one."""

    unit: str


class Feature:
    """One definition: an expression for each of its windows, and notes.

    `+ - * /` with features and numbers (division by zero is null), comparisons (true or false, null stays null),
    `&`, `|` and `~` of comparisons, `.fill(value)` for nulls, `["30d"]` for one window.

    >>> asked = request("amount")
    >>> (asked / 100).windows, asked.notes
    ((), {})
    """

    def __init__(self, columns: Mapping[str, Node], notes: Notes | Remarks | None = None) -> None:
        self.columns: Mapping[str, Node] = MappingProxyType(dict(columns))  # by window; '' where there is but one
        self.notes = _checked(notes or {})
        for node in self.columns.values():
            kind_of(node)

    @property
    def windows(self) -> tuple[str, ...]:
        """The windows, when there are several."""
        return tuple(window for window in self.columns if window)

    def __getitem__(self, window: str) -> Feature:
        """Return the feature of one window alone."""
        if window not in self.columns or not window:
            raise DefinitionError(f"no window {window!r} here; {did_you_mean(window, self.windows)}")
        return Feature({"": self.columns[window]}, self.notes)

    def __iter__(self) -> Iterator[Feature]:
        return (self[window] for window in self.windows)

    def fill(self, value: float | str, **notes: Unpack[Notes]) -> Feature:
        """Return the feature with nulls replaced by a number (or a category's value); keeps the notes."""
        by = Label(value) if isinstance(value, str) else _constant(value)
        filled = {window: Filled(node, by) for window, node in self.columns.items()}
        return Feature(filled, _merged(self.notes, notes))

    def __add__(self, other: Operand) -> Feature:
        return _combine("add", self, other)

    def __radd__(self, other: Operand) -> Feature:
        return _combine("add", other, self)

    def __sub__(self, other: Operand) -> Feature:
        return _combine("subtract", self, other)

    def __rsub__(self, other: Operand) -> Feature:
        return _combine("subtract", other, self)

    def __mul__(self, other: Operand) -> Feature:
        return _combine("multiply", self, other)

    def __rmul__(self, other: Operand) -> Feature:
        return _combine("multiply", other, self)

    def __truediv__(self, other: Operand) -> Feature:
        return _combine("divide", self, other)

    def __rtruediv__(self, other: Operand) -> Feature:
        return _combine("divide", other, self)

    def __neg__(self) -> Feature:
        return _combine("subtract", 0, self)

    def __lt__(self, other: Operand) -> Feature:
        return _combine("less", self, other)

    def __le__(self, other: Operand) -> Feature:
        return _combine("less_equal", self, other)

    def __gt__(self, other: Operand) -> Feature:
        return _combine("greater", self, other)

    def __ge__(self, other: Operand) -> Feature:
        return _combine("greater_equal", self, other)

    def __eq__(self, other: Operand | str) -> Feature:  # type: ignore[override]
        return _combine("equal", self, other)

    def __ne__(self, other: Operand | str) -> Feature:  # type: ignore[override]
        return _combine("not_equal", self, other)

    def __and__(self, other: Feature) -> Feature:
        return _logic("minimum", self, other)

    def __or__(self, other: Feature) -> Feature:
        return _logic("maximum", self, other)

    def __invert__(self) -> Feature:
        return _logic("equal", self, None)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError("a feature has no truth value: combine with & | ~ instead of and, or, not")

    def __repr__(self) -> str:
        return f"Feature({', '.join(self.windows) or 'one window'})"


def feature(expression: Feature, **notes: Unpack[Notes]) -> Feature:
    """Return an expression with notes; those given replace what it carried.

    >>> feature(request("amount") / 100, reason="REQUEST_SIZE").notes["reason"]
    'REQUEST_SIZE'
    """
    return Feature(expression.columns, _merged(expression.notes, notes))


def minimum(left: Operand, right: Operand) -> Feature:
    """Return the lesser of two; null if either is."""
    return _combine("minimum", left, right)


def maximum(left: Operand, right: Operand) -> Feature:
    """Return the greater of two; null if either is."""
    return _combine("maximum", left, right)


def definitions(namespace: Mapping[str, object]) -> dict[str, Feature]:
    """Return the features of a module's namespace by name; a leading underscore keeps one out.

    >>> list(definitions({"asked": request("amount"), "_helper": request("amount"), "other": 5}))
    ['asked']
    """
    return {n: v for n, v in namespace.items() if isinstance(v, Feature) and not n.startswith("_")}


class _Request:
    """The application's own fields; they are checked when a plan is compiled for an application type."""

    def __call__(self, field: str, *, values: Sequence[str] | None = None, **notes: Unpack[Notes]) -> Feature:
        """Return a field of the application; `values` freezes the vocabulary of an open category."""
        return Feature({"": Requested(field, tuple(values) if values is not None else None)}, notes)

    def age(self, field: str, unit: TimeUnit = "days", **remarks: Unpack[Remarks]) -> Feature:
        """Return the time from a timestamp field of the application to as_of."""
        return Feature({"": Age(field, time_unit(unit))}, remarks)


class _AsOf:
    """The instant of the question, in the plan's zone."""

    def hour(self, **notes: Unpack[Notes]) -> Feature:
        """Return the hour, 0 to 23."""
        return Feature({"": Calendar("hour")}, notes)

    def day_of_week(self, **notes: Unpack[Notes]) -> Feature:
        """Return the weekday, 0 (Monday) to 6."""
        return Feature({"": Calendar("day_of_week")}, notes)

    def day_of_month(self, **notes: Unpack[Notes]) -> Feature:
        """Return the day of the month, 1 to 31."""
        return Feature({"": Calendar("day_of_month")}, notes)

    def since(self, moment: Feature, unit: TimeUnit = "days", **remarks: Unpack[Remarks]) -> Feature:
        """Return the time from a moment (`Due.by("consumer").last("due_at")`) to as_of; negative when it lies ahead."""
        elapsed = {window: Elapsed(node, time_unit(unit)) for window, node in moment.columns.items()}
        return Feature(elapsed, remarks)


request = _Request()
as_of = _AsOf()


def _combine(op: Op, left: Operand, right: Operand | str) -> Feature:
    a, b = _operand(left), _operand(right)
    if isinstance(a, Feature) and isinstance(b, Feature) and a.windows and b.windows and a.windows != b.windows:
        raise DefinitionError(
            f"windows differ: {', '.join(a.windows)} and {', '.join(b.windows)}; choose one, as in x[{a.windows[0]!r}]"
        )
    windows = next((f.columns for f in (a, b) if isinstance(f, Feature) and f.windows), {"": None})
    return Feature({window: Binary(op, _column(a, window), _column(b, window)) for window in windows})


def _logic(op: Op, left: Feature, right: Feature | None) -> Feature:
    for one in (left, right):
        for node in one.columns.values() if isinstance(one, Feature) else ():
            kind = kind_of(node)
            if kind is not None and kind.type != "boolean":
                raise DefinitionError(f"& | ~ combine comparisons, got a {kind.type}; compare it first, as in x > 0")
    return _combine(op, left, 0 if right is None else right)


def _operand(value: object) -> Feature | Constant | Label:
    if isinstance(value, Feature):
        return value
    return Label(value) if isinstance(value, str) else _constant(value)


def _column(operand: Feature | Constant | Label, window: str) -> Node:
    if not isinstance(operand, Feature):
        return operand
    return operand.columns[window if operand.windows else ""]


def _constant(value: object) -> Constant:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DefinitionError(f"expected a feature or a number, got {value!r}")
    if not math.isfinite(value) or (isinstance(value, int) and abs(value) > 2**53):
        raise DefinitionError(f"expected a finite number within 2^53, got {value!r}")
    return Constant(value)


def _merged(old: Mapping[str, object], new: Notes) -> Notes:
    return {**old, **new}  # type: ignore[typeddict-item]


def _checked(notes: Mapping[str, object]) -> Notes:
    monotone = notes.get("monotone")
    if monotone is not None and monotone not in get_args(Monotone):
        raise DefinitionError(f"monotone is 'increasing' or 'decreasing', got {monotone!r}")
    for name, value in notes.items():
        if name not in Notes.__annotations__:
            raise DefinitionError(f"unknown note {name!r}; {did_you_mean(name, list(Notes.__annotations__))}")
        if not isinstance(value, bool if name == "scored" else str):
            raise DefinitionError(f"{name}: expected {'True or False' if name == 'scored' else 'text'}, got {value!r}")
    return dict(notes)  # type: ignore[return-value]
