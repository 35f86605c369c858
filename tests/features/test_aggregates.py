"""Every aggregate: what it compiles to, of what kind it is, and what it refuses where it is written."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable

import pytest
from tests.features.lender import LoanApplication, LoanOpened, Repayment, Sale, plan_of
from tests.features.test_compilation import run

from obligor.errors import BadInput, DefinitionError
from obligor.events.schema import Registry
from obligor.features import Category, Entity, Event, Feature, Plan, application, compile_plan, delay
from obligor.features.expressions import kind_of
from obligor.features.kinds import Kind
from obligor.features.measures import DENSE_VALUES_MAX, TimeWindow, slot_of

MINE = Repayment.by("consumer")
EUROS = Sale.by("merchant").where(Sale.amount.currency_is("EUR"))
DAY = 86_400_000_000
LATE = Repayment.late == True  # noqa: E712
CHANNELS = ("app", "ussd", "branch")

# definition, aggregate, (field, coding) of its slot, parameters, kind
MEASURES: list[tuple[Feature, str, tuple[str, str] | None, tuple[int | float, ...], Kind]] = [
    (MINE.sample_std("amount"), "sample_std", ("amount", "integer"), (), Kind("real", "NGN minor units")),
    (MINE.nth("amount", 3), "nth_last", ("amount", "integer"), (3,), Kind("integer", "NGN minor units")),
    (MINE.nth("channel", 2), "nth_last", ("channel", "vocabulary"), (2,), Kind("category", "", CHANNELS)),
    (MINE.mean_gap(), "mean_gap", None, (), Kind("real", "seconds")),
    (MINE.std_gap(unit="hours"), "std_gap", None, (), Kind("real", "hours")),
    (MINE.longest_gap(unit="days"), "longest_gap", None, (), Kind("real", "days")),
    (MINE.most_frequent("channel"), "most_frequent", ("channel", "vocabulary"), (1,), Kind("category", "", CHANNELS)),
    (MINE.most_frequent("amount"), "most_frequent", ("amount", "integer"), (1,), Kind("integer", "NGN minor units")),
    (MINE.most_frequent("fee"), "most_frequent", ("fee", "integer"), (1,), Kind("real", "", None, 2)),
    (MINE.most_frequent("late"), "most_frequent", ("late", "integer"), (1,), Kind("boolean")),
    (
        MINE.most_frequent("bank", values=["a", "b"]),
        "most_frequent",
        ("bank", "vocabulary"),
        (1,),
        Kind("category", "", ("a", "b")),
    ),
    (MINE.top_share("loan"), "top_share", ("loan", "hash"), (1,), Kind("real", "ratio")),
    (MINE.top_share("channel", k=2), "top_share", ("channel", "vocabulary"), (2,), Kind("real", "ratio")),
    (MINE.entropy("bank"), "entropy", ("bank", "hash"), (), Kind("real", "bits")),
    (MINE.entropy("bank", values=["a"]), "entropy", ("bank", "vocabulary"), (), Kind("real", "bits")),
    (MINE.distinct("loan"), "distinct", ("loan", "hash"), (), Kind("integer", "values")),
    (MINE.distinct("channel"), "distinct", ("channel", "vocabulary"), (), Kind("integer", "values")),
    (MINE.quantile("amount", 1), "quantile", ("amount", "integer"), (1.0,), Kind("real", "NGN minor units")),
    (MINE.median("fee"), "quantile", ("fee", "integer"), (0.5,), Kind("real", "", None, 2)),
    (MINE.slope("amount"), "slope", ("amount", "integer"), (), Kind("real", "NGN minor units per day")),
    (MINE.slope("fee"), "slope", ("fee", "integer"), (), Kind("real", "per day", None, 2)),
    (MINE.decayed_count("30d"), "decayed_count", None, (30 * DAY, DAY), Kind("real", "events")),
    (
        EUROS.decayed_sum("amount", "12h", step="1h"),
        "decayed_sum",
        ("amount", "integer"),
        (DAY // 2, DAY // 24),
        Kind("real", "EUR minor units"),
    ),
    (MINE.decayed_sum("late", "7d"), "decayed_sum", ("late", "integer"), (7 * DAY, DAY), Kind("real", "events")),
    (
        LoanOpened.by("consumer").median(delay(LoanOpened.due_at)),
        "quantile",
        ("due_at.delay", "integer"),
        (0.5,),
        Kind("real", "microseconds"),
    ),
]


@pytest.mark.parametrize(
    ("definition", "aggregate", "slot", "parameters", "kind"),
    MEASURES,
    ids=[f"{i}-{row[1]}" for i, row in enumerate(MEASURES)],
)
def test_an_aggregate_is_one_measure(
    definition: Feature,
    aggregate: str,
    slot: tuple[str, str] | None,
    parameters: tuple[int | float, ...],
    kind: Kind,
) -> None:
    plan = plan_of(f=definition)
    [measure], [spec] = plan.measures, plan.features
    found = slot_of(plan.timelines[measure.timeline], measure.selection, measure.slot)
    assert (measure.aggregate, measure.parameters, measure.scale) == (aggregate, parameters, kind.scale)
    assert (None if found is None else (found.field, found.coding)) == slot
    assert kind_of(definition.columns[()]) == kind
    assert (spec.type, spec.unit, spec.values) == (kind.type, kind.unit, kind.values)


def test_a_ranking_has_a_column_for_each_place() -> None:
    plan = plan_of(
        last=MINE.last_k("amount", 3), often=MINE.top_k("channel", 2, "30d", "90d"), one=MINE.last_k("amount", 1)
    )
    assert plan.names == [
        "last_1", "last_2", "last_3", "often_1_30d", "often_1_90d", "often_2_30d", "often_2_90d", "one_1",
    ]  # fmt: skip
    parts = [(measure.aggregate, measure.parameters) for measure in plan.measures]
    assert parts[:3] == [("nth_last", (1,)), ("nth_last", (2,)), ("nth_last", (3,))]
    assert parts[3:] == [("most_frequent", (n,)) for n in (1, 1, 2, 2)]
    assert plan.features[3].values == CHANNELS


def test_a_streak_has_a_selection_of_the_facts_that_meet_its_condition() -> None:
    app = MINE.where(Repayment.channel == "app")
    plan = plan_of(now=app.streak(LATE), most=app.longest_streak(LATE, "90d"))
    now, most = plan.measures
    selections = plan.timelines["consumer"].selections
    assert (now.selection, now.condition, most.condition) == (0, 1, 1)
    assert selections[1].where == {"and": [selections[0].where, {"field": "late", "op": "==", "value": True}]}
    assert (now.slot, plan.features[0].unit) == (None, "events")


def test_gaps_are_measured_in_seconds_and_shown_in_their_unit() -> None:
    specs = plan_of(gap=MINE.mean_gap(unit="days"), longest=MINE.longest_gap(unit="hours"), s=MINE.std_gap()).features
    assert [run(spec, [172_800.0] * 3) for spec in specs] == [2.0, 48.0, 172_800.0]


def test_range_is_the_greatest_less_the_least() -> None:
    plan = plan_of(f=MINE.range("amount", "30d"))
    assert [measure.aggregate for measure in plan.measures] == ["max", "min"]
    assert run(plan.features[0], [9.0, 2.0]) == 7.0
    assert plan.features[0].unit == "NGN minor units"


# count of those that meet the condition, count of all: any, all, share
CONDITIONS = [((0, 0), (0, math.nan, math.nan)), ((0, 4), (0, 0, 0)), ((1, 4), (1, 0, 0.25)), ((4, 4), (1, 1, 1))]


@pytest.mark.parametrize(("counts", "expected"), CONDITIONS)
def test_any_all_and_share_are_made_of_counts(counts: tuple[int, int], expected: tuple[float, ...]) -> None:
    plan = plan_of(share=MINE.share(LATE, "30d"), any=MINE.any(LATE, "30d"), all=MINE.all(LATE, "30d"))
    assert len(plan.measures) == 2
    share, either, every = (run(spec, [float(n) for n in counts]) for spec in plan.features)
    assert [either, every, share] == pytest.approx(list(expected), nan_ok=True)
    assert [(spec.type, spec.unit) for spec in plan.features] == [("real", "ratio"), ("boolean", ""), ("boolean", "")]


def test_a_condition_may_mention_the_application_where_it_filters() -> None:
    larger = Repayment.amount > application.amount
    plan = plan_of(share=MINE.share(larger))
    assert [len(measure.given) for measure in plan.measures] == [1, 0]
    with pytest.raises(DefinitionError, match="streak: its condition looks at the facts alone"):
        MINE.streak(larger)
    assert plan_of(n=MINE.where(larger).streak(LATE)).measures[0].given, "it may filter the facts of a streak"


def test_a_vocabulary_too_large_to_count_by_value_is_told_apart_by_hash() -> None:
    small, large = ([f"v{i}" for i in range(n)] for n in (DENSE_VALUES_MAX, DENSE_VALUES_MAX + 1))

    class Visit(Event):
        consumer = Entity()
        page = Category(*small)
        link = Category(*large)

    mine = Visit.by("consumer")
    features = {"a": mine.distinct("page"), "b": mine.distinct("link"), "c": mine.most_frequent("link")}
    plan = compile_plan(features, Registry([LoanApplication, Visit]), LoanApplication)
    slots = [slot_of(plan.timelines["consumer"], measure.selection, measure.slot) for measure in plan.measures]
    assert [slot.coding for slot in slots if slot is not None] == ["vocabulary", "hash", "vocabulary"]


FAULTS: list[tuple[Callable[[], object], str]] = [
    (
        lambda: MINE.most_frequent("loan"),
        r"most_frequent\('loan'\): Repayment.loan is an entity, expected one of money",
    ),
    (lambda: MINE.most_frequent("note"), "Repayment.note is a text"),
    (lambda: MINE.most_frequent("bank"), "repayment.bank is a category without declared values"),
    (lambda: MINE.entropy("note"), "Repayment.note is a text, expected one of .*; such fields here: consumer, loan"),
    (lambda: MINE.nth("note", 1), r"nth\('note'\): Repayment.note is a text"),
    (lambda: MINE.nth("amount", 0), "nth: expected a whole number from 1 to 4096, got 0"),
    (lambda: MINE.last_k("amount", 21), "last_k: expected a whole number from 1 to 20, got 21"),
    (lambda: MINE.top_k("channel", 1.5), "top_k: expected a whole number from 1 to 20, got 1.5"),  # type: ignore[arg-type]
    (lambda: MINE.top_share("loan", k=0), "top_share: expected a whole number from 1 to 4096, got 0"),
    (lambda: MINE.quantile("amount", 1.5), "quantile: expected a share from 0 to 1, such as 0.9, got 1.5"),
    (lambda: MINE.quantile("amount", "90d"), "expected a share from 0 to 1, .* got '90d'"),  # type: ignore[arg-type]
    (lambda: MINE.quantile("late", 0.5), "Repayment.late is a boolean, expected one of money, decimal, integer"),
    (lambda: MINE.range("channel"), r"range\('channel'\): Repayment.channel is a category"),
    (lambda: LoanOpened.by("consumer").slope("due_at"), "LoanOpened.due_at is a timestamp"),
    (lambda: Sale.by("merchant").entropy("amount"), "sale.amount mixes currencies"),
    (lambda: Sale.by("merchant").top_share("amount"), "sale.amount mixes currencies"),
    (lambda: Sale.by("merchant").median("amount"), "sale.amount mixes currencies"),
    (lambda: Sale.by("merchant").slope("amount"), "sale.amount mixes currencies"),
    (lambda: Sale.by("merchant").decayed_sum("amount", "7d"), "sale.amount mixes currencies"),
    (lambda: Sale.by("merchant").nth("amount", 2), "sale.amount mixes currencies"),
    (lambda: Sale.by("merchant").most_frequent("buyer_gender"), "sale.buyer_gender is protected"),
    (lambda: Sale.by("merchant").entropy("buyer_gender"), "sale.buyer_gender is protected"),
    (lambda: EUROS.slope("amount") + MINE.slope("amount"), "cannot add amounts in different currencies"),
    (lambda: EUROS.slope("amount") / MINE.sum("amount"), "cannot divide amounts in different currencies"),
    (lambda: MINE.mean_gap(unit="weeks"), "unknown unit of time 'weeks'"),  # type: ignore[arg-type]
    (lambda: MINE.streak("late"), "where: expected a comparison such as Repayment.amount == ..., got 'late'"),  # type: ignore[arg-type]
    (lambda: MINE.any(Repayment.channel == "ap"), "expected one of app, ussd, branch, got 'ap'"),
    (lambda: MINE.decayed_count("soon"), "expected a length such as '90s'"),
    (lambda: MINE.decayed_count("0d"), "expected a half-life and a step above 0, got '0d' and '1d'"),
    (lambda: MINE.decayed_count("7d", "10 events"), "decayed_count: expected windows of time"),
    (lambda: MINE.decayed_sum("amount", "7d", "this month"), "decayed_sum: expected windows of time"),
    (lambda: MINE.since(MINE).decayed_count("7d"), "decayed_count: expected windows of time"),
    (
        lambda: MINE.decayed_count("65d"),
        "over a lifetime the half-life is at most 64 steps, so that what is older than",
    ),
    (lambda: MINE.decayed_count("1d", "365d", step="1h"), "reaches back more than 4096 steps; take a longer step="),
    (lambda: MINE.decayed_count("1d", "4096h before 1h", step="1h"), "reaches back more than 4096 steps"),
    (
        lambda: MINE.last("bank", values={"a", "b"}),  # type: ignore[arg-type]
        r"^repayment.bank: expected a list of texts in values=, whose order a plan keeps, got {'[ab]', '[ab]'}",
    ),
    (lambda: MINE.entropy("bank", values=frozenset("a")), r"in values=, whose order a plan keeps, got frozenset"),  # type: ignore[arg-type]
    (lambda: MINE.entropy("bank", values="access"), "expected a list of texts in values=, .* got 'access'"),
    (lambda: MINE.distinct("loan", values=["a"]), "values= is for a category that does not declare its own"),
]


@pytest.mark.parametrize(("define", "message"), FAULTS, ids=[message[:50] for _, message in FAULTS])
def test_a_fault_is_found_when_it_is_written(define: Callable[[], object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        define()


def test_what_decays_may_reach_back_just_so_far() -> None:
    plan = plan_of(a=MINE.decayed_count("64d"), b=MINE.decayed_count("9w", "4096h", step="1h"))
    assert [measure.window for measure in plan.measures] == [
        TimeWindow(length_us=None, offset_us=0),
        TimeWindow(length_us=4096 * DAY // 24, offset_us=0),
    ]


def test_a_plan_that_reaches_further_back_is_refused() -> None:
    data = plan_of(a=MINE.decayed_count("64d"), b=MINE.decayed_count("9w", "4096h", step="1h")).data
    data = json.loads(json.dumps(data))
    for place, change in [(0, {"parameters": [64 * DAY + 1, DAY]}), (1, {"parameters": [DAY, DAY // 24 - 1]})]:
        tampered = copy.deepcopy(data)
        tampered["measures"][place] |= change
        with pytest.raises(BadInput, match=rf"measures\[{place}\]: a decayed_count with the parameters"):
            Plan.load(tampered)
