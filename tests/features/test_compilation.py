"""Compilation: programs compute what the expression says, parts are shared, all faults come at once."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import pytest
from tests.features.lender import REGISTRY, LoanApplication, LoanOpened, Repayment, Sale, Transfer, plan_of

from obligor.errors import DefinitionError, LimitError
from obligor.events.schema import Registry
from obligor.features import Category, Entity, Event, Feature, as_of, compile_plan, maximum, minimum, request
from obligor.features.measures import TimeWindow
from obligor.features.plan import FeatureSpec

X, Y, Z = (Repayment.by("consumer").count(window) for window in ("1d", "2d", "3d"))

OPERATORS: dict[str, Callable[[float, float], float]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: math.nan if b == 0 else a / b,
    "minimum": min,
    "maximum": max,
    "less": lambda a, b: float(a < b),
    "less_equal": lambda a, b: float(a <= b),
    "greater": lambda a, b: float(a > b),
    "greater_equal": lambda a, b: float(a >= b),
    "equal": lambda a, b: float(a == b),
    "not_equal": lambda a, b: float(a != b),
}


def run(spec: FeatureSpec, measures: list[float], requests: list[float] | None = None) -> float:
    """Run a program as the plan's format describes it."""
    stack: list[float] = []
    for step in spec.program:
        match step.op:
            case "measure":
                stack.append(measures[int(step.value or 0)])
            case "request":
                stack.append((requests or [])[int(step.value or 0)])
            case "constant":
                stack.append(float(step.value or 0))
            case "fill":
                top = stack.pop()
                stack.append(float(step.value or 0) if math.isnan(top) else top)
            case op:
                b, a = stack.pop(), stack.pop()
                stack.append(math.nan if math.isnan(a) or math.isnan(b) else OPERATORS[op](a, b))
    [result] = stack
    return result


MEANINGS: list[tuple[Feature, float]] = [
    (X - Y, 6 - 4),
    (X - Y - Z, 6 - 4 - 3),
    (X - (Y - Z), 6 - (4 - 3)),
    (10 - X, 4),
    (12 / X, 2),
    (X / Y / Z, 6 / 4 / 3),
    (X / (Y / Z), 6 / (4 / 3)),
    (-X, -6),
    (2 * X + Y * 3, 24),
    (minimum(X, 5) + maximum(Y, 7), 12),
    ((X > 5) & (Y < 5), 1),
    ((X > 5) & (Y > 5), 0),
    ((X > 6) | (Y >= 4), 1),
    (~(X > 5), 0),
    (X == 6, 1),
    (X != 6, 0),
    ((X / (Y - Y)).fill(-1), -1),
    (X <= Y, 0),
]


@pytest.mark.parametrize(("expression", "expected"), MEANINGS, ids=[str(i) for i in range(len(MEANINGS))])
def test_a_program_computes_what_the_expression_says(expression: Feature, expected: float) -> None:
    plan = plan_of(f=expression)
    values = {86_400_000_000: 6.0, 2 * 86_400_000_000: 4.0, 3 * 86_400_000_000: 3.0}
    measures = [values[m.window.length_us or 0] for m in plan.measures if isinstance(m.window, TimeWindow)]
    assert run(plan.features[0], measures) == expected


def test_swapped_operands_would_be_caught() -> None:
    [spec] = plan_of(f=X - Y).features
    assert run(spec, [6, 4]) != run(spec, [4, 6])


def test_times_are_in_their_unit() -> None:
    plan = plan_of(
        age=request.age("born"),
        age_s=request.age("born", "seconds"),
        due=as_of.since(LoanOpened.by("consumer").last("due_at"), "hours"),
    )
    idle = plan_of(idle=Repayment.by("consumer").time_since_last("30d", "90d", unit="hours"))
    assert [(run(spec, [7200.0, 3600.0]), spec.unit) for spec in idle.features] == [(2.0, "hours"), (1.0, "hours")]
    ages, due = plan.features[:2], plan.features[2]
    assert [run(spec, [], [172_800.0]) for spec in ages] == [2.0, 172_800.0]
    assert run(due, [3.6e9], [0.0, 3 * 3.6e9]) == 2.0
    assert [(r.source, r.name) for r in plan.requests] == [("age", "born"), ("calendar", "as_of")]


