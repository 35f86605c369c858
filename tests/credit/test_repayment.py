"""Repayment: every definition on a few loans by hand; what is past due and how late payments were, read plainly too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.credit.lender import (
    ASKED,
    DAY,
    NOW,
    InstalmentDue,
    LimitSet,
    LoanApplication,
    LoanClosed,
    LoanOpened,
    PaymentFailed,
    Repayment,
    evaluated,
    happened,
    moment,
    plan_of,
)

from obligor.credit import FailedPayments, Loans, Payments
from obligor.credit.arrears import days_past_due
from obligor.credit.calendar import local_days
from obligor.credit.repayment import BUCKET_DAYS
from obligor.errors import DefinitionError
from obligor.features import Feature, outstanding, reserved

OPENED, PAID, DUE = LoanOpened.by("consumer"), Repayment.by("consumer"), InstalmentDue.by("consumer")
RETURNED = LoanClosed.by("consumer").where(LoanClosed.why == "returned")
LOANS = Loans(OPENED, PAID, DUE, closed=[RETURNED])
PAYMENTS = Payments(PAID, due_at="due_at")
FAILED = FailedPayments(PaymentFailed.by("consumer"))


def opened(days_ago: float, loan: str, amount: int) -> dict[str, Any]:
    return happened(LoanOpened, days_ago, loan=loan, application_id=f"a-{loan}", amount=amount)


def due(loan: str, amount: int, *days_ago: float) -> list[dict[str, Any]]:
    return [happened(InstalmentDue, days, loan=loan, amount=amount) for days in days_ago]


def paid(loan: str, amount: int, *days_ago: tuple[float, float]) -> list[dict[str, Any]]:
    """Return payments: when each was made, and when it was due."""
    return [happened(Repayment, days, loan=loan, amount=amount, due_at=moment(was_due)) for days, was_due in days_ago]


RECORDS = [
    opened(200, "l-1", 12_000),  # repaid; once three days late, once two days early
    *due("l-1", 4_000, 190, 160, 130),
    *paid("l-1", 4_000, (190, 190), (157, 160), (132, 130)),
    opened(100, "l-2", 20_000),  # of the second instalment 2,000 are open since 60 and a half days
    *due("l-2", 5_000, 90, 60.5, 30.5, 1.5),
    *paid("l-2", 5_000, (90, 90)),
    *paid("l-2", 3_000, (20, 60.5)),
    opened(10, "l-3", 9_000),  # returned, so that nothing is owed
    *due("l-3", 3_000, 3),
    happened(LoanClosed, 2, loan="l-3", why="returned"),
    opened(5, "l-4", 7_000),  # paid half a day after it was due, within the grace
    *paid("l-4", 1_000, (1, 1.5)),
    happened(LimitSet, 300, amount=36_000),
    *(happened(PaymentFailed, days) for days in (10, 50)),
]
OWED = 12_000 + 6_000
# the definition, what it is for c-1, and for somebody without a loan
CASES: dict[str, tuple[Feature, float, float | None]] = {
    "owed": (LOANS.owed(), OWED, 0),
    "utilisation": (LOANS.utilisation(LimitSet.by("consumer").last("amount")), OWED / 36_000, None),
    "unpaid_share": (LOANS.unpaid_share(), OWED / 27_000, None),
    "open_loans": (LOANS.open_loans(), 2, 0),
    "repaid_loans": (LOANS.repaid_loans(), 1, 0),
    "arrears": (LOANS.arrears(), 20_000 - 8_000, 0),
    "loans_past_due": (LOANS.loans_past_due(), 1, 0),
    "loans_past_due_60": (LOANS.loans_past_due(60), 1, 0),
    "loans_past_due_61": (LOANS.loans_past_due(61), 0, 0),
    "days_past_due": (LOANS.days_past_due(), 60, None),
    "days_past_due_50": (LOANS.days_past_due(buckets=[10, 50, 70]), 50, None),
    "worst_days_past_due": (LOANS.worst_days_past_due(PAYMENTS, "365d"), 60, None),
    "worst_of_payments": (LOANS.worst_days_past_due(PAYMENTS, buckets=[7]), 40.5, None),
    "paid_of_due": (LOANS.paid_of_due("30d"), 4_000 / 8_000, None),
    "on_time_streak": (PAYMENTS.on_time_streak(), 1, 0),
    "longest_on_time_streak": (PAYMENTS.longest_on_time_streak(), 2, 0),
    "on_time_share": (PAYMENTS.on_time_share("365d"), 4 / 6, None),
    "late_payments": (PAYMENTS.late_payments("365d"), 2, 0),
    "days_since_late": (PAYMENTS.days_since_late(), 20, None),
    "worst_days_late": (PAYMENTS.worst_days_late("365d"), 40.5, None),
    "mean_days_late": (PAYMENTS.mean_days_late("365d"), (0 + 3 - 2 + 0 + 40.5 + 0.5) / 6, None),
    "usual_worst_days_late": (PAYMENTS.usual_worst_days_late(), (3 + 40.5 + 0.5) / 3, None),
    "failures": (FAILED.failures("30d"), 1, 0),
    "days_since_failure": (FAILED.days_since_failure(), 10, None),
    "failures_to_tries": (FAILED.failures_to_tries(DUE, "90d"), 2 / 5, None),
}


@pytest.fixture(scope="module")
def values() -> list[dict[str, float | None]]:
    return evaluated({name: case[0] for name, case in CASES.items()}, RECORDS, [ASKED, {**ASKED, "consumer": "c-2"}])


@pytest.mark.parametrize("name", CASES)
def test_a_definition_is_what_it_is_by_hand(name: str, values: list[dict[str, float | None]]) -> None:
    _, expected, of_nobody = CASES[name]
    assert values[0][name] == pytest.approx(expected, rel=1e-12)
    assert values[1][name] == of_nobody


def test_exposure_is_what_is_owed_and_what_is_offered_for_the_policy_alone() -> None:
    decided = LoanApplication.Decided
    exposure = LOANS.exposure(decided.by("consumer"))
    by_hand = outstanding(
        opened=OPENED.per("loan").amount("amount"),
        reduced=[PAID.per("loan").amount("amount")],
        closed=[RETURNED.per("loan")],
    ) + reserved(
        offered=decided.by("consumer")
        .where(decided.outcome.isin(["approve", "counter_offer"]))
        .per("application_id")
        .amount("offer_amount", expires="offer_expires_at"),
        ended=[OPENED.per("application_id")],
    )
    found, expected = plan_of({"f": exposure}), plan_of({"f": by_hand})
    assert (found.timelines, found.measures) == (expected.timelines, expected.measures)
    assert found.features[0].program == expected.features[0].program
    assert (found.features[0].scored, expected.features[0].scored) == (False, True)


def test_a_loan_that_nothing_closes_needs_no_closed() -> None:
    loans = Loans(OPENED, PAID, DUE)
    features = {"owed": loans.owed(), "days": loans.days_past_due(), "open": loans.open_loans()}
    [found] = evaluated(features, [opened(10, "l-3", 9_000), *due("l-3", 3_000, 8)])
    assert found == {"owed": 9_000, "days": 7, "open": 1}


def test_a_payment_that_names_no_due_date_is_neither_late_nor_on_time() -> None:
    records = [happened(Repayment, days, loan="l-1", amount=1) for days in (3, 2)]
    records[1] |= {"due_at": moment(2)}
    features = {
        "streak": PAYMENTS.on_time_streak(),
        "late": PAYMENTS.late_payments(),
        "worst": PAYMENTS.worst_days_late(),
    }
    assert evaluated(features, records) == [{"streak": 1, "late": 0, "worst": 0}]
    assert evaluated(features, records[:1]) == [{"streak": 0, "late": 0, "worst": None}]


def test_what_cannot_be_said_is_refused() -> None:
    with pytest.raises(DefinitionError, match="give the events at which instalments fall due"):
        Loans(OPENED, PAID).days_past_due()
    for buckets in ((), (0, 7), (7, 7), (30, 7)):
        with pytest.raises(DefinitionError, match="expected buckets of days that grow, from 1"):
            LOANS.days_past_due(buckets)
    with pytest.raises(DefinitionError, match="delay: expected a Timestamp field"):
        Payments(PAID, due_at="amount").on_time_streak()


def test_its_words_are_in_its_buckets_and_days() -> None:
    [spec] = plan_of({"f": LOANS.days_past_due()}).features
    assert spec.description.endswith("past due, in steps of 1, 7, 14, 30, 60 and 90")
    assert (spec.unit, spec.monotone, spec.reason) == ("days", 1, "ARREARS")
    assert "in steps of 30" in LOANS.days_past_due([30]).notes["description"]
    assert "is 1 day or more" in LOANS.loans_past_due().notes["description"]


# ---- against a plain reading ----------------------------------------------------------------------------------------


@dataclass
class Loan:
    """One loan, its facts by their age in microseconds; `ended` is when it was returned."""

    amount: int
    due: list[tuple[int, int]] = field(default_factory=list)  # age, amount
    paid: list[tuple[int, int, int | None]] = field(default_factory=list)  # age, amount, age of the due date
    ended: int | None = None

    @property
    def closed(self) -> bool:
        return self.ended is not None and self.ended > 0

    @property
    def seen(self) -> bool:
        """Whether something says how far it is past due."""
        return self.closed or any(age > DAY for age, _ in self.due) or any(age > 0 for age, _, _ in self.paid)

    @property
    def total_paid(self) -> int:
        return sum(amount for age, amount, _ in self.paid if age > 0)

    def unsettled(self) -> list[tuple[int, int]]:
        """Return the age and the open amount of the instalments that all payments together have not settled."""
        left, found = self.total_paid, []
        for age, amount in sorted(self.due, reverse=True):
            if age > 0:
                taken = min(left, amount)
                left -= taken
                found += [(age, amount - taken)] if taken < amount else []
        return found

    def past_due(self, *, inclusive: bool = False) -> int:
        """Return the age of the oldest unsettled instalment in the last bucket that it has passed; 0 for none."""
        age = max((age for age, _ in self.unsettled()), default=0) if not self.closed else 0
        passed = [days for days in BUCKET_DAYS if age > days * DAY or (inclusive and age == days * DAY)]
        return max(passed, default=0)


LIMIT = 500
COMPARED = {
    "owed": LOANS.owed(),
    "utilisation": LOANS.utilisation(LimitSet.by("consumer").last("amount")),
    "unpaid_share": LOANS.unpaid_share(),
    "open_loans": LOANS.open_loans(),
    "repaid_loans": LOANS.repaid_loans(),
    "arrears": LOANS.arrears(),
    "loans_past_due": LOANS.loans_past_due(),
    "days_past_due": LOANS.days_past_due(),
    "worst_days_past_due": LOANS.worst_days_past_due(PAYMENTS),
    "on_time_streak": PAYMENTS.on_time_streak(),
    "longest_on_time_streak": PAYMENTS.longest_on_time_streak(),
    "late_payments": PAYMENTS.late_payments(),
    "worst_days_late": PAYMENTS.worst_days_late(),
}


def plainly(loans: Sequence[Loan]) -> dict[str, float | None]:
    """Return the features from the loans one by one."""
    owed = [0 if loan.closed else max(0, loan.amount - loan.total_paid) for loan in loans]
    began = sum(loan.amount for loan, left in zip(loans, owed, strict=True) if left)
    # Of payments of one instant the one that was recorded first comes first; sorting keeps that order.
    payments = sorted(((-age, due) for loan in loans for age, _, due in loan.paid if age > 0), key=lambda row: row[0])
    on_time = ["+" if was_due is not None and was_due + at <= DAY else "-" for at, was_due in payments]
    runs = "".join(on_time).split("-")
    late = [was_due + at for at, was_due in payments if was_due is not None]
    current = max((loan.past_due() for loan in loans if loan.seen), default=None)
    return {
        "owed": sum(owed),
        "utilisation": sum(owed) / LIMIT,
        "unpaid_share": sum(owed) / began if began else None,
        "open_loans": sum(left > 0 for left in owed),
        "repaid_loans": sum(not loan.closed and 0 < loan.amount <= loan.total_paid for loan in loans),
        "arrears": sum(open_ for loan in loans if not loan.closed for _, open_ in loan.unsettled()),
        "loans_past_due": sum(loan.past_due() >= 1 for loan in loans),
        "days_past_due": current,
        "worst_days_past_due": None if current is None else max(current, *(one / DAY for one in late), 0),
        "on_time_streak": len(runs[-1]),
        "longest_on_time_streak": max(map(len, runs)),
        "late_payments": sum(one > DAY for one in late),
        "worst_days_late": max(late) / DAY if late else None,
    }


_edges = st.builds(lambda day, beside: day * DAY + beside, st.sampled_from((0, 1, *BUCKET_DAYS)), st.integers(-1, 1))
ages = st.one_of(_edges, st.integers(1, 120 * DAY))
amounts = st.sampled_from([0, 1, 50, 100, 100, 100, 150])


@st.composite
def _payments(draw: st.DrawFn) -> tuple[int, int, int | None]:
    age = draw(ages)
    return (
        age,
        draw(amounts),
        draw(st.none() | st.sampled_from([0, DAY, DAY + 1, DAY - 1, -DAY]).map(lambda d: age + d)),
    )


loans_ = st.builds(
    Loan,
    amount=st.sampled_from([0, 100, 200, 300]),
    due=st.lists(st.tuples(ages, amounts), max_size=4),
    paid=st.lists(_payments(), max_size=4),
    ended=st.sampled_from([None, None, None, DAY, -1]),
)
consumers = st.lists(st.lists(loans_, max_size=3), min_size=8, max_size=8)


def records_of(who: int, number: int, loan: Loan) -> list[dict[str, Any]]:
    whose = {"consumer": f"c-{who}", "loan": f"l-{who}-{number}"}
    rows = [{**opened(150, "", loan.amount), **whose}]
    rows += [
        {**happened(InstalmentDue, 0, amount=amount), "event_time": NOW - age, **whose} for age, amount in loan.due
    ]
    for age, amount, was_due in loan.paid:
        named = {} if was_due is None else {"due_at": NOW - was_due}
        rows.append({**happened(Repayment, 0, amount=amount), "event_time": NOW - age, **whose, **named})
    if loan.ended is not None:
        rows.append({**happened(LoanClosed, 0, why="returned"), "event_time": NOW - loan.ended, **whose})
    return rows


def compared(worlds: Sequence[Sequence[Loan]]) -> list[dict[str, float | None]]:
    records = [
        row for who, loans in enumerate(worlds) for n, loan in enumerate(loans) for row in records_of(who, n, loan)
    ]
    records += [{**happened(LimitSet, 1, amount=LIMIT), "consumer": f"c-{who}"} for who in range(len(worlds))]
    asked = [{**ASKED, "consumer": f"c-{who}"} for who in range(len(worlds))]
    return evaluated(COMPARED, records, asked)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(consumers)
def test_loans_and_payments_are_what_they_say(worlds: list[list[Loan]]) -> None:
    for loans, values in zip(worlds, compared(worlds), strict=True):
        assert values == plainly(loans)


def test_a_bucket_that_began_an_instant_early_would_be_caught() -> None:
    loan = Loan(100, due=[(30 * DAY, 100)])
    [values] = compared([[loan]])
    assert values["days_past_due"] == loan.past_due() == 14
    assert loan.past_due(inclusive=True) == 30


def _calendar_days(loan: Loan) -> int:
    """Return how many calendar days the oldest unsettled instalment is past due by the kernel of outcomes, at NOW."""
    found = sorted((-age, amount) for age, amount in loan.unsettled())
    times = np.array([NOW + age for age, _ in found], np.int64)
    days = local_days(times, "UTC") if len(times) else times
    one, none = np.array([0, len(found)]), np.empty(0, np.int64)
    end_day = local_days(np.array([NOW - 1]), "UTC")
    owed = np.array([amount for _, amount in found], np.int64)
    [worst] = days_past_due(
        np.array([0]), np.array([NOW]), end_day, one, times, days, times, owed, np.array([0, 0]), none, none, none
    )
    return max(0, int(worst))


@settings(derandomize=True, max_examples=200, deadline=None)
@given(loans_)
def test_a_loan_is_past_due_as_outcomes_count_it_or_a_day_less(loan: Loan) -> None:
    """Every bucket that is reached is so by the calendar too, and each the calendar has passed by a day is reached."""
    if loan.closed:
        return
    by_calendar = _calendar_days(loan)
    assert loan.past_due() <= by_calendar
    assert loan.past_due() >= max((days for days in BUCKET_DAYS if days <= by_calendar - 1), default=0)
