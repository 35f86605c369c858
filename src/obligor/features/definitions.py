"""Features as a lender writes them: expressions with notes, one column per window.

    repaid = Repayment.by("consumer").sum("amount", "30d", "90d", reason="REPAYMENT", monotone="decreasing")
    asked = request("amount")
    reach = feature(asked / repaid["90d"], reason="REQUEST_SIZE", description="Amount asked for over amount repaid")

The name of a feature is the variable's; with several windows there is a column for each, `repaid_30d`, `repaid_90d`,
and so with the values of a pivot and the places of a ranking. Arithmetic works column by column. Nothing is computed
here: `compile_plan` turns definitions into data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import Literal, TypeAlias, TypedDict, Unpack, get_args

from obligor.errors import DefinitionError, did_you_mean
from obligor.features.conditions import AsOf
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
    kind_of,
    leaves,
    moved,
)
from obligor.features.kinds import TimeUnit, time_unit, vocabulary_of
from obligor.features.measures import Op
from obligor.features.operators import Operators, operand
from obligor.features.windows import previous

__all__ = ["AXES", "Axis", "Feature", "Monotone", "Notes", "Remarks", "as_of", "definitions", "feature", "request"]

Monotone: TypeAlias = Literal["increasing", "decreasing"]
Axis: TypeAlias = Literal["value", "place", "window"]
AXES: tuple[Axis, ...] = get_args(Axis)  # in the order in which a column's name spells them
Labels: TypeAlias = tuple[str, ...]


class Remarks(TypedDict, total=False):
    """What may be said of a feature, by keyword, wherever one is made."""

    reason: str  # the code under which it is disclosed when it counted against an applicant
    monotone: Monotone  # how the risk of default may move when the value grows; default: either way
    description: str  # one sentence for people who do not read code
    scored: bool  # False: for policy rules only, no model sees it; default True


class Notes(Remarks, total=False):
    """Remarks, and a unit in place of the derived one."""

    unit: str


class Feature(Operators):
    """One definition: an expression for each of its columns, and notes.

    `+ - * /` with features and numbers (division by zero is null), comparisons (true or false, null stays null),
    `&`, `|` and `~` of comparisons, `.fill(value)` for nulls, `["30d"]` for one window, `["card"]` for one value of a
    pivot, `[1]` for one place of a ranking.

    >>> asked = request("amount")
    >>> (asked / 100).windows, asked.notes
    ((), {})
    """

    def __init__(
        self, columns: Mapping[Labels, Node], notes: Notes | Remarks | None = None, axes: Sequence[Axis] = ()
    ) -> None:
        self.axes: Mapping[Axis, Labels] = MappingProxyType(
            {axis: tuple(dict.fromkeys(labels[i] for labels in columns)) for i, axis in enumerate(axes)}
        )
        # By their labels, one for each axis; there is a column for each combination.
        self.columns: Mapping[Labels, Node] = MappingProxyType(
            {labels: columns[labels] for labels in product(*self.axes.values())}
        )
        self.notes = _checked(notes or {})
        for node in self.columns.values():
            kind_of(node)

    @property
    def windows(self) -> Labels:
        """The windows, when there are several."""
        return self.axes.get("window", ())

    def __getitem__(self, label: str | int) -> Feature:
        """Return the feature of one window, one value of a pivot or one place of a ranking alone."""
        axis = next((axis for axis, labels in self.axes.items() if str(label) in labels), None)
        if axis is None:
            valid = [known for labels in self.axes.values() for known in labels]
            what = " or ".join(self.axes) or "window"
            raise DefinitionError(f"no {what} {label!r} here; {did_you_mean(str(label), valid)}")
        place = list(self.axes).index(axis)
        chosen = {
            (*labels[:place], *labels[place + 1 :]): node
            for labels, node in self.columns.items()
            if labels[place] == str(label)
        }
        return Feature(chosen, self.notes, [other for other in self.axes if other != axis])

    def __iter__(self) -> Iterator[Feature]:
        """Iterate over the first of its axes: the values of a pivot, else the places of a ranking, else the windows."""
        return (self[label] for label in next(iter(self.axes.values()), ()))

    def fill(self, value: float | str, **notes: Unpack[Notes]) -> Feature:
        """Return the feature with nulls replaced by a number (or a category's value); keeps the notes."""
        by = operand(value)
        filled = {labels: Filled(node, by) for labels, node in self.columns.items()}
        return Feature(filled, _merged(self.notes, notes), list(self.axes))

    def previous(self, **notes: Unpack[Notes]) -> Feature:
        """Return the same in the windows before: "30d before 30d" for "30d", the month before last for "last month".

        What has no window, such as the amount asked for, stays as it is. DefinitionError where none lies before.
        """
        if not all(any(leaves(node)) for node in self.columns.values()):
            raise DefinitionError("previous: nothing in it has a window")
        earlier = {labels: moved(node, previous) for labels, node in self.columns.items()}
        return Feature(earlier, notes, list(self.axes))

    def ratio_to_previous(self, **notes: Unpack[Notes]) -> Feature:
        """Return it over the same in the window before; null where that was 0 or null."""
        return feature(self / self.previous(), **notes)

    def change(self, **notes: Unpack[Notes]) -> Feature:
        """Return how much it grew since the window before, as a share of what it was: period over period."""
        before = self.previous()
        return feature((self - before) / before, **notes)

    def _nodes(self) -> Iterable[Node]:
        return self.columns.values()

    def _combined(self, op: Op, left: Feature | Constant | Label, right: Feature | Constant | Label) -> Feature:
        axes: dict[Axis, Labels] = {}
        for one in (left, right):
            if isinstance(one, Feature):
                _check_axes(axes, one.axes)
                axes |= one.axes
        ordered = [axis for axis in AXES if axis in axes]
        columns = {
            labels: Binary(op, _column(left, ordered, labels), _column(right, ordered, labels))
            for labels in product(*(axes[axis] for axis in ordered))
        }
        return Feature(columns, None, ordered)

    def __repr__(self) -> str:
        return f"Feature({' x '.join(', '.join(labels) for labels in self.axes.values()) or 'one window'})"


def feature(expression: Feature, **notes: Unpack[Notes]) -> Feature:
    """Return an expression with notes; those given replace what it carried.

    >>> feature(request("amount") / 100, reason="REQUEST_SIZE").notes["reason"]
    'REQUEST_SIZE'
    """
    if not isinstance(expression, Feature):
        raise DefinitionError(f"feature: expected a feature, got {expression!r}")
    return Feature(expression.columns, _merged(expression.notes, notes), list(expression.axes))


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
        return Feature({(): Requested(field, vocabulary_of(f"request({field!r})", values))}, notes)

    def age(self, field: str, unit: TimeUnit = "days", **remarks: Unpack[Remarks]) -> Feature:
        """Return the time from a timestamp field of the application to as_of."""
        return Feature({(): Age(field, time_unit(unit))}, remarks)


class _AsOf(AsOf):
    """The instant of the question, in the plan's zone; timestamps compare with it in a `where`."""

    def hour(self, **notes: Unpack[Notes]) -> Feature:
        """Return the hour, 0 to 23."""
        return Feature({(): Calendar("hour")}, notes)

    def day_of_week(self, **notes: Unpack[Notes]) -> Feature:
        """Return the weekday, 0 (Monday) to 6."""
        return Feature({(): Calendar("day_of_week")}, notes)

    def day_of_month(self, **notes: Unpack[Notes]) -> Feature:
        """Return the day of the month, 1 to 31."""
        return Feature({(): Calendar("day_of_month")}, notes)

    def since(self, moment: Feature, unit: TimeUnit = "days", **remarks: Unpack[Remarks]) -> Feature:
        """Return the time from a moment (`Due.by("consumer").last("due_at")`) to as_of; negative when it lies ahead."""
        if not isinstance(moment, Feature):
            raise DefinitionError(f"as_of.since: expected a feature that is a moment, got {moment!r}")
        elapsed = {labels: Elapsed(node, time_unit(unit)) for labels, node in moment.columns.items()}
        return Feature(elapsed, remarks, list(moment.axes))


request = _Request()
as_of = _AsOf()


def _check_axes(known: Mapping[Axis, Labels], more: Mapping[Axis, Labels]) -> None:
    for axis, labels in more.items():
        if known.get(axis, labels) != labels:
            theirs = known[axis]
            raise DefinitionError(
                f"{axis}s differ: {', '.join(theirs)} and {', '.join(labels)}; choose one, as in x[{theirs[0]!r}]"
            )


def _column(operand: Feature | Constant | Label, axes: Sequence[Axis], labels: Labels) -> Node:
    if not isinstance(operand, Feature):
        return operand
    return operand.columns[tuple(label for axis, label in zip(axes, labels, strict=True) if axis in operand.axes)]


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
