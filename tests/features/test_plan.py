"""A plan is its JSON: it survives the way there and back, and nothing but the exact format is read."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from tests.features.lender import LoanOpened, Repayment, plan_of

from obligor.errors import BadInput
from obligor.features import Plan, outstanding, request
from obligor.features.plan import STACK_MAX, Step


def _plan() -> Plan:
    repaid = Repayment.by("consumer").where(Repayment.channel == "app").sum("amount", "30d", "90d")
    owed = outstanding(
        opened=LoanOpened.by("consumer").per("loan").amount("principal"),
        reduced=[Repayment.by("consumer").per("loan").amount("amount")],
    )
    return plan_of(repaid=repaid, reach=request("amount") / repaid, owed=owed.fill(0), asked=request("amount"))


def test_json_there_and_back_is_the_same_plan() -> None:
    plan = _plan()
    again = Plan.load(json.loads(json.dumps(plan.data)))
    assert (again.data, again.hash, again.timelines_hash) == (plan.data, plan.hash, plan.timelines_hash)
    assert again.features == plan.features
    canonical = Plan.load(json.loads(plan.canonical))
    assert (canonical.hash, list(canonical.timelines), canonical.data) == (plan.hash, list(plan.timelines), plan.data)
    assert again.names == ["repaid_30d", "repaid_90d", "reach_30d", "reach_90d", "owed", "asked"]


def test_the_format_of_today_is_the_format_for_ever() -> None:
    # A changed hash means that plans in bundles of the field can no longer be told apart or read: raise FORMAT instead.
    assert _plan().hash == "33abf6d383ae565e6af82d35b3b44643cfc76c058eca143b5e2b5ea634e9bb96"


def test_programs_are_steps() -> None:
    assert _plan().features[2].program == (Step("request", 0), Step("measure", 0), Step("divide"))


def test_the_timelines_hash_ignores_what_needs_no_other_state() -> None:
    plan, other = _plan(), _plan().data
    other["features"] = other["features"][:1]
    assert Plan.load(other).timelines_hash == plan.timelines_hash
    other["timelines"]["consumer"]["selections"][0]["where"] = None
    assert Plan.load(other).timelines_hash != plan.timelines_hash


def _set(path: str, value: object) -> Any:
    def change(data: Any) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            data = data[part]
        data[last] = value

    return change


FAULTS = [
    ("format", 2, r"\$\.format: expected plan format 1, got 2"),
    ("later", 1, "unknown field `later`"),
    ("measures.0.per", "loan", r"\$\.measures\[0\]: .*unknown field `per`"),
    ("measures.0.aggregate", "median", r"\$\.measures\[0\]\.aggregate"),
    ("measures.0.timeline", "shop", "unknown timeline 'shop'"),
    ("measures.0.selection", 9, "no selection 9"),
    ("measures.0.selection", None, "a sum has a selection"),
    ("measures.0.slot", 7, "no slot 7"),
    ("measures.0.slot", None, "a sum needs a slot"),
    ("measures.0.aggregate", "count", "a count has no slot"),
    ("measures.2.terms", None, "a balance has terms"),
    ("measures.2.terms.0.key", -1, "no slot -1"),
    ("features.0.name", "asked", "two features are named 'asked'"),
    ("features.0.monotone", 2, "monotone"),
    ("features.0.program", [], "leaves 0 values"),
    ("features.0.program", [["measure", 99]], "no measure 99"),
    ("features.0.program", [["measure", 0.0]], "no measure 0.0"),
    ("features.0.program", [["measure"]], "measure needs a value"),
    ("features.0.program", [["measure", 0], ["add", 1]], "add has no value"),
    ("features.0.program", [["measure", 0], ["add"]], "add lacks an operand"),
    ("features.0.program", [["fill", 0.0]], "fill lacks an operand"),
    ("features.0.program", [["measure", 0], ["measure", 1]], "leaves 2 values"),
    ("features.0.program", [["measure", 0, 5]], "canonical form"),
    ("features.0.program", [["constant", float("nan")]], "not JSON compliant"),
    ("features.0.program", [["constant", 1.0]] * (STACK_MAX + 1), "stack of more than"),
    ("timelines.consumer.selections.0.where", {"field": "channel", "op": "like", "value": "a"}, "expected a predicate"),
    ("timelines.consumer.selections", [{"event": "e", "by": "b", "where": None}] * 64, "more than 63 selections"),
]


@pytest.mark.parametrize(("path", "value", "message"), FAULTS, ids=[f"{p}={v!r:.30}" for p, v, _ in FAULTS])
def test_anything_else_is_refused_with_its_place(path: str, value: object, message: str) -> None:
    data = copy.deepcopy(_plan().data)
    _set(path, value)(data)
    with pytest.raises(BadInput, match=message):
        Plan.load(data)


@pytest.mark.parametrize("data", [None, [], "plan", {}])
def test_what_is_no_plan_at_all_is_refused(data: object) -> None:
    with pytest.raises(BadInput):
        Plan.load(data)


def test_a_timeline_knows_its_width_and_its_events() -> None:
    timeline = _plan().timelines["consumer"]
    assert (timeline.slots, timeline.events) == (2, ("repayment", "loan_opened"))
