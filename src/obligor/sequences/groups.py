"""Groups of events: which tokens each of them means, found once in the plan and the tokenizer.

`Payment` means all events of a type, `Payment.cause=late` those with a category's value; a type is named as its class
or as the log names it. An event belongs to the first group that names it, so what is special stands before what is
general, and what nothing names belongs to none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from obligor.errors import DefinitionError, Problem, did_you_mean
from obligor.events.schema import snake_case
from obligor.features.measures import Slot, Timeline
from obligor.features.plan import Plan
from obligor.features.projection import hash_text
from obligor.features.sequence_spec import SequenceSpec
from obligor.sequences.score import GROUPS_MAX, EventGroup
from obligor.sequences.tokens import KNOWN, Codes, Tokenizer

__all__ = ["NO_GROUP", "Groups"]

NO_GROUP: Final = -1
_TYPE: Final = 0  # the field of a token that says the event's type
_TRUTHS: Final = ("false", "true")
_Wanted: TypeAlias = "dict[int, int]"  # the code of each field that is looked at


@dataclass(frozen=True)
class Groups:
    """The groups of one bundle; `reasons` are their codes, in order."""

    reasons: tuple[str, ...]
    _named: tuple[tuple[_Wanted, ...], ...]

    @classmethod
    def of(cls, groups: Sequence[EventGroup], plan: Plan, sequence: str, tokenizer: Tokenizer) -> Groups:
        """Return the groups; DefinitionError lists every one that names what is not there, or not what it seems."""
        finder = _Finder(plan, plan.sequence(sequence), tokenizer)
        problems = list(_faults(groups))
        named: list[tuple[_Wanted, ...]] = []
        for group in groups:
            own: list[_Wanted] = []
            for i, text in enumerate(group.events):
                path = f"$.groups.{group.reason}[{i}]"
                try:
                    found = list(finder.wanted(text))
                except DefinitionError as error:
                    problems.append(Problem(path, str(error)))
                    continue
                before = [one for earlier in (*named, own) for one in earlier]
                if found and all(any(_is_within(one, other) for other in before) for one in found):
                    problems.append(Problem(path, f"{text!r} is named before it: put what is special first"))
                own += found
            named.append(tuple(own))
        if problems:
            raise DefinitionError(problems)
        return cls(tuple(group.reason for group in groups), tuple(named))

    def of_events(self, codes: Codes) -> NDArray[np.int64]:
        """Return the place of the group of each event, NO_GROUP where none names it.  # (n, F) -> (n,)"""
        found = np.full(len(codes), NO_GROUP, np.int64)
        for place in reversed(range(len(self._named))):
            for wanted in self._named[place]:
                fits = np.ones(len(codes), np.bool_)
                for field, code in wanted.items():
                    fits &= codes[:, field] == code
                found[fits] = place
        return found


def _faults(groups: Sequence[EventGroup]) -> Iterator[Problem]:
    if len(groups) > GROUPS_MAX:
        yield Problem("$.groups", f"expected at most {GROUPS_MAX}, got {len(groups)}: a reason is to be understood")
    for one, other in combinations(groups, 2):
        if one.reason == other.reason:
            yield Problem(f"$.groups.{one.reason}", "two groups have this reason: name the events of both in one")
    for group in groups:
        if not group.events:
            yield Problem(f"$.groups.{group.reason}", "expected events, such as 'Payment' or 'Payment.cause=late'")


def _is_within(wanted: _Wanted, other: _Wanted) -> bool:
    return other.items() <= wanted.items()


class _Finder:
    """Finds what a group's words mean."""

    def __init__(self, plan: Plan, spec: SequenceSpec, tokenizer: Tokenizer) -> None:
        self._timeline: Timeline = plan.timelines[spec.timeline]
        self._spec, self._fields = spec, tokenizer.fields
        self._places: dict[str, list[int]] = {}  # by event type, among the sequence's selections
        for place, selection in enumerate(spec.selections):
            self._places.setdefault(self._timeline.selections[selection].event, []).append(place)

    def wanted(self, text: str) -> Iterator[_Wanted]:
        """Yield what a token must have to be meant by `text`: nothing where the tokenizer knows no such one."""
        named, equals, value = text.partition("=")
        event, dot, field = named.strip().partition(".")
        if bool(equals) != bool(dot) or not event:
            raise DefinitionError(f"expected an event such as 'Payment' or 'Payment.cause=late', got {text!r}")
        kind = event if event in self._places else snake_case(event)
        if kind not in self._places:
            raise DefinitionError(f"no {event!r} is in {self._spec.name!r}; {did_you_mean(kind, list(self._places))}")
        if not equals:
            yield from ({_TYPE: code} for place in self._places[kind] for code in self._codes(_TYPE, place))
            return
        for place, (at, slot) in self._category(kind, field.strip()).items():
            found = self._codes(at, _coded(slot, value.strip(), f"{kind}.{slot.field}"))
            yield from ({_TYPE: code, at: own} for code in self._codes(_TYPE, place) for own in found)

    def _codes(self, field: int, value: int) -> list[int]:
        values = self._fields[field].values or ()
        return [KNOWN + values.index(value)] if value in values else []

    def _category(self, kind: str, field: str) -> dict[int, tuple[int, Slot]]:
        """Return by place of a type where a category of its events is among the tokenizer's fields, and its slot."""
        slots, names = self._timeline.fields.get(kind, ()), [own.name for own in self._fields]
        found: dict[str, dict[int, tuple[int, Slot]]] = {}
        for place in self._places[kind]:
            for one in self._spec.fields:
                for source in one.sources:
                    if source.selection == self._spec.selections[place] and one.kind == "category":
                        slot = slots[source.slot]
                        found.setdefault(slot.field, {})[place] = names.index(one.name), slot
        if field not in found:
            raise DefinitionError(f"{kind} has no category {field!r} in the sequence; {did_you_mean(field, [*found])}")
        return found[field]


def _coded(slot: Slot, text: str, where: str) -> int:
    """Return a category's value as rows hold it."""
    if slot.coding == "hash":
        return hash_text(text)
    values = _TRUTHS if slot.values is None else slot.values
    if text not in values:
        raise DefinitionError(f"{where} is never {text!r}; {did_you_mean(text, list(values))}")
    return values.index(text)
