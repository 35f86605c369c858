"""Repayment: ready-made features of how an entity's loans are paid, and what is owed on them.

    loans = Loans(LoanOpened.by("consumer"), Repayment.by("consumer"), InstalmentDue.by("consumer"))
    days_past_due = loans.days_past_due()
    payments = Payments(Repayment.by("consumer"), due_at=Repayment.due_at)
    on_time_streak = payments.on_time_streak()

What is owed and what is past due follow from three flows of money by loan: opened, fallen due, paid. As in `arrears`,
payments settle the oldest instalment first. How late each payment came needs payments that name their due date.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Unpack

from obligor.credit.reasons import described
from obligor.errors import DefinitionError
from obligor.events.fields import Field
from obligor.events.predicates import Predicate
from obligor.events.schema import parse_duration
from obligor.features.balance import outstanding, reserved
from obligor.features.definitions import Feature, Notes
from obligor.features.delays import Delay, delay
from obligor.features.kinds import UNIT_US
from obligor.features.operators import maximum
from obligor.features.per_key import ByKey, Flow, PerKey
from obligor.features.stream import Stream
from obligor.features.wording import length_words

__all__ = ["BUCKET_DAYS", "FailedPayments", "Loans", "Payments"]

BUCKET_DAYS = (1, 7, 14, 30, 60, 90)  # where days past due are told apart


@dataclass(frozen=True, eq=False)
class Loans:
    """An entity's loans: what opened them, what was paid, what fell due, what ended them without payment.

    `due` are events that happen when an instalment falls due. `closed` end a loan whatever is unpaid (a return in
    full). `amount` is all that is to be paid back, fees included where payments include them.
    """

    opened: Stream
    paid: Stream
    due: Stream | None = None
    closed: Sequence[Stream] = ()
    key: str = "loan"
    amount: str | Field = "amount"
    paid_amount: str | Field = "amount"
    due_amount: str | Field = "amount"

    # ---- what is owed -----------------------------------------------------------------------------------------------

    def owed(self, **notes: Unpack[Notes]) -> Feature:
        """Return what is owed on open loans: opened less paid, at least 0 for each; 0 without loans."""
        return described(self._owed(), notes, reason="DEBT", description="Owed on open loans")

    def exposure(self, decided: Stream, key: str = "application_id", **notes: Unpack[Notes]) -> Feature:
        """Return what is owed and what open offers may add; for the policy, so no model sees it.

        `decided` are the decisions on applications, `LoanApplication.Decided.by("consumer")`; `key` is the field of
        decisions and opened loans by which an opened loan ends its offer.
        """
        approvals = decided.where(decided.source.event.field("outcome").isin(["approve", "counter_offer"]))
        offered = approvals.per(key).amount("offer_amount", expires="offer_expires_at")
        return described(
            self._owed() + reserved(offered=offered, ended=[self.opened.per(key)]),
            notes,
            reason="EXPOSURE",
            monotone="increasing",
            description="Owed on open loans, and offered but not yet taken up or expired",
            scored=False,
        )

    def utilisation(self, limit: Feature, **notes: Unpack[Notes]) -> Feature:
        """Return what is owed over a limit, such as `LimitSet.by("consumer").last("amount")`; null without one."""
        return described(
            self._owed() / limit,
            notes,
            reason="UTILISATION",
            monotone="increasing",
            description="Share of the credit limit that is in use",
        )

    def unpaid_share(self, **notes: Unpack[Notes]) -> Feature:
        """Return what is owed over what the open loans began with; null without an open loan."""
        return described(
            self._owed() / (self._by_loan(self.opened, self.amount) * self._open).sum(),
            notes,
            reason="UTILISATION",
            monotone="increasing",
            description="Share of the open loans that is not paid yet",
        )

    def open_loans(self, **notes: Unpack[Notes]) -> Feature:
        """Return the number of loans on which something is owed."""
        return described(
            self._open.count(), notes, reason="DEBT", unit="loans", description="Loans on which something is owed"
        )

    def repaid_loans(self, **notes: Unpack[Notes]) -> Feature:
        """Return the number of loans that were paid back in full."""
        lent, paid = self._by_loan(self.opened, self.amount), self._by_loan(self.paid, self.paid_amount)
        return described(
            self._unless_closed((lent > 0) & (paid >= lent)).count(),
            notes,
            reason="REPAYMENT",
            unit="loans",
            monotone="decreasing",
            description="Loans paid back in full",
        )

    # ---- what is past due -------------------------------------------------------------------------------------------

    def arrears(self, **notes: Unpack[Notes]) -> Feature:
        """Return what has fallen due and is not paid: due less paid, at least 0 for each loan; 0 without any."""
        due = self._due().per(self.key).amount(self.due_amount)
        return described(
            outstanding(opened=due, reduced=[self._paid_flow], closed=self._ended),
            notes,
            reason="ARREARS",
            monotone="increasing",
            description="Fallen due and not paid, over all loans",
        )

    def loans_past_due(self, days: int = 1, **notes: Unpack[Notes]) -> Feature:
        """Return the number of loans more than `days` times 24 hours past due (see `days_past_due`)."""
        return described(
            self._unless_closed(self._past_due(days)).count(),
            notes,
            reason="ARREARS",
            unit="loans",
            monotone="increasing",
            description=f"Loans of which a payment is {_days(days)} or more past due",
        )

    def days_past_due(self, buckets: Sequence[int] = BUCKET_DAYS, **notes: Unpack[Notes]) -> Feature:
        """Return the days that the oldest unpaid instalment is past due, rounded down to a bucket, the most of a loan.

        A loan is past due by d days when what fell due more than d x 24 hours ago exceeds all that was paid; that is
        exact, whatever the order of payments. Days here are spans of 24 hours; an outcome counts calendar days, so it
        may already be one further. 0 where nothing is past due; null where nothing fell due longer ago than the first
        bucket, and nothing was paid.
        """
        return described(
            self._current(buckets),
            notes,
            reason="ARREARS",
            unit="days",
            monotone="increasing",
            description=f"Days that the oldest unpaid instalment is past due, in steps of {_listed(buckets)}",
        )

    def worst_days_past_due(
        self, payments: Payments, *windows: str, buckets: Sequence[int] = BUCKET_DAYS, **notes: Unpack[Notes]
    ) -> Feature:
        """Return the most days that a payment was late in the windows, or an instalment is past due now.

        The former is to the microsecond, after the due date that the payment names; the latter is `days_past_due`. Each
        part of an instalment paid in parts counts. Null where `days_past_due` is.
        """
        late = maximum(0, payments.worst(*windows)).fill(0)
        return described(
            maximum(late, self._current(buckets)),
            notes,
            reason="ARREARS",
            unit="days",
            monotone="increasing",
            description="Most days that a payment was late, or that an unpaid instalment is past due now",
        )

    def paid_of_due(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return what was paid over what fell due in the same windows; null where nothing fell due.

        Above 1 earlier debts were paid too, or later ones ahead; so neither direction is safer.
        """
        return described(
            self.paid.sum(self.paid_amount, *windows) / self._due().sum(self.due_amount, *windows),
            notes,
            reason="REPAYMENT",
            description="Share paid of what fell due (above 1: earlier debts paid too, or later ones ahead)",
        )

    # ---- their parts ------------------------------------------------------------------------------------------------

    def _owed(self) -> Feature:
        opened = self.opened.per(self.key).amount(self.amount)
        return outstanding(opened=opened, reduced=[self._paid_flow], closed=self._ended)

    @property
    def _paid_flow(self) -> Flow:
        return self.paid.per(self.key).amount(self.paid_amount)

    @property
    def _ended(self) -> list[PerKey]:
        return [stream.per(self.key) for stream in self.closed]

    @property
    def _open(self) -> ByKey:
        unpaid = self._by_loan(self.opened, self.amount) > self._by_loan(self.paid, self.paid_amount)
        return self._unless_closed(unpaid)

    def _past_due(self, days: int) -> ByKey:
        due = self._due().per(self.key).sum(self.due_amount, f"lifetime before {days}d")
        return due > self._by_loan(self.paid, self.paid_amount)

    def _current(self, buckets: Sequence[int]) -> Feature:
        steps = list(pairwise((0, *buckets)))
        if not steps or any(low >= high for low, high in steps):
            raise DefinitionError(f"days_past_due: expected buckets of days that grow, from 1, got {tuple(buckets)}")
        return self._unless_closed(reduce(add, ((high - low) * self._past_due(high) for low, high in steps))).max()

    def _unless_closed(self, number: ByKey) -> ByKey:
        """Return a number by loan, or a comparison, as 0 or false for closed loans."""
        if not self.closed:
            return number
        still = reduce(add, (ended.count() for ended in self._ended)) == 0
        return number & still if number.kind.type == "boolean" else number * still

    def _by_loan(self, stream: Stream, amount: str | Field) -> ByKey:
        return stream.per(self.key).sum(amount)

    def _due(self) -> Stream:
        if self.due is None:
            raise DefinitionError("Loans: give the events at which instalments fall due, due=InstalmentDue.by(...)")
        return self.due


