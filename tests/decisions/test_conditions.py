"""Conditions: what they say, what they refuse, and that null is never silently false."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.decisions.lender import APPLICATION, PLAN

from obligor.decisions.conditions import Names, parse_condition
from obligor.errors import DefinitionError

NAMES = Names(PLAN["features"], APPLICATION["fields"])
NULL = math.nan


def evaluate(text: str, features: tuple[float, ...] = (2.0, 30.0, 0.0, 1.0, 0.0), **fields: object) -> bool | None:
    return parse_condition(text, NAMES).evaluate(features, fields)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("late_90d > 1", True),
        ("late_90d > 2", False),
        ("1 < late_90d <= 2", True),
        ("late_90d / repaid_30d == 1 / 15", True),
        ("late_90d / 0 > 1", None),
        ("fill(late_90d / 0, 7) == 7", True),
        ("is_null(late_90d / 0)", True),
        ("-late_90d < 0 and not late_90d == 3", True),
        ("minimum(late_90d, repaid_30d) == 2 and maximum(late_90d, repaid_30d) == 30", True),
        ("late_90d in [1, 2]", True),
        ("late_90d not in [1, 2]", False),
        ("channel == 'app'", True),
        ("channel in ['web']", False),
        ("channel != '(other)'", True),
        ("frozen", True),
        ("frozen == false", False),
        ("application.amount > 5_000", True),
        ("application.rate > 1.24 and application.rate < 1.26", True),
        ("application.device == 'ios'", None),
        ("application.device == 'ios' or late_90d > 1", True),
        ("application.device == 'ios' and late_90d > 2", False),
        ("application.device == 'ios' and late_90d > 1", None),
        ("is_null(application.paid_at)", True),
        ("application.employed", False),
        ("application.consumer == 'c-1'", True),
    ],
)
def test_a_condition_is_true_false_or_null(text: str, expected: bool | None) -> None:
    assert evaluate(text, amount=10_000, rate=125, employed=False, consumer="c-1") is expected


def test_null_features_make_null() -> None:
    nulls = (NULL,) * 5
    for text in ("late_90d > 1", "not late_90d > 1", "channel == 'app'", "frozen", "late_90d in [1]"):
        assert evaluate(text, nulls) is None
    assert evaluate("is_null(late_90d) and is_null(channel) and is_null(frozen)", nulls) is True


def test_overflow_is_null() -> None:
    for text in ("repaid_30d * repaid_30d > 1", "repaid_30d * repaid_30d * 1.5 > 1", "late_90d - repaid_30d * 1e9 > 1"):
        assert evaluate(text, (0.0, 1e300, 0.0, 0.0, 0.0)) is None


@settings(derandomize=True, max_examples=200)
@given(
    a=st.integers(2**53 - 2, 2**53), amount=st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(2**53 - 2, 2**53 + 2),
    c=st.integers(-(2**53) + 1, 2**53 - 1), op=st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
)  # fmt: skip
def test_whole_numbers_compare_exactly_however_large(a: int, amount: int, c: int, op: str) -> None:
    features = (float(a), 0.0, 0.0, 1.0, 0.0)
    for text in (
        f"late_90d {op} application.amount",
        f"late_90d + 1 {op} application.amount - {c} + 1",
        f"late_90d * {c} - application.amount {op} 0.5",
        f"maximum(application.amount, late_90d * late_90d) {op} application.amount + {c} * 2",
        f"fill(late_90d, 1) * application.amount {op} minimum(application.amount, 1) * late_90d + {c}",
    ):
        exact = {"application.amount": "amount", "late_90d": "a", "minimum": "min", "maximum": "max"}
        expected = text.replace("fill(late_90d, 1)", "a")
        for name, own in exact.items():
            expected = expected.replace(name, own)
        assert evaluate(text, features, amount=amount) is eval(expected, {"amount": amount, "a": a})


def test_a_category_outside_the_vocabulary_reads_as_other() -> None:
    assert evaluate("channel == '(other)'", (0, 0, 2.0, 0, 0)) is True
    assert evaluate("channel == 'web'", (0, 0, 2.0, 0, 0)) is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("late_09d > 1", "unknown feature 'late_09d'; did you mean 'late_90d'?"),
        ("amount > 1", "unknown feature 'amount'; write application.amount for the application's field"),
        ("application.amuont > 1", "the application has no field 'amuont'; did you mean 'amount'?"),
        ("application.name == 'x'", "application.name is personal or protected: a policy may not read it"),
        ("application.gender == 'x'", "application.gender is personal or protected: a policy may not read it"),
        ("application.paid_at > 1", "application.paid_at is a timestamp: only is_null(...) may read it; use a feature"),
        ("channel == 'ap'", "'ap' never occurs; did you mean 'app'?"),
        ("application.device in ['andriod']", "'andriod' never occurs; did you mean 'android'?"),
        ("channel > 'app'", "a text has no order: 'channel' >"),
        ("channel == 1", "cannot compare the text 'channel' with the number '1'"),
        ("late_90d", "expected a boolean, got the number 'late_90d'"),
        ("frozen + 1 > 0", "expected a number, got the boolean 'frozen'"),
        ("absolute(late_90d) > 0", "unknown function 'absolute'"),
        ("fill(late_90d) > 0", "fill takes 2 argument(s)"),
        ("late_90d is 1", "use == and !=, or is_null(x), instead of `is`"),
        ("late_90d in 1", "expected a list of constants after `in`"),
        ("late_90d in [late_90d]", "expected number constants after `in`"),
        ("late_90d ** 2 > 1", "is not part of the condition language"),
        ("late_90d.__class__ == 1", "is not part of the condition language"),
        ("application.amount.real > 1", "is not part of the condition language"),
        ("[x for x in late_90d]", "is not part of the condition language"),
        ("__import__('os').system('x')", "is not part of the condition language"),
        ("(lambda: 1)() > 0", "is not part of the condition language"),
        ("late_90d > 10 ** 400", "is not part of the condition language"),
        ("late_90d > 1" + "0" * 400, "expected a number below 2**53"),
        ("late_90d > 1e999", "expected a number below 2**53"),
        ("late_90d > 1j", "expected a number, a text, true or false"),
        ("late_90d >", "cannot read the condition"),
        ("late_90d > 1in [1]", "cannot read the condition"),
        ("", "expected a condition of 1 to 1000 characters"),
        ("late_90d > 1 and " * 100 + "frozen", "expected a condition of 1 to 1000 characters"),
        ("not " * 60 + "frozen", "the condition is nested deeper than 50"),
        ("(" * 400 + "frozen" + ")" * 400, "cannot read the condition"),
        (r"channel == '\d'", "expected a condition of 1 to 1000 characters"),
    ],
)
def test_what_cannot_be_said_is_refused(text: str, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_condition(text, NAMES)
    assert message in str(caught.value)


def test_a_condition_names_what_it_reads() -> None:
    condition = parse_condition("late_90d > 1 and (application.amount > 5 or is_null(application.paid_at))", NAMES)
    assert condition.reads == {"amount", "paid_at"}
    assert condition.features == {0}


def _sql(op: str, values: list[bool | None]) -> bool | None:
    """Kleene's and, or by their truth tables, the slow way."""
    result: bool | None = op == "and"
    for value in values:
        table = {"and": (False, True), "or": (True, False)}[op]
        if result is table[0] or value is table[0]:
            result = table[0]
        elif result is None or value is None:
            result = None
    return result


