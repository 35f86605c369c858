"""What is wrong with a stream or an aggregate is said where it is written, with the nearest valid name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.features.lender import LoanApplication, LoanOpened, Repayment, Sale, Transfer, plan_of

from obligor.errors import DefinitionError
from obligor.features import Feature
from obligor.features.expressions import kind_of
from obligor.features.kinds import Kind
from obligor.features.measures import CalendarWindow, RowsWindow, SinceWindow, TimeWindow

MINE = Repayment.by("consumer")
DAY_US = 86_400_000_000

FAULTS: list[tuple[Callable[[], object], str]] = [
    (lambda: Repayment.by("consumr"), "Repayment has no entity 'consumr'; did you mean 'consumer'?"),
    (lambda: Repayment.by("amount"), "Repayment has no entity 'amount'; entity fields: consumer, loan"),
    (lambda: MINE.sum("amuont", "30d"), "Repayment has no field 'amuont'; did you mean 'amount'?"),
    (lambda: MINE.where(Repayment.chanel == "app"), "Repayment has no field 'chanel'; did you mean 'channel'?"),
    (lambda: MINE.where(Repayment.channel == "ap"), "expected one of app, ussd, branch, got 'ap'"),
    (lambda: MINE.where(Sale.items > 3), "Repayment has no field 'items'"),
    (lambda: MINE.where(LoanApplication.channel == "web"), "where: Repayment.channel is never 'web'"),
    (lambda: MINE.where(True), "expected a comparison such as Repayment.amount == ..., got True"),  # type: ignore[arg-type]
    (lambda: MINE.sum("channel", "30d"), "Repayment.channel is a category, expected one of money, decimal, integer"),
    (lambda: MINE.sum("channel", "30d"), "such fields here: amount, fee, late"),
    (lambda: MINE.mean("loan", "30d"), "Repayment.loan is an entity, expected one of money"),
    (lambda: MINE.last("note", "30d"), "Repayment.note is a text"),
    (lambda: MINE.distinct("note", "30d"), "Repayment.note is a text"),
    (lambda: MINE.sum(Sale.items, "30d"), "sale.items is no field of Repayment"),
    (lambda: MINE.last("bank"), "repayment.bank is a category without declared values"),
    (lambda: MINE.last("channel", values=["app"]), "values= is for a category that does not declare its own"),
    (lambda: LoanOpened.by("consumer").sum("due_at"), "LoanOpened.due_at is a timestamp, expected one of money"),
    (lambda: Sale.by("merchant").sum("amount", "7d"), r"sale.amount mixes currencies \(NGN, EUR\); choose one with"),
    (lambda: Sale.by("merchant").distinct("amount", "7d"), "sale.amount mixes currencies"),
    (
        lambda: Sale.by("merchant").where(Sale.amount > {"amount": 5, "currency": "EUR"}),
        "sale.amount mixes currencies",
    ),
    (
        lambda: Sale.by("merchant").where(Sale.amount.currency_is("NGN") | (Sale.items > 1)).sum("amount", "7d"),
        "sale.amount mixes currencies",
    ),
    (lambda: Sale.by("merchant").where(Sale.buyer_gender == "f"), "Sale.buyer_gender is protected"),
    (lambda: Sale.by("merchant").distinct("buyer_gender"), "sale.buyer_gender is protected: it never enters features"),
    (lambda: LoanApplication.by("consumer").last("phone"), "a text"),
    (lambda: LoanApplication.by("consumer").where(LoanApplication.phone == "1"), "LoanApplication.phone is personal"),
    (lambda: Repayment.by([]), r"Repayment.by: expected one entity or several different ones, got \[\]"),
    (lambda: Repayment.by(["loan", "loan"]), "expected one entity or several different ones, got"),
    (lambda: Repayment.by(["loan", "consumr"]), "Repayment has no entity 'consumr'; did you mean 'consumer'?"),
    (lambda: Repayment.by(["loan", "consumer"], via="loan"), "expected 2 fields in via, got 1"),
    (lambda: MINE.count("30"), "expected a window such as '30d' .*; got '30'; did you mean '30d'?"),
    (lambda: MINE.count(5), "expected a window such as .*; got 5"),  # type: ignore[arg-type]
    (lambda: MINE.since("loan_opened"), "since: expected facts, such as Wage"),  # type: ignore[arg-type]
    (lambda: MINE.since(Sale.by("merchant")), "expected facts of the same entity, consumer, got merchant"),
    (lambda: MINE.since(Transfer.by("sender", via="payer")), "same entity, consumer, got consumer via payer"),
    (lambda: MINE.since(MINE.since(MINE)), "the facts to count from are a type with a filter"),
    (lambda: MINE.since(LoanOpened.by("consumer")).count("7d"), "a window since an event takes no other, got '7d'"),
    (lambda: MINE.since(LoanOpened.by("consumer")).per("loan"), "numbers by key have windows of time, not since"),
    (lambda: MINE.count("7d", "1w"), "windows repeat: 7d, 1w"),
    (lambda: MINE.count("7d", monotone="up"), "monotone is 'increasing' or 'decreasing', got 'up'"),  # type: ignore[arg-type]
    (lambda: MINE.time_since_last(unit="day"), "unknown unit of time 'day'; did you mean 'days'?"),  # type: ignore[arg-type]
    (lambda: MINE.count("7d", reson="A"), "unknown note 'reson'; did you mean 'reason'?"),  # type: ignore[call-arg]
    (lambda: MINE.count("7d", scored=1), "scored: expected True or False, got 1"),  # type: ignore[arg-type]
    (lambda: MINE.count("7d", reason=5), "reason: expected text, got 5"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("define", "message"), FAULTS, ids=[message[:50] for _, message in FAULTS])
def test_a_fault_is_found_when_it_is_written(define: Callable[[], object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        define()


def _kind(feature: Feature) -> Kind:
    kind = kind_of(next(iter(feature.columns.values())))
    assert kind is not None
    return kind


KINDS = [
    (MINE.count("7d"), Kind("integer", "events")),
    (MINE.sum("amount", "7d"), Kind("integer", "NGN minor units")),
    (MINE.mean("amount", "7d"), Kind("real", "NGN minor units")),
    (MINE.max("fee", "7d"), Kind("real", "", None, 2)),
    (MINE.std("fee", "7d"), Kind("real", "", None, 2)),
    (MINE.sum("late", "7d"), Kind("integer", "events")),
    (MINE.mean("late", "7d"), Kind("real")),
    (MINE.last("late", "7d"), Kind("boolean")),
    (MINE.last("channel"), Kind("category", "", ("app", "ussd", "branch"))),
    (MINE.first("bank", values=["a", "b"]), Kind("category", "", ("a", "b"))),
    (MINE.distinct("loan"), Kind("integer", "values")),
    (MINE.time_since_last(), Kind("real", "seconds")),
    (MINE.time_since_first("30d", unit="days"), Kind("real", "days")),
    (Sale.by("merchant").where(Sale.amount.currency_is("EUR")).sum("amount"), Kind("integer", "EUR minor units")),
    (LoanOpened.by("consumer").last("due_at"), Kind("integer", "microseconds since 1970")),
]


@pytest.mark.parametrize(("feature", "kind"), KINDS, ids=[str(kind) for _, kind in KINDS])
def test_each_aggregate_knows_its_kind(feature: Feature, kind: Kind) -> None:
    assert _kind(feature) == kind


def test_windows_name_the_columns() -> None:
    assert MINE.sum("amount", "30d", "90d", "lifetime").windows == ("30d", "90d", "lifetime")
    assert MINE.sum("amount", "30d").windows == ()
    definition = MINE.count("36h", "8w", "lifetime", "30d before 30d", "10 events", "this month", "last week")
    plan = plan_of(n=definition)
    assert plan.names == [
        "n_36h", "n_8w", "n_lifetime", "n_30d_before_30d", "n_10_events", "n_this_month", "n_last_week",
    ]  # fmt: skip
    assert [measure.window for measure in plan.measures] == [
        TimeWindow(length_us=36 * 3_600_000_000, offset_us=0),
        TimeWindow(length_us=56 * DAY_US, offset_us=0),
        TimeWindow(length_us=None, offset_us=0),
        TimeWindow(length_us=30 * DAY_US, offset_us=30 * DAY_US),
        RowsWindow(rows=10),
        CalendarWindow(unit="month", back=0),
        CalendarWindow(unit="week", back=1),
    ]
    assert plan_of(idle=MINE.time_since_last()).measures[0].window == TimeWindow(length_us=None, offset_us=0)


def test_a_window_since_an_event_begins_at_the_last_of_another_stream() -> None:
    wage = Repayment.by("consumer").where(Repayment.channel == "app")
    plan = plan_of(n=MINE.where(Repayment.late == False).since(wage).sum("amount"))  # noqa: E712
    [measure] = plan.measures
    selections = plan.timelines["consumer"].selections
    assert isinstance(measure.window, SinceWindow)
    assert measure.selection is not None
    assert [selections[i].where for i in (measure.selection, measure.window.anchor)] == [
        {"field": "late", "op": "==", "value": False},
        {"field": "channel", "op": "==", "value": "app"},
    ]
    assert plan.names == ["n"]
    later = MINE.since(wage).where(Repayment.amount > 5)
    assert later.anchored is not None, "a filter does not end a window"


def test_entities_taken_together_have_one_timeline_however_they_are_written() -> None:
    one = Sale.by(["consumer", "merchant"]).count("90d")
    other = Sale.by([Sale.merchant, "consumer"]).where(Sale.amount.currency_is("EUR")).sum("amount")
    plan = plan_of(one=one, other=other)
    assert list(plan.timelines) == ["consumer x merchant"]
    timeline = plan.timelines["consumer x merchant"]
    assert timeline.entities == ("consumer", "merchant")
    assert [selection.by for selection in timeline.selections] == [("consumer", "merchant")] * 2
    assert {measure.via for measure in plan.measures} == {("consumer", "merchant")}
    assert plan_of(n=Sale.by(["consumer"]).count()).data == plan_of(n=Sale.by("consumer").count()).data


def test_filters_accumulate() -> None:
    stream = MINE.where(Repayment.channel == "app").where(Repayment.amount > 5, Repayment.late.not_null())
    assert stream.source.where is not None
    assert stream.source.where.to_json() == {
        "and": [
            {"field": "channel", "op": "==", "value": "app"},
            {"field": "amount", "op": ">", "value": 5},
            {"field": "late", "op": "not_null", "value": None},
        ]
    }
    assert MINE.where().source.where is None
    assert MINE.source.where is None  # a stream is never changed


def test_long_chains_of_conditions_do_not_nest() -> None:
    some = Repayment.amount == 0
    for amount in range(1, 100):
        some = some | (Repayment.amount == amount)
    stream = MINE.where(some & Repayment.late.not_null(), ~some)
    data = plan_of(n=stream.count("7d")).timelines["consumer"].selections[0].where
    assert [list(part) for part in data["and"]] == [["or"], ["field", "op", "value"], ["not"]]
    assert len(data["and"][0]["or"]) == 100


def test_fields_may_be_given_as_objects() -> None:
    by_name, by_field = Repayment.by("consumer").sum("amount"), Repayment.by(Repayment.consumer).sum(Repayment.amount)
    assert plan_of(f=by_name).data == plan_of(f=by_field).data
    assert Transfer.by("sender", via="consumer").source.via == ("consumer",)
    assert Sale.by(["merchant", "consumer"], via=["m", "c"]).source.via == ("c", "m")


def test_decisions_are_events_too() -> None:
    decided = LoanApplication.Decided
    approvals = decided.by("consumer").where(decided.outcome == "approve").count("30d")
    assert _kind(approvals) == Kind("integer", "events")
