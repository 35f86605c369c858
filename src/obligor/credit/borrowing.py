"""Borrowing: ready-made features of how fast an entity asks for credit, and how fast it takes it up.

    applications = Applications(LoanApplication.by("consumer"), merchant="merchant")
    asked = applications.count("1d", "7d", "30d")
    borrowing = Borrowing(LoanOpened.by("consumer"), "amount")
    taken = borrowing.amount_taken("30d", "90d")

An application is not among its own earlier ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from obligor.credit.reasons import described
from obligor.errors import DefinitionError
from obligor.events.fields import Field
from obligor.features.conditions import application
from obligor.features.definitions import Feature, Notes
from obligor.features.stream import Stream

__all__ = ["Applications", "Borrowing"]


@dataclass(frozen=True, eq=False)
class Applications:
    """Earlier applications, whatever was decided on them; `merchant` is where they were made."""

    asked: Stream
    merchant: str | Field | None = None

    def count(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the number of earlier applications."""
        return described(
            self.asked.count(*windows),
            notes,
            reason="APPLICATIONS",
            unit="applications",
            monotone="increasing",
            description="Earlier applications",
        )

    def growth(self, window: str = "7d", **notes: Unpack[Notes]) -> Feature:
        """Return the earlier applications of a window over those of the window before; null where there were none."""
        return described(
            self.asked.count(window).ratio_to_previous(),
            notes,
            reason="APPLICATIONS",
            monotone="increasing",
            description="Earlier applications for each one of the same time before",
        )

    def fading(self, half_life: str = "7d", **notes: Unpack[Notes]) -> Feature:
        """Return the number of earlier applications, each half as much for every half-life of age in whole days."""
        return described(
            self.asked.decayed_count(half_life),
            notes,
            reason="APPLICATIONS",
            unit="applications",
            monotone="increasing",
            description="Earlier applications, the older the less they count",
        )

    def days_since_application(self, **notes: Unpack[Notes]) -> Feature:
        """Return the days since the last earlier application; null without one."""
        return described(
            self.asked.time_since_last(unit="days"),
            notes,
            reason="APPLICATIONS",
            monotone="decreasing",
            description="Days since the last earlier application",
        )

    def merchants(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the number of different merchants at which applications were made."""
        if self.merchant is None:
            raise DefinitionError("Applications: name the field of the merchant, merchant='merchant'")
        return described(
            self.asked.distinct(self.merchant, *windows),
            notes,
            reason="APPLICATIONS",
            unit="merchants",
            monotone="increasing",
            description="Different merchants at which applications were made",
        )

    def share_alike(self, field: str, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the share of the earlier applications with the same value in a field as this one, such as a category.

        An absent value is like no other. Null without earlier applications.
        """
        same = self.asked.source.event.field(field) == getattr(application, field)
        return described(
            self.asked.where(same).count(*windows) / self.asked.count(*windows),
            notes,
            reason="BASKET",
            description=f"Share of the earlier applications with the same {field} as this one",
        )


@dataclass(frozen=True, eq=False)
class Borrowing:
    """Loans taken up, and what each was of."""

    opened: Stream
    amount: str | Field

    def loans(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the number of loans taken; they are risk and record at once, so either way."""
        return described(
            self.opened.count(*windows), notes, reason="NEW_CREDIT", unit="loans", description="Loans taken"
        )

    def amount_taken(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the sum of the loans taken."""
        return described(
            self.opened.sum(self.amount, *windows),
            notes,
            reason="NEW_CREDIT",
            monotone="increasing",
            description="Amount of the loans taken",
        )

    def fading_amount(self, half_life: str = "30d", **notes: Unpack[Notes]) -> Feature:
        """Return the sum of the loans taken, each half as much for every half-life of age in whole days."""
        return described(
            self.opened.decayed_sum(self.amount, half_life),
            notes,
            reason="NEW_CREDIT",
            monotone="increasing",
            description="Amount of the loans taken, the older the less they count",
        )

    def days_since_loan(self, **notes: Unpack[Notes]) -> Feature:
        """Return the days since the last loan was taken; null without one."""
        return described(
            self.opened.time_since_last(unit="days"),
            notes,
            reason="NEW_CREDIT",
            description="Days since the last loan was taken",
        )

    def days_since_first_loan(self, **notes: Unpack[Notes]) -> Feature:
        """Return the days since the first loan was taken; null without one."""
        return described(
            self.opened.time_since_first(unit="days"),
            notes,
            reason="TENURE",
            monotone="decreasing",
            description="Days since the first loan was taken",
        )

    def amount_to_usual(self, asked: Feature, window: str = "365d", **notes: Unpack[Notes]) -> Feature:
        """Return an amount, such as `request("amount")`, over the mean loan of a window; null without one."""
        return described(
            asked / self.opened.mean(self.amount, window),
            notes,
            reason="AMOUNT",
            description="Amount asked for against the usual loan",
        )

    def amount_to_largest(self, asked: Feature, **notes: Unpack[Notes]) -> Feature:
        """Return an amount, such as `request("amount")`, over the largest loan ever taken; null without one."""
        return described(
            asked / self.opened.max(self.amount),
            notes,
            reason="AMOUNT",
            monotone="increasing",
            description="Amount asked for against the largest loan ever taken",
        )
