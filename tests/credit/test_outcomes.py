"""Outcomes: every status, DPD against a day-by-day oracle and against SQL, and nothing that was not known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.credit.world import DAY, FakeLog, Flag, Fraud, Instalment, LoanApplication, LoanOpened, Repayment

from obligor.credit import (
    Outcome,
    any_of,
    days_past_due,
    evaluate_outcomes,
    happens,
    labelled,
    late_first_payment,
    occurs,
    opened_by,
)
from obligor.credit.definitions import Rule
from obligor.errors import BadInput, LimitError

DPD = days_past_due(due=Instalment.amount, due_at=Instalment.due_at, paid=Repayment.amount, at_least=30)
HOUR = DAY // 24


def outcome(bad: Rule | Sequence[Rule] = DPD, **changes: Any) -> Outcome:
    settings_: dict[str, Any] = {"key": "loan", "horizon": "60d", **changes}
    return Outcome(application=LoanApplication, bad=bad, **settings_)


def judge(log: FakeLog, definition: Outcome, seen_at: int = 400 * DAY, cut: int | None = None) -> list[dict[str, Any]]:
    table = evaluate_outcomes(definition, log, cut=None if cut is None else {0: cut}, seen_at=seen_at)
    assert table.schema.types == [
        *(pa.int64(), pa.string(), pa.int64(), pa.string(), pa.int8(), pa.int32(), pa.int64()),
    ]
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def loan(paid_on: Sequence[float], amounts: Sequence[int] = (100,), due_on: Sequence[float] = (10,)) -> FakeLog:
    """One loan asked for on day 0; each payment is 100."""
    log = FakeLog()
    log.add(LoanApplication, 0, id="a-1", loan="l-1", amount=100)
    for day, amount in zip(due_on, amounts, strict=True):
        log.add(Instalment, HOUR, loan="l-1", amount=amount, due_at=int(day * DAY))
    for day in paid_on:
        log.add(Repayment, int(day * DAY), loan="l-1", amount=100)
    return log


@pytest.mark.parametrize(
    ("paid_on", "days", "bad"),
    [
        ([10], 0, 0),
        ([9], 0, 0),
        ([11], 1, 0),
        ([39], 29, 0),
        ([40], 30, 1),
        ([], 49, 1),
        ([60], 49, 1),
        ([59.5], 49, 1),
    ],
)
def test_days_past_due_count_to_payment_or_to_the_end(paid_on: list[float], days: int, bad: int) -> None:
    (row,) = judge(loan(paid_on), outcome())
    assert (row["status"], row["days_past_due"], row["bad"]) == ("matured", days, bad)
    assert (row["as_of"], row["matured_at"], row["event_id"]) == (0, 60 * DAY, "a-1")


def test_repayments_settle_the_oldest_instalment_first() -> None:
    (row,) = judge(loan([21], amounts=(100, 100), due_on=(10, 20)), outcome())
    assert row["days_past_due"] == 39  # the first is 11 late, the second is never paid
    (row,) = judge(loan([5, 6], amounts=(100, 100), due_on=(10, 20)), outcome())
    assert row["days_past_due"] == 0  # paid ahead


def test_what_falls_due_after_the_horizon_says_nothing() -> None:
    (row,) = judge(loan([], due_on=(60,)), outcome())
    assert (row["status"], row["bad"], row["days_past_due"]) == ("excluded:no evidence", None, None)


def test_an_instalment_of_nothing_is_never_late() -> None:
    (row,) = judge(loan([], amounts=(0,)), outcome())
    assert (row["days_past_due"], row["bad"]) == (0, 0)


def test_days_are_the_zones_calendar_days() -> None:
    log = loan([10 + 22.5 / 24], due_on=(10,))  # due at midnight UTC of day 10, paid at 22:30 UTC of day 10
    assert judge(log, outcome())[0]["days_past_due"] == 0
    assert judge(log, outcome(zone="Africa/Lagos"))[0]["days_past_due"] == 0
    assert judge(log, outcome(zone="Africa/Nairobi"))[0]["days_past_due"] == 1  # three hours ahead: already day 11


def test_immature_is_censored_until_horizon_and_lag_have_passed() -> None:
    definition = outcome(lag="5d")
    for seen_at, status in ((65 * DAY - 1, "immature"), (65 * DAY, "matured")):
        (row,) = judge(loan([]), definition, seen_at=seen_at)
        assert (row["status"], row["bad"]) == (status, None if status == "immature" else 1)


def test_only_what_was_known_counts() -> None:
    log = loan([])
    log.add(Repayment, 10 * DAY, known=100 * DAY, loan="l-1", amount=100)
    assert judge(log, outcome(), seen_at=100 * DAY - 1)[0]["bad"] == 1
    assert judge(log, outcome(), seen_at=100 * DAY)[0]["bad"] == 0
    assert judge(log, outcome(), cut=2)[0]["bad"] == 1  # the cut lies before the payment


def test_a_retracted_payment_never_happened() -> None:
    log = loan([10])
    log.found[-1].retracted_known = 90 * DAY
    assert judge(log, outcome(), seen_at=89 * DAY)[0]["bad"] == 0
    assert judge(log, outcome(), seen_at=90 * DAY)[0]["bad"] == 1


def test_a_retracted_application_is_excluded() -> None:
    log = loan([])
    log.found[0].retracted_known = 90 * DAY
    assert judge(log, outcome())[0]["status"] == "excluded:retracted"


def test_failed_payments_do_not_settle() -> None:
    log = loan([])
    log.add(Repayment, 10 * DAY, loan="l-1", amount=100, status="failed")
    where = days_past_due(
        due=Instalment.amount,
        due_at=Instalment.due_at,
        paid=Repayment.amount,
        paid_where=Repayment.status == "succeeded",
    )
    assert judge(log, outcome())[0]["bad"] == 0
    assert judge(log, outcome(where))[0]["bad"] == 1


def test_a_first_payment_that_failed_is_none() -> None:
    log = loan([])
    log.add(Repayment, 10 * DAY, loan="l-1", amount=100, status="failed")
    succeeded = late_first_payment(due=Instalment.due_at, paid=Repayment, paid_where=Repayment.status == "succeeded")
    assert judge(log, outcome(late_first_payment(due=Instalment.due_at, paid=Repayment)))[0]["bad"] == 0
    assert judge(log, outcome(succeeded))[0]["bad"] == 1


def test_an_amount_that_is_not_known_is_not_0() -> None:
    log = loan([10], amounts=(100, 100), due_on=(10, 20))
    log.found[2].fields = {**log.found[2].fields, "amount": None}
    with pytest.raises(BadInput, match=r"instalment\.amount: 1 of the loans' facts have none"):
        judge(log, outcome())
    known = days_past_due(
        due=Instalment.amount, due_at=Instalment.due_at, paid=Repayment.amount, due_where=Instalment.amount.not_null()
    )
    assert judge(log, outcome(known))[0]["bad"] == 0


def test_the_first_payment_rule() -> None:
    rule = late_first_payment(due=Instalment.due_at, paid=Repayment)
    for paid_on, days, bad in (([10.9], 0, 0), ([11], 1, 1), ([11, 9], 0, 0), ([], 49, 1)):
        (row,) = judge(loan(paid_on), outcome(rule))
        assert (row["days_past_due"], row["bad"]) == (days, bad)
    assert judge(loan([], due_on=(60,)), outcome(rule))[0]["status"] == "excluded:no evidence"


def test_the_first_rule_with_evidence_decides() -> None:
    rules: list[Rule] = [labelled(Flag.flag, bad=["Bad"]), DPD]
    log = loan([])
    assert judge(log, outcome(rules))[0]["bad"] == 1
    log.add(Flag, 50 * DAY, loan="l-1", flag=None)
    assert judge(log, outcome(rules))[0]["bad"] == 1  # a label of null is no label
    log.add(Flag, 51 * DAY, loan="l-1", flag="Good")
    assert judge(log, outcome(rules))[0]["bad"] == 0
    log.add(Flag, 52 * DAY, loan="l-1", flag="Bad")
    (row,) = judge(log, outcome(rules))
    assert (row["bad"], row["days_past_due"]) == (1, None)
    log.add(Flag, 60 * DAY, loan="l-1", flag="Good")  # after the horizon
    assert judge(log, outcome(rules))[0]["bad"] == 1


def test_any_of_is_bad_where_one_is() -> None:
    rules = any_of(DPD, happens(Fraud))
    log = loan([10])
    assert judge(log, outcome(rules))[0]["bad"] == 0
    log.add(Fraud, 20 * DAY, loan="l-1")
    assert judge(log, outcome(rules))[0]["bad"] == 1


def test_exclusions_by_event_and_by_the_applications_own_fields() -> None:
    log = loan([10])
    log.found[0].fields = {**log.found[0].fields, "channel": "web"}
    by_field = outcome(exclusions={"web": occurs(LoanApplication, LoanApplication.channel == "web")})
    by_event = outcome(exclusions={"fraud": occurs(Fraud)})
    assert judge(log, by_field)[0]["status"] == "excluded:web"
    assert judge(log, by_event)[0]["status"] == "matured"
    log.add(Fraud, 20 * DAY, loan="l-1")
    (row,) = judge(log, by_event)
    assert (row["status"], row["bad"]) == ("excluded:fraud", None)


@pytest.mark.parametrize(
    ("result", "status"),
    [("approve", "matured"), ("counter_offer", "matured"), ("decline", "declined"), ("refer", "declined")],
)
def test_a_declined_application_is_not_observed(result: str, status: str) -> None:
    log = loan([10])
    log.add(LoanApplication.Decided, 0, application_id="a-1", outcome=result)
    assert judge(log, outcome())[0]["status"] == status


def test_the_last_decision_counts() -> None:
    log = loan([10])
    log.add(LoanApplication.Decided, 0, application_id="a-1", outcome="refer")
    log.add(LoanApplication.Decided, DAY, application_id="a-1", outcome="approve")
    assert judge(log, outcome())[0]["status"] == "matured"


OPENED: dict[str, Any] = {"key": "event_id", "opened": opened_by(LoanOpened, application="application_id", key="loan")}


def test_a_loan_is_found_through_its_opening() -> None:
    log = loan([10])
    log.found[0].fields = {"amount": 100}
    log.add(LoanOpened, HOUR, application_id="a-1", loan="l-1")
    assert judge(log, outcome(**OPENED))[0]["status"] == "matured"
    assert judge(log, outcome(**OPENED))[0]["bad"] == 0


@pytest.mark.parametrize(
    ("result", "early", "mature"),
    [
        ("approve", "immature", "excluded:not taken up"),
        ("decline", "declined", "declined"),
        (None, "immature", "declined"),
    ],
)
def test_what_was_never_opened(result: str | None, early: str, mature: str) -> None:
    log = loan([])
    if result:
        log.add(LoanApplication.Decided, 0, application_id="a-1", outcome=result)
    assert judge(log, outcome(**OPENED), seen_at=30 * DAY)[0]["status"] == early
    assert judge(log, outcome(**OPENED))[0]["status"] == mature


def test_an_incumbents_declines_are_declined() -> None:
    log = loan([10])
    definition = outcome(declined=[occurs(Flag, Flag.flag == "Bad", key="loan")])
    assert judge(log, definition)[0]["status"] == "matured"
    log.add(Flag, HOUR, loan="l-1", flag="Bad")
    assert judge(log, definition)[0]["status"] == "declined"


def test_applications_of_one_loan_are_judged_apart() -> None:
    log = loan([45])
    log.add(LoanApplication, 30 * DAY, id="a-2", loan="l-1", amount=100)
    log.add(LoanApplication, 31 * DAY, id="a-3", amount=100)  # without a loan
    rows = judge(log, outcome())
    assert [(row["event_id"], row["status"], row["days_past_due"]) for row in rows] == [
        ("a-1", "matured", 35),
        ("a-2", "matured", 35),
        ("a-3", "excluded:no evidence", None),
    ]


def test_an_empty_log_has_no_outcomes() -> None:
    assert judge(FakeLog(), outcome()) == []


def test_amounts_beyond_the_limit_are_an_error() -> None:
    with pytest.raises(LimitError, match="2\\*\\*62"):
        judge(loan([], amounts=(2**62, 2**62), due_on=(1, 2)), outcome())


Schedule = tuple[list[tuple[int, int]], list[tuple[int, int]]]  # (due hour, amount), (paid hour, amount)


def oracle(due: list[tuple[int, int]], paid: list[tuple[int, int]], end_hours: int) -> int | None:
    """The most days past due, day by day: at each day's start, the oldest instalment that earlier days left unpaid."""
    due = [(hour, amount) for hour, amount in due if hour < end_hours]
    if not due:
        return None
    worst = 0
    for day in range((end_hours - 1) // 24 + 1):
        rest = sum(amount for hour, amount in paid if hour // 24 < day)
        for hour, amount in sorted(due):
            if rest < amount:
                worst = max(worst, day - hour // 24)
                break
            rest -= amount
    return worst


schedules = st.tuples(
    st.lists(st.tuples(st.integers(0, 60 * 24), st.integers(0, 3)), max_size=4),
    st.lists(st.tuples(st.integers(0, 60 * 24), st.integers(0, 4)), max_size=6),
)


def portfolio(loans: list[Schedule]) -> FakeLog:
    log = FakeLog()
    for i, (due, paid) in enumerate(loans):
        log.add(LoanApplication, 0, id=f"a-{i}", loan=f"l-{i}", amount=1)
        for hour, amount in due:
            log.add(Instalment, 0, loan=f"l-{i}", amount=amount, due_at=hour * HOUR)
        for hour, amount in paid:
            log.add(Repayment, hour * HOUR, loan=f"l-{i}", amount=amount)
    return log


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(schedules, min_size=1, max_size=3))
def test_days_past_due_equal_the_day_by_day_oracle(loans: list[Schedule]) -> None:
    rows = judge(portfolio(loans), outcome(horizon="40d"))
    assert [row["days_past_due"] for row in rows] == [oracle(due, paid, 40 * 24) for due, paid in loans]


def test_the_oracle_catches_a_planted_fault() -> None:
    late = ([(24, 1)], [(72, 1)])
    assert oracle(*late, 40 * 24) == 2
    assert oracle([(24, 1)], [(48, 1)], 40 * 24) == 1
    assert judge(portfolio([late]), outcome(horizon="40d"))[0]["days_past_due"] != 1


def test_days_past_due_equal_sql() -> None:
    chance = random.Random(4)
    loans: list[Schedule] = [
        (
            sorted((chance.randrange(60 * 24), chance.randrange(1, 4)) for _ in range(chance.randrange(1, 5))),
            sorted((chance.randrange(60 * 24), chance.randrange(1, 4)) for _ in range(chance.randrange(6))),
        )
        for _ in range(400)
    ]
    end = 40 * 24
    with duckdb.connect() as sql:
        sql.execute("create table due (loan int, hour int, amount int, n int)")
        sql.execute("create table paid (loan int, hour int, amount int, n int)")
        for table, part in (("due", 0), ("paid", 1)):
            rows = [(i, *row, n) for i, one in enumerate(loans) for n, row in enumerate(one[part])]
            sql.executemany(f"insert into {table} values (?, ?, ?, ?)", rows)
        found = sql.execute(
            """
            with owed as (select loan, hour, sum(amount) over (partition by loan order by hour, n) upto
                          from due where hour < $end),
                 got as (select loan, hour, sum(amount) over (partition by loan order by hour, n) upto
                         from paid where hour < $end),
                 settled as (select owed.loan, owed.hour,
                                    coalesce(min(got.hour) filter (got.upto >= owed.upto), $end - 1) at_hour
                             from owed left join got using (loan) group by owed.loan, owed.hour, owed.upto)
            select loan, max(greatest(0, at_hour // 24 - hour // 24)) from settled group by loan order by loan
            """,
            {"end": end},
        ).fetchall()
    rows_by_loan = dict(found)
    rows_ = judge(portfolio(loans), outcome(horizon="40d"))
    assert [row["days_past_due"] for row in rows_] == [rows_by_loan.get(i) for i in range(len(loans))]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(schedules, st.integers(0, 3), st.integers(40, 90))
def test_a_matured_outcome_changes_only_by_what_becomes_known_late(loan_: Schedule, lag: int, seen: int) -> None:
    definition = outcome(horizon="40d", lag=f"{lag}d")
    first = judge(portfolio([loan_]), definition, seen_at=seen * DAY)[0]
    later = judge(portfolio([loan_]), definition, seen_at=400 * DAY)[0]
    if first["status"] != "immature":
        assert first == later
