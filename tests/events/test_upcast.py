"""The six steps of an upcast: what each says of itself, and what each refuses."""

from __future__ import annotations

import json

import pytest

from obligor.events.fields import Boolean, Category, Decimal, Entity, Field, Integer, Money, Text, Timestamp
from obligor.events.upcast import (
    Mapped,
    Step,
    constant,
    default,
    denominated,
    filled,
    kept_misfits,
    mapped,
    renamed,
    scaled,
)


def misfits(step: Step, old: Field | None, new: Field) -> str:
    """Return what is wrong with a step between two fields named as it names them, in one line."""
    for field, name in ((old, step.source), (new, step.target)):
        if field is not None:
            field.name = str(name)
    return "; ".join(step.misfits(old, new))


def kept(old: Field, new: Field) -> str:
    old.name = new.name = "x"
    return "; ".join(kept_misfits(old, new))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (renamed("a", "b"), {"step": "renamed", "from": "a", "to": "b"}),
        (
            default("b", {"amount": 1, "currency": "NGN"}),
            {"step": "default", "to": "b", "value": {"amount": 1, "currency": "NGN"}},
        ),
        (filled("a", "b", ""), {"step": "filled", "from": "a", "to": "b", "value": ""}),
        (mapped("a", "b", {"x": "y"}), {"step": "mapped", "from": "a", "to": "b", "values": {"x": "y"}}),
        (
            mapped("a", "b", {}, otherwise="z"),
            {"step": "mapped", "from": "a", "to": "b", "values": {}, "otherwise": "z"},
        ),
        (scaled("a", "b"), {"step": "scaled", "from": "a", "to": "b"}),
        (denominated("a", "b", "NGN"), {"step": "denominated", "from": "a", "to": "b", "currency": "NGN"}),
    ],
)
def test_a_step_is_data(step: Step, expected: dict[str, object]) -> None:
    assert step.describe() == expected
    assert json.loads(json.dumps(step.describe())) == expected


def test_a_step_is_not_changed_through_what_it_was_made_of() -> None:
    values = {"cc": "card"}
    step = mapped("a", "b", values)
    values["cc"] = "cash"
    assert step.describe()["values"] == {"cc": "card"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Entity("merchant"), Entity("merchant", optional=True)),
        (Money("NGN"), Money("NGN")),
        (Money("NGN"), Money("KES", "NGN", negative=True)),
        (Money("NGN", "KES"), Money("GHS", "KES", "NGN")),
        (Decimal(2), Decimal(2, optional=True)),
        (Integer(0, 9), Integer(-1, 10)),
        (Integer(), Integer()),
        (Boolean(), Boolean()),
        (Category("a"), Category("b", "a")),
        (Category("a"), Category()),
        (Timestamp(optional=True), Timestamp(optional=True)),
        (Text(5), Text(5, protected=True)),
    ],
)
def test_what_a_rename_takes(old: Field, new: Field) -> None:
    assert misfits(renamed("old", "new"), old, new) == ""


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (Integer(), Decimal(0), "expected the kind integer, got decimal"),
        (Entity("merchant"), Entity("shop"), "it is a merchant, and new is a shop: Entity('merchant')"),
        (Money("NGN"), Money("KES"), "older rows are in NGN, which new is not"),
        (Money("NGN", "KES"), Money("NGN"), "older rows are in KES, which new is not"),
        (Money("NGN", negative=True), Money("NGN"), "older rows may be negative: new needs negative=True"),
        (Decimal(2), Decimal(4), "expected the scale 2, got 4; scaled('old', 'new') raises it"),
        (Integer(0), Integer(1), "older rows may be below its minimum of 1"),
        (Integer(), Integer(1), "older rows may be below its minimum of 1"),
        (Integer(0, 9), Integer(0, 8), "older rows may be above its maximum of 8"),
        (Integer(0), Integer(0, 8), "older rows may be above its maximum of 8"),
        (Category("a", "b"), Category("a"), "older rows may be b, which new is never"),
        (Category(), Category("a"), "older rows may hold any text, and new only a"),
        (Text(9), Text(8), "older rows may have 9 characters, new has at most 8"),
        (Text(optional=True), Text(), "old may be absent and new is required; filled('old', 'new', ...) says how"),
        (Text(personal=True), Text(personal=True), "a personal field is shown as it was written; it takes no step"),
        (Text(), Text(personal=True), "a personal field is shown as it was written; it takes no step"),
        (Text(protected=True), Text(), "old is protected, so new is too: protected=True"),
    ],
)
def test_what_a_rename_refuses(old: Field, new: Field, why: str) -> None:
    assert misfits(renamed("old", "new"), old, new) == why


