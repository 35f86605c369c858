"""Balances compile to the terms that the plan's format defines; what cannot be a balance is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.features.lender import LoanApplication, LoanOpened, Repayment, Sale, plan_of

from obligor.errors import DefinitionError
from obligor.features import feature, outstanding, reserved
from obligor.features.plan import Step

DECIDED = LoanApplication.Decided
OPENED = LoanOpened.by("consumer").per("loan").amount("principal")
PAID = Repayment.by("consumer").per("loan").amount("amount")
OFFERED = DECIDED.by("consumer").where(DECIDED.outcome == "approve").per("application_id")


def test_exposure_is_what_is_owed_and_what_is_offered() -> None:
    exposure = feature(
        outstanding(opened=OPENED, reduced=[PAID])
        + reserved(
            offered=OFFERED.amount("offer_amount", expires="offer_expires_at", lasts="30m"),
            ended=[LoanOpened.by("consumer").per("application_id")],
        ),
        scored=False,
    )
    plan = plan_of(exposure=exposure)
    [spec] = plan.features
    assert spec.program == (Step("measure", 0), Step("measure", 1), Step("add"))
    assert (spec.type, spec.unit, spec.scored) == ("integer", "NGN minor units", False)
    timeline = plan.timelines["consumer"]

    def spelled(measure: int) -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        for term in plan.measures[measure].terms or ():
            event = timeline.selections[term.selection].event
            slots = (term.key, term.amount, term.expires)
            names = [None if slot is None else timeline.fields[event][slot].field for slot in slots]
            found.append((term.role, event, *names, term.expires_after_us))
        return found

    assert spelled(0) == [
        ("add", "loan_opened", "loan", "principal", None, None),
        ("subtract", "repayment", "loan", "amount", None, None),
    ]
    assert spelled(1) == [
        ("add", "loan_application_decided", "application_id", "offer_amount", "offer_expires_at", 1_800_000_000),
        ("close", "loan_opened", "application_id", None, None, None),
    ]
    assert {timeline.fields[t[1]][0].coding for t in spelled(0) if isinstance(t[1], str)} == {"hash"}


LATER = LoanOpened.by("consumer").per("loan").amount("principal", lasts="1d")
OTHER = Sale.by("merchant").where(Sale.amount.currency_is("NGN")).per("merchant").amount("amount")

FAULTS: list[tuple[Callable[[], object], str]] = [
    (lambda: reserved(offered=OFFERED.amount("offer_amount")), "an offer must expire; say when with amount"),
    (lambda: Repayment.by("consumer").per("amount"), "expected a required entity of Repayment, got a money"),
    (lambda: Sale.by("merchant").per("consumer"), "expected a required entity of Sale, got an optional entity"),
    (lambda: Repayment.by("consumer").per("lone"), "Repayment has no field 'lone'; did you mean 'loan'?"),
    (lambda: Repayment.by("consumer").per("loan").amount("channel"), "expected money, decimal or integer, got a cat"),
    (lambda: LoanOpened.by("consumer").per("loan").amount("principal", expires="loan"), "expected a timestamp field"),
    (lambda: OFFERED.amount("offer_amount", lasts="soon"), "expected a length"),
    (
        lambda: outstanding(opened=OPENED, reduced=[Repayment.by("consumer").per("loan").amount("fee")]),
        "a balance needs one unit, got NGN minor units and none",
    ),
    (
        lambda: outstanding(opened=OPENED, reduced=[OTHER]),
        "a balance is of one entity, got consumer and merchant",
    ),
    (lambda: outstanding(opened=OPENED, reduced=[LATER]), "a reduction does not expire"),
]


@pytest.mark.parametrize(("define", "message"), FAULTS, ids=[message[:50] for _, message in FAULTS])
def test_what_is_no_balance_is_refused(define: Callable[[], object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        define()
