"""Losses: what a bad loan has not paid by the end of its horizon, and nothing of a good one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from tests.credit.world import DAY, FakeLog, Instalment, LoanApplication, LoanOpened, Repayment

from obligor.credit import Outcome, days_past_due, evaluate_outcomes, happens, opened_by, paid_in_full
from obligor.credit.losses import evaluate_losses
from obligor.errors import DefinitionError, LimitError

DPD = days_past_due(due=Instalment.amount, due_at=Instalment.due_at, paid=Repayment.amount, at_least=30)
FULL = paid_in_full(lent=LoanApplication.amount, paid=Repayment.amount)
OUTCOME = Outcome(application=LoanApplication, bad=DPD, horizon="60d", key="loan", repaid=FULL)
LATER = 2_000 * DAY


def _log(*paid: tuple[float, int], amount: int = 300, name: str = "1", log: FakeLog | None = None) -> FakeLog:
    """One loan, all of which falls due on day 10."""
    log = FakeLog() if log is None else log
    log.add(LoanApplication, 0, id=f"a-{name}", loan=f"l-{name}", amount=amount)
    log.add(Instalment, 1, loan=f"l-{name}", amount=amount, due_at=10 * DAY)
    for day, back in paid:
        log.add(Repayment, int(day * DAY), loan=f"l-{name}", amount=back)
    return log


def _losses(log: FakeLog, seen_at: int = LATER, **asked: Any) -> list[tuple[int | None, int | None]]:
    table = evaluate_losses(OUTCOME, log, seen_at=seen_at, **asked)
    return [(row["lent"], row["lost"]) for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("paid", "found"),
    [
        ([], (300, 300)),
        ([(9, 100)], (300, 200)),
        ([(9, 300)], (300, 0)),
        ([(39, 300)], (300, 0)),  # late, never by 30 days: good
        ([(50, 120)], (300, 180)),  # bad on day 40, a part came in afterwards
        ([(50, 400)], (300, 0)),  # with fees beyond what was lent
        ([(9, 100), (60, 200)], (300, 200)),  # at the end of the horizon: too late
    ],
)
def test_what_a_bad_loan_has_not_paid_is_lost(paid: list[tuple[float, int]], found: tuple[int, int]) -> None:
    assert _losses(_log(*paid)) == [found]


def test_failed_payments_pay_nothing_back() -> None:
    log = _log()
    log.add(Repayment, 50 * DAY, loan="l-1", amount=120, status="succeeded")
    log.add(Repayment, 51 * DAY, loan="l-1", amount=300, status="failed")
    succeeded = paid_in_full(
        lent=LoanApplication.amount, paid=Repayment.amount, paid_where=Repayment.status == "succeeded"
    )
    table = evaluate_losses(dataclasses.replace(OUTCOME, repaid=succeeded), log, seen_at=LATER)
    assert _losses(log) == [(300, 0)]
    assert table["lost"].to_pylist() == [180]


def test_each_loan_has_its_own_payments() -> None:
    log = _log((9, 100))
    _log((9, 5), (12, 20), amount=50, name="2", log=log)
    _log(amount=70, name="3", log=log)
    assert _losses(log) == [(300, 200), (50, 25), (70, 70)]


def test_nothing_is_said_of_what_is_not_known() -> None:
    log = _log((9, 100))
    log.add(Repayment, 20 * DAY, known=100 * DAY, loan="l-1", amount=50)
    assert _losses(log, 60 * DAY - 1) == [(None, None)]
    assert _losses(log, 60 * DAY) == [(300, 200)]
    assert _losses(log, 100 * DAY) == [(300, 150)]
    assert _losses(log, cut={0: 3}) == [(300, 200)]
    table = evaluate_losses(OUTCOME, log, seen_at=LATER)
    assert table.drop_columns(["lent", "lost"]) == evaluate_outcomes(OUTCOME, log, seen_at=LATER)


def test_who_took_no_loan_loses_none() -> None:
    log = _log((9, 100))
    opening = opened_by(LoanOpened, application="application_id", key="loan")
    full = paid_in_full(lent=Instalment.amount, paid=Repayment.amount)
    taken = Outcome(application=LoanApplication, bad=DPD, horizon="60d", key="event_id", opened=opening, repaid=full)
    assert evaluate_losses(taken, log, seen_at=LATER).column("lent").to_pylist() == [None]
    log.add(LoanOpened, 0, application_id="a-1", loan="l-1")
    assert evaluate_losses(taken, log, seen_at=LATER).column("lost").to_pylist() == [200]


def test_what_cannot_be_said_is_refused() -> None:
    ended = Outcome(application=LoanApplication, bad=DPD, horizon="60d", key="loan", repaid=happens(LoanOpened))
    with pytest.raises(DefinitionError, match=r"losses need Outcome\(repaid=paid_in_full"):
        evaluate_losses(ended, _log(), seen_at=LATER)
    by_event = dataclasses.replace(OUTCOME, bad=happens(LoanOpened))
    with pytest.raises(LimitError, match=r"the sum of amount exceeds 2\*\*62"):
        evaluate_losses(by_event, _log((9, 2**62), (10, 2**62)), seen_at=LATER)
