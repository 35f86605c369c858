"""Recurrence: which parties pay, or are paid, again and again, and how much a month.

A party is *recurring* when it has a fact in each of the last three spans of 35 days: at least three facts, no gap in
them of 70 days or more. Whoever pays at least every 35 days (weekly, fortnightly, on the last working day of a month)
is recurring for certain once three spans are covered; a single large receipt never is. It has *lapsed* when the two
spans before have a fact and the last one has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from obligor.events.fields import Field
from obligor.features.definitions import Feature
from obligor.features.operators import Operators
from obligor.features.per_key import ByKey, PerKey
from obligor.features.stream import Stream

__all__ = ["MONTH_DAYS", "REACH", "Recurring", "known_if"]

MONTH_DAYS = 30
REACH = "105d"  # the three spans together
_SPANS = ("35d", "35d before 35d", "35d before 70d")
_Operators = TypeVar("_Operators", bound=Operators)


def known_if(number: _Operators, condition: _Operators) -> _Operators:
    """Return a number where a condition is true and null elsewhere: over 1, or over 0."""
    return number / condition


@dataclass(frozen=True, eq=False)
class Recurring:
    """Amounts by party: the payer of a receipt, the payee of a bill."""

    facts: Stream
    amount: str | Field
    party: str | Field

    def parties(self) -> Feature:
        """Return the number of recurring parties."""
        return self._recurs.count()

    def lapsed(self) -> Feature:
        """Return the number of parties that have lapsed."""
        last, before, first = (self._by_party.count(span) > 0 for span in _SPANS)
        return (before & first & ~last).count()

    def total(self) -> Feature:
        """Return what the recurring parties' facts of the three spans amount to; 0 of none."""
        return (self._by_party.sum(self.amount, REACH) * self._recurs).sum()

    def monthly(self) -> Feature:
        """Return what the recurring parties come to in 30 days, each at its own rhythm; 0 of none.

        A party's mean amount, times 30 days over its mean gap. The days from its first fact to its last hold one gap
        less than facts, so the mean gap is exact; where a payday comes in several parts it counts too little for the
        gaps, and too much for the month (by a quarter, with two parts and three paydays).
        """
        facts = self._by_party
        span_days = facts.time_since_first(REACH, "days") - facts.time_since_last(REACH, "days")
        gaps = facts.count(REACH) - 1
        by_rhythm = facts.mean(self.amount, REACH) * gaps / (span_days / MONTH_DAYS)
        return known_if(by_rhythm, self._recurs).sum(unit=self.unit)

    def tenure(self) -> Feature:
        """Return the days since the first fact of the recurring party that has been there longest; null of none."""
        return known_if(self._by_party.time_since_first(unit="days"), self._recurs).max()

    @property
    def unit(self) -> str:
        """The unit of an amount in 30 days."""
        return f"{self._by_party.sum(self.amount).unit} in {MONTH_DAYS} days"

    @property
    def _by_party(self) -> PerKey:
        return self.facts.per(self.party)

    @property
    def _recurs(self) -> ByKey:
        last, before, first = (self._by_party.count(span) > 0 for span in _SPANS)
        return last & before & first
