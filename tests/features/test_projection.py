"""Rows of a timeline against a naive twin that handles one fact and one cell at a time."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.features.lender import Repayment, Sale, Transfer, plan_of

from obligor.features import Plan
from obligor.features.measures import Slot
from obligor.features.projection import NULL, Rows, code_column, hash_text, project

Fact = dict[str, Any]

REPAYMENT = {
    "consumer": pa.string(),
    "loan": pa.string(),
    "amount": pa.int64(),
    "fee": pa.int64(),
    "late": pa.bool_(),
    "channel": pa.string(),
    "bank": pa.string(),
}


def _plan() -> Plan:
    mine = Repayment.by("consumer")
    return plan_of(
        repaid=mine.sum("amount", "30d", "90d"),
        by_app=mine.where(Repayment.channel == "app", Repayment.amount > 100).sum("fee", "30d"),
        channel=mine.last("channel"),
        bank=mine.where(Repayment.late.not_null()).last("bank", values=["alpha", "beta"]),
        late=mine.mean("late", "lifetime"),
        loans=mine.distinct("loan", "90d"),
        banks=mine.where(Repayment.channel != "app").distinct("bank", "90d"),
        sales=Sale.by("merchant").count("7d"),
    )


def naive(fact: Fact) -> tuple[int, list[int]] | None:
    """Return mask and slots of one repayment under the plan above; None when it makes no row."""
    if fact["consumer"] is None:
        return None
    mask = 1
    mask |= 2 if fact["channel"] == "app" and fact["amount"] is not None and fact["amount"] > 100 else 0
    mask |= 4 if fact["late"] is not None else 0
    mask |= 8 if fact["channel"] not in ("app", None) else 0

    def digest(text: str | None) -> int:
        if text is None:
            return NULL
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)

    def place(text: str | None, values: list[str]) -> int:
        return NULL if text is None else values.index(text) if text in values else len(values)

    def number(value: int | bool | None) -> int:
        return NULL if value is None else int(value)

    slots = [number(fact["amount"]), number(fact["fee"]), place(fact["channel"], ["app", "ussd", "branch"])]
    slots += [place(fact["bank"], ["alpha", "beta"]), number(fact["late"]), digest(fact["loan"]), digest(fact["bank"])]
    return mask, slots


_PLAN = _plan()
_TRANSFER = {"sender": pa.string(), "receiver": pa.string(), "amount": pa.int64()}

amounts = st.none() | st.sampled_from([0, 100, 101, -1, 2**63 - 1, -(2**63) + 1])
facts = st.lists(
    st.fixed_dictionaries(
        {
            "consumer": st.sampled_from([None, "c-1", "c-2"]),
            "loan": st.sampled_from(["l-1", "l-2", "ł-3"]),
            "amount": amounts,
            "fee": amounts,
            "late": st.none() | st.booleans(),
            "channel": st.sampled_from([None, "app", "ussd", "branch", "later-value"]),
            "bank": st.sampled_from([None, "alpha", "beta", "gamma"]),
        }
    ),
    max_size=20,
)


def table_of(rows: list[Fact], types: dict[str, pa.DataType]) -> pa.Table:
    columns = {name: pa.array([row[name] for row in rows], type_) for name, type_ in types.items()}
    times = pa.array([1000 + i for i in range(len(rows))], pa.int64())
    return pa.table({"event_time": times, "root": pa.array(range(1, len(rows) + 1), pa.int64()), **columns})


def listed(rows: Rows) -> list[tuple[Any, ...]]:
    names = (rows.key.to_pylist(), rows.event_time, rows.root, rows.mask, rows.values, rows.source)
    return [
        (key, int(time), int(root), int(mask), values.tolist(), int(source))
        for key, time, root, mask, values, source in zip(*names, strict=True)
    ]


@settings(max_examples=150, derandomize=True, deadline=None)
@given(facts)
def test_rows_equal_the_naive_twins(rows: list[Fact]) -> None:
    expected = [
        (fact["consumer"], 1000 + i, i + 1, *row, i) for i, fact in enumerate(rows) if (row := naive(fact)) is not None
    ]
    assert listed(project(_PLAN, "consumer", "repayment", table_of(rows, REPAYMENT))) == expected


def test_the_form_of_the_columns_does_not_matter() -> None:
    rows: list[Fact] = [
        {"consumer": "c", "loan": "l", "amount": 5, "fee": None, "late": True, "channel": c, "bank": "beta"}
        for c in ("app", None, "ussd")
    ]
    plain = table_of(rows, REPAYMENT)
    expected = listed(project(_PLAN, "consumer", "repayment", plain))
    assert len(expected) == 3
    for name in ("channel", "bank", "consumer"):
        at = plain.column_names.index(name)
        coded = plain.set_column(at, name, plain[name].dictionary_encode())
        large = plain.set_column(at, name, plain[name].cast(pa.large_string()))
        for table in (coded, large, pa.concat_tables([plain[:1], plain[1:]])):
            assert listed(project(_PLAN, "consumer", "repayment", table)) == expected


def test_slots_of_event_types_overlay() -> None:
    plan = plan_of(
        fees=Repayment.by("consumer").sum("fee", "7d"), sent=Transfer.by("sender", via="consumer").sum("amount", "7d")
    )
    assert plan.timelines["consumer"].slots == 1
    table = table_of([{"sender": "a", "receiver": "b", "amount": 9}], _TRANSFER)
    assert listed(project(plan, "consumer", "transfer", table)) == [("a", 1000, 1, 2, [9], 0)]


def test_a_fact_that_enters_by_two_fields_makes_a_row_for_each_key() -> None:
    plan = plan_of(
        sent=Transfer.by("sender").count("7d"),
        received=Transfer.by("receiver").count("7d"),
        much=Transfer.by("receiver").where(Transfer.amount > 10).count("7d"),
    )
    rows: list[Fact] = [
        {"sender": "a", "receiver": "b", "amount": 5},
        {"sender": "c", "receiver": "c", "amount": 50},  # to oneself: one row with both bits
        {"sender": None, "receiver": "d", "amount": None},
    ]
    found = listed(project(plan, "consumer", "transfer", table_of(rows, _TRANSFER)))
    assert sorted((key, mask, source) for key, _, _, mask, _, source in found) == [
        ("a", 1, 0),
        ("b", 2, 0),
        ("c", 7, 1),
        ("d", 2, 2),
    ]
    assert [source for *_, source in found] == [0, 0, 1, 2]


def test_an_event_type_that_no_selection_names_makes_no_row() -> None:
    assert len(project(_PLAN, "merchant", "repayment", table_of([], REPAYMENT))) == 0


def test_a_missing_column_is_an_error_not_a_null() -> None:
    with pytest.raises(KeyError, match="fee"):
        project(_PLAN, "consumer", "repayment", table_of([], REPAYMENT).drop_columns(["fee"]))


def test_codings_are_published() -> None:
    # State and replay of years rest on these numbers.
    assert hash_text("loan-1") == -218822110456148740
    vocabulary = Slot(field="bank", coding="vocabulary", values=("alpha", "beta"))
    assert code_column(pa.array(["beta", "gamma", None]), vocabulary).tolist() == [1, 2, NULL]
    moments = pa.array([5, None], pa.timestamp("ms", "UTC"))
    assert code_column(moments, Slot(field="at", coding="integer", values=None)).tolist() == [5000, NULL]
