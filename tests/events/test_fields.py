"""The field types: what each takes, what each refuses and in which words, and the predicates they make."""

from __future__ import annotations

from typing import Any

import pytest
from tests.events.edge import Everything, Person, Repayment

from obligor.errors import DefinitionError
from obligor.events.fields import (
    INT64_MAX,
    Boolean,
    Category,
    Decimal,
    Entity,
    Field,
    Integer,
    Money,
    Text,
    Timestamp,
    parse_timestamp,
)

RIGHT: list[tuple[Field, Any, Any]] = [
    (Entity(), "c-1", "c-1"),
    (Entity(), "ä" * 200, "ä" * 200),
    (Entity(), "c 1\x7f", "c 1\x7f"),
    (Money("NGN"), 0, 0),
    (Money("NGN"), INT64_MAX, INT64_MAX),
    (Money("NGN"), {"amount": 5, "currency": "NGN"}, 5),
    (Money("NGN", negative=True), -INT64_MAX, -INT64_MAX),
    (Decimal(2), "12.5", 1250),
    (Decimal(2), "-0.05", -5),
    (Decimal(2), "12.500", 1250),
    (Decimal(2), "+3", 300),
    (Decimal(2), 7, 700),
    (Decimal(0), "12.0", 12),
    (Decimal(12), "0.000000000001", 1),
    (Integer(), -(2**62), -(2**62)),
    (Integer(1, 3), 1, 1),
    (Integer(1, 3), 3, 3),
    (Boolean(), True, True),
    (Boolean(), False, False),
    (Category("a", "b"), "b", "b"),
    (Category(), "anything", "anything"),
    (Timestamp(), "1970-01-01T00:00:00Z", 0),
    (Timestamp(), "1969-12-31 23:59:59.999999z", -1),
    (Timestamp(), "2024-02-29T00:00:00+14:00", parse_timestamp("2024-02-28T10:00:00Z")),
    (Text(3), "", ""),
    (Text(3), "äöü", "äöü"),
]

WRONG: list[tuple[Field, Any, str]] = [
    (Entity(), "", "an id of 1 to 200 characters, got ''"),
    (Entity(), "x" * 201, "an id of 1 to 200 characters"),
    (Entity(), 7, "an id of 1 to 200 characters, got 7"),
    (Entity(), "\ud800", "valid Unicode"),
    (Entity(), "c-1\x1fm-1", r"an id without control characters (U+0000 to U+001F), got 'c-1\x1fm-1'"),
    (Entity(), "c-1\n", "an id without control characters"),
    (Entity(), "\x00", "an id without control characters"),
    (Money("NGN"), -1, "a non-negative integer of minor units, got -1"),
    (Money("NGN"), 12.0, "a non-negative integer of minor units, got 12.0"),
    (Money("NGN"), float("nan"), "got nan"),
    (Money("NGN"), True, "got True"),
    (Money("NGN"), "12", "got '12'"),
    (Money("NGN"), 2**63, "within 64 bits"),
    (Money("NGN"), {"amount": 5, "currency": "KES"}, "expected currency NGN, got 'KES'"),
    (Money("NGN"), {"amount": 5}, "expected {'amount', 'currency'}, got keys ['amount']"),
    (Money("NGN"), {"amount": -5, "currency": "NGN"}, "non-negative"),
    (Money("NGN", "KES"), 5, "an object with amount and currency (NGN or KES), got 5"),
    (Decimal(2), "0.001", "at most 2 places"),
    (Decimal(2), "1.0000000000000000000000000000000001", "at most 2 places"),
    (Decimal(2), "1_000", "at most 2 places"),
    (Decimal(2), "1e3", "at most 2 places"),
    (Decimal(2), "NaN", "at most 2 places"),
    (Decimal(2), "Infinity", "at most 2 places"),
    (Decimal(2), " 1", "at most 2 places"),
    (Decimal(2), "١", "at most 2 places"),
    (Decimal(2), 1.5, "got 1.5"),
    (Decimal(2), False, "got False"),
    (Decimal(2), "92233720368547758.08", "within 64 bits"),
    (Integer(), 1.0, "an integer, got 1.0"),
    (Integer(), True, "an integer, got True"),
    (Integer(), -(2**63), "within 64 bits"),
    (Integer(1, 3), 0, "an integer of at least 1, got 0"),
    (Integer(1, 3), 4, "an integer of at most 3, got 4"),
    (Boolean(), 1, "true or false, got 1"),
    (Boolean(), "true", "true or false, got 'true'"),
    (Category("a", "b"), "c", "one of a, b, got 'c'"),
    (Category(), "", "text of 1 to 200 characters"),
    (Timestamp(), "2026-01-02T03:04:05", "with a zone"),
    (Timestamp(), "2026-01-02", "with a zone"),
    (Timestamp(), 1_700_000_000, "with a zone"),
    (Timestamp(), "2026-02-30T00:00:00Z", "a moment that exists"),
    (Timestamp(), "2026-01-02T24:00:00Z", "with a zone"),
    (Timestamp(), "2026-01-02T03:04:60Z", "with a zone"),
    (Timestamp(), "2026-01-02T03:04:05.1234567Z", "with a zone"),
    (Timestamp(), "2026-01-02T03:04:05+05:60", "with a zone"),
    (Text(3), "abcd", "text of at most 3 characters, got 'abcd'"),
    (Text(3), "\udfff", "valid Unicode"),
]


