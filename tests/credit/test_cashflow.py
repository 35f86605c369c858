"""Cash flow: every definition on one small account, by hand, and on an account of which nothing is known."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
from tests.credit.lender import ASKED, Balance, Transaction, evaluated, happened

from obligor.credit import Balances, Bills, Income, OtherLenders
from obligor.errors import DefinitionError
from obligor.features import Feature, request

ACCOUNT = Transaction.by("consumer")
KIND = Transaction.kind_of
SPENDING = ACCOUNT.where(KIND == "spending")
INCOME = Income(ACCOUNT.where(KIND == "income"), "amount", payer="party")
BILLS = Bills(ACCOUNT.where(KIND == "bill"), "amount", payee="party")
BALANCES = Balances(Balance.by("consumer"), "balance")
LENDERS = OtherLenders(ACCOUNT.where(KIND == "lender_in"), ACCOUNT.where(KIND == "lender_out"), "amount", "party")


def moved(days_ago: float, kind_of: str, amount: int, party: str | None = None) -> dict[str, Any]:
    return happened(Transaction, days_ago, kind_of=kind_of, amount=amount, party=party)


RECORDS = [
    *(moved(days, "income", 200_000, "acme") for days in (10, 40, 70, 100)),
    *(moved(days, "income", 20_000, "dole") for days in (5, 20)),
    *(moved(days, "bill", 80_000, "landlord") for days in (8, 38, 72)),  # 64 days, so a mean gap of 32
    *(moved(days, "bill", 6_000, "grid") for days in (40, 71)),
    moved(2, "spending", 30_000),
    moved(15, "spending", 12_000),
    moved(200, "spending", 5_000),
    moved(50, "lender_in", 50_000, "fast"),
    moved(3, "lender_in", 10_000, "quick"),
    moved(4, "lender_out", 20_000, "fast"),
    *(happened(Balance, days, balance=amount) for days, amount in ((1, 5_000), (9.5, -2_000), (12, -500), (60, 8_000))),
]
# the definition, what it is for c-1, and for somebody without an account
CASES: dict[str, tuple[Feature, float, float | None]] = {
    "received": (INCOME.received("30d"), 240_000, 0),
    "growth": (INCOME.growth(), 640_000 / 200_000, None),
    "variation": (INCOME.variation(), sqrt((2 * 120**2 + 4 * 60**2) / 6) / 140, None),
    "amount_to_income": (INCOME.amount_to_income(request("amount")), 6_000 / 240_000, None),
    "days_since_payday": (INCOME.days_since_payday(), 5, None),
    "pay_cycle": (INCOME.pay_cycle(), 95 / 5, None),
    "pay_irregularity": (INCOME.pay_irregularity(), sqrt((11**2 + 11**2 + 1 + 9**2 + 14**2) / 5) / 19, None),
    "days_to_payday": (INCOME.days_to_payday(), 19 - 5, None),
    "cycle_elapsed": (INCOME.cycle_elapsed(), 5 / 19, None),
    "share_spent": (INCOME.share_spent(SPENDING, "amount", "30d"), 42_000 / 240_000, None),
    "by_kind": (INCOME.share_spent(ACCOUNT.pivot("kind_of"), "amount", "30d")["bill"], 80_000 / 240_000, None),
    "spent_since_payday": (INCOME.spent_since_payday(SPENDING, "amount"), 30_000 / 20_000, None),
    "net_flow": (INCOME.net_flow(SPENDING, "amount", "30d"), 240_000 - 42_000, 0),
    "payers": (INCOME.payers(), 2, 0),
    "main_payer_share": (INCOME.main_payer_share(), 600 / 640, None),
    "recurring_payers": (INCOME.recurring_payers(), 1, 0),
    "recurring_income": (INCOME.recurring_income(), 200_000, 0),
    "recurring_share": (INCOME.recurring_share(), 800 / 840, None),
    "recurring_tenure": (INCOME.recurring_tenure(), 100, None),
    "lapsed_payers": (INCOME.lapsed_payers(), 0, 0),
    "recurring_payees": (BILLS.recurring_payees(), 1, 0),
    "recurring_bills": (BILLS.recurring_bills(), 80_000 * 30 / 32, 0),
    "lapsed_payees": (BILLS.lapsed_payees(), 1, 0),
    "bills_to_income": (BILLS.bills_to_income(INCOME), 75 / 200, None),
    "disposable_income": (BILLS.disposable_income(INCOME), 200_000 - 75_000, 0),
    "latest": (BALANCES.latest(), 5_000, None),
    "lowest": (BALANCES.lowest("30d"), -2_000, None),
    "lowest_since_payday": (BALANCES.lowest_since_payday(INCOME), 5_000, None),
    "times_below": (BALANCES.times_below(0, "30d"), 2, 0),
    "days_since_below": (BALANCES.days_since_below(0), 9.5, None),
    "trend": (BALANCES.trend("10d"), 7_000 / 8.5, None),
    "amount_borrowed": (LENDERS.amount_borrowed("90d"), 60_000, 0),
    "amount_repaid": (LENDERS.amount_repaid("30d"), 20_000, 0),
    "net_borrowed": (LENDERS.net_borrowed("30d"), -10_000, 0),
    "borrowed_since_repaying": (LENDERS.borrowed_since_repaying(), 1, None),
    "lenders": (LENDERS.lenders(), 2, 0),
    "repaid_to_income": (LENDERS.repaid_to_income(INCOME, "30d"), 20 / 240, None),
}


@pytest.fixture(scope="module")
def values() -> list[dict[str, float | None]]:
    return evaluated({name: case[0] for name, case in CASES.items()}, RECORDS, [ASKED, {**ASKED, "consumer": "c-2"}])


@pytest.mark.parametrize("name", CASES)
def test_a_definition_is_what_it_is_by_hand(name: str, values: list[dict[str, float | None]]) -> None:
    _, expected, of_nobody = CASES[name]
    assert values[0][name] == pytest.approx(expected, rel=1e-12)
    assert values[1][name] == of_nobody


def test_two_paydays_are_too_few_to_be_irregular() -> None:
    records = [moved(days, "income", 1, "acme") for days in (10, 40)]
    [found] = evaluated({"irregular": INCOME.pay_irregularity(), "cycle": INCOME.pay_cycle()}, records)
    assert found == {"irregular": None, "cycle": 30}
    third = moved(100, "income", 1, "acme")
    [found] = evaluated({"irregular": INCOME.pay_irregularity(), "cycle": INCOME.pay_cycle()}, [*records, third])
    assert found == {"irregular": pytest.approx(15 / 45), "cycle": 45}


def test_money_borrowed_before_the_last_repayment_is_not_since() -> None:
    records = [moved(3, "lender_out", 1), moved(4, "lender_in", 1)]
    [found] = evaluated({"since": LENDERS.borrowed_since_repaying()}, records)
    assert found == {"since": 0}


def test_what_a_definition_needs_and_was_not_said_is_asked_for() -> None:
    with pytest.raises(DefinitionError, match="name the field that says who pays"):
        Income(ACCOUNT, "amount").recurring_income()
    with pytest.raises(DefinitionError, match="name the field that says who lent"):
        OtherLenders(ACCOUNT, ACCOUNT, "amount").lenders()
    with pytest.raises(DefinitionError, match="Transaction has no field 'amuont'; did you mean 'amount'"):
        Income(ACCOUNT, "amuont").received("30d")


def test_amounts_in_thirty_days_say_so() -> None:
    assert INCOME.recurring_income().notes["unit"] == "EUR minor units in 30 days"
    assert BILLS.disposable_income(INCOME).notes["unit"] == "EUR minor units in 30 days"
