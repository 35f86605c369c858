"""Columns of questions are read by the same rules as files, and what they need is said of each."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from tests.features.lender import LoanApplication, LoanOpened, Repayment, Sale, plan_of

from obligor.errors import BadInput
from obligor.features import Category, Entity, Event, Money, application, request
from obligor.features.question_table import columns_of, read_columns, read_instants, required

PLAN = plan_of(
    rate=request("rate"),
    age=request.age("born"),
    channel=request("channel"),
    referred=request("referrer", values=["friend"]),
    here=Sale.by("consumer").where(Sale.merchant == application.merchant).count(),
    small=Repayment.by("consumer").where(Repayment.amount < application.amount).count(),
    loans=LoanOpened.by("consumer").count("30d"),
)


def test_a_plan_needs_its_keys_first_and_then_the_fields_that_it_looks_at() -> None:
    assert required(PLAN) == ["consumer", "rate", "born", "channel", "referrer", "merchant", "amount"]


def test_values_are_taken_in_any_form_that_is_exact() -> None:
    born = datetime(1990, 5, 1, tzinfo=UTC)
    forms: list[dict[str, Any]] = [
        {"rate": ["0.1234", "3"], "born": ["1990-05-01T02:00:00+02:00", None], "consumer": ["7", "8"]},
        {"rate": [0.1234, 3.0], "born": pa.array([born, None], pa.timestamp("ns", "Asia/Tokyo")), "consumer": [7, 8]},
        {"rate": [Decimal("0.1234"), Decimal(3)], "born": pa.array([born, None], pa.timestamp("s", "UTC")),
         "consumer": pa.array(["7", "8"], pa.large_string())},
    ]  # fmt: skip
    rest = {"channel": ["app", None], "referrer": ["x", "friend"], "merchant": ["m", None], "amount": [1.0, None]}
    for form in forms:
        found = read_columns(PLAN, LoanApplication, pa.table(form | rest))
        assert found["rate"].to_pylist() == [1_234, 30_000], "as it is stored, in ten-thousandths"
        assert found["born"].to_pylist() == [int(born.timestamp()) * 1_000_000, None]
        assert found["consumer"].to_pylist() == ["7", "8"]
        assert found["amount"].to_pylist() == [1, None]
        assert found["referrer"].to_pylist() == ["x", "friend"], "an open category takes any value"
        assert list(found) == required(PLAN)


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("rate", ["0.12345"], "$[0].rate: expected a decimal with at most 4 places within 64 bits, got '0.12345'"),
        (
            "born",
            [datetime(1990, 5, 1)],
            "$.born: expected timestamps with a time zone, got timestamp[us]; say its zone",
        ),
        ("born", pa.array([1], pa.date32()), "$.born: expected timestamps with a time zone, got date32[day]; say its"),
        ("born", [5], "$.born: expected timestamps with a time zone, got int64"),
        ("channel", ["fax"], "$[0].channel: expected one of app, web, got 'fax'"),
        ("consumer", [""], "$[0].consumer: expected text of 1 to 200 characters, valid UTF-8, got ''"),
    ],
)
def test_values_that_a_field_cannot_store_are_named(name: str, column: Any, message: str) -> None:
    good = {"rate": ["1"], "born": [None], "consumer": ["7"], "channel": [None], "referrer": [None], "merchant": ["m"],
            "amount": [1]}  # fmt: skip
    with pytest.raises(BadInput) as caught:
        read_columns(PLAN, LoanApplication, pa.table(good | {name: column}))
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith(message)


def test_a_column_that_is_absent_is_asked_for_with_what_needs_it() -> None:
    table = pa.table({"consumers": ["7"], "rate": ["1"]})
    with pytest.raises(BadInput) as caught:
        read_columns(PLAN, LoanApplication, table)
    found = {problem.path: problem.message for problem in caught.value.problems}
    assert list(found) == ["$.consumer", "$.born", "$.channel", "$.referrer", "$.merchant", "$.amount"]
    assert found["$.consumer"] == (
        "expected a column with the loan_application's entity 'consumer', for here, small, loans; "
        "did you mean 'consumers'?"
    )
    assert found["$.merchant"].startswith("expected a column with the loan_application's entity 'merchant', for here;")
    assert found["$.amount"].startswith("expected a column with the loan_application's money 'amount', for small;")


class Ask(Event, application=True):
    shop = Entity()
    price = Money("EUR", "NGN")
    kind_of = Category("a")


def test_money_in_several_currencies_has_a_column_for_its_currency() -> None:
    columns = columns_of(Ask)
    assert list(columns) == ["shop", "price", "price.currency", "kind_of"]
    assert isinstance(columns["price.currency"], Category)
    assert columns["price.currency"].values == ("EUR", "NGN")


def test_instants_of_an_empty_table() -> None:
    table = pa.table({"t": pa.array([], pa.timestamp("us", "UTC")), "nothing": pa.array([], pa.null())})
    for as_of in ("t", "nothing", "2026-01-01T00:00:00Z"):
        assert read_instants(table, as_of).tolist() == []
