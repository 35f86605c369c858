"""Predicates have SQL's meaning: against a naive reading row by row, and against DuckDB."""

from __future__ import annotations

from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from obligor.errors import BadInput, DefinitionError
from obligor.events.predicates import And, Comparison, Not, Or, Predicate, Relation
from obligor.features import application
from obligor.features.filters import DEPTH_MAX, comparisons, parse_predicate
from obligor.features.plan import Plan
from obligor.features.projection import project

Row = dict[str, Any]
TEXTS = ("app", "ussd", "branch")

texts = st.sampled_from(TEXTS)
numbers = st.sampled_from([-5, 0, 7, 2**53, 2**53 + 1, 2**62, 2**63 - 1, 2**63 - 2, 1 - 2**63])
ordered = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
leaves = st.one_of(
    st.builds(Comparison, st.just("channel"), st.sampled_from(["==", "!="]), texts),
    st.builds(Comparison, st.just("channel"), st.just("in"), st.lists(texts, min_size=1).map(tuple)),
    st.builds(Comparison, st.just("amount"), ordered, numbers),
    st.builds(Comparison, st.just("amount"), st.just("in"), st.lists(numbers, min_size=1).map(tuple)),
    st.builds(Comparison, st.just("late"), st.sampled_from(["==", "!="]), st.booleans()),
    st.builds(
        Comparison, st.sampled_from(["channel", "amount", "late"]), st.sampled_from(["is_null", "not_null"]), st.none()
    ),
)
predicates: st.SearchStrategy[Predicate] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: Or(tuple(parts))),
    ),
    max_leaves=8,
)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "channel": st.none() | st.sampled_from([*TEXTS, "other"]),
            "amount": st.none() | numbers,
            "late": st.none() | st.booleans(),
        }
    ),
    max_size=12,
)


def naive(predicate: Predicate, row: Row) -> bool | None:
    """Return SQL's true, false or null for one row."""
    match predicate:
        case Comparison(field, op, value):
            own = row[field]
            if op in ("is_null", "not_null"):
                return (own is None) == (op == "is_null")
            if own is None:
                return None
            if isinstance(value, tuple):
                return own in value
            compared: dict[str, Any] = {"==": own.__eq__, "!=": own.__ne__, "<": own.__lt__, "<=": own.__le__}
            compared |= {">": own.__gt__, ">=": own.__ge__}
            return bool(compared[op](value))
        case Not(part):
            inner = naive(part, row)
            return None if inner is None else not inner
        case And(parts):
            values = [naive(part, row) for part in parts]
            return False if False in values else None if None in values else True
        case Or(parts):
            values = [naive(part, row) for part in parts]
            return True if True in values else None if None in values else False
    raise AssertionError(predicate)


def sql(predicate: Predicate) -> str:
    """Return the predicate as an SQL condition."""
    match predicate:
        case Comparison(field, op, value):
            if op in ("is_null", "not_null"):
                return f"{field} IS {'NOT ' if op == 'not_null' else ''}NULL"
            if isinstance(value, tuple):
                return f"{field} IN ({', '.join(map(repr, value))})"
            return f"{field} {'=' if op == '==' else op} {value!r}"
        case Not(part):
            return f"NOT ({sql(part)})"
        case And(parts) | Or(parts):
            return "(" + (" AND " if isinstance(predicate, And) else " OR ").join(f"({sql(p)})" for p in parts) + ")"
    raise AssertionError(predicate)


def table_of(facts: list[Row]) -> pa.Table:
    types = {"channel": pa.string(), "amount": pa.int64(), "late": pa.bool_()}
    columns = {name: pa.array([fact[name] for fact in facts], type_) for name, type_ in types.items()}
    order = pa.array(np.arange(len(facts)), pa.int64())
    return pa.table({"consumer": ["c"] * len(facts), "event_time": order, "root": order, **columns})


def selected(predicate: Predicate, facts: list[Row]) -> list[int]:
    data = Plan.empty("application").data
    selection = {"event": "repayment", "by": ["consumer"], "where": predicate.to_json()}
    data["timelines"] = {"consumer": {"entities": ["consumer"], "hot": False, "selections": [selection], "fields": {}}}
    found: list[int] = project(Plan.load(data), "consumer", "repayment", table_of(facts)).source.tolist()
    return found


@settings(max_examples=300, derandomize=True, deadline=None)
@given(predicates, rows)
def test_a_filter_selects_what_the_naive_reading_selects(predicate: Predicate, facts: list[Row]) -> None:
    assert selected(predicate, facts) == [i for i, fact in enumerate(facts) if naive(predicate, fact)]


def test_a_reading_with_two_values_is_caught() -> None:
    facts: list[Row] = [{"channel": None, "amount": 8, "late": None}]
    predicate = Not(And((Comparison("amount", ">", 7), Comparison("channel", "==", "app"))))
    two_valued = not (facts[0]["amount"] > 7 and facts[0]["channel"] == "app")
    assert (two_valued, naive(predicate, facts[0]), selected(predicate, facts)) == (True, None, [])


@settings(max_examples=60, derandomize=True, deadline=None)
@given(predicates, rows.filter(bool))
def test_a_filter_selects_what_sql_selects(predicate: Predicate, facts: list[Row]) -> None:
    connection = duckdb.connect()
    connection.register("facts", table_of(facts))
    found = connection.execute(f"SELECT root FROM facts WHERE {sql(predicate)} ORDER BY root").fetchall()
    assert selected(predicate, facts) == [root for (root,) in found]


@settings(max_examples=100, derandomize=True, deadline=None)
@given(predicates)
def test_json_there_and_back(predicate: Predicate) -> None:
    again = parse_predicate(predicate.to_json())
    assert again.to_json() == predicate.to_json()
    assert len(list(comparisons(again))) == len(list(comparisons(predicate)))


@pytest.mark.parametrize(
    "data",
    [
        None,
        {"and": []},
        {"not": {"field": "a", "op": "==", "value": 1}, "or": []},
        {"field": "a", "op": "==", "value": None},
        {"field": "a", "op": "<", "value": "text"},
        {"field": "a", "op": "<", "value": True},
        {"field": "a", "op": "in", "value": [1.5]},
        {"field": "a", "op": "in", "value": [2**63, -1]},
        {"field": "a", "op": "<", "value": 2**63},
        {"field": "a", "op": "==", "value": -(2**63)},
        {"field": "a", "op": "is_null", "value": 0},
        {"field": "a", "op": "==", "value": 1, "more": 1},
    ],
)
def test_what_is_no_predicate_is_refused(data: object) -> None:
    with pytest.raises(BadInput, match="expected a predicate"):
        parse_predicate(data)


def test_a_comparison_with_the_application_is_no_filter_of_facts() -> None:
    with pytest.raises(
        DefinitionError, match=r"amount < application\.amount: .* stands alone in the where of a feature"
    ):
        list(comparisons(And((Comparison("a", "==", 1), Relation("amount", "<", application.amount)))))


def test_nesting_is_bounded() -> None:
    predicate: Predicate = Comparison("a", "==", 1)
    for _ in range(DEPTH_MAX + 1):
        predicate = Not(predicate)
    with pytest.raises(BadInput, match="nests deeper than 32"):
        parse_predicate(predicate.to_json())