def test_categories_are_compared_and_filled_by_code() -> None:
    last = Repayment.by("consumer").last("channel")
    plan = plan_of(
        last=last,
        by_ussd=last == "ussd",
        filled=last.fill("branch"),
        web=request("channel") == "web",
        referrer=request("referrer", values=["friend", "ad"]),
    )
    by_name = dict(zip(plan.names, plan.features, strict=True))
    assert (by_name["last"].type, by_name["last"].values) == ("category", ("app", "ussd", "branch"))
    assert [run(by_name["by_ussd"], [code]) for code in (0, 1, 3)] == [0, 1, 0]
    assert run(by_name["filled"], [math.nan]) == 2
    assert (by_name["by_ussd"].type, by_name["by_ussd"].values) == ("boolean", None)
    assert run(by_name["web"], [], [1.0]) == 1
    assert plan.requests[1].values == ("friend", "ad")


def test_equal_parts_are_shared() -> None:
    app = Repayment.channel == "app"
    repaid = Repayment.by("consumer").where(app).sum("amount", "30d")
    again = Repayment.by("consumer").where(Repayment.channel == "app").mean("amount", "30d")
    plan = plan_of(repaid=repaid, share=repaid / request("amount"), mean=again, asked=request("amount"))
    timeline = plan.timelines["consumer"]
    assert (len(timeline.selections), timeline.slots) == (1, 1)
    assert (len(plan.measures), len(plan.requests)) == (2, 1)


def test_the_same_definitions_give_the_same_plan() -> None:
    def build() -> str:
        mine = Repayment.by("consumer").where(Repayment.channel.isin(["app", "ussd"]))
        return plan_of(a=mine.sum("amount", "30d"), b=request("amount") / 100).hash

    assert build() == build()
    assert build() != plan_of(a=Repayment.by("consumer").sum("amount", "30d"), b=request("amount") / 100).hash


def test_scale_travels_with_a_decimal() -> None:
    plan = plan_of(fee=Repayment.by("consumer").sum("fee", "30d"), rate=request("rate"))
    assert (plan.measures[0].scale, plan.requests[0].scale) == (2, 4)
    assert [f.type for f in plan.features] == ["real", "real"]


def test_another_entity_is_found_by_its_type() -> None:
    plan = plan_of(sales=Sale.by("merchant").count("7d"))
    assert (plan.measures[0].timeline, plan.measures[0].via) == ("merchant", ("merchant",))
    received = plan_of(received=Transfer.by("receiver").count("7d")).measures[0]
    assert (received.timeline, received.via) == ("consumer", ("consumer",))


def test_the_zone_is_in_the_plan() -> None:
    plan = plan_of("Africa/Lagos", hour=as_of.hour())
    assert (plan.zone, plan.zone_offsets) == ("Africa/Lagos", ((-(2**63) + 1, 3600),))
    with pytest.raises(DefinitionError, match="unknown time zone 'Africa/Lago'"):
        plan_of("Africa/Lago", hour=as_of.hour())


