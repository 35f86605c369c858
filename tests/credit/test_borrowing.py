"""Borrowing: every definition on a few applications and loans by hand, and for somebody who has neither."""

from __future__ import annotations

import pytest
from tests.credit.lender import ASKED, LoanApplication, LoanOpened, evaluated, happened

from obligor.credit import Applications, Borrowing
from obligor.errors import DefinitionError
from obligor.features import Feature, request

APPLICATIONS = Applications(LoanApplication.by("consumer"), merchant="merchant")
BORROWING = Borrowing(LoanOpened.by("consumer"), "amount")
ASKED_BEFORE = [(0.5, "m-1", "food"), (3, "m-2", "travel"), (6, "m-2", None), (9, "m-3", "food"), (40, "m-4", "food")]
RECORDS = [
    *(
        happened(LoanApplication, days, merchant=merchant, amount=1_000, category=category)
        for days, merchant, category in ASKED_BEFORE
    ),
    *(
        happened(LoanOpened, days, loan=f"l-{days}", application_id="a", amount=amount)
        for days, amount in ((0.6, 4_000), (61, 8_000), (400, 20_000))
    ),
]
# NOW is 02:40 UTC: 0.5 and 0.6 days ago lie on the day before, 3 days ago on the third; 7 days are a half-life.
FADED = sum(0.5 ** (steps / 7) for steps in (1, 3, 6, 9, 40))
# the definition, what it is for c-1, and for somebody who never asked
CASES: dict[str, tuple[Feature, float, float | None]] = {
    "count_1d": (APPLICATIONS.count("1d"), 1, 0),
    "count_7d": (APPLICATIONS.count("7d"), 3, 0),
    "growth": (APPLICATIONS.growth("7d"), 3 / 1, None),
    "fading": (APPLICATIONS.fading("7d"), FADED, 0),
    "days_since_application": (APPLICATIONS.days_since_application(), 0.5, None),
    "merchants": (APPLICATIONS.merchants("30d"), 3, 0),
    "share_alike": (APPLICATIONS.share_alike("category", "30d"), 2 / 4, None),
    "loans": (BORROWING.loans("90d"), 2, 0),
    "amount_taken": (BORROWING.amount_taken("90d"), 12_000, 0),
    "fading_amount": (
        BORROWING.fading_amount("30d"),
        4_000 * 0.5 ** (1 / 30) + 8_000 * 0.5 ** (61 / 30) + 20_000 * 0.5 ** (400 / 30),
        0,
    ),
    "days_since_loan": (BORROWING.days_since_loan(), 0.6, None),
    "days_since_first_loan": (BORROWING.days_since_first_loan(), 400, None),
    "amount_to_usual": (BORROWING.amount_to_usual(request("amount")), 6_000 / 6_000, None),
    "amount_to_largest": (BORROWING.amount_to_largest(request("amount")), 6_000 / 20_000, None),
}


@pytest.fixture(scope="module")
def values() -> list[dict[str, float | None]]:
    return evaluated({name: case[0] for name, case in CASES.items()}, RECORDS, [ASKED, {**ASKED, "consumer": "c-2"}])


@pytest.mark.parametrize("name", CASES)
def test_a_definition_is_what_it_is_by_hand(name: str, values: list[dict[str, float | None]]) -> None:
    _, expected, of_nobody = CASES[name]
    assert values[0][name] == pytest.approx(expected, rel=1e-12)
    assert values[1][name] == of_nobody


def test_an_application_without_a_category_is_like_no_other() -> None:
    features = {"alike": APPLICATIONS.share_alike("category")}
    assert evaluated(features, RECORDS, [{**ASKED, "category": None}]) == [{"alike": 0}]


def test_the_merchant_is_asked_for_where_it_is_needed() -> None:
    with pytest.raises(DefinitionError, match="name the field of the merchant"):
        Applications(LoanApplication.by("consumer")).merchants("30d")
