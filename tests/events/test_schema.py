"""Event classes and the registry: names, reserved words, the generated decision type, nearest valid names."""

from __future__ import annotations

import types

import pytest
from tests.events.edge import REGISTRY, LoanApplication, Repayment

from obligor.errors import DefinitionError
from obligor.events.fields import Category, Entity, Money, Text, Timestamp
from obligor.events.schema import OUTCOMES, RESERVED, Event, Registry, parse_duration


@pytest.mark.parametrize(
    ("text", "us"),
    [("90s", 90_000_000), ("15m", 900_000_000), ("36h", 129_600_000_000), ("0s", 0), ("8w", 4_838_400_000_000)],
)
def test_durations(text: str, us: int) -> None:
    assert parse_duration(text) == us


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5h", "30 d", "1y", "1234567890d"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(DefinitionError, match="expected a length such as"):
        parse_duration(text)


def test_a_class_is_named_in_snake_case_unless_told() -> None:
    class LoanOpened(Event, lag="2d", version=3):
        loan = Entity()

    class Payment(Event, name="repaid"):
        loan = Entity()

    assert (LoanOpened.event_name, LoanOpened.version, LoanOpened.lag_us) == ("loan_opened", 3, 172_800_000_000)
    assert Payment.event_name == "repaid"
    assert Payment.loan.event_name == "repaid"


def test_a_type_without_a_required_entity_is_refused() -> None:
    with pytest.raises(DefinitionError, match="needs at least one required Entity"):

        class Nobody(Event):
            amount = Money("NGN")
            consumer = Entity(optional=True)


@pytest.mark.parametrize("name", sorted(RESERVED | {"_hidden"}))
def test_the_platforms_names_are_reserved(name: str) -> None:
    with pytest.raises(DefinitionError, match="reserved by the platform"):
        types.new_class("Taken", (Event,), exec_body=lambda space: space.update({name: Text(), "consumer": Entity()}))


def test_an_abstract_class_is_no_type() -> None:
    class Base(Event, abstract=True):
        pass

    class Real(Base):
        consumer = Entity()

    assert (Base.event_name, Real.event_name) == ("", "real")


def test_a_mistyped_field_gets_the_nearest() -> None:
    with pytest.raises(DefinitionError, match="Repayment has no field 'amuont'; did you mean 'amount'"):
        _ = Repayment.amuont
    with pytest.raises(DefinitionError, match="did you mean 'loan'"):
        Repayment.field("lone")
    assert Repayment.field("loan") is Repayment.loan


def test_an_application_has_a_type_for_its_decisions() -> None:
    decided = LoanApplication.Decided
    assert decided.event_name == "loan_application_decided"
    assert list(decided.fields) == ["consumer", "application_id", "outcome", "offer_amount", "offer_expires_at"]
    assert isinstance(decided.fields["outcome"], Category)
    assert decided.fields["outcome"].values == OUTCOMES
    assert isinstance(decided.fields["offer_amount"], Money)
    assert isinstance(decided.fields["offer_expires_at"], Timestamp)
    assert [entity.type for entity in decided.entities().values()] == ["consumer", "application"]
    assert REGISTRY.is_platform_type("loan_application_decided")
    assert not REGISTRY.is_platform_type("loan_application")


def test_an_application_in_several_currencies_has_no_offer_amount() -> None:
    class CrossBorder(Event, application=True):
        consumer = Entity()
        amount = Money("NGN", "KES")

    assert "offer_amount" not in CrossBorder.Decided.fields


def test_a_registry_finds_types_by_name() -> None:
    assert REGISTRY["repayment"] is Repayment
    assert "repayment" in REGISTRY
    assert "loan_application_decided" in REGISTRY.names()
    assert REGISTRY.applications() == [LoanApplication]
    with pytest.raises(DefinitionError, match="unknown event type 'repaymnet'; did you mean 'repayment'"):
        REGISTRY["repaymnet"]


def test_two_types_of_one_name_are_refused() -> None:
    class Other(Event, name="repayment"):
        consumer = Entity()

    with pytest.raises(DefinitionError, match="two event types are named 'repayment'"):
        Registry([Repayment, Other])
    assert Registry([Repayment, Repayment]).names() == ["repayment"]


def test_a_type_describes_itself_as_data() -> None:
    assert LoanApplication.describe() == {
        "name": "loan_application",
        "version": 1,
        "lag_us": 0,
        "application": True,
        "fields": {
            "consumer": {"kind": "entity", "type": "consumer"},
            "amount": {"kind": "money", "currencies": ["NGN"]},
        },
    }
