"""A plan is its JSON: it survives the way there and back, and nothing but the exact format is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.features.lender import LoanOpened, Repayment, plan_of

from obligor.errors import BadInput
from obligor.features import Plan, application, outstanding, request
from obligor.features.measures import Step
from obligor.features.plan import STACK_MAX


def _plan() -> Plan:
    repaid = Repayment.by("consumer").where(Repayment.channel == "app").sum("amount", "30d", "90d")
    owed = outstanding(
        opened=LoanOpened.by("consumer").per("loan").amount("principal"),
        reduced=[Repayment.by("consumer").per("loan").amount("amount")],
    )
    larger = Repayment.by("consumer").where(Repayment.amount > application.amount).count("30d")
    return plan_of(
        repaid=repaid, reach=request("amount") / repaid, owed=owed.fill(0), asked=request("amount"), larger=larger
    )


def test_json_there_and_back_is_the_same_plan() -> None:
    plan = _plan()
    again = Plan.load(json.loads(json.dumps(plan.data)))
    assert (again.data, again.hash, again.timelines_hash) == (plan.data, plan.hash, plan.timelines_hash)
    assert again.features == plan.features
    canonical = Plan.load(json.loads(plan.canonical))
    assert (canonical.hash, list(canonical.timelines), canonical.data) == (plan.hash, list(plan.timelines), plan.data)
    assert again.names == ["repaid_30d", "repaid_90d", "reach_30d", "reach_90d", "owed", "asked", "larger"]


def test_the_format_of_today_is_the_format_for_ever() -> None:
    # A changed hash means that plans in bundles of the field can no longer be told apart or read: raise FORMAT instead.
    assert _plan().hash == "7eb4f28031da0d55fe69e20afd9ea12e21ec53733783fce2243a72393f3b8e99"


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
    ("format", 1, r"\$\.format: expected plan format 2 or 3, got 1"),
    ("later", 1, "unknown field `later`"),
    ("measures.0.key", "loan", r"\$\.measures\[0\]: .*unknown field `key`"),
    ("measures.0.aggregate", "median", r"\$\.measures\[0\]\.aggregate"),
    ("measures.0.timeline", "shop", "unknown timeline 'shop'"),
    ("measures.0.via", ["consumer", "merchant"], "expected 1 fields in via, got"),
    ("measures.0.selection", 9, "no selection 9"),
    ("measures.0.selection", None, "a sum has a selection"),
    ("measures.0.slot", 7, "no slot 7"),
    ("measures.0.slot", None, "a sum needs a slot"),
    ("measures.0.aggregate", "count", "a count has no slot"),
    ("measures.0.scale", -1, r"a sum divided by 10\^-1"),
    ("measures.0.scale", 19, r"a sum divided by 10\^19"),
    ("measures.0.condition", 0, "streaks have a condition"),
    ("measures.0.parameters", [1], r"a sum with the parameters \[1\]"),
    ("measures.0.window", {"kind": "time", "length_us": 0, "offset_us": 0}, "a window of 0 us"),
    ("measures.0.window", {"kind": "time", "length_us": 1, "offset_us": -1}, "a window of 1 us, -1 us ago"),
    ("measures.0.window", {"kind": "rows", "rows": 0}, "a window of 0 rows"),
    ("measures.0.window", {"kind": "calendar", "unit": "day", "back": 121}, "a calendar period 121 ago"),
    ("measures.0.window", {"kind": "calendar", "unit": "hour", "back": 0}, r"\$\.measures\[0\]\.window\.unit"),
    ("measures.0.window", {"kind": "since", "anchor": 9}, "no selection 9"),
    ("measures.0.given", [{"slot": 0, "op": "==", "comparand": 1}], "no comparand 1"),
    ("measures.0.given", [{"slot": 9, "op": "==", "comparand": 0}], "no slot 9"),
    ("measures.2.per", None, "a sum has a selection"),
    ("measures.2.selection", 0, "a measure over keys has neither"),
    ("measures.2.window", {"kind": "rows", "rows": 1}, "windows, scales and parameters within only"),
    ("measures.2.aggregate", "last", "no last over keys"),
    ("measures.2.per.inner.0.key", 9, "no slot 9"),
    ("measures.2.per.inner.0.selection", 9, "no selection 9"),
    ("measures.2.per.inner.0.aggregate", "std", "no std by key"),
    ("measures.2.per.inner.0.aggregate", "count", "a count by key has no slot"),
    ("measures.2.per.inner.0.scale", 20, r"a sum divided by 10\^20"),
    ("measures.2.per.program", [["measure", 9]], "no measure 9"),
    (
        "comparands.0",
        {"source": "age", "name": "born", "coding": "integer", "values": None, "scale": 0},
        r"\$\.comparands\[0\]: expected a field of the application, or as_of",
    ),
    ("comparands.0.source", "calendar", r"\$\.comparands\[0\]"),
    ("requests.0.coding", "hash", r"\$\.requests\[0\]\.coding: expected a number"),
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
    ("timelines.consumer.selections.0.by", ["consumer", "loan"], "expected 1 fields, got"),
    ("timelines.consumer.selections.0.where", {"field": "channel", "op": "like", "value": "a"}, "expected a predicate"),
    ("timelines.consumer.selections", [{"event": "e", "by": ["b"], "where": None}] * 64, "more than 63 selections"),
    ("timelines.consumer.hot", True, "its entity is hot: this measure has no exact partials and no sketch"),
]


@pytest.mark.parametrize(("path", "value", "message"), FAULTS, ids=[f"{p}={v!r:.30}" for p, v, _ in FAULTS])
def test_anything_else_is_refused_with_its_place(path: str, value: object, message: str) -> None:
    data = json.loads(_plan().canonical)
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
