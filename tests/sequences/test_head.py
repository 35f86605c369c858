"""What a lender declares of a sequence's score: what does not fit is said in full, what fits has the plan's names."""

from __future__ import annotations

from typing import Any

import pytest

from obligor.errors import DefinitionError
from obligor.events.schema import Registry
from obligor.features import Boolean, Category, Entity, Event, Money, Plan, Sequence, compile_plan, feature, request
from obligor.sequences import Hazard, Loss, SequenceHead
from obligor.sequences.head import EventGroup, described, event_groups, score_spec


class LoanAsked(Event, application=True):
    """The application."""

    consumer = Entity()
    amount = Money("EUR")


class BankTransfer(Event):
    """Money moves."""

    consumer = Entity()
    purpose = Category("wage", "lender")
    partner = Category()
    instant = Boolean()
    amount = Money("EUR")


class Visit(Event):
    """A look."""

    consumer = Entity()


def _plan() -> Plan:
    history = Sequence.by("consumer", [BankTransfer, Visit])
    amount = feature(request("amount"), reason="AMOUNT")
    registry = Registry([LoanAsked, BankTransfer, Visit])
    return compile_plan({"amount": amount}, registry, LoanAsked, sequences={"history": history})


def _head(**given: Any) -> SequenceHead:
    return SequenceHead(**{"sequence": "history", "reason": "HISTORY", **given})


def test_groups_have_the_plans_names() -> None:
    head = _head(
        groups={"BORROWED": ("BankTransfer.purpose=lender", "bank_transfer.purpose=wage"), "VISITS": ["Visit"]}
    )
    assert event_groups(head, _plan()) == (
        EventGroup(reason="BORROWED", events=("bank_transfer.purpose=lender", "bank_transfer.purpose=wage")),
        EventGroup(reason="VISITS", events=("visit",)),
    )
    free = _head(groups={"P": ("BankTransfer.partner=a=b",)})  # any value of a category without declared ones
    assert event_groups(free, _plan())[0].events == ("bank_transfer.partner=a=b",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sequence": ""}, "SequenceHead.sequence: expected a text"),
        ({"reason": None}, "SequenceHead.reason: expected a text"),
        ({"folds": 1}, "SequenceHead.folds: expected a whole number, 2 to 20, got 1"),
        ({"dropout": 1.0}, "SequenceHead.dropout: expected a number of 0 or more, below 1.0"),
        ({"heads": "loss"}, "SequenceHead.heads: expected a tuple of at most 8 heads, got 'loss'"),
        ({"heads": (Hazard(0),)}, "SequenceHead.heads[0]: expected 1 to 120 months, got 0"),
        ({"heads": (Loss(), Loss())}, "SequenceHead.heads[1]: 'loss' is there twice"),
        (
            {"heads": ("outcome",)},
            "SequenceHead.heads[0]: expected the name of a further outcome of outcomes.py, got 'outcome'",
        ),
        ({"heads": (3,)}, "SequenceHead.heads[0]: expected an outcome's name, Hazard(...) or Loss(), got 3"),
        ({"bottom": "mixed"}, "SequenceHead.bottom: expected one of own, shared, experts, got 'mixed'"),
        ({"bottom": "shared"}, "SequenceHead.bottom: there is no further head to have a bottom of 'shared' with"),
        ({"experts": 1}, "SequenceHead.experts: expected a whole number, 2 to 16, got 1"),
        ({"name": "my score"}, "SequenceHead.name: expected a name"),
        ({"groups": {str(i): (f"E{i}",) for i in range(6)}}, "at most 5 groups, got 6"),
        ({"groups": {"A": "Visit"}}, "SequenceHead.groups.A: expected a list of events"),
        ({"groups": {"A": ("Visit.",)}}, "expected an event type or <type>.<category>=<value>, got 'Visit.'"),
        ({"groups": {"HISTORY": ("Visit",)}}, "is the code of the score itself"),
        ({"groups": {"A": ("Visit",), "B": ("visit",)}}, "'visit' is in A too as 'Visit'"),
        ({"groups": {"A": ("Visit",), "B": ("Visit.a=1",)}}, "'Visit.a=1' is in A too as 'Visit'"),
        ({"groups": {"A": ("Visit.a=1",), "B": ("Visit.a=1",)}}, "'Visit.a=1' is in A too;"),
        ({"groups": {"A": ("Visit.a=1",), "B": ("Visit.b=1",)}}, "'Visit.b=1' is in A too as 'Visit.a=1'"),
    ],
)
def test_a_declaration_that_is_none(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as found:
        _head(**given)
    assert message in str(found.value)


def test_all_faults_are_said_at_once() -> None:
    with pytest.raises(DefinitionError) as found:
        _head(folds=0, units=0, groups={"A": ("Visit",), "B": ("Visit",)})
    assert len(found.value.problems) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sequence": "histroy"}, "no sequence 'histroy'; did you mean 'history'?"),
        ({"name": "amount"}, "a feature has the name 'amount' already"),
        (
            {"groups": {"A": ("BankTransfers",)}},
            "no event type 'bank_transfers' in the sequence; did you mean",
        ),
        ({"groups": {"A": ("BankTransfer.purpse=wage",)}}, "no category 'purpse' of it; did you mean 'purpose'?"),
        ({"groups": {"A": ("BankTransfer.amount=5",)}}, "no category 'amount' of it"),
        ({"groups": {"A": ("BankTransfer.instant=yes",)}}, "instant has no value 'yes'; valid: false, true"),
        ({"groups": {"A": ("BankTransfer.purpose=wages",)}}, "purpose has no value 'wages'; did you mean 'wage'?"),
    ],
)
def test_a_declaration_that_does_not_fit_the_plan(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as found:
        event_groups(_head(**given), _plan())
    assert message in str(found.value)


def test_policies_see_the_score_behind_the_features() -> None:
    plan, spec = _plan(), score_spec("history_score", "history", "HISTORY")
    assert described(plan, None) is plan.data
    found = described(plan, spec, [EventGroup(reason="LATE", events=("visit",))])
    assert [one["name"] for one in found["features"]] == ["amount", "history_score"]
    assert found["reasons"] == ["LATE"]
    assert {**found, "features": plan.data["features"]}.items() >= plan.data.items()
