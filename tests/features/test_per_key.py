"""Numbers by key: what they compile to, how they combine, and what one gets of them over the keys."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.features.lender import LoanOpened, Repayment, Sale, Transfer, plan_of

from obligor.errors import DefinitionError
from obligor.features import Feature, application, as_of, maximum, minimum
from obligor.features.expressions import kind_of
from obligor.features.kinds import MOMENT, Kind
from obligor.features.measures import Measure, Per, Slot, Step, TimeWindow
from obligor.features.per_key import ByKey

DAY = 86_400_000_000
LOANS = LoanOpened.by("consumer").per("loan")
PAID = Repayment.by("consumer").per("loan")
OPENED, REPAID = LOANS.sum("principal"), PAID.sum("amount")
CHANNEL = PAID.last("channel")


def two_level(definition: Feature) -> tuple[Measure, Per]:
    """Return the one measure of a feature, and what is below it."""
    [measure] = plan_of(f=definition).measures
    assert measure.per is not None
    return measure, measure.per


def test_numbers_by_key_become_one_measure_with_a_program_of_its_own() -> None:
    plan = plan_of(behind=maximum(0, OPENED - PAID.sum("amount", "90d").fill(5)).max())
    [measure] = plan.measures
    per = measure.per
    assert per is not None
    timeline = plan.timelines["consumer"]
    assert (measure.aggregate, measure.timeline, measure.via) == ("max", "consumer", ("consumer",))
    assert (measure.selection, measure.slot, measure.given, measure.scale) == (None, None, (), 0)
    spelled = [
        (
            timeline.selections[inner.selection].event,
            timeline.fields[timeline.selections[inner.selection].event][inner.key],
            timeline.fields[timeline.selections[inner.selection].event][inner.slot or 0].field,
            inner.aggregate,
            inner.window,
        )
        for inner in per.inner
    ]
    key = Slot(field="loan", coding="hash", values=None)
    assert spelled == [
        ("loan_opened", key, "principal", "sum", TimeWindow(length_us=None, offset_us=0)),
        ("repayment", key, "amount", "sum", TimeWindow(length_us=90 * DAY, offset_us=0)),
    ]
    steps = [Step("constant", 0.0), Step("measure", 0), Step("measure", 1), Step("fill", 5.0)]
    assert per.program == (*steps, Step("subtract"), Step("maximum"))
    assert plan.features[0].program == (Step("measure", 0),)


def test_equal_numbers_by_key_are_shared_within_and_between_measures() -> None:
    ratio = REPAID / (REPAID + OPENED)
    plan = plan_of(a=ratio.mean(), b=(REPAID / (REPAID + OPENED)).mean() * 2, c=ratio.max())
    assert [measure.aggregate for measure in plan.measures] == ["mean", "max"]
    assert [len(measure.per.inner) for measure in plan.measures if measure.per is not None] == [2, 2]


OVER: list[tuple[Feature, str, Kind]] = [
    (REPAID.sum(), "sum", Kind("integer", "NGN minor units")),
    (REPAID.mean(), "mean", Kind("real", "NGN minor units")),
    (REPAID.std(), "std", Kind("real", "NGN minor units")),
    (REPAID.min(), "min", Kind("integer", "NGN minor units")),
    (REPAID.max(), "max", Kind("integer", "NGN minor units")),
    (REPAID.count(), "count", Kind("integer", "keys")),
    ((REPAID > OPENED).count(), "sum", Kind("integer", "keys")),
    ((REPAID > OPENED).sum(), "sum", Kind("integer", "keys")),
    ((REPAID > OPENED).mean(), "mean", Kind("real")),
    ((REPAID > OPENED).max(), "max", Kind("boolean")),
    ((CHANNEL == "app").count(), "sum", Kind("integer", "keys")),
    (CHANNEL.count(), "count", Kind("integer", "keys")),
    (PAID.sum("fee").sum(), "sum", Kind("real")),
    ((REPAID / OPENED).mean(), "mean", Kind("real", "ratio")),
    (PAID.time_since_last(unit="days").min(), "min", Kind("real", "days")),
    (PAID.first("late").max(), "max", Kind("boolean")),
    (LOANS.last("due_at").max(), "max", Kind("integer", MOMENT)),
    (minimum(PAID.count("30d"), 3).sum(), "sum", Kind("integer", "events")),
    ((-REPAID).min(), "min", Kind("integer", "NGN minor units")),
    (((REPAID > 0) & ~(OPENED > 5)).count(), "sum", Kind("integer", "keys")),
]


@pytest.mark.parametrize(("definition", "aggregate", "kind"), OVER, ids=[f"{i}-{row[1]}" for i, row in enumerate(OVER)])
def test_what_is_taken_over_the_keys_has_its_kind(definition: Feature, aggregate: str, kind: Kind) -> None:
    assert kind_of(definition.columns[()]) == kind
    if kind.unit != MOMENT:
        assert two_level(definition)[0].aggregate == aggregate


def test_scales_and_units_of_time_are_applied_by_key() -> None:
    _, fees = two_level(PAID.mean("fee").max())
    assert [inner.scale for inner in fees.inner] == [2]
    _, days = two_level(PAID.time_since_last(unit="days").min())
    assert days.program == (Step("measure", 0), Step("constant", 86_400.0), Step("divide"))
    _, labels = two_level((CHANNEL == "ussd").count())
    assert labels.program == (Step("measure", 0), Step("constant", 1.0), Step("equal"))
    moments = plan_of(f=as_of.since(LOANS.last("due_at").max())).features[0]
    assert [step.op for step in moments.program] == ["request", "measure", "subtract", "constant", "divide"]


def test_a_feature_over_keys_is_one_like_any_other() -> None:
    loans = OPENED.count(reason="DEBT", description="Loans")
    plan = plan_of(loans=loans, each=Repayment.by("consumer").count("90d") / loans)
    assert [(spec.unit, spec.reason) for spec in plan.features] == [("keys", "DEBT"), ("ratio", None)]


def test_keys_may_be_optional_or_categories() -> None:
    by_channel = Repayment.by("consumer").per("channel").sum("amount")
    assert two_level(by_channel.max())[0].aggregate == "max"
    naira = Sale.by("merchant").where(Sale.amount.currency_is("NGN"))
    plan = plan_of(f=naira.per("consumer").sum("amount", "90d").max())
    assert plan.timelines["merchant"].fields["sale"][1] == Slot(field="consumer", coding="hash", values=None)


def test_filters_with_the_application_stay_with_their_number() -> None:
    larger = LoanOpened.by("consumer").where(LoanOpened.principal > application.amount).per("loan")
    _, per = two_level((larger.count() + PAID.count()).max())
    assert [len(inner.given) for inner in per.inner] == [1, 0]


FAULTS: list[tuple[Callable[[], object], str]] = [
    (lambda: Repayment.by("consumer").per("lone"), "Repayment has no field 'lone'; did you mean 'loan'?"),
    (
        lambda: Repayment.by("consumer").per("amount"),
        r"per('amount'): Repayment.amount is a money, expected one of entity",
    ),
    (lambda: Sale.by("merchant").per("buyer_gender"), "Sale.buyer_gender is protected"),
    (
        lambda: PAID.last("bank", values={"a"}),  # type: ignore[arg-type]
        "repayment.bank: expected a list of texts in values=, whose order a plan",
    ),
    (lambda: PAID.sum("channel"), "Repayment.channel is a category, expected one of money"),
    (lambda: PAID.sum("amount", "10 events"), "sum by key: expected a window of time such as '90d', got '10 events'"),
    (lambda: PAID.count("this month"), "count by key: expected a window of time"),
    (lambda: PAID.count("30"), "expected a window such as '30d'"),
    (lambda: PAID.last("bank"), "repayment.bank is a category without declared values"),
    (lambda: Sale.by("merchant").per("consumer").sum("amount"), "sale.amount mixes currencies"),
    (lambda: CHANNEL.sum(), "sum over keys: a category is no number; compare it first, x == 'value'"),
    (lambda: CHANNEL == "ap", "'ap' is not among the category's values; did you mean 'app'?"),
    (lambda: LOANS.last("due_at").sum(), "sum over keys: a moment has only a min and a max"),
    (lambda: REPAID + PAID.count() + PAID.time_since_last(), "cannot add NGN minor units and seconds"),
    (lambda: REPAID & OPENED, "& | ~ combine comparisons, got an integer in NGN minor units"),
    (
        lambda: REPAID + LoanOpened.by("consumer").per("application_id").sum("principal"),
        "combine where entity and key are the same, got consumer by loan and consumer by application_id",
    ),
    (
        lambda: REPAID + Repayment.by("consumer", via="consumer").per("loan").count(),
        "got consumer by loan and consumer via consumer by loan",
    ),
    (lambda: REPAID + Repayment.by("consumer").sum("amount"), "a number by key meets only numbers by the same key"),  # type: ignore[operator]
    (lambda: REPAID + "x", "a text is compared with a category by == or !="),  # type: ignore[operator]
    (
        lambda: Transfer.by("sender").per("receiver").sum("amount") + REPAID,
        "got consumer by receiver and consumer by loan",
    ),
]


@pytest.mark.parametrize(("define", "message"), FAULTS, ids=[message[:50] for _, message in FAULTS])
def test_what_has_no_meaning_by_key_is_refused_when_written(define: Callable[[], object], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        define()
    assert message in str(caught.value)


def test_a_number_by_key_has_no_truth_value_and_says_what_it_is() -> None:
    assert repr(REPAID) == "ByKey(consumer by loan)"
    with pytest.raises(TypeError, match="has no truth value"):
        assert REPAID > 0


def test_a_program_by_key_too_deep_for_the_stack_is_refused() -> None:
    deep: ByKey = REPAID
    for _ in range(40):
        deep = OPENED - deep
    with pytest.raises(DefinitionError, match=r"\$\.f: needs a stack of 41 values, at most 32"):
        plan_of(f=deep.sum())
