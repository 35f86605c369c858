"""The rung `cached`: what was computed of applicants after their last full decisions, for when the state is gone.

A decision on it rests on the log as it was at an earlier cut and instant, which its record names, and on the
application's own fields. Those features may be old in what others did since, never in what the applicant did or owes:
an entry is of the moment after the decision that it follows, and is dropped as soon as anything is staged that changes
the history which the exposure is measured in, as a decision with an offer does. An applicant who has something in the
future there gets none, because that would come into view without anybody's doing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from obligor.decisions.decide import Cached, Cut
from obligor.decisions.policy import Caching
from obligor.errors import LimitError
from obligor.features.edits import WinnerChanges, edits_of
from obligor.features.online import Measured, fetch, measure_one
from obligor.features.plan import Plan
from obligor.features.requests import comparand_row, composite_key, key_names
from obligor.features.state import StagedState

if TYPE_CHECKING:
    from obligor.sequences.online import Before, OnlineScore

__all__ = ["APPLICANTS_MAX", "Cache", "Found"]

APPLICANTS_MAX = 20_000  # those who were decided on longest ago go first; about two kilobytes each
STATES_BYTES_MAX = 256 << 20  # of their sequences' states beside that, which are some kilobytes each

Fields = Mapping[str, Any]


class Found(NamedTuple):
    """What an application may be decided on."""

    at: Cached
    measured: Measured
    before: Before | None  # what a sequence's score is read after; None where there is no such score


class _Entry(NamedTuple):
    question: tuple[Any, ...]  # all that was asked, but for the instant
    found: Found


class Cache:
    """Entries by applicant, who is the entity that the policy's exposure is measured of; used by one thread."""

    def __init__(self, plan: Plan, caching: Caching, online: OnlineScore | None = None) -> None:
        """`online` scores a sequence behind the plan's features."""
        self._plan, self._caching, self._online = plan, caching, online
        self._keys = key_names(plan)
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._states_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def keep(self, state: StagedState, applications: Sequence[Fields], cut: Cut, as_of: int) -> None:
        """Compute what applications like these would be decided on, from the state as it is at a cut and an instant."""
        last = {applicant: fields for fields in applications if (applicant := self._applicant(fields)) is not None}
        entities = {applicant: {name: fields.get(name) for name in self._keys} for applicant, fields in last.items()}
        fetch(self._plan, state, as_of, *entities.values())
        for applicant, fields in last.items():
            newest = state.newest(self._caching.timeline, applicant)
            if newest is not None and newest >= as_of:
                continue
            try:
                measured = measure_one(self._plan, state, as_of, -1, entities[applicant], fields)
            except LimitError:  # it would be referred
                continue
            before = None
            if self._online is not None:
                before = self._online.before(state.folds(), as_of, -1, entities[applicant])
            self._forget(applicant)
            self._entries[applicant] = _Entry(self._question(fields), Found(Cached(cut, as_of), measured, before))
            self._states_bytes += _bytes_of(before)
        while len(self._entries) > APPLICANTS_MAX or self._states_bytes > STATES_BYTES_MAX:
            self._forget(next(iter(self._entries)))

    def find(self, fields: Fields, as_of: int) -> Found | None:
        """Return what an application may be decided on; None where nothing is kept, or nothing young enough."""
        applicant = self._applicant(fields)
        entry = None if applicant is None else self._entries.get(applicant)
        if entry is None or entry.question != self._question(fields):
            return None
        return entry.found if as_of - entry.found.at.as_of <= self._caching.age_max_us else None

    def drop(self, timeline: str, keys: Sequence[bytes]) -> None:
        """Forget the applicants whose histories change: these entities of a timeline."""
        if timeline == self._caching.timeline:
            for key in keys if self._entries else ():
                self._forget(key.decode())

    def drop_changed(self, changes: WinnerChanges) -> None:
        """The same where no state is told of the changes."""
        edits = edits_of(self._plan, self._caching.timeline, changes) if self._entries else None
        if edits is not None:
            self.drop(self._caching.timeline, edits.keys)

    def clear(self) -> None:
        """Forget everything, because the state that it came from is in doubt."""
        self._entries.clear()
        self._states_bytes = 0

    def _forget(self, applicant: str) -> None:
        entry = self._entries.pop(applicant, None)
        if entry is not None:
            self._states_bytes -= _bytes_of(entry.found.before)

    def _applicant(self, fields: Fields) -> str | None:
        return composite_key([fields.get(name) for name in self._caching.via])

    def _question(self, fields: Fields) -> tuple[Any, ...]:
        """Return whose histories are looked at, and what their rows are compared with."""
        return *(fields.get(name) for name in self._keys), comparand_row(self._plan, 0, fields).tobytes()


def _bytes_of(before: Before | None) -> int:
    return 0 if before is None or before.kept is None else len(before.kept)
