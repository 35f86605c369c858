"""Predicates combine into plain data and refuse to be used as truth values."""

from __future__ import annotations

import json

import pytest
from tests.events.edge import Repayment

from obligor.errors import DefinitionError
from obligor.events.predicates import And, Comparison, Not, Or, Placeholder, Relation


def test_predicates_combine_into_data() -> None:
    big, app = Repayment.amount > 1000, Repayment.channel == "app"
    one = {"field": "amount", "op": ">", "value": 1000}
    two = {"field": "channel", "op": "==", "value": "app"}
    assert (big & app).to_json() == {"and": [one, two]}
    assert (big | ~app).to_json() == {"or": [one, {"not": two}]}
    assert isinstance(big & app, And)
    assert isinstance(big | app, Or)
    assert isinstance(~big, Not)
    assert json.loads(json.dumps((big & app).to_json())) == {"and": [one, two]}


def test_a_set_becomes_a_list() -> None:
    assert Comparison("channel", "in", ("app", "web")).to_json()["value"] == ["app", "web"]  # type: ignore[index, call-overload]


def test_a_predicate_has_no_truth_value() -> None:
    with pytest.raises(TypeError, match="combine with"):
        bool(Repayment.amount > 5)
    with pytest.raises(TypeError, match="combine with"):
        _ = Repayment.amount > 5 and Repayment.channel == "app"


def test_a_comparison_with_what_is_not_yet_known_is_a_relation_without_json() -> None:
    later = Placeholder()
    for relation, op in [
        (Repayment.consumer == later, "=="),
        (Repayment.amount >= later, ">="),
        (later > Repayment.amount, "<"),
        (later != Repayment.channel, "!="),
    ]:
        assert isinstance(relation, Relation)
        assert (relation.op, relation.value) == (op, later)
        with pytest.raises(DefinitionError, match="stands alone in the where of a feature"):
            relation.to_json()
    with pytest.raises(DefinitionError, match="stands alone"):
        ((Repayment.consumer == later) | (Repayment.amount > 5)).to_json()


def test_a_set_holds_no_placeholder() -> None:
    with pytest.raises(DefinitionError, match=r"repayment\.channel\.isin: expected values"):
        Repayment.channel.isin(["app", Placeholder()])


def test_what_has_no_order_has_none_against_a_placeholder() -> None:
    with pytest.raises(DefinitionError, match="a entity has no order"):
        _ = Repayment.consumer < Placeholder()
