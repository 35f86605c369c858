"""Versions of a type: what may follow what, and the way from a row to a name."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any

import pytest
from tests.events.evolving import Loan, LoanV1, Sale, SaleV1, SaleV2

from obligor.errors import DefinitionError
from obligor.events.fields import INT64_MAX, Decimal, Entity, Field, Money, Text
from obligor.events.lineage import limits, version_of, way, withheld
from obligor.events.schema import Event, Registry
from obligor.events.upcast import Step, default, filled, renamed, scaled


def version(number: int, previous: type[Event] | None, upcast: Sequence[Step] = (), **fields: Field) -> type[Event]:
    """Make a version of a type with a consumer and these fields."""
    options: dict[str, Any] = {"name": "paid", "version": number, "previous": previous, "upcast": upcast}
    made: type[Event] = types.new_class(
        f"PaidV{number}", (Event,), options, lambda space: space.update({"consumer": Entity(), **fields})
    )
    return made


def faults(previous: type[Event], upcast: Sequence[Step] = (), **fields: Field) -> list[str]:
    """Return what is wrong with the next version."""
    with pytest.raises(DefinitionError) as raised:
        version(previous.version + 1, previous, upcast, **fields)
    return [str(problem) for problem in raised.value.problems]


FIRST = version(1, None, amt=Money("NGN"), note=Text(optional=True))


def test_a_version_knows_those_before_it() -> None:
    assert list(Sale.lineage.items()) == [(1, SaleV1), (2, SaleV2), (3, Sale)]
    assert list(SaleV1.lineage.values()) == [SaleV1]
    assert (Sale.previous, SaleV1.previous) == (SaleV2, None)
    assert list(Sale.readable)[: len(Sale.fields)] == list(Sale.fields)
    assert set(Sale.readable) == {*SaleV1.fields, *SaleV2.fields, *Sale.fields}
    assert Sale.readable["channel"] is Sale.fields["channel"], "a name is described as its last version has it"


def test_a_registry_holds_the_newest() -> None:
    for order in ([SaleV1, SaleV2, Sale], [Sale, SaleV1, SaleV2], [SaleV2, Sale, SaleV1]):
        assert list(Registry(order)) == [Sale]
    registry = Registry([LoanV1, Loan])
    assert (registry["loan"], registry["loan_decided"], registry.applications()) == (Loan, Loan.Decided, [Loan])
    with pytest.raises(DefinitionError, match="two event types are named 'paid'"):
        Registry([version(2, FIRST, amt=Money("NGN")), version(2, FIRST, amt=Money("NGN"))])


def test_decisions_evolve_with_their_application() -> None:
    decided = Loan.Decided
    assert (decided.version, decided.previous) == (2, LoanV1.Decided)
    assert [step.describe() for step in decided.upcast] == [
        {"step": "renamed", "from": "consumer", "to": "customer"},
        {"step": "default", "to": "merchant", "value": "nobody"},
        {"step": "default", "to": "branch", "value": "head"},
    ]


def test_a_description_holds_all_versions() -> None:
    described = version(2, FIRST, [renamed("amt", "amount")], amount=Money("NGN")).describe()
    assert described["previous"] == FIRST.describe()
    assert described["upcast"] == [{"step": "renamed", "from": "amt", "to": "amount"}]
    readable = Loan.describe(readable=True)
    assert list(readable["fields"]) == ["customer", "merchant", "amount", "branch", "consumer", "place", "amt"]


# -- what is refused, with its path


def test_all_faults_are_said_at_once_with_the_nearest_names() -> None:
    steps = [renamed("atm", "amount"), renamed("note", "remrk"), default("chanel", "app")]
    assert faults(FIRST, steps, amount=Money("NGN"), remark=Text(), channel=Text()) == [
        "$.PaidV2.upcast[0].from: PaidV1 has no field 'atm'; did you mean 'amt'?",
        "$.PaidV2.upcast[1].to: PaidV2 has no field 'remrk'; did you mean 'remark'?",
        "$.PaidV2.upcast[2].to: PaidV2 has no field 'chanel'; did you mean 'channel'?",
        "$.PaidV2.remark: it is required and rows of version 1 lack it; default('remark', ...)",
        "$.PaidV2.channel: it is required and rows of version 1 lack it; default('channel', ...)",
    ]


@pytest.mark.parametrize(
    ("upcast", "fields", "expected"),
    [
        (
            (),
            {"amount": Money("NGN")},
            "$.PaidV2.amount: it is required and rows of version 1 lack it; default('amount', ...) "
            "or renamed('amt', 'amount')",
        ),
        (
            (),
            {"amt": Decimal(2)},
            "$.PaidV2.amt: a field keeps its kind (money), got decimal; give the new meaning a new name, "
            "and a step that leads to it",
        ),
        (
            [renamed("amt", "note")],
            {"note": Text(optional=True)},
            "$.PaidV2.upcast[0].to: expected a new name: plans that ask for 'note' get what it has always meant",
        ),
        (
            [renamed("amt", "amt")],
            {"amt": Money("NGN")},
            "$.PaidV2.upcast[0].to: expected a new name: plans that ask for 'amt' get what it has always meant",
        ),
        (
            [renamed("amt", "a"), renamed("amt", "b")],
            {"a": Money("NGN"), "b": Money("NGN")},
            "$.PaidV2.upcast[1].from: another step reads 'amt' already; one field becomes one",
        ),
        (
            [renamed("amt", "a"), default("a", 5)],
            {"a": Money("NGN")},
            "$.PaidV2.upcast[1].to: another step makes 'a' already",
        ),
        (
            [renamed("note", "remark")],
            {"remark": Text()},
            "$.PaidV2.upcast[0]: note may be absent and remark is required; filled('note', 'remark', ...) says how",
        ),
        (
            ["renamed"],
            {},
            "$.PaidV2.upcast[0]: expected a step such as renamed('amt', 'amount'), got 'renamed'",
        ),
    ],
)
def test_what_may_not_follow(upcast: Any, fields: dict[str, Field], expected: str) -> None:
    assert faults(FIRST, upcast, **fields) == [expected]


def test_a_name_that_was_given_up_is_not_taken_up_again() -> None:
    second = version(2, FIRST, [renamed("amt", "amount")], amount=Money("NGN"))
    expected = "an older version had this name and gave it up; it is not taken up again"
    assert faults(second, amount=Money("NGN"), note=Text(optional=True)) == [f"$.PaidV3.note: {expected}"]
    assert faults(second, [renamed("amount", "amt")], amt=Money("NGN"))[0].startswith("$.PaidV3.upcast[0].to: expected")


def test_a_field_becomes_one_in_all_versions() -> None:
    second = version(2, FIRST, [renamed("amt", "amount")], amt=Money("NGN"), amount=Money("NGN"))
    expected = "$.PaidV3.upcast[0].from: another step reads 'amt' already; one field becomes one"
    assert faults(second, [renamed("amt", "total")], amount=Money("NGN"), total=Money("NGN")) == [expected]


def test_names_numbers_and_kinds_of_versions() -> None:
    with pytest.raises(DefinitionError, match=r"Payed.name: it is 'payed', and PaidV1 is 'paid': .* one name"):

        class Payed(Event, version=2, previous=FIRST):
            consumer = Entity()
            amt = Money("NGN")

    with pytest.raises(DefinitionError, match=r"PaidV1.version: expected more than the 1 of PaidV1, got 1"):
        version(1, FIRST, amt=Money("NGN"))
    with pytest.raises(DefinitionError, match="expected a whole number from 1, got True"):
        version(True, None)
    with pytest.raises(DefinitionError, match=r"PaidV2.upcast: there is no previous version to read"):
        version(2, None, [default("note", "")], note=Text())
    with pytest.raises(DefinitionError, match="expected previous to be an event class, got <class 'object'>"):
        version(2, object)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="expected previous to be an event class"):
        version(2, Event)
    with pytest.raises(DefinitionError, match=r"application: expected False, as in PaidV1"):
        types.new_class(
            "Asked",
            (Event,),
            {"name": "paid", "version": 2, "previous": FIRST, "application": True},
            lambda space: space.update({"consumer": Entity(), "amt": Money("NGN")}),
        )


def test_personal_fields_come_and_go_without_steps() -> None:
    first = version(1, None, phone=Text(personal=True))
    second = version(2, first, mobile=Text(personal=True))
    assert list(second.readable) == ["consumer", "mobile", "phone"]


# -- ways


def walked(event: type[Event], number: int, name: str) -> tuple[str | None, list[str]]:
    origin, stored, turns = way(event, number, name)
    return (origin.name if stored else None), [("back " if t.back else "") + t.step.word for t in turns]


@pytest.mark.parametrize(
    ("number", "name", "expected"),
    [
        (1, "amt", ("amt", [])),
        (2, "amt", ("amount", ["back renamed"])),
        (3, "amt", ("price", ["back renamed", "back renamed"])),
        (1, "price", ("amt", ["renamed", "renamed"])),
        (2, "price", ("amount", ["renamed"])),
        (3, "price", ("price", [])),
        (1, "channel", (None, ["default"])),
        (1, "tax", (None, ["default"])),
        (1, "online", (None, [])),
        (2, "gift", (None, [])),
        (3, "gift", (None, [])),
        (3, "method", ("rail", ["back mapped", "back mapped"])),
        (1, "duties", ("duty", ["denominated"])),
        (3, "tip", ("gratuity", ["back denominated"])),
    ],
)
def test_the_way_from_a_row_to_a_name(number: int, name: str, expected: tuple[str | None, list[str]]) -> None:
    assert walked(Sale, number, name) == expected


def test_a_way_does_not_change_with_the_versions_to_come() -> None:
    for newer, older in ((Sale, SaleV2), (SaleV2, SaleV1)):
        for name in older.readable:
            for number in older.lineage:
                assert walked(newer, number, name) == walked(older, number, name), (number, name)


def test_a_version_that_is_not_there_is_said() -> None:
    assert version_of(Sale, 2) is SaleV2
    with pytest.raises(DefinitionError, match="sale: the log holds version 4, the project defines 1, 2, 3"):
        version_of(Sale, 4)


def test_numbers_are_bounded_by_the_scale_that_is_to_come() -> None:
    assert limits(Sale, 1) == {"fee": INT64_MAX // 10_000, "duty": INT64_MAX // 10}
    assert limits(Sale, 2) == {"exact_fee": INT64_MAX // 100, "duty": INT64_MAX // 10}
    assert limits(Sale, 3) == limits(SaleV1, 1) == {}


def test_what_is_withheld_now_was_not_always() -> None:
    first = version(1, None, a=Text(), b=Text(optional=True), c=Decimal(1))
    second = version(
        2, first, [renamed("a", "x"), filled("b", "y", ""), scaled("c", "z")],
        x=Text(protected=True), y=Text(), z=Decimal(2, protected=True),
    )  # fmt: skip
    third = version(3, second, [renamed("x", "w")], w=Text(protected=True), y=Text(), z=Decimal(2, protected=True))
    assert [name for name in third.readable if withheld(third, name)] == ["w", "z", "x", "a", "c"]
    assert not withheld(third, "b")
