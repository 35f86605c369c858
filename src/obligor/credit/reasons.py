"""Reasons: the codes that ready-made features carry, and for each the words that a declined applicant may be given.

The words name what was looked at, specifically and without jargon, as 12 CFR 1002.9(b)(2) asks of principal reasons.
They are suggestions: a lender copies those that it uses into `[reasons.texts]` of its policy, and may say them better.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Unpack

from obligor.features.definitions import Feature, Notes, feature

__all__ = ["REASON_TEXTS", "described"]

REASON_TEXTS: Mapping[str, str] = MappingProxyType(
    {
        "AFFORDABILITY": "The amount or your regular bills are high in relation to your income",
        "AMOUNT": "The amount asked for is high, in itself or against your earlier loans",
        "APPLICATIONS": "Number of recent applications for credit",
        "ARREARS": "Payments on existing loans are overdue",
        "BALANCE": "Low balance of your bank account",
        "BASKET": "The purchase is unlike your earlier ones, or unusual for this merchant",
        "BILLS": "Regular bills were not paid as usual",
        "CASH_FLOW": "Little money is left after what is spent",
        "DEBT": "Amount owed on your loans with us",
        "EXPOSURE": "The limit for all loans and open offers together is reached",
        "FAILED_PAYMENTS": "Recent payments that failed or were returned unpaid",
        "INCOME": "Level of income, or time since income was last received",
        "INCOME_STABILITY": "Income is irregular, varies strongly or has fallen",
        "LATE_PAYMENTS": "Payments on loans were made late",
        "MERCHANT": "Repayment experience at this merchant",
        "NEW_CREDIT": "Amount of credit taken up recently",
        "OTHER_LENDERS": "Borrowing from other lenders",
        "PAY_CYCLE": "Time until income is next expected",
        "REPAYMENT": "Limited repayment history with us",
        "SPENDING": "Recent spending, also in relation to your income",
        "TENURE": "Length of the relationship with us",
        "UTILISATION": "Your loans are still largely unpaid, or your credit limit is nearly used",
    }
)


def described(expression: Feature, notes: Notes, **ready: Unpack[Notes]) -> Feature:
    """Return a feature with ready-made notes; those that its lender gives replace them."""
    assert ready["reason"] in REASON_TEXTS, f"no words for the reason {ready['reason']}"
    return feature(feature(expression, **ready), **notes)
