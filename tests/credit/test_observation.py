"""What is observed: which loan an application became by its end, and the first of its moments on a calendar."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from tests.credit.world import DAY, FakeLog, Instalment, LoanApplication, LoanOpened, Repayment

from obligor.credit import Outcome, days_past_due, opened_by
from obligor.credit.definitions import Moment, Occurrence
from obligor.credit.facts import View
from obligor.credit.observation import Observation
from obligor.errors import LimitError

RULE = days_past_due(due=Instalment.amount, due_at=Instalment.due_at, paid=Repayment.amount, at_least=30)


def observed(log: FakeLog, end_day: int, zone: str = "UTC") -> Observation:
    """Two applications, each observed to the end of a day; both ask by their own id."""
    outcome = Outcome(
        application=LoanApplication, bad=RULE, key="event_id", horizon="60d", zone=zone,
        opened=opened_by(LoanOpened, application="application_id", key="loan"),
    )  # fmt: skip
    end = np.full(2, end_day * DAY, np.int64)
    return Observation(outcome, View(log, log.cut(), 999 * DAY), log.facts("loan_application").rows, end)


def a_log() -> FakeLog:
    log = FakeLog()
    for name in ("a-1", "a-2"):
        log.add(LoanApplication, 0, id=name, amount=100)
    log.add(LoanOpened, DAY, application_id="a-2", loan="l-7")
    log.add(LoanOpened, 5 * DAY, application_id="a-1", loan="l-3")
    log.add(LoanOpened, 6 * DAY, application_id="a-1", loan="l-4")
    return log


def test_an_application_became_the_loan_that_was_first_opened_before_its_end() -> None:
    early, late = observed(a_log(), 5), observed(a_log(), 9)
    assert (early.opened.tolist(), early.loan.tolist()) == ([False, True], [-1, 0])
    assert late.opened.all()
    assert late.loans.take(pa.array(late.loan)).to_pylist() == ["l-3", "l-7"]


def test_the_first_moment_is_a_day_of_the_zone_and_counts_once_its_event_happened() -> None:
    log = a_log()
    log.add(Instalment, 8 * DAY, loan="l-3", amount=100, due_at=20 * DAY + 22 * DAY // 24)
    moment = Moment(Occurrence("instalment"), "due_at")
    assert [one.tolist() for one in observed(log, 30).first(moment)] == [[True, False], [20, 20]]
    assert observed(log, 30, "Africa/Nairobi").first(moment)[1][0] == 21
    assert not observed(log, 20).first(moment)[0].any()
    assert not observed(log, 8).first(moment)[0].any()


def test_amounts_that_could_not_be_added_up_are_refused() -> None:
    log = a_log()
    for _ in range(2):
        log.add(Instalment, 8 * DAY, loan="l-3", amount=2**62, due_at=20 * DAY)
    with pytest.raises(LimitError, match=r"2\*\*62 minor units"):
        observed(log, 30).instalments(RULE)
