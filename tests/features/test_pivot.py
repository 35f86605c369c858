"""A pivot is a filter for each value and a column for each, with the names that a reader expects."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.features.lender import LoanApplication, LoanOpened, Repayment, Sale, plan_of

from obligor.errors import DefinitionError
from obligor.events.schema import Registry
from obligor.features import Category, Entity, Event, application, compile_plan
from obligor.features.measures import SinceWindow
from obligor.features.pivot import Pivot, label_in_names

MINE = Repayment.by("consumer")
BY_CHANNEL = MINE.pivot("channel")


def test_each_value_is_a_filter_and_a_column() -> None:
    plan = plan_of(spent=BY_CHANNEL.sum("amount", "30d", "90d", reason="SPENDING"))
    assert plan.names == [
        "spent_app_30d", "spent_app_90d", "spent_ussd_30d", "spent_ussd_90d", "spent_branch_30d", "spent_branch_90d",
    ]  # fmt: skip
    wheres = [selection.where for selection in plan.timelines["consumer"].selections]
    assert wheres == [{"field": "channel", "op": "==", "value": value} for value in ("app", "ussd", "branch")]
    assert [measure.selection for measure in plan.measures] == [0, 0, 1, 1, 2, 2]
    assert {spec.reason for spec in plan.features} == {"SPENDING"}


def test_the_field_may_be_given_as_itself_and_a_boolean_has_two_values() -> None:
    assert plan_of(n=MINE.pivot(Repayment.channel).count()).data == plan_of(n=BY_CHANNEL.count()).data
    plan = plan_of(n=MINE.pivot("late").count("7d"))
    assert plan.names == ["n_true", "n_false"]
    assert [selection.where for selection in plan.timelines["consumer"].selections] == [
        {"field": "late", "op": "==", "value": value} for value in (True, False)
    ]


def test_an_open_category_is_split_by_the_values_given() -> None:
    assert plan_of(n=MINE.pivot("bank", values=["Zenith", "First Bank"]).count()).names == ["n_zenith", "n_first_bank"]


def test_filters_before_and_after_and_windows_since_an_event_go_with_it() -> None:
    larger = Repayment.amount > 100
    before, after = MINE.where(larger).pivot("channel"), BY_CHANNEL.where(larger)
    firsts = [plan_of(n=one.count()).timelines["consumer"].selections[0].where["and"] for one in (before, after)]
    assert [sorted(part["field"] for part in parts) for parts in firsts] == [["amount", "channel"]] * 2
    since = plan_of(n=MINE.since(LoanOpened.by("consumer")).pivot("channel").count())
    assert all(isinstance(measure.window, SinceWindow) for measure in since.measures)
    given = plan_of(n=BY_CHANNEL.where(Repayment.amount > application.amount).count())
    assert [len(measure.given) for measure in given.measures] == [1, 1, 1]


def test_every_aggregate_works_value_by_value() -> None:
    late = Repayment.late == True  # noqa: E712
    plan = plan_of(
        share=BY_CHANNEL.share(late, "30d"),
        range=BY_CHANNEL.range("amount"),
        streak=BY_CHANNEL.streak(late),
        top=BY_CHANNEL.last_k("fee", 2),
        gap=BY_CHANNEL.mean_gap("90d", unit="days"),
        change=BY_CHANNEL.count("30d").change(),
    )
    assert plan.names[:3] == ["share_app", "share_ussd", "share_branch"]
    assert plan.names[9:15] == ["top_app_1", "top_app_2", "top_ussd_1", "top_ussd_2", "top_branch_1", "top_branch_2"]
    assert len(plan.names) == 3 * 7


def test_the_share_of_each_value_is_arithmetic() -> None:
    share = BY_CHANNEL.sum("amount", "30d") / MINE.sum("amount", "30d")
    assert plan_of(share=share).names == ["share_app", "share_ussd", "share_branch"]
    assert plan_of(app=share["app"]).names == ["app"]


class Odd(Event):
    consumer = Entity()
    kind_of = Category("A b", "a-b", "c")
    none = Category("!", "x")


FAULTS: list[tuple[Callable[[], Pivot], str]] = [
    (lambda: MINE.pivot("amount"), "pivot: repayment.amount: expected a category or a boolean, got a money"),
    (lambda: MINE.pivot("loan"), "expected a category or a boolean, got an entity"),
    (lambda: MINE.pivot("bank"), "repayment.bank is a category without declared values"),
    (
        lambda: MINE.pivot("bank", values={"a"}),  # type: ignore[arg-type]
        "repayment.bank: expected a list of texts in values=, whose order a plan",
    ),
    (lambda: MINE.pivot("chanel"), "Repayment has no field 'chanel'; did you mean 'channel'?"),
    (lambda: MINE.pivot(Sale.items), "sale.items is no field of Repayment"),
    (lambda: MINE.pivot("channel", values=["app"]), "values= is for a category that does not declare its own"),
    (lambda: Sale.by("merchant").pivot("buyer_gender"), "sale.buyer_gender is protected: it never enters features"),
    (lambda: Odd.by("consumer").pivot("kind_of"), "the value 'a-b' would make a column name like that of 'A b'"),
    (lambda: Odd.by("consumer").pivot("none"), "the value '!' would make a column name of no letter or digit"),
]


@pytest.mark.parametrize(("define", "message"), FAULTS, ids=[message[:50] for _, message in FAULTS])
def test_what_cannot_be_split_is_refused_when_written(define: Callable[[], Pivot], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        define()
    assert message in str(caught.value)


def test_labels_are_spelled_plainly() -> None:
    assert [label_in_names(text) for text in ("30d before 30d", "Über-Weisung", "10 events")] == [
        "30d_before_30d", "ber_weisung", "10_events",
    ]  # fmt: skip


def test_a_column_named_twice_is_found() -> None:
    app = MINE.where(Repayment.channel == "app").count()
    with pytest.raises(DefinitionError, match="two features are named 'n_app'"):
        compile_plan({"n_app": app, "n": BY_CHANNEL.count()}, Registry([LoanApplication, Repayment]), LoanApplication)
