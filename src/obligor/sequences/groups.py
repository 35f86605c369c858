"""Groups of events by their tokens: which codes each of them means, found once in the plan and the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from obligor.errors import IntegrityError
from obligor.features.measures import Slot
from obligor.features.plan import Plan
from obligor.features.projection import hash_text
from obligor.sequences.head import TRUTHS, EventGroup, parsed
from obligor.sequences.tokens import KNOWN, Codes, Tokenizer

__all__ = ["NO_GROUP", "Groups"]

NO_GROUP: Final = -1
_TYPE: Final = 0  # the field of a token that says the event's type
_Wanted: TypeAlias = "dict[int, int]"  # the code of each field that is looked at


@dataclass(frozen=True)
class Groups:
    """The groups of one bundle; `reasons` are their codes, in order. An event that several name is the first one's."""

    reasons: tuple[str, ...]
    _named: tuple[tuple[_Wanted, ...], ...]

    @classmethod
    def of(cls, groups: Sequence[EventGroup], plan: Plan, sequence: str, tokenizer: Tokenizer) -> Groups:
        """Return the groups; IntegrityError where one names what the plan does not have.

        What the tokenizer does not know, because it was too rare, is in no group: it looks like other unknown events.
        """
        finder = _Finder(plan, sequence, tokenizer)
        named = (tuple(one for text in group.events for one in finder.wanted(text)) for group in groups)
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


class _Finder:
    """Finds what a group's words mean."""

    def __init__(self, plan: Plan, sequence: str, tokenizer: Tokenizer) -> None:
        self._spec, self._fields = plan.sequence(sequence), tokenizer.fields
        self._timeline = plan.timelines[self._spec.timeline]

    def wanted(self, text: str) -> Iterator[_Wanted]:
        """Yield what a token must have to be meant by `text`: nothing where the tokenizer knows no such one."""
        named = parsed(text)
        selections = [self._timeline.selections[one].event for one in self._spec.selections]
        if named is None or named.type not in selections:
            raise IntegrityError(f"a group names {text!r}, which is no event of {self._spec.name!r}")
        places = [place for place, event in enumerate(selections) if event == named.type]
        if named.field is None:
            yield from ({_TYPE: code} for place in places for code in self._codes(_TYPE, place))
            return
        known = False
        for place in places:
            for field, slot in self._categories(place):
                if slot.field == named.field:
                    known, value = True, _coded(slot, str(named.value), text)
                    yield from (
                        {_TYPE: t, field: v} for t in self._codes(_TYPE, place) for v in self._codes(field, value)
                    )
        if not known:
            raise IntegrityError(f"a group names {text!r}, but {self._spec.name!r} reads no such category")

    def _codes(self, field: int, value: int) -> list[int]:
        values = self._fields[field].values or ()
        return [KNOWN + values.index(value)] if value in values else []

    def _categories(self, place: int) -> Iterator[tuple[int, Slot]]:
        """Yield the categories of a type: where each is among the tokenizer's fields, and its slot."""
        selection, names = self._spec.selections[place], [own.name for own in self._fields]
        slots = self._timeline.fields.get(self._timeline.selections[selection].event, ())
        for one in self._spec.fields:
            for source in one.sources:
                if source.selection == selection and one.kind == "category":
                    yield names.index(one.name), slots[source.slot]


def _coded(slot: Slot, value: str, text: str) -> int:
    """Return a category's value as rows hold it."""
    if slot.coding == "hash":
        return hash_text(value)
    values = TRUTHS if slot.values is None else slot.values
    if value not in values:
        raise IntegrityError(f"a group names {text!r}, of which the values are {', '.join(values)}")
    return values.index(value)