@pytest.mark.parametrize(
    ("step", "old", "new", "why"),
    [
        (default("new", "x"), None, Category("a", "b"), "expected one of a, b, got 'x'"),
        (
            default("new", 5),
            None,
            Money("NGN", "KES"),
            "expected an object with amount and currency (NGN or KES), got 5",
        ),
        (default("new", -5), None, Money("NGN"), "expected a non-negative integer of minor units, got -5"),
        (
            default("new", "x"),
            None,
            Text(personal=True),
            "a personal field is shown as it was written; it takes no step",
        ),
        (
            filled("old", "new", "x"),
            Text(),
            Text(),
            "old is required, so nothing is there to fill: renamed('old', 'new')",
        ),
        (filled("old", "new", 12), Text(optional=True), Text(), "expected text of at most 10000 characters, got 12"),
        (filled("old", "new", 1), Integer(0, optional=True), Integer(1), "older rows may be below its minimum of 1"),
        (
            scaled("old", "new"),
            Decimal(2),
            Decimal(2),
            "expected more places than the 2 of old, got 2; digits are never dropped",
        ),
        (
            scaled("old", "new"),
            Integer(),
            Decimal(2),
            "expected two decimals, got old of kind integer and new of kind decimal",
        ),
        (
            scaled("old", "new"),
            Decimal(2, optional=True),
            Decimal(3),
            "old may be absent and new is required; filled('old', 'new', ...) says how",
        ),
        (denominated("old", "new", "NGN"), Integer(0), Money("KES"), "new is in KES, not in 'NGN'"),
        (
            denominated("old", "new", "NGN"),
            Integer(),
            Money("NGN"),
            "old may be negative and new may not: Money(..., negative=True)",
        ),
        (
            denominated("old", "new", "NGN"),
            Decimal(2),
            Money("NGN"),
            "old may be negative and new may not: Money(..., negative=True)",
        ),
        (
            denominated("old", "new", "JPY"),
            Decimal(2),
            Money("JPY", negative=True),
            "JPY has 0 places and old 2; digits are never dropped",
        ),
        (
            denominated("old", "new", "NGN"),
            Money("KES"),
            Money("NGN"),
            "expected an integer or a decimal and money, got old of kind money and new of kind money",
        ),
        (
            mapped("old", "new", {}),
            Text(),
            Category(),
            "expected two categories, got old of kind text and new of kind category",
        ),
        (
            mapped("old", "new", {"crd": "card"}),
            Category("card"),
            Category("card"),
            "old is never 'crd'; did you mean 'card'?",
        ),
        (mapped("old", "new", {"cc": "crd"}), Category("cc"), Category("card"), "expected one of card, got 'crd'"),
        (
            mapped("old", "new", {"cc": "card"}),
            Category("cc", "cahs"),
            Category("card", "cash"),
            "'cahs' of old is no value of new; did you mean 'cash'?",
        ),
        (
            mapped("old", "new", {"cc": "card"}),
            Category(),
            Category("card"),
            "old may be any text and new may not; say what the others become: otherwise=...",
        ),
        (mapped("old", "new", {}, otherwise="x"), Category(), Category("card"), "expected one of card, got 'x'"),
        (
            mapped("old", "new", {}),
            Category("a", optional=True),
            Category("a"),
            "old may be absent and new is required; filled('old', 'new', ...) says how",
        ),
    ],
)
def test_what_the_other_steps_refuse(step: Step, old: Field | None, new: Field, why: str) -> None:
    assert misfits(step, old, new) == why


