"""Cash flow: ready-made features of a bank account, as open banking shows it.

    income = Income(BankTransaction.by("consumer").where(BankTransaction.kind_of == "wage"), "amount", payer="payer")
    received = income.received("30d", "90d")
    recurring_income = income.recurring_income()

Each method is one definition. Which transactions are income, bills or spending the lender says, by a filter; whatever
it does not say (who pays, a balance) only the definitions that need it ask for. Receipts are taken as they are dated:
one that is booked late is seen late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Unpack

from obligor.credit.reasons import described
from obligor.credit.recurrence import REACH, Recurring, known_if
from obligor.errors import DefinitionError
from obligor.events.fields import Field
from obligor.features.aggregates import Aggregates
from obligor.features.definitions import Feature, Notes
from obligor.features.stream import Stream

__all__ = ["Balances", "Bills", "Income", "OtherLenders"]

_PAYDAYS_MIN = 3  # two gaps: with one there is nothing to vary


@dataclass(frozen=True, eq=False)
class Income:
    """Money that comes in: wages, benefits, payouts. A receipt is a payday; `payer` is who pays it."""

    receipts: Stream
    amount: str | Field
    payer: str | Field | None = None

    # ---- how much ---------------------------------------------------------------------------------------------------

    def received(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the sum of the receipts."""
        return described(
            self.receipts.sum(self.amount, *windows),
            notes,
            reason="INCOME",
            monotone="decreasing",
            description="Income received",
        )

    def growth(self, window: str = "90d", **notes: Unpack[Notes]) -> Feature:
        """Return the income of a window over that of the window before; null where there was none before."""
        return described(
            self.receipts.sum(self.amount, window).ratio_to_previous(),
            notes,
            reason="INCOME_STABILITY",
            monotone="decreasing",
            description="Income against that of the same time before (below 1: it fell)",
        )

    def variation(self, window: str = "180d", **notes: Unpack[Notes]) -> Feature:
        """Return the standard deviation of the receipts over their mean; null without one."""
        return described(
            self.receipts.std(self.amount, window) / self.receipts.mean(self.amount, window),
            notes,
            reason="INCOME_STABILITY",
            monotone="increasing",
            description="How much the amounts received vary, as a share of their mean",
        )

    def amount_to_income(self, asked: Feature, window: str = "30d", **notes: Unpack[Notes]) -> Feature:
        """Return an amount, such as `request("amount")`, over the income of a window; null without income."""
        return described(
            asked / self.receipts.sum(self.amount, window),
            notes,
            reason="AFFORDABILITY",
            monotone="increasing",
            description="Amount asked for against the income received",
        )

    # ---- when -------------------------------------------------------------------------------------------------------

    def days_since_payday(self, **notes: Unpack[Notes]) -> Feature:
        """Return the days since the last receipt; null without one."""
        return described(
            self.receipts.time_since_last(unit="days"), notes, reason="INCOME", description="Days since the last payday"
        )

    def pay_cycle(self, window: str = "180d", **notes: Unpack[Notes]) -> Feature:
        """Return the mean days between paydays; null of fewer than two."""
        return described(
            self._cycle(window), notes, reason="PAY_CYCLE", description="Days from one payday to the next, on average"
        )

    def pay_irregularity(self, window: str = "180d", **notes: Unpack[Notes]) -> Feature:
        """Return the standard deviation of the days between paydays over their mean; null of fewer than three."""
        spread = self.receipts.std_gap(window, unit="days") / self._cycle(window)
        return described(
            known_if(spread, self.receipts.count(window) >= _PAYDAYS_MIN),
            notes,
            reason="INCOME_STABILITY",
            unit="ratio",
            monotone="increasing",
            description="How much the days between paydays vary, as a share of their mean (0: like clockwork)",
        )

    def days_to_payday(self, window: str = "180d", **notes: Unpack[Notes]) -> Feature:
        """Return the days to the next payday if the mean gap holds, negative if overdue; null of fewer than two."""
        return described(
            self._cycle(window) - self.receipts.time_since_last(unit="days"),
            notes,
            reason="PAY_CYCLE",
            description="Days until the next payday is expected (negative: it is overdue)",
        )

    def cycle_elapsed(self, window: str = "180d", **notes: Unpack[Notes]) -> Feature:
        """Return the days since the last payday over the mean gap; null of fewer than two paydays."""
        return described(
            self.receipts.time_since_last(unit="days") / self._cycle(window),
            notes,
            reason="PAY_CYCLE",
            description="Share of the pay cycle that has passed (above 1: the next payday is overdue)",
        )

    # ---- against what goes out --------------------------------------------------------------------------------------

    def share_spent(self, outflow: Aggregates, amount: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return an outflow over the income of the same windows; null without income. A pivot has a column a kind."""
        return described(
            outflow.sum(amount, *windows) / self.receipts.sum(self.amount, *windows),
            notes,
            reason="SPENDING",
            monotone="increasing",
            description="Spent for each unit of income received",
        )

    def spent_since_payday(self, outflow: Stream, amount: str | Field, **notes: Unpack[Notes]) -> Feature:
        """Return what went out from the last payday on, over what came in with it; null without a payday."""
        return described(
            outflow.since(self.receipts).sum(amount) / self.receipts.last(self.amount),
            notes,
            reason="SPENDING",
            monotone="increasing",
            description="Share of the last pay that has been spent since",
        )

    def net_flow(self, outflow: Stream, amount: str | Field, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the income less an outflow of the same windows."""
        return described(
            self.receipts.sum(self.amount, *windows) - outflow.sum(amount, *windows),
            notes,
            reason="CASH_FLOW",
            monotone="decreasing",
            description="Income received less what was spent",
        )

    # ---- by payer ---------------------------------------------------------------------------------------------------

    def payers(self, window: str = "90d", **notes: Unpack[Notes]) -> Feature:
        """Return the number of different payers."""
        return described(
            self.receipts.distinct(self._payer(), window),
            notes,
            reason="INCOME_STABILITY",
            unit="payers",
            description="Different payers of income",
        )

    def main_payer_share(self, window: str = "90d", **notes: Unpack[Notes]) -> Feature:
        """Return the share of the income that the largest payer paid; null without income."""
        largest = self.receipts.per(self._payer()).sum(self.amount, window).max()
        return described(
            largest / self.receipts.sum(self.amount, window),
            notes,
            reason="INCOME_STABILITY",
            description="Share of the income that its largest payer paid",
        )

    def recurring_payers(self, **notes: Unpack[Notes]) -> Feature:
        """Return the number of recurring payers: those with a receipt in each of the last three spans of 35 days."""
        return described(
            self._recurring().parties(),
            notes,
            reason="INCOME_STABILITY",
            unit="payers",
            monotone="decreasing",
            description="Payers that paid in each of the last three spans of 35 days",
        )

    def recurring_income(self, **notes: Unpack[Notes]) -> Feature:
        """Return what the recurring payers come to in 30 days, each by its mean receipt and mean gap; 0 of none."""
        return described(
            self._recurring().monthly(),
            notes,
            reason="INCOME",
            monotone="decreasing",
            description="Income in 30 days from payers that paid in each of the last three spans of 35 days",
        )

    def recurring_share(self, **notes: Unpack[Notes]) -> Feature:
        """Return the share of the income of the three spans that came from recurring payers; null without income."""
        return described(
            self._recurring().total() / self.receipts.sum(self.amount, REACH),
            notes,
            reason="INCOME_STABILITY",
            monotone="decreasing",
            description="Share of the income from payers that paid in each of the last three spans of 35 days",
        )

    def recurring_tenure(self, **notes: Unpack[Notes]) -> Feature:
        """Return the days since the recurring payer of longest standing first paid; null without one."""
        return described(
            self._recurring().tenure(),
            notes,
            reason="INCOME_STABILITY",
            unit="days",
            monotone="decreasing",
            description="Days that the payer of longest standing has been paying, of those that still do",
        )

    def lapsed_payers(self, **notes: Unpack[Notes]) -> Feature:
        """Return the number of payers that paid in both spans of 35 days before the last, and not in the last."""
        return described(
            self._recurring().lapsed(),
            notes,
            reason="INCOME_STABILITY",
            unit="payers",
            monotone="increasing",
            description="Payers that paid in the two spans of 35 days before the last one, and not since",
        )

    def _cycle(self, window: str) -> Feature:
        return self.receipts.mean_gap(window, unit="days")

    def _payer(self) -> str | Field:
        if self.payer is None:
            raise DefinitionError("Income: this is said by payer; name the field that says who pays, payer='employer'")
        return self.payer

    def _recurring(self) -> Recurring:
        return Recurring(self.receipts, self.amount, self._payer())


@dataclass(frozen=True, eq=False)
class Bills:
    """Money that goes out again and again: rent, energy, subscriptions. `payee` is who is paid."""

    payments: Stream
    amount: str | Field
    payee: str | Field

    def recurring_payees(self, **notes: Unpack[Notes]) -> Feature:
        """Return the number of recurring payees: those paid in each of the last three spans of 35 days."""
        return described(
            self._recurring.parties(),
            notes,
            reason="BILLS",
            unit="payees",
            description="Payees that were paid in each of the last three spans of 35 days",
        )

    def recurring_bills(self, **notes: Unpack[Notes]) -> Feature:
        """Return what the recurring payees come to in 30 days, each by its mean payment and mean gap; 0 of none."""
        return described(
            self._recurring.monthly(),
            notes,
            reason="BILLS",
            description="Paid in 30 days to payees that were paid in each of the last three spans of 35 days",
        )

    def lapsed_payees(self, **notes: Unpack[Notes]) -> Feature:
        """Return the number of payees that were paid in both spans of 35 days before the last, and not in the last."""
        return described(
            self._recurring.lapsed(),
            notes,
            reason="BILLS",
            unit="payees",
            monotone="increasing",
            description="Payees that were paid in the two spans of 35 days before the last one, and not since",
        )

    def bills_to_income(self, income: Income, **notes: Unpack[Notes]) -> Feature:
        """Return the recurring bills over the recurring income; null without recurring income."""
        return described(
            self._recurring.monthly() / income.recurring_income(),
            notes,
            reason="AFFORDABILITY",
            unit="ratio",
            monotone="increasing",
            description="Recurring bills for each unit of recurring income",
        )

    def disposable_income(self, income: Income, **notes: Unpack[Notes]) -> Feature:
        """Return the recurring income less the recurring bills, in 30 days."""
        return described(
            income.recurring_income() - self._recurring.monthly(),
            notes,
            reason="CASH_FLOW",
            unit=self._recurring.unit,
            monotone="decreasing",
            description="Recurring income less recurring bills, in 30 days",
        )

    @property
    def _recurring(self) -> Recurring:
        return Recurring(self.payments, self.amount, self.payee)


@dataclass(frozen=True, eq=False)
class Balances:
    """Readings of the account's balance.

    A reading says nothing of the time until the next one, so what is counted is readings; with one at the end of every
    day they are days.
    """

    readings: Stream
    balance: str | Field

    def latest(self, **notes: Unpack[Notes]) -> Feature:
        """Return the last balance read; null without one."""
        return described(
            self.readings.last(self.balance),
            notes,
            reason="BALANCE",
            monotone="decreasing",
            description="Balance of the account, as last read",
        )

    def lowest(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the lowest balance read; null without one."""
        return described(
            self.readings.min(self.balance, *windows),
            notes,
            reason="BALANCE",
            monotone="decreasing",
            description="Lowest balance of the account",
        )

    def lowest_since_payday(self, income: Income, **notes: Unpack[Notes]) -> Feature:
        """Return the lowest balance read since the last payday; null without either."""
        return described(
            self.readings.since(income.receipts).min(self.balance),
            notes,
            reason="BALANCE",
            monotone="decreasing",
            description="Lowest balance of the account since the last payday",
        )

    def times_below(self, threshold: int, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the number of readings below an amount in minor units: days, where there is one reading a day."""
        return described(
            self._below(threshold).count(*windows),
            notes,
            reason="BALANCE",
            unit="readings",
            monotone="increasing",
            description=f"Times that the balance was read below {threshold:,}",
        )

    def days_since_below(self, threshold: int, **notes: Unpack[Notes]) -> Feature:
        """Return the days since a reading was last below an amount in minor units; null if none ever was."""
        return described(
            self._below(threshold).time_since_last(unit="days"),
            notes,
            reason="BALANCE",
            monotone="decreasing",
            description=f"Days since the balance was last read below {threshold:,}",
        )

    def trend(self, window: str = "90d", **notes: Unpack[Notes]) -> Feature:
        """Return by how much the balance grows a day, by least squares; null where the readings are of one instant."""
        return described(
            self.readings.slope(self.balance, window),
            notes,
            reason="BALANCE",
            monotone="decreasing",
            description="Growth of the balance by day",
        )

    def _below(self, threshold: int) -> Stream:
        event = self.readings.source.event
        field = event.field(self.balance) if isinstance(self.balance, str) else self.balance
        return self.readings.where(field < threshold)


@dataclass(frozen=True, eq=False)
class OtherLenders:
    """Loans from other lenders, as the account shows them: what comes in, and what is paid back."""

    borrowed: Stream
    repaid: Stream
    amount: str | Field
    lender: str | Field | None = None

    def amount_borrowed(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the sum of what came from other lenders."""
        return described(
            self.borrowed.sum(self.amount, *windows),
            notes,
            reason="OTHER_LENDERS",
            monotone="increasing",
            description="Received from other lenders",
        )

    def amount_repaid(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return the sum of what was paid to other lenders; it shows debt and the paying of it, so either way."""
        return described(
            self.repaid.sum(self.amount, *windows),
            notes,
            reason="OTHER_LENDERS",
            description="Paid to other lenders",
        )

    def net_borrowed(self, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return what came from other lenders less what was paid to them."""
        return described(
            self.borrowed.sum(self.amount, *windows) - self.repaid.sum(self.amount, *windows),
            notes,
            reason="OTHER_LENDERS",
            monotone="increasing",
            description="Received from other lenders less what was paid to them",
        )

    def borrowed_since_repaying(self, **notes: Unpack[Notes]) -> Feature:
        """Return whether the last movement was a new loan, no repayment; null unless there has been one of each."""
        return described(
            self.borrowed.time_since_last(unit="days") < self.repaid.time_since_last(unit="days"),
            notes,
            reason="OTHER_LENDERS",
            monotone="increasing",
            description="Whether money was borrowed elsewhere since the last repayment elsewhere",
        )

    def lenders(self, window: str = "90d", **notes: Unpack[Notes]) -> Feature:
        """Return the number of different other lenders that lent."""
        if self.lender is None:
            raise DefinitionError("OtherLenders: name the field that says who lent, lender='counterparty'")
        return described(
            self.borrowed.distinct(self.lender, window),
            notes,
            reason="OTHER_LENDERS",
            unit="lenders",
            monotone="increasing",
            description="Different other lenders that lent",
        )

    def repaid_to_income(self, income: Income, *windows: str, **notes: Unpack[Notes]) -> Feature:
        """Return what was paid to other lenders over the income of the same windows; null without income."""
        return described(
            self.repaid.sum(self.amount, *windows) / income.received(*windows),
            notes,
            reason="AFFORDABILITY",
            monotone="increasing",
            description="Paid to other lenders for each unit of income",
        )
