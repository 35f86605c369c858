"""Outcome definitions: data, hashed, and refused where they cannot be carried out."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.credit.world import REGISTRY, Flag, Fraud, Instalment, LoanApplication, LoanOpened, Repayment

from obligor.credit import Outcome, any_of, days_past_due, labelled, late_first_payment, occurs, opened_by
from obligor.errors import DefinitionError
from obligor.events.fields import Entity, Integer, Money
from obligor.events.schema import Event


class Transfer(Event):
    """Money in other currencies."""

    loan = Entity()
    amount = Money("EUR")
    mixed = Money("EUR", "NGN")
    signed = Money("NGN", negative=True)
    number = Integer()


DPD = days_past_due(due=Instalment.amount, due_at=Instalment.due_at, paid=Repayment.amount)


def definition(**changes: object) -> Outcome:
    settings = {"application": LoanApplication, "bad": DPD, "key": "loan", "horizon": "60d", **changes}
    return Outcome(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: days_past_due(due=Instalment.due_at, paid=Repayment.amount), "needs non-negative Money fields"),
        (lambda: days_past_due(due=Transfer.mixed, paid=Repayment.amount), "in one currency"),
        (lambda: days_past_due(due=Transfer.signed, paid=Repayment.amount), "needs non-negative Money fields"),
        (lambda: days_past_due(due=Transfer.amount, paid=Repayment.amount), "different currencies"),
        (
            lambda: days_past_due(due=Repayment.amount, due_at=Instalment.due_at, paid=Repayment.amount),
            "a Timestamp of",
        ),
        (lambda: days_past_due(due=Instalment.amount, paid=Repayment.amount, at_least=0), "whole number of days"),
        (lambda: late_first_payment(due=Instalment.amount, paid=Repayment), "a Timestamp field or an event type"),
        (lambda: labelled(Flag.flag, bad=["bad"]), "is never 'bad'; did you mean 'Bad'?"),
        (lambda: labelled(Flag.flag, bad=[]), "at least one bad value"),
        (lambda: labelled(Transfer.number, bad=["1"]), "needs a Category or Text field"),
        (lambda: any_of(DPD), "at least two rules"),
        (lambda: occurs(Fraud, key="laon"), "Fraud has no field 'laon'; did you mean 'loan'?"),
        (lambda: opened_by(LoanOpened, application="aplication_id"), "has no field 'aplication_id'"),
        (lambda: definition(application=Repayment), "not declared with application=True"),
        (lambda: definition(key="laon"), "LoanApplication has no field 'laon'; did you mean 'loan'?"),
        (lambda: definition(key="amount"), "is not an Entity of LoanApplication, nor 'event_id'"),
        (lambda: definition(bad=[]), "at least one rule"),
        (lambda: definition(zone="Africa/Lagoss"), "unknown time zone 'Africa/Lagoss'"),
        (lambda: definition(horizon="2 months"), "expected a length such as"),
        (lambda: definition(horizon="0d"), "expected a horizon longer than 0"),
        (lambda: definition(key="consumer").check(REGISTRY), "Instalment has no field 'consumer'"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        make()
    assert message in str(caught.value)


def test_a_definition_is_data_and_its_hash_follows_it() -> None:
    one = definition(exclusions={"fraud": occurs(Fraud)}, opened=opened_by(LoanOpened))
    assert json.loads(json.dumps(one.describe())) == one.describe()
    assert one.hash == definition(exclusions={"fraud": occurs(Fraud)}, opened=opened_by(LoanOpened)).hash
    assert one.hash != definition().hash
    assert definition().hash != definition(horizon="61d").hash
    one.check(REGISTRY)


def test_lengths_are_in_microseconds() -> None:
    one = definition(horizon="2h", lag="1s")
    assert (one.horizon_us, one.lag_us) == (7_200_000_000, 1_000_000)