@settings(derandomize=True, max_examples=200)
@given(st.sampled_from(["and", "or"]), st.lists(st.sampled_from([True, False, None]), min_size=2, max_size=4))
def test_and_and_or_are_kleenes(op: str, values: list[bool | None]) -> None:
    words = {True: "1 == 1", False: "1 == 2", None: "1 / 0 == 1"}
    assert evaluate(f" {op} ".join(words[value] for value in values)) is _sql(op, values)


def test_an_amount_of_several_currencies_is_compared_with_nothing() -> None:
    names = Names(PLAN["features"], {"amount": {"kind": "money", "currencies": ["EUR", "JPY"]}})
    with pytest.raises(DefinitionError, match=r"application\.amount mixes currencies \(EUR, JPY\)"):
        parse_condition("application.amount > 500_000", names)
    assert parse_condition("is_null(application.amount)", names).evaluate((), {"amount": 1}) is False


AMOUNTS = Names(
    [
        {"name": name, "type": "integer", "unit": unit}
        for name, unit in {
            "owed": "NGN minor units",
            "paid": "NGN minor units",
            "sent": "EUR minor units",
            "daily": "EUR minor units per day",
            "loans": "events",
        }.items()
    ],
    {"amount": {"kind": "money", "currencies": ["NGN"]}, "term": {"kind": "integer"}},
)


@pytest.mark.parametrize(
    ("text", "left", "right"),
    [
        ("owed > sent", "'owed' in NGN", "'sent' in EUR"),
        ("sent == application.amount", "'sent' in EUR", "'application.amount' in NGN"),
        ("0 < owed + 1 < daily * 30", "'owed + 1' in NGN", "'daily * 30' in EUR"),
        ("owed - sent > 0", "'owed' in NGN", "'sent' in EUR"),
        ("owed / sent > 0.5", "'owed' in NGN", "'sent' in EUR"),
        ("is_null(maximum(-owed, sent))", "'-owed' in NGN", "'sent' in EUR"),
        ("minimum(loans, sent) > fill(owed, 0)", "'minimum(loans, sent)' in EUR", "'fill(owed, 0)' in NGN"),
        ("fill(owed, sent) > 0", "'owed' in NGN", "'sent' in EUR"),
    ],
)
def test_amounts_of_two_currencies_are_not_taken_together(text: str, left: str, right: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_condition(text, AMOUNTS)
    assert str(caught.value) == f"expected amounts in one currency, got {left} and {right}"


@pytest.mark.parametrize(
    "text",
    [
        "owed > 500_000 and sent > 500",
        "owed + application.amount > paid * 2",
        "owed / paid > sent / (sent + daily)",  # ratios
        "sent > loans or owed > application.term",  # numbers without a currency
        "fill(owed, 0) > minimum(paid, 100) + 1",
    ],
)
def test_amounts_of_one_currency_are(text: str) -> None:
    assert parse_condition(text, AMOUNTS).evaluate((9e5, 1e5, 6e2, 3.0, 2.0), {"amount": 1, "term": 3}) is True
