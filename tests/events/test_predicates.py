"""Predicates combine into plain data and refuse to be used as truth values."""

from __future__ import annotations

import json

import pytest
from tests.events.edge import Repayment

from obligor.events.predicates import And, Comparison, Not, Or


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