@dataclass(frozen=True, eq=False)
class Payments:
    """Payments that name their due date, in the timestamp `due_at`; one is late from `grace` after it.

    The grace is for payments made on the day, whatever the hour: "1d" where due dates are midnights.
    """

    paid: Stream
    due_at: str | Field
    grace: str = "1d"

    def on_time_streak(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return how many payments in a row were on time, from the newest back; 0 if the last was late, or of none."""
        return described(
            self.paid.streak(self._on_time, *windows),
            notes,
            reason="LATE_PAYMENTS",
            unit="payments",
            monotone="decreasing",
            description=f"Payments made on time in a row, up to the last one ({self._within})",
        )

    def longest_on_time_streak(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the longest run of payments on time; 0 of none."""
        return described(
            self.paid.longest_streak(self._on_time, *windows),
            notes,
            reason="LATE_PAYMENTS",
            unit="payments",
            monotone="decreasing",
            description=f"Most payments made on time in a row ({self._within})",
        )

    def on_time_share(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the share of the payments that were on time; null without payments."""
        return described(
            self.paid.share(self._on_time, *windows),
            notes,
            reason="LATE_PAYMENTS",
            monotone="decreasing",
            description=f"Share of the payments that were made on time ({self._within})",
        )

    def late_payments(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the number of late payments."""
        return described(
            self._late.count(*windows),
            notes,
            reason="LATE_PAYMENTS",
            unit="payments",
            monotone="increasing",
            description=f"Payments made late ({self._after})",
        )

    def days_since_late(self, **notes: Unpack[Notes]) -> Feature:
        """Return the days since the last late payment; null if none ever was."""
        return described(
            self._late.time_since_last(unit="days"),
            notes,
            reason="LATE_PAYMENTS",
            monotone="decreasing",
            description=f"Days since a payment was last made late ({self._after})",
        )

    def worst_days_late(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the most days from due date to payment, negative if all came before; null without payments."""
        return described(
            self.worst(*windows),
            notes,
            reason="LATE_PAYMENTS",
            unit="days",
            monotone="increasing",
            description="Most days from a due date to its payment",
        )

    def mean_days_late(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the mean days from due date to payment, those before it negative; null without payments."""
        return described(
            self.paid.mean(self._delay, *windows) / UNIT_US["days"],
            notes,
            reason="LATE_PAYMENTS",
            unit="days",
            monotone="increasing",
            description="Days from a due date to its payment, on average (negative: paid before)",
        )

    def usual_worst_days_late(self, key: str = "loan", **notes: Unpack[Notes]) -> Feature:
        """Return, of each loan, the most days from due date to payment; and of all loans the mean of that."""
        return described(
            (self.paid.per(key).max(self._delay) / UNIT_US["days"]).mean(),
            notes,
            reason="LATE_PAYMENTS",
            unit="days",
            monotone="increasing",
            description="Most days from a due date to its payment in a loan, on average over the loans",
        )

    def worst(self, *windows: str) -> Feature:
        """Return the most days from due date to payment, for other definitions."""
        return self.paid.max(self._delay, *windows) / UNIT_US["days"]

    @property
    def _delay(self) -> Delay:
        event = self.paid.source.event
        return delay(event.field(self.due_at) if isinstance(self.due_at, str) else self.due_at)

    @property
    def _within(self) -> str:
        return f"at most {length_words(parse_duration(self.grace))} after the due date"

    @property
    def _after(self) -> str:
        return f"more than {length_words(parse_duration(self.grace))} after the due date"

    @property
    def _on_time(self) -> Predicate:
        return self._delay <= self.grace

    @property
    def _late(self) -> Stream:
        return self.paid.where(self._delay > self.grace)


@dataclass(frozen=True, eq=False)
class FailedPayments:
    """Payments that did not go through: collections that failed, items that a bank returned for lack of funds (NSF)."""

    failed: Stream

    def failures(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the number of failed payments."""
        return described(
            self.failed.count(*windows),
            notes,
            reason="FAILED_PAYMENTS",
            unit="payments",
            monotone="increasing",
            description="Payments that failed or were returned unpaid",
        )

    def days_since_failure(self, **notes: Unpack[Notes]) -> Feature:
        """Return the days since the last failed payment; null if none ever did."""
        return described(
            self.failed.time_since_last(unit="days"),
            notes,
            reason="FAILED_PAYMENTS",
            monotone="decreasing",
            description="Days since a payment last failed or was returned unpaid",
        )

    def failures_to_tries(self, tries: Stream, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the failed payments for each of other facts, such as instalments due; null without those.

        Above 1 where one instalment is tried several times.
        """
        return described(
            self.failed.count(*windows) / tries.count(*windows),
            notes,
            reason="FAILED_PAYMENTS",
            monotone="increasing",
            description="Failed payments for each payment that was to be made",
        )


def _days(number: int) -> str:
    return f"{number} day" + ("s" if number != 1 else "")


def _listed(buckets: Sequence[int]) -> str:
    *before, last = map(str, buckets)
    return f"{', '.join(before)} and {last}" if before else last
