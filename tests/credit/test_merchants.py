"""Merchants: every definition on one merchant's few loans by hand, hot or not, and where no merchant is named."""

from __future__ import annotations

import pytest
from tests.credit.lender import (
    ASKED,
    REGISTRY,
    InstalmentDue,
    LoanClosed,
    LoanOpened,
    PaymentFailed,
    evaluated,
    happened,
    plan_of,
)

from obligor.credit import Merchant, Relationship
from obligor.events.schema import Registry
from obligor.features import Entity, Event, Feature, request
from obligor.features.catalogue import catalogue

MERCHANT = Merchant(LoanOpened.by("merchant"), "amount")
ENDED = LoanClosed.by("merchant")
TOGETHER = Relationship(LoanOpened.by(["consumer", "merchant"]), "amount")
AMOUNT = request("amount")
LOANS = [  # days ago, consumer, amount
    (2, "c-1", 9_000), (10, "c-2", 3_000), (20, "c-2", 4_000), (35, "c-3", 5_000), (100, "c-1", 7_000),
    (130, "c-4", 2_000), (480, "c-5", 2_000), (500, "c-5", 2_000),
]  # fmt: skip
RECORDS = [
    *(
        happened(LoanOpened, days, consumer=who, loan=f"l-{days}", application_id="a", amount=amount)
        for days, who, amount in LOANS
    ),
    happened(LoanOpened, 1, merchant="m-2", loan="l-1", application_id="a", amount=50_000),
    happened(LoanClosed, 15, consumer="c-5", loan="l-480", why="written_off"),
    happened(LoanClosed, 400, consumer="c-5", loan="l-500", why="written_off"),
    happened(LoanClosed, 12, consumer="c-2", loan="l-20", why="disputed"),
    happened(LoanClosed, 9, consumer="c-2", loan="l-10", why="returned"),
    *(happened(InstalmentDue, days, consumer="c-3", loan="l-35", amount=1) for days in (35, 21, 7, 100)),
    happened(PaymentFailed, 7, consumer="c-3"),
]
# the definition, what it is at m-1 for c-1, and at a merchant that is new to everybody
CASES: dict[str, tuple[Feature, float, float | None]] = {
    "charge_off_rate": (MERCHANT.charge_off_rate(ENDED.where(LoanClosed.why == "written_off")), 1 / 2, None),
    "dispute_rate": (MERCHANT.dispute_rate(ENDED.where(LoanClosed.why == "disputed")), 1 / 6, None),
    "return_rate": (MERCHANT.return_rate(ENDED.where(LoanClosed.why == "returned")), 1 / 6, None),
    "failure_rate": (MERCHANT.failure_rate(PaymentFailed.by("merchant"), InstalmentDue.by("merchant")), 1 / 3, None),
    "loans": (MERCHANT.loans("30d"), 3, 0),
    "growth": (MERCHANT.growth(), 3 / 1, None),
    "days_since_first_loan": (MERCHANT.days_since_first_loan(), 500, None),
    "consumers": (MERCHANT.consumers("consumer"), 3, 0),
    "basket": (MERCHANT.basket(), 4_500, None),
    "basket_75": (MERCHANT.basket(0.75), 5_000 + 0.25 * 4_000, None),
    "amount_to_basket": (MERCHANT.amount_to_basket(AMOUNT), 6_000 / 4_500, None),
    "first_time": (TOGETHER.first_time(), 0, 1),
    "times": (TOGETHER.times("90d"), 1, 0),
    "days_since_last": (TOGETHER.days_since_last(), 2, None),
    "usual_basket": (TOGETHER.usual_basket(), 8_000, None),
    "amount_to_usual": (TOGETHER.amount_to_usual(AMOUNT), 6_000 / 8_000, None),
}
APPLICATIONS = [ASKED, {**ASKED, "merchant": "m-9"}, {**ASKED, "merchant": None}]


@pytest.fixture(scope="module")
def values() -> list[dict[str, float | None]]:
    return evaluated({name: case[0] for name, case in CASES.items()}, RECORDS, APPLICATIONS)


@pytest.mark.parametrize("name", CASES)
def test_a_definition_is_what_it_is_by_hand(name: str, values: list[dict[str, float | None]]) -> None:
    _, expected, of_a_new_one = CASES[name]
    assert values[0][name] == pytest.approx(expected, rel=1e-12)
    assert values[1][name] == of_a_new_one
    assert values[2][name] is None


class Opening(Event):
    """A shop of a merchant opens; it declares that merchants may have very many events."""

    merchant = Entity(hot=True)


def test_a_hot_merchant_has_sketches_where_it_needs_them() -> None:
    registry = Registry([*REGISTRY, Opening])
    plan = plan_of({name: case[0] for name, case in CASES.items()}, registry)
    about = {entry.name for entry in catalogue(plan) if entry.exactness != "exact"}
    assert about == {"basket", "basket_75", "amount_to_basket", "consumers"}
    assert {name: spec.hot for name, spec in plan.timelines.items()} == {
        "merchant": True,
        "consumer x merchant": False,
    }