@pytest.mark.parametrize(("field", "value", "stored"), RIGHT)
def test_a_right_value_has_one_stored_form(field: Field, value: Any, stored: Any) -> None:
    parsed = field.parse(value)
    assert (parsed, type(parsed)) == (stored, type(stored))


@pytest.mark.parametrize(("field", "value", "message"), WRONG)
def test_a_wrong_value_is_refused_in_words(field: Field, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^expected") as caught:
        field.parse(value)
    assert message in str(caught.value)


def test_money_of_several_currencies_keeps_the_currency() -> None:
    assert Money("NGN", "KES").parse_with_currency({"amount": 7, "currency": "KES"}) == (7, "KES")


@pytest.mark.parametrize("currencies", [(), ("ngn",), ("NAIRA",), ("NGN", "")])
def test_currencies_are_iso_codes(currencies: tuple[str, ...]) -> None:
    with pytest.raises(DefinitionError, match="ISO 4217"):
        Money(*currencies)


@pytest.mark.parametrize("scale", [-1, 13])
def test_a_decimal_has_0_to_12_places(scale: int) -> None:
    with pytest.raises(DefinitionError, match="0 to 12 places"):
        Decimal(scale)


def test_an_entity_type_is_its_name_unless_given() -> None:
    class Transfer:
        consumer = Entity()
        payee = Entity("consumer")

    assert (Transfer.consumer.type, Transfer.payee.type) == ("consumer", "consumer")


def test_personal_and_protected_fields_are_withheld() -> None:
    withheld = {name for name, field in Person.fields.items() if field.withheld}
    assert withheld == {"name", "income", "gender"}


def test_comparisons_hold_stored_values() -> None:
    assert (Repayment.amount >= 1200).to_json() == {"field": "amount", "op": ">=", "value": 1200}
    assert (Everything.rate < "0.5").to_json() == {"field": "rate", "op": "<", "value": 5000}
    assert (Everything.due > "1970-01-01T00:00:01Z").to_json() == {"field": "due", "op": ">", "value": 1_000_000}
    assert (Repayment.channel != "app").to_json() == {"field": "channel", "op": "!=", "value": "app"}
    assert Repayment.channel.isin(["app", "web"]).to_json() == {"field": "channel", "op": "in", "value": ["app", "web"]}
    assert Everything.flag.is_null().to_json() == {"field": "flag", "op": "is_null", "value": None}
    assert Everything.flag.not_null().to_json() == {"field": "flag", "op": "not_null", "value": None}
    expected = {"field": "price.currency", "op": "==", "value": "KES"}
    assert Everything.price.currency_is("KES").to_json() == expected


def test_a_set_of_values_is_one_predicate_in_every_process() -> None:
    """Python lays a set's texts out anew each time; a plan's hash must not follow it."""
    names, channels = [f"channel {i:02}" for i in range(50)], Category()
    assert channels.isin(set(names)).to_json() == {"field": "", "op": "in", "value": names}
    assert channels.isin(["web", "app"]).to_json() == {"field": "", "op": "in", "value": ["web", "app"]}


def test_comparisons_that_make_no_sense_are_refused_when_written() -> None:
    with pytest.raises(DefinitionError, match=r"repayment\.channel == 'post': expected one of app, web"):
        _ = Repayment.channel == "post"
    with pytest.raises(DefinitionError, match="a category has no order"):
        _ = Repayment.channel < "app"
    with pytest.raises(DefinitionError, match="a boolean has no order"):
        _ = Everything.first >= True
    with pytest.raises(DefinitionError, match="declares"):
        Everything.price.currency_is("USD")


def test_fields_describe_themselves_as_data() -> None:
    assert Money("NGN", optional=True).describe() == {"kind": "money", "optional": True, "currencies": ["NGN"]}
    assert Money("NGN", negative=True).describe() == {"kind": "money", "currencies": ["NGN"], "negative": True}
    assert Decimal(4, protected=True).describe() == {"kind": "decimal", "protected": True, "scale": 4}
    assert Integer(0).describe() == {"kind": "integer", "minimum": 0}
    assert Category("a").describe() == {"kind": "category", "values": ["a"]}
    assert Category().describe() == {"kind": "category"}
    assert Text(9, personal=True).describe() == {"kind": "text", "personal": True, "length_max": 9}
    assert Entity("person").describe() == {"kind": "entity", "type": "person"}
    assert Boolean().describe() == {"kind": "boolean"}


def test_a_field_says_where_it_belongs() -> None:
    assert repr(Repayment.amount) == "Money(repayment.amount)"


def test_that_an_entity_is_hot_is_no_statement_about_its_data() -> None:
    assert (Entity(hot=True).hot, Entity().hot) == (True, False)
    assert Entity("merchant", hot=True).describe() == Entity("merchant").describe()
