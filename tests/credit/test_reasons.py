"""Reasons: every ready-made definition says what strangers and regulators ask, and its lender has the last word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.credit import test_borrowing, test_cashflow, test_merchants, test_repayment
from tests.credit.lender import LoanApplication, plan_of

from obligor.credit import (
    REASON_TEXTS,
    Applications,
    Balances,
    Bills,
    Borrowing,
    FailedPayments,
    Income,
    Loans,
    Merchant,
    OtherLenders,
    Payments,
    Relationship,
)
from obligor.features import Feature
from obligor.features.catalogue import catalogue

GROUPS = (
    Applications, Balances, Bills, Borrowing, FailedPayments, Income, Loans, Merchant, OtherLenders, Payments,
    Relationship,
)  # fmt: skip
FEATURES: dict[str, Feature] = {
    f"{module.__name__.rpartition('_')[2]}_{name}": case[0]
    for module in (test_borrowing, test_cashflow, test_merchants, test_repayment)
    for name, case in module.CASES.items()
}
FEATURES["exposure"] = test_repayment.LOANS.exposure(LoanApplication.Decided.by("consumer"))


def methods() -> list[str]:
    """Return every definition there is, as group.method."""
    found = []
    for group in GROUPS:
        public = [name for name, value in vars(group).items() if callable(value) and not name.startswith("_")]
        found += [f"{group.__name__}.{name}" for name in public]
    return found


@pytest.mark.parametrize("name", FEATURES)
def test_a_definition_says_what_it_is_and_why_it_may_count_against_somebody(name: str) -> None:
    [spec] = plan_of({name: FEATURES[name]}).features
    assert spec.reason in REASON_TEXTS
    assert re.fullmatch(r"[A-Z].*[^.]", spec.description)
    assert spec.unit or spec.type == "boolean"
    assert not re.search(r"seconds|microseconds", catalogue(plan_of({name: FEATURES[name]}))[0].definition)


def test_reasons_are_specific_words_and_each_is_used() -> None:
    used = {str(feature.notes["reason"]) for feature in FEATURES.values()}
    assert used == set(REASON_TEXTS)
    assert len(set(REASON_TEXTS.values())) == len(REASON_TEXTS)
    for text in REASON_TEXTS.values():
        assert re.fullmatch(r"[A-Z][a-z ,]+", text)
        assert not re.search(r"\b(DPD|NSF|PD|score|model|policy|quantile|ratio)\b", text)


def test_what_a_lender_says_replaces_what_is_ready() -> None:
    income = test_cashflow.INCOME
    own = income.received("30d", reason="WAGES", description="Wages", monotone="increasing", scored=False)
    assert own.notes == {"reason": "WAGES", "description": "Wages", "monotone": "increasing", "scored": False}
    assert income.pay_irregularity(unit="share").notes["unit"] == "share"


def test_the_page_of_ready_made_features_has_them_all() -> None:
    page = (Path(__file__).parents[2] / "docs" / "features.md").read_text()
    missing = [
        name for name in methods() if f"`{name.partition('.')[2]}`" not in _section(page, name.partition(".")[0])
    ]
    assert missing == []


def _section(page: str, group: str) -> str:
    """Return the part of the page about one group, from its heading to the next."""
    return page.partition(f"## {group}")[2].partition("\n## ")[0]
