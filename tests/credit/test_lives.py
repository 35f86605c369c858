"""Lives: every kind of end, against outcomes of growing horizons, and nothing of periods that are not over."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.credit.world import DAY, FakeLog, Flag, Fraud, Instalment, LoanApplication, LoanOpened, Repayment

from obligor.credit import (
    Outcome,
    any_of,
    days_past_due,
    evaluate_lives,
    evaluate_outcomes,
    happens,
    labelled,
    late_first_payment,
    occurs,
    opened_by,
    paid_in_full,
)
from obligor.credit.definitions import Rule
from obligor.errors import DefinitionError

DPD = days_past_due(due=Instalment.amount, due_at=Instalment.due_at, paid=Repayment.amount, at_least=30)
FULL = paid_in_full(lent=LoanApplication.amount, paid=Repayment.amount)
LATER = 2_000 * DAY


def outcome(bad: Rule | Sequence[Rule] = DPD, horizon: str = "60d", **changes: Any) -> Outcome:
    settings_: dict[str, Any] = {"key": "loan", "repaid": FULL, **changes}
    return Outcome(application=LoanApplication, bad=bad, horizon=horizon, **settings_)


def loan(due: Sequence[tuple[float, int]], paid: Sequence[tuple[float, int]], amount: int = 300) -> FakeLog:
    """One loan asked for on day 0."""
    log = FakeLog()
    log.add(LoanApplication, 0, id="a-1", loan="l-1", amount=amount)
    for day, owed in due:
        log.add(Instalment, 1, loan="l-1", amount=owed, due_at=int(day * DAY))
    for day, back in paid:
        log.add(Repayment, int(day * DAY), loan="l-1", amount=back)
    return log


def lives(log: FakeLog, definition: Outcome | None = None, **asked: Any) -> list[tuple[str, int, str | None]]:
    asked = {"periods": 6, "seen_at": LATER, **asked}
    table = evaluate_lives(outcome() if definition is None else definition, log, **asked)
    return [(row["status"], row["periods"], row["end"]) for row in table.to_pylist()]


THREE = [(10.0, 100), (40.0, 100), (70.0, 100)]


@pytest.mark.parametrize(
    ("paid", "life"),
    [
        ([(10, 100), (40, 100), (70, 100)], ("lived", 3, "repaid")),  # on schedule, in the third period
        ([(10, 100), (15, 200)], ("lived", 1, "repaid")),  # early
        ([(10, 100)], ("lived", 3, "default")),  # the second instalment is 30 days late on day 70
        ([], ("lived", 2, "default")),  # on day 40
        ([(39, 100), (69, 100), (99, 100)], ("lived", 4, "repaid")),  # always late, never by 30 days
        ([(40, 300)], ("lived", 2, "default")),  # 30 days late on the very day that all is paid: default counts
    ],
)
def test_a_life_ends_by_default_or_by_repayment(paid: list[tuple[float, int]], life: Any) -> None:
    assert lives(loan(THREE, paid)) == [life]


def test_a_schedule_of_which_nothing_has_fallen_due_is_no_evidence_as_for_the_outcome() -> None:
    log = loan([(45, 300)], [])
    log.add(Fraud, 10 * DAY, loan="l-1")
    either = outcome([DPD, happens(Fraud)], horizon="30d")
    assert evaluate_outcomes(either, log, seen_at=LATER)["bad"].to_pylist() == [1]
    assert lives(log, either, periods=1) == [("lived", 1, "default")]


def test_failed_payments_repay_nothing() -> None:
    log = loan(THREE, [])
    log.add(Repayment, 5 * DAY, loan="l-1", amount=300, status="failed")
    succeeded = paid_in_full(
        lent=LoanApplication.amount, paid=Repayment.amount, paid_where=Repayment.status == "succeeded"
    )
    assert lives(log) == [("lived", 1, "repaid")]
    assert lives(log, outcome(happens(Fraud), repaid=succeeded)) == [("lived", 6, None)]


def test_who_still_owes_is_observed_to_the_last_period() -> None:
    log = loan([(10, 100), (300, 100)], [(10, 100)])
    assert lives(log) == [("lived", 6, None)]
    assert lives(log, periods=2) == [("lived", 2, None)]


def test_a_period_counts_once_it_is_over_and_known_of() -> None:
    log, lagging = loan(THREE, []), outcome(lag="3d")  # default on day 40, in the second period
    assert lives(log, lagging, seen_at=33 * DAY - 1) == [("immature", 0, None)]
    assert lives(log, lagging, seen_at=33 * DAY) == [("lived", 1, None)]
    assert lives(log, lagging, seen_at=63 * DAY - 1) == [("lived", 1, None)]  # it happened in a period not over yet
    assert lives(log, lagging, seen_at=63 * DAY) == [("lived", 2, "default")]


def test_only_what_was_known_counts() -> None:
    log = loan(THREE, [])
    log.add(Repayment, 20 * DAY, known=100 * DAY, loan="l-1", amount=300)
    assert lives(log, seen_at=100 * DAY - 1) == [("lived", 2, "default")]
    assert lives(log, seen_at=100 * DAY) == [("lived", 1, "repaid")]
    assert lives(log, cut={0: 4}) == [("lived", 2, "default")]


def test_statuses_are_those_of_outcomes() -> None:
    log = loan([], [])
    log.add(LoanApplication, 0, id="a-2", loan="l-2", amount=300)
    log.add(LoanOpened, 0, application_id="a-1", loan="l-1")
    log.add(Fraud, DAY, loan="l-1")
    opening = opened_by(LoanOpened, application="application_id", key="loan")
    full = paid_in_full(lent=Instalment.amount, paid=Repayment.amount)
    definition = outcome(key="event_id", opened=opening, exclusions={"fraud": occurs(Fraud)}, repaid=full)
    assert lives(log, definition) == [("excluded:fraud", 0, None), ("declined", 0, None)]
    assert lives(log, definition, seen_at=40 * DAY)[1] == ("immature", 0, None)  # it may be opened yet
    assert lives(log, dataclasses.replace(definition, exclusions={})) == [("lived", 6, None), ("declined", 0, None)]


def test_other_rules_have_moments_too() -> None:
    late = outcome(late_first_payment(due=Instalment.due_at, paid=Repayment, at_least=5))
    assert lives(loan(THREE, []), late) == [("lived", 1, "default")]  # due on day 10, late on day 15
    assert lives(loan([(27, 100)], []), late) == [("lived", 2, "default")]
    assert lives(loan(THREE, [(14, 300)]), late) == [("lived", 1, "repaid")]
    frauds = loan(THREE, [(50, 300)])
    frauds.add(Fraud, 45 * DAY, loan="l-1")
    assert lives(frauds, outcome(happens(Fraud))) == [("lived", 2, "default")]
    assert lives(frauds, outcome(any_of(happens(Fraud), DPD))) == [("lived", 2, "default")]
    assert lives(loan(THREE, []), outcome(happens(Fraud), repaid=happens(Fraud))) == [("lived", 6, None)]
    with pytest.raises(DefinitionError, match="not when"):
        lives(frauds, outcome([labelled(Flag.flag, bad=["Bad"]), DPD]))


def test_what_is_asked_must_make_sense() -> None:
    log = loan(THREE, [])
    for asked, message in (({"periods": 0}, "1 to 1000 periods"), ({"period": "0s"}, "longer than 0")):
        with pytest.raises(DefinitionError, match=message):
            lives(log, **asked)
    with pytest.raises(DefinitionError, match="repaid="):
        lives(log, outcome(repaid=None))


_days = st.integers(0, 130)
_loans = st.lists(
    st.tuples(
        st.lists(st.tuples(_days, st.integers(0, 150)), max_size=4),
        st.lists(st.tuples(_days, st.integers(1, 300)), max_size=5),
    ),
    min_size=1,
    max_size=4,
)


def repaid_in(paid: Sequence[tuple[int, int]]) -> int:
    """The period of 20 days in which 300 are paid back, 99 where they are not."""
    back = 0
    for day, amount in sorted(paid):
        back += amount
        if back >= 300:
            return (day * DAY + 7) // (20 * DAY) + 1
    return 99


@settings(derandomize=True, max_examples=60, deadline=None)
@given(_loans, st.integers(1, 140), st.sampled_from(["UTC", "Africa/Nairobi", "America/New_York"]))
def test_lives_are_outcomes_of_growing_horizons(found: Any, seen_day: int, zone: str) -> None:
    log = FakeLog()
    for number, (due, paid) in enumerate(found):
        log.add(LoanApplication, 0, id=f"a-{number}", loan=f"l-{number}", amount=300)
        for day, amount in due:
            log.add(Instalment, 1, loan=f"l-{number}", amount=amount, due_at=day * DAY)
        for day, amount in paid:
            log.add(Repayment, day * DAY + 7, loan=f"l-{number}", amount=amount)
    whole = min(6, seen_day // 20)
    judged = [
        evaluate_outcomes(outcome(horizon=f"{20 * k}d", zone=zone), log, seen_at=LATER).column("bad").to_pylist()
        for k in range(1, whole + 1)
    ]
    # What was paid after the observation is not known to a life, so the log is read as of then.
    got = lives(log, outcome(zone=zone), period="20d", seen_at=seen_day * DAY)
    for number, (_, paid) in enumerate(found):
        bad = next((k for k, rows in enumerate(judged, 1) if rows[number] == 1), 99)
        repaid = repaid_in(paid)
        first = min(bad, repaid)
        if whole == 0:
            assert got[number] == ("immature", 0, None)
        elif first > whole:
            assert got[number] == ("lived", whole, None)
        else:
            assert got[number][:2] == ("lived", first)
            assert got[number][2] in [kind for kind, k in (("default", bad), ("repaid", repaid)) if k == first]