@pytest.mark.parametrize(
    ("step", "old", "new"),
    [
        (default("new", "2026-01-01T00:00:00Z"), None, Timestamp()),
        (default("new", "c-1"), None, Entity("consumer")),
        (default("new", True), None, Boolean(optional=True)),
        (filled("old", "new", {"amount": 1, "currency": "KES"}), Money("NGN", optional=True), Money("NGN", "KES")),
        (scaled("old", "new"), Decimal(0), Decimal(12, optional=True)),
        (denominated("old", "new", "JPY"), Decimal(0), Money("JPY", negative=True)),
        (denominated("old", "new", "KES"), Integer(0, 5), Money("NGN", "KES")),
        (mapped("old", "new", {"a": "b"}), Category(), Category()),
        (mapped("old", "new", {"a": "b", "b": "a"}), Category("a", "b"), Category("a", "b")),
        (mapped("old", "new", {}, otherwise="other"), Category(), Category("other")),
    ],
)
def test_what_the_other_steps_take(step: Step, old: Field | None, new: Field) -> None:
    assert misfits(step, old, new) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (Money("NGN"), Money("NGN", negative=True)),
        (Money("NGN", "KES"), Money("KES", "NGN", "GHS")),
        (Category("a"), Category("a", "b")),
        (Integer(0, 9), Integer(0)),
        (Text(), Text(optional=True)),
        (Decimal(2), Decimal(2)),
    ],
)
def test_what_a_field_may_become_under_its_name(old: Field, new: Field) -> None:
    assert kept(old, new) == ""


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (Money("NGN"), Integer(), "a field keeps its kind (money), got integer"),
        (Decimal(2), Decimal(3), "a field keeps its scale (2), got 3"),
        (
            Money("NGN"),
            Money("NGN", "KES"),
            "amounts of NGN alone are added up by plans; they get no other currency beside them",
        ),
        (Money("NGN"), Money("KES"), "older rows are in NGN, which x is not"),
        (Money("NGN", "KES"), Money("NGN"), "older rows are in KES, which x is not"),
        (Category("a", "b"), Category("a"), "older rows may be b, which x is never"),
        (Text(optional=True), Text(), "it was optional and is required now; older rows may lack it"),
        (Text(), Text(personal=True), "a field stays personal or stays not"),
        (Text(protected=True), Text(), "a field stays protected or stays not"),
        (Entity("a"), Entity("b"), "it is a a, and x is a b: Entity('a')"),
    ],
)
def test_what_a_field_may_not_become_under_its_name(old: Field, new: Field, why: str) -> None:
    assert kept(old, new) == why


def test_constants_are_in_stored_form() -> None:
    assert constant(Decimal(2), "1.5") == (150, None)
    assert constant(Money("NGN"), {"amount": 5, "currency": "NGN"}) == (5, None)
    assert constant(Money("NGN", "KES"), {"amount": 5, "currency": "KES"}) == (5, "KES")


@pytest.mark.parametrize(
    ("values", "otherwise", "old", "new", "expected"),
    [
        ({"cc": "card"}, None, ("cc", "cash"), ("card", "cash"), {"card": "cc", "cash": "cash"}),
        ({"cc": "card", "debit": "card"}, None, ("cc", "debit"), ("card",), {"card": None}),
        ({"cc": "card"}, None, ("cc", "card"), ("card",), {"card": None}),
        ({"a": "b", "b": "a"}, None, ("a", "b"), ("a", "b"), {"a": "b", "b": "a"}),
        ({}, "other", ("x", "y"), ("x", "other"), {"x": "x", "other": None}),
        ({"a": "b"}, None, (), (), {"b": None, "a": None, "c": "c"}),
        ({"cc": "card"}, None, ("cc",), ("card", "wallet"), {"wallet": "wallet"}),
    ],
)
def test_mapped_values_are_read_back_where_one_alone_leads_to_them(
    values: dict[str, str],
    otherwise: str | None,
    old: tuple[str, ...],
    new: tuple[str, ...],
    expected: dict[str, str | None],
) -> None:
    step = mapped("old", "new", values, otherwise=otherwise)
    assert isinstance(step, Mapped)
    assert {value: step.unread(value, Category(*old)) for value in expected} == expected
    for value in old:
        back = step.unread(step.read(value, Category(*new)), Category(*old))
        assert back in (value, None), "what is read back is what was there, or nothing"
