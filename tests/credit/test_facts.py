"""Selecting and grouping winners: predicates with null, order within a loan, and the real log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.credit.world import DAY, REGISTRY, FakeLog, Instalment, LoanApplication, Repayment

from obligor.credit import Outcome, days_past_due, evaluate_outcomes
from obligor.credit.definitions import Occurrence
from obligor.credit.facts import View, selected
from obligor.decisions.answers import moment
from obligor.events.log import EventLog
from obligor.events.predicates import Predicate
from obligor.events.records import parse_records
from obligor.stores.sqlite import SQLiteStore

TABLE = pa.table({"amount": pa.array([1, 5, None], pa.int64()), "status": ["failed", None, "succeeded"]})


@pytest.mark.parametrize(
    ("where", "places"),
    [
        (None, [0, 1, 2]),
        (Repayment.amount > 1, [1]),
        (Repayment.amount != 1, [1]),
        (~(Repayment.amount == 1), [1]),
        (Repayment.amount.is_null(), [2]),
        (Repayment.status == "failed", [0]),
        (Repayment.status != "failed", [2]),
        (Repayment.status.isin(["failed", "succeeded"]), [0, 2]),
        (Repayment.status.not_null() & (Repayment.amount <= 1), [0]),
        (Repayment.status.is_null() | (Repayment.amount <= 1), [0, 1]),
    ],
)
def test_null_is_not_true(where: Predicate | None, places: list[int]) -> None:
    assert selected(TABLE, where).equals(TABLE.take(pa.array(places, pa.int64())))


def test_winners_are_grouped_by_loan_in_order() -> None:
    log = FakeLog()
    for loan, at in (("b", 5), ("a", 9), ("b", 2), ("x", 1), ("a", 9), ("a", 3)):
        log.add(Repayment, at, loan=loan, amount=at)
    grouped = View(log, log.cut(), 10).grouped(Occurrence("repayment"), "loan", pa.array(["a", "b", "c"]))
    assert grouped.offsets.tolist() == [0, 3, 5, 5]
    assert grouped.event_time.tolist() == [3, 9, 9, 2, 5]
    assert grouped.table["root"].to_pylist() == [6, 2, 5, 3, 1]
    assert grouped.integers("amount").tolist() == [3, 9, 9, 2, 5]


def test_facts_without_the_ordering_moment_are_left_out() -> None:
    log = FakeLog()
    log.add(Instalment, 1, loan="a", amount=1)
    log.add(Instalment, 1, loan="a", amount=2, due_at=7)
    grouped = View(log, log.cut(), 10).grouped(Occurrence("instalment"), "loan", pa.array(["a"]), "due_at")
    assert grouped.integers("amount").tolist() == [2]


OUTCOME = Outcome(
    application=LoanApplication,
    key="loan",
    horizon="60d",
    bad=days_past_due(due=Instalment.amount, due_at=Instalment.due_at, paid=Repayment.amount, at_least=30),
)
START = 20_000 * DAY


def add(log: EventLog, at: int, **record: Any) -> None:
    """Append one record at a clock."""
    record.setdefault("event_time", moment(at))
    batch, problems = parse_records(REGISTRY, record, commitment_key=log.commitment_key)
    assert not problems
    with log.begin(at) as tx:
        assert tx.append(batch).status == ["accepted"]
        tx.commit()


def test_outcomes_follow_the_real_logs_corrections_by_cut_and_by_seen_at(tmp_path: Path) -> None:
    with EventLog.create(tmp_path / "log", REGISTRY, store=SQLiteStore) as log:
        ask = {"type": "loan_application", "consumer": "c-1", "amount": 100}
        for loan in ("1", "2"):
            add(log, START, event_id=f"a-{loan}", loan=f"l-{loan}", **ask)
            due = moment(START + 10 * DAY)
            add(log, START, type="instalment", event_id=f"i-{loan}", loan=f"l-{loan}", amount=100, due_at=due)
        paid = {"type": "repayment", "event_time": moment(START + 10 * DAY), "amount": 100}
        add(log, START + 11 * DAY, event_id="p-1", loan="l-1", **paid)
        add(log, START + 90 * DAY, event_id="k-1", corrects="p-1", loan="l-2", **paid)  # it was the other loan's
        add(log, START + 95 * DAY, type="repayment", event_id="r-1", retracts="k-1")

        def bad(seen_at: int, cut: int = 7) -> list[int | None]:
            column: list[int | None] = evaluate_outcomes(OUTCOME, log, cut={0: cut}, seen_at=seen_at)["bad"].to_pylist()
            return column

        assert bad(START + 70 * DAY) == [0, 1]
        assert bad(START + 91 * DAY) == [1, 0]
        assert bad(START + 96 * DAY) == [1, 1]
        assert bad(START + 96 * DAY, cut=6) == [1, 0]
        assert bad(START + 96 * DAY, cut=5) == [0, 1]
        assert bad(START + 59 * DAY) == [None, None]


def test_a_corrected_application_became_the_loan_that_it_names_by_now(tmp_path: Path) -> None:
    with EventLog.create(tmp_path / "log", REGISTRY, store=SQLiteStore) as log:
        ask = {"type": "loan_application", "consumer": "c-1", "event_time": moment(START), "amount": 100}
        add(log, START, event_id="a-1", loan="l-2", **ask)  # somebody else's
        for loan in ("1", "2"):
            due = moment(START + 10 * DAY)
            add(log, START, type="instalment", event_id=f"i-{loan}", loan=f"l-{loan}", amount=100, due_at=due)
        paid = {"type": "repayment", "event_time": moment(START + 10 * DAY), "amount": 100}
        add(log, START + 11 * DAY, event_id="p-1", loan="l-1", **paid)
        add(log, START + 70 * DAY, event_id="a-1-fixed", corrects="a-1", loan="l-1", **ask)
        add(log, START + 80 * DAY, type="loan_application", event_id="a-1-none", retracts="a-1")

        def said(seen_at: int) -> list[tuple[str, str, int | None]]:
            rows = evaluate_outcomes(OUTCOME, log, seen_at=seen_at).to_pylist()
            return [(row["event_id"], row["status"], row["bad"]) for row in rows]

        assert said(START + 65 * DAY) == [("a-1", "matured", 1)]
        assert said(START + 75 * DAY) == [("a-1", "matured", 0)]
        assert said(START + 85 * DAY) == [("a-1", "excluded:retracted", None)]