FAULTS: list[tuple[Feature, str]] = [
    (request("amuont"), "LoanApplication has no field 'amuont'; did you mean 'amount'?"),
    (request("consumer"), "loan_application.consumer is an entity's key, which is no number"),
    (request("referrer"), "loan_application.referrer is a category without declared values"),
    (request("marital_status"), "loan_application.marital_status is protected: it never enters features"),
    (request("phone"), "loan_application.phone is personal"),
    (request("born"), "a moment is no feature"),
    (request.age("term"), "loan_application.term is an integer, not a timestamp"),
    (LoanOpened.by("consumer").last("due_at"), "a moment is no feature; use the time to as_of"),
    (request("amount") + Transfer.by("sender").sum("amount"), "different currencies: NGN minor units and EUR minor"),
    (request("channel") + 1, "a category has no arithmetic"),
    (request("channel") == "wab", "'wab' is not among the category's values; did you mean 'web'?"),
    (request("amount").fill("x"), "cannot fill an integer in NGN minor units with 'x'"),
    (Repayment.by("loan").count(), r"Repayment.by\('loan'\): a LoanApplication names no loan; the entities it names:"),
    (Repayment.by("consumer", via="payer").count(), "no consumer in a field 'payer'; valid: consumer"),
    (
        Repayment.by(["consumer", "loan"]).count(),
        r"Repayment.by\('consumer', 'loan'\): a LoanApplication names no loan",
    ),
    (
        Transfer.by(["sender", "receiver"]).count(),
        "several of type consumer; say which of LoanApplication's is which wi",
    ),
]


@pytest.mark.parametrize(("definition", "message"), FAULTS, ids=[message[:50] for _, message in FAULTS])
def test_what_the_application_cannot_give_is_refused(definition: Feature, message: str) -> None:
    with pytest.raises(DefinitionError, match=r"\$\.wrong: .*" + message):
        plan_of(fine=X, wrong=definition)


def test_all_faults_are_reported_at_once_by_feature() -> None:
    group = request("amuont") / Repayment.by("consumer").sum("amount", "30d", "90d")
    with pytest.raises(DefinitionError) as caught:
        plan_of(reach=group, born=request("born"), fine=X)
    assert [problem.path for problem in caught.value.problems] == ["$.reach", "$.born"]


def test_names_are_unique_and_plain() -> None:
    with pytest.raises(DefinitionError, match="two features are named 'x_30d'"):
        plan_of(x_30d=X, x=Repayment.by("consumer").count("30d", "90d"))
    with pytest.raises(DefinitionError, match=r"expected a name .* got 'Late'"):
        plan_of(Late=X)


def test_several_entities_of_one_type_need_a_choice() -> None:
    class Loan(Event, application=True):
        borrower = Entity("consumer")
        guarantor = Entity("consumer")

    registry = Registry([Loan, Repayment])
    count = Repayment.by("consumer").count("7d")
    with pytest.raises(DefinitionError, match="Loan names 2 of type consumer; choose with via='borrower' or via='guar"):
        compile_plan({"count": count}, registry, Loan)
    plan = compile_plan({"count": Repayment.by("consumer", via="guarantor").count("7d")}, registry, Loan)
    assert plan.measures[0].via == ("guarantor",)


def test_types_must_be_the_projects() -> None:
    with pytest.raises(DefinitionError, match="asks for no decision"):
        compile_plan({}, REGISTRY, Repayment)
    with pytest.raises(DefinitionError, match="LoanApplication is not among the project's event types"):
        compile_plan({}, Registry([Repayment]), LoanApplication)
    with pytest.raises(DefinitionError, match="unknown event type 'sale'"):
        compile_plan({"n": Sale.by("merchant").count()}, Registry([LoanApplication]), LoanApplication)


def test_selections_are_bounded() -> None:
    values = [f"v{i}" for i in range(64)]

    class Visit(Event):
        consumer = Entity()
        page = Category(*values)

    counts = {value: Visit.by("consumer").where(Visit.page == value).count("7d") for value in values}
    registry = Registry([LoanApplication, Visit])
    with pytest.raises(LimitError, match="consumer: more than 63 different selections"):
        compile_plan(counts, registry, LoanApplication)
    counts.popitem()
    assert len(compile_plan(counts, registry, LoanApplication).timelines["consumer"].selections) == 63


def test_a_program_too_deep_for_the_stack_is_a_definition_error() -> None:
    deep: Feature = X
    for _ in range(40):
        deep = Y - deep
    with pytest.raises(DefinitionError, match=r"\$\.deep: needs a stack of 41 values, at most 32"):
        plan_of(deep=deep)


def test_definitions_need_no_arrow() -> None:
    script = "import sys, obligor.features; print([m for m in ('pyarrow', 'numba') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
