"""Expressions: elementwise over windows, typed, with units; what has no meaning is refused at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.features.lender import LoanOpened, Repayment, Sale, Transfer, plan_of

from obligor.errors import DefinitionError
from obligor.features import Feature, as_of, definitions, feature, maximum, minimum, request
from obligor.features.expressions import Kind, kind_of

REPAID = Repayment.by("consumer").sum("amount", "30d", "90d", reason="REPAYMENT")
COUNT = Repayment.by("consumer").count("30d", "90d")
SENT = Transfer.by("sender").sum("amount", "30d", "90d")
CHANNEL = Repayment.by("consumer").last("channel")
IDLE = Repayment.by("consumer").time_since_last()
DUE = LoanOpened.by("consumer").last("due_at")

FAULTS: list[tuple[Callable[[], object], str]] = [
    (lambda: REPAID + SENT, "cannot add amounts in different currencies: NGN minor units and EUR minor units"),
    (lambda: REPAID / SENT, "cannot divide amounts in different currencies"),
    (lambda: REPAID > SENT, "cannot compare amounts in different currencies"),
    (lambda: maximum(REPAID, SENT), "cannot take the maximum of amounts in different currencies"),
    (lambda: REPAID - IDLE, "cannot subtract NGN minor units and seconds"),
    (lambda: CHANNEL + 1, "a category has no arithmetic; compare it with one of its values, == or !="),
    (lambda: CHANNEL == "ap", "'ap' is not among the category's values; did you mean 'app'?"),
    (lambda: COUNT == "app", "cannot compare a integer in events with the text 'app'"),
    (lambda: CHANNEL.fill(0), "cannot fill a category with 0"),
    (lambda: CHANNEL.fill("other"), "'other' is not among the category's values"),
    (lambda: COUNT.fill("app"), "cannot fill a integer in events with 'app'"),
    (lambda: DUE + 5, "cannot add a moment; measure the time to as_of with as_of.since"),
    (lambda: as_of.since(COUNT["30d"]), "as_of.since needs a moment, .* got a integer in events"),
    (lambda: as_of.since(DUE, "weeks"), "unknown unit of time 'weeks'"),  # type: ignore[arg-type]
    (lambda: request.age("born", "day"), "unknown unit of time 'day'; did you mean 'days'?"),  # type: ignore[arg-type]
    (lambda: REPAID["60d"], "no window '60d' here; did you mean"),
    (lambda: IDLE["30d"], "no window '30d' here; valid: none"),
    (lambda: REPAID / Repayment.by("consumer").count("7d", "30d"), "windows differ: 30d, 90d and 7d, 30d; choose one"),
    (lambda: REPAID + float("nan"), "expected a finite number within 2\\^53, got nan"),
    (lambda: REPAID + 2**60, "expected a finite number"),
    (lambda: REPAID + None, "expected a feature or a number, got None"),  # type: ignore[operator]
    (lambda: REPAID + True, "expected a feature or a number, got True"),
    (lambda: COUNT & REPAID, "combine comparisons, got a integer; compare it first, as in x > 0"),
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
    assert kind_of((request("amount") / REPAID).columns["30d"]) is None
    plan = plan_of(reach=request("amount") / REPAID)
    assert [(f.type, f.unit) for f in plan.features] == [("real", "ratio"), ("real", "ratio")]


def test_windows_go_through_arithmetic() -> None:
    assert (REPAID / COUNT).windows == ("30d", "90d")
    assert (request("amount") / REPAID).windows == ("30d", "90d")
    assert (REPAID["30d"] / REPAID["90d"]).windows == ()
    assert [one.windows for one in REPAID] == [(), ()]
    short, long = REPAID
    assert plan_of(share=short / long).names == ["share"]


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
    assert kind_of((euros + SENT).columns["30d"]) == Kind("integer", "EUR minor units")
    with pytest.raises(DefinitionError, match="different currencies"):
        euros + REPAID
