"""Merchants: ready-made features of the merchant at which an application is made, and of the basket.

    merchant = Merchant(LoanOpened.by("merchant"), "amount")
    merchant_charge_offs = merchant.charge_off_rate(ChargedOff.by("merchant"))
    together = Relationship(LoanOpened.by(["consumer", "merchant"]), "amount")
    first_time = together.first_time()

All are null where the application names no merchant. A merchant may be declared `hot`; then what needs a quantile or a
number of distinct consumers is a sketch, and the catalogue says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from obligor.credit.reasons import described
from obligor.events.fields import Field
from obligor.events.schema import parse_duration
from obligor.features.definitions import Feature, Notes
from obligor.features.stream import Stream
from obligor.features.wording import length_words

__all__ = ["Merchant", "Relationship"]


@dataclass(frozen=True, eq=False)
class Merchant:
    """The loans made at a merchant, to everybody."""

    opened: Stream
    amount: str | Field

    def charge_off_rate(
        self, charged_off: Stream, window: str = "365d", after: str = "120d", **notes: Unpack[Notes]
    ) -> Feature:
        """Return the loans written off in a window for each loan made in the window `after` days earlier.

        A loan is written off so long after it was made; to divide by the loans of the same window would flatter a
        merchant that grows. Null where no loan was made then.
        """
        return described(
            charged_off.count(window) / self.opened.count(f"{window} before {after}"),
            notes,
            reason="MERCHANT",
            monotone="increasing",
            description=f"Loans written off at this merchant for each loan made there {_length(after)} earlier",
        )

    def dispute_rate(self, disputed: Stream, window: str = "180d", **notes: Unpack[Notes]) -> Feature:
        """Return the disputes for each loan made in the same window; null where none was made."""
        return described(
            disputed.count(window) / self.opened.count(window),
            notes,
            reason="MERCHANT",
            monotone="increasing",
            description="Disputes for each loan made at this merchant",
        )

    def return_rate(self, returned: Stream, window: str = "180d", **notes: Unpack[Notes]) -> Feature:
        """Return the orders returned in full for each loan made in the same window; null where none was made."""
        return described(
            returned.count(window) / self.opened.count(window),
            notes,
            reason="MERCHANT",
            description="Orders returned in full for each loan made at this merchant",
        )

    def failure_rate(self, failed: Stream, due: Stream, window: str = "90d", **notes: Unpack[Notes]) -> Feature:
        """Return the failed payments for each instalment that fell due in the same window; null where none did."""
        return described(
            failed.count(window) / due.count(window),
            notes,
            reason="MERCHANT",
            monotone="increasing",
            description="Failed payments for each instalment due on loans made at this merchant",
        )

    def loans(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the number of loans made at the merchant."""
        return described(
            self.opened.count(*windows),
            notes,
            reason="MERCHANT",
            unit="loans",
            description="Loans made at this merchant",
        )

    def growth(self, window: str = "30d", **notes: Unpack[Notes]) -> Feature:
        """Return the loans of a window over those of the window before; null where there were none."""
        return described(
            self.opened.count(window).ratio_to_previous(),
            notes,
            reason="MERCHANT",
            description="Loans made at this merchant for each one made in the same time before",
        )

    def days_since_first_loan(self, **notes: Unpack[Notes]) -> Feature:
        """Return the days since the first loan at the merchant: how long it has been known; null without one."""
        return described(
            self.opened.time_since_first(unit="days"),
            notes,
            reason="MERCHANT",
            monotone="decreasing",
            description="Days since the first loan at this merchant",
        )

    def consumers(self, consumer: str | Field, window: str = "90d", **notes: Unpack[Notes]) -> Feature:
        """Return the number of different consumers with a loan at the merchant."""
        return described(
            self.opened.distinct(consumer, window),
            notes,
            reason="MERCHANT",
            unit="consumers",
            description="Different consumers with a loan at this merchant",
        )

    def basket(self, q: float = 0.5, window: str = "90d", **notes: Unpack[Notes]) -> Feature:
        """Return a quantile of the loans made at the merchant; null without one."""
        return described(
            self.opened.quantile(self.amount, q, window),
            notes,
            reason="BASKET",
            description=f"{_which(q)[0].upper()}{_which(q)[1:]}",
        )

    def amount_to_basket(self, asked: Feature, q: float = 0.5, window: str = "90d", **notes: Unpack[Notes]) -> Feature:
        """Return an amount, such as `request("amount")`, over a quantile of the merchant's loans; null without one."""
        return described(
            asked / self.opened.quantile(self.amount, q, window),
            notes,
            reason="BASKET",
            description=f"Amount asked for against {_which(q)}",
        )


@dataclass(frozen=True, eq=False)
class Relationship:
    """What the consumer and the merchant have had to do with one another: their loans or purchases together."""

    together: Stream
    amount: str | Field

    def first_time(self, **notes: Unpack[Notes]) -> Feature:
        """Return whether there is none of these loans or purchases yet."""
        return described(
            self.together.count() == 0,
            notes,
            reason="BASKET",
            monotone="increasing",
            description="Whether the consumer is new to this merchant",
        )

    def times(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return how often the consumer has bought at the merchant."""
        return described(
            self.together.count(*windows),
            notes,
            reason="BASKET",
            unit="purchases",
            monotone="decreasing",
            description="The consumer's earlier purchases at this merchant",
        )

    def days_since_last(self, **notes: Unpack[Notes]) -> Feature:
        """Return the days since the consumer last bought at the merchant; null if never."""
        return described(
            self.together.time_since_last(unit="days"),
            notes,
            reason="BASKET",
            description="Days since the consumer's last purchase at this merchant",
        )

    def usual_basket(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the mean of what the consumer has bought for at the merchant; null if never."""
        return described(
            self.together.mean(self.amount, *windows),
            notes,
            reason="BASKET",
            description="The consumer's usual purchase at this merchant",
        )

    def amount_to_usual(self, asked: Feature, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return an amount, such as `request("amount")`, over the consumer's usual basket there; null without one."""
        return described(
            asked / self.together.mean(self.amount, *windows),
            notes,
            reason="BASKET",
            description="Amount asked for against the consumer's usual purchase at this merchant",
        )


def _length(window: str) -> str:
    return length_words(parse_duration(window))


def _which(q: float) -> str:
    loans = "of the loans made at this merchant"
    return f"the median {loans}" if q == 0.5 else f"the amount that {q:.0%} {loans} do not exceed"
