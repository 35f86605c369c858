"""Expressions: elementwise over windows, typed, with units; what has no meaning is refused at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.features.lender import LoanOpened, Repayment, Sale, Transfer, plan_of

from obligor.errors import DefinitionError
from obligor.features import Feature, as_of, definitions, feature, maximum, minimum, request
from obligor.features.expressions import kind_of
from obligor.features.kinds import Kind
from obligor.features.measures import CalendarWindow, Step, TimeWindow

REPAID = Repayment.by("consumer").sum("amount", "30d", "90d", reason="REPAYMENT")
COUNT = Repayment.by("consumer").count("30d", "90d")
SENT = Transfer.by("sender").sum("amount", "30d", "90d")
CHANNEL = Repayment.by("consumer").last("channel")
MINE = Repayment.by("consumer")
IDLE = MINE.time_since_last()
KINDS_OF_CHANNEL = MINE.pivot("channel").count()
DUES = LoanOpened.by("consumer")
DUE = LoanOpened.by("consumer").last("due_at")

FAULTS: list[tuple[Callable[[], object], str]] = [
    (lambda: REPAID + SENT, "cannot add amounts in different currencies: NGN minor units and EUR minor units"),
    (lambda: REPAID / SENT, "cannot divide amounts in different currencies"),
    (lambda: REPAID > SENT, "cannot compare amounts in different currencies"),
    (lambda: maximum(REPAID, SENT), "cannot take the maximum of amounts in different currencies"),
    (lambda: REPAID - IDLE, "cannot subtract NGN minor units and seconds"),
    (lambda: CHANNEL + 1, "a category has no arithmetic; compare it with one of its values, == or !="),
    (lambda: CHANNEL == "ap", "'ap' is not among the category's values; did you mean 'app'?"),
    (lambda: COUNT == "app", "cannot compare an integer in events with the text 'app'"),
    (lambda: CHANNEL.fill(0), "cannot fill a category with 0"),
    (lambda: CHANNEL.fill("other"), "'other' is not among the category's values"),
    (lambda: COUNT.fill("app"), "cannot fill an integer in events with 'app'"),
    (lambda: DUE + 5, "cannot add a moment; measure the time to as_of with as_of.since"),
    (lambda: as_of.since(COUNT["30d"]), "as_of.since needs a moment, .* got an integer in events"),
    (lambda: as_of.since(DUE, "weeks"), "unknown unit of time 'weeks'"),  # type: ignore[arg-type]
    (lambda: request.age("born", "day"), "unknown unit of time 'day'; did you mean 'days'?"),  # type: ignore[arg-type]
    (lambda: REPAID["60d"], "no window '60d' here; did you mean"),
    (lambda: IDLE["30d"], "no window '30d' here; valid: none"),
    (lambda: REPAID / Repayment.by("consumer").count("7d", "30d"), "windows differ: 30d, 90d and 7d, 30d; choose one"),
    (lambda: REPAID + float("nan"), "expected a finite number within 2\\^53, got nan"),
    (lambda: REPAID + 2**60, "expected a finite number"),
    (lambda: REPAID + None, "expected a feature or a number, got None"),  # type: ignore[operator]
    (lambda: REPAID + True, "expected a feature or a number, got True"),
    (lambda: CHANNEL > "app", "a text is compared with a category by == or !=, and nothing else"),  # type: ignore[operator]
    (lambda: COUNT + "app", "a text is compared with a category by == or !="),  # type: ignore[operator]
    (lambda: Repayment.by("consumer").per("loan").count() == COUNT, "a number by key meets only numbers by the same"),  # type: ignore[operator]
    (lambda: feature(MINE.per("loan").count()), "feature: expected a feature, got ByKey"),  # type: ignore[arg-type]
    (lambda: as_of.since(MINE), "as_of.since: expected a feature that is a moment, got Stream"),  # type: ignore[arg-type]
    (lambda: maximum(1, 2), "maximum: expected a feature and a feature or number, got 1 and 2"),  # type: ignore[call-overload]
    (lambda: KINDS_OF_CHANNEL + MINE.pivot("late").count(), "values differ: app, ussd, branch and true, false; choose"),
    (lambda: KINDS_OF_CHANNEL["web"], "no value 'web' here; valid: app, branch, ussd"),
    (lambda: MINE.pivot("channel").count("7d", "30d")["30"], "no value or window '30' here; did you mean '30d'?"),
    (
        lambda: request("referrer", values={"a"}),  # type: ignore[arg-type]
        r"request\('referrer'\): expected a list of texts in values=.* got {'a'}",
    ),
    (lambda: request("amount").previous(), "previous: nothing in it has a window"),
    (lambda: MINE.count().previous(), "there is no window before the lifetime; use a window such as '30d'"),
    (lambda: MINE.count("this month").change(), "this month is not over, so no month before it compares; use 'last mo"),
    (lambda: MINE.count("5 events").previous(), "there is no window before the newest 5 events"),
    (lambda: MINE.since(DUES).count().previous(), "there is no window before one since an event; use a window of time"),
    (lambda: COUNT & REPAID, "combine comparisons, got an integer in events; compare it first"),
]


@pytest.mark.parametrize(("define", "message"), FAULTS, ids=[message[:50] for _, message in FAULTS])
def test_what_has_no_meaning_is_refused_when_written(define: Callable[[], object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        define()


KINDS = [
    (REPAID + REPAID, Kind("integer", "NGN minor units")),
    (REPAID - 100, Kind("integer", "NGN minor units")),
    (100 - REPAID, Kind("integer", "NGN minor units")),
    (-REPAID, Kind("integer", "NGN minor units")),
    (REPAID * 0.5, Kind("real", "NGN minor units")),
    (REPAID / 100, Kind("real", "NGN minor units")),
    (REPAID / COUNT, Kind("real", "NGN minor units")),
    (REPAID / REPAID, Kind("real", "ratio")),
    (COUNT / COUNT, Kind("real", "ratio")),
    (COUNT / 7, Kind("real", "events")),
    (1 / REPAID, Kind("real", "per NGN minor units")),
    (REPAID / IDLE, Kind("real", "NGN minor units per seconds")),
    (COUNT * COUNT, Kind("integer")),
    (REPAID > 5, Kind("boolean")),
    (IDLE / 86_400 > 30, Kind("boolean")),
    (CHANNEL == "app", Kind("boolean")),
    ((COUNT > 5) & ~(REPAID != 0), Kind("boolean")),
    (minimum(COUNT, 10), Kind("integer", "events")),
    (maximum(0.5, COUNT), Kind("real", "events")),
    (IDLE.fill(0), Kind("real", "seconds")),
    (COUNT.fill(0.5), Kind("real", "events")),
    ((COUNT > 5).fill(0), Kind("boolean")),
    (as_of.since(DUE, "hours"), Kind("real", "hours")),
    (as_of.hour() + 1, Kind("integer")),
    (request.age("born"), Kind("real", "days")),
    (request("amount") / REPAID > 2, Kind("boolean")),
]


@pytest.mark.parametrize(("expression", "kind"), KINDS, ids=[f"{i}-{kind}" for i, (_, kind) in enumerate(KINDS)])
def test_kinds_follow_from_the_parts(expression: Feature, kind: Kind) -> None:
    assert {kind_of(node) for node in expression.columns.values()} == {kind}


def test_what_depends_on_the_application_is_known_when_it_is() -> None:
    assert kind_of((request("amount") / REPAID).columns["30d",]) is None
    plan = plan_of(reach=request("amount") / REPAID)
    assert [(f.type, f.unit) for f in plan.features] == [("real", "ratio"), ("real", "ratio")]


def test_windows_go_through_arithmetic() -> None:
    assert (REPAID / COUNT).windows == ("30d", "90d")
    assert (request("amount") / REPAID).windows == ("30d", "90d")
    assert (REPAID["30d"] / REPAID["90d"]).windows == ()
    assert [one.windows for one in REPAID] == [(), ()]
    short, long = REPAID
    assert plan_of(share=short / long).names == ["share"]


def test_columns_go_through_arithmetic_by_value_place_and_window() -> None:
    by_channel = MINE.pivot("channel").count("7d", "30d")
    total = MINE.count("7d", "30d")
    assert (by_channel / total).axes == {"value": ("app", "ussd", "branch"), "window": ("7d", "30d")}
    assert (total / by_channel).axes == (by_channel / total).axes
    assert (by_channel["app"] / total).axes == {"window": ("7d", "30d")}
    assert (by_channel["30d"] / total).axes == by_channel.axes
    assert (KINDS_OF_CHANNEL * MINE.count("7d", "30d")).axes == by_channel.axes
    assert [one.axes for one in by_channel] == [{"window": ("7d", "30d")}] * 3
    newest = MINE.pivot("late").last_k("amount", 2, "30d", "90d")
    assert list(newest.axes) == ["value", "place", "window"]
    assert newest[2].axes == {"value": ("true", "false"), "window": ("30d", "90d")}
    names = plan_of(share=by_channel / total, newest=newest["true"]).names
    assert names[:3] == ["share_app_7d", "share_app_30d", "share_ussd_7d"]
    assert names[6:] == ["newest_1_30d", "newest_1_90d", "newest_2_30d", "newest_2_90d"]


def _windows(definition: Feature) -> list[object]:
    return [measure.window for measure in plan_of(f=definition).measures]


def test_the_window_before_is_as_long_and_ends_where_this_one_begins() -> None:
    day = 86_400_000_000
    assert _windows(MINE.count("30d").previous()) == [TimeWindow(length_us=30 * day, offset_us=30 * day)]
    assert _windows(MINE.count("7d before 30d").previous()) == [TimeWindow(length_us=7 * day, offset_us=37 * day)]
    assert _windows(MINE.count("last month").previous()) == [CalendarWindow(unit="month", back=2)]
    late = MINE.per("loan").sum("late", "30d")
    [measure] = plan_of(f=(late > 0).count().previous()).measures
    assert measure.per is not None
    assert measure.per.inner[0].window == TimeWindow(length_us=30 * day, offset_us=30 * day)
    assert _windows(as_of.since(DUES.last("due_at", "30d")).fill(0).previous()) == [
        TimeWindow(length_us=30 * day, offset_us=30 * day)
    ]
    share = request("amount") / MINE.sum("amount", "30d", "90d")
    assert share.previous().windows == ("30d", "90d")


def test_period_over_period_is_made_of_the_two() -> None:
    plan = plan_of(
        ratio=MINE.sum("amount", "30d").ratio_to_previous(reason="REPAYMENT"),
        change=MINE.sum("amount", "30d").change(description="Growth"),
    )
    assert [(spec.unit, spec.reason, spec.description) for spec in plan.features] == [
        ("ratio", "REPAYMENT", ""),
        ("ratio", None, "Growth"),
    ]
    ratio, change = (spec.program for spec in plan.features)
    assert ratio == (Step("measure", 0), Step("measure", 1), Step("divide"))
    assert change == (Step("measure", 0), Step("measure", 1), Step("subtract"), Step("measure", 1), Step("divide"))


def test_notes_stay_where_the_number_does() -> None:
    assert REPAID["30d"].notes == {"reason": "REPAYMENT"}
    assert REPAID.fill(0, description="With zero for none").notes == {
        "reason": "REPAYMENT",
        "description": "With zero for none",
    }
    assert (REPAID / 2).notes == {}  # another number needs its own
    assert feature(REPAID / 2, scored=False).notes == {"scored": False}
    assert feature(REPAID, reason="OTHER").notes == {"reason": "OTHER"}


def test_a_feature_has_no_truth_value() -> None:
    with pytest.raises(TypeError, match="a feature has no truth value"):
        assert COUNT > 0


def test_definitions_are_the_public_features_of_a_namespace() -> None:
    namespace = {"repaid": REPAID, "_part": COUNT, "request": request, "as_of": as_of, "Repayment": Repayment, "n": 1}
    assert definitions(namespace) == {"repaid": REPAID}


def test_filtered_currency_goes_with_its_own() -> None:
    euros = Sale.by("merchant").where(Sale.amount.currency_is("EUR")).sum("amount", "30d", "90d")
    assert kind_of((euros + SENT).columns["30d",]) == Kind("integer", "EUR minor units")
    with pytest.raises(DefinitionError, match="different currencies"):
        euros + REPAID
