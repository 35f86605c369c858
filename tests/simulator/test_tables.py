"""Tables carry every row once, with unique ids and keys that fit each other."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from obligor.simulator import rows as r
from obligor.simulator.simulation import Simulation, simulate
from obligor.simulator.tables import LAYOUT, event_table, ids
from obligor.simulator.world import World


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(World(consumers=120, days=240))


def test_ids_are_padded() -> None:
    assert ids("c", np.array([0, 17, 1234567]), 6).to_pylist() == ["c-000000", "c-000017", "c-1234567"]


@pytest.mark.parametrize("kind", list(LAYOUT))
def test_every_row_is_there_once(simulation: Simulation, kind: int) -> None:
    table = event_table(simulation, kind)
    assert len(table) == int((simulation.rows[:, r.KIND] == kind).sum())
    assert len(set(table["id"].to_pylist())) == len(table)
    assert not any(table[name].null_count for name in table.column_names if name != "bureau_score")


def test_loans_belong_to_their_applications(simulation: Simulation) -> None:
    asked = set(event_table(simulation, r.APPLICATION)["id"].to_pylist())
    opened = event_table(simulation, r.OPENED)
    assert set(opened["application_id"].to_pylist()) <= asked
    assert [loan.replace("l-", "a-") for loan in opened["loan"].to_pylist()] == opened["application_id"].to_pylist()


def test_a_repayment_names_when_its_instalment_falls_due(simulation: Simulation) -> None:
    due, repaid = event_table(simulation, r.DUE), event_table(simulation, r.REPAYMENT)
    columns = ("loan", "number", "occurred_at")
    fell_due = {(loan, number): at for loan, number, at in zip(*(due[c].to_pylist() for c in columns), strict=True)}
    named = list(zip(*(repaid[c].to_pylist() for c in ("loan", "number", "due_at", "occurred_at")), strict=True))
    known = [(due_at, fell_due[loan, number]) for loan, number, due_at, _ in named if (loan, number) in fell_due]
    assert len(known) > 0.95 * len(named), "only those paid before a due date beyond the history have none"
    assert max(abs(due_at - at) for due_at, at in known) <= timedelta(microseconds=1)
    late = [paid_at - due_at for _, _, due_at, paid_at in named]
    assert min(late) >= timedelta(days=-2)
    assert 0.03 < sum(one > timedelta(days=1) for one in late) / len(late) < 0.3


def test_repayments_of_a_good_loan_add_up_to_its_amount(simulation: Simulation) -> None:
    owed = dict(zip(*(event_table(simulation, r.OPENED)[c].to_pylist() for c in ("loan", "amount")), strict=True))
    paid: dict[str, int] = {}
    repaid = event_table(simulation, r.REPAYMENT)
    for loan, amount in zip(repaid["loan"].to_pylist(), repaid["amount"].to_pylist(), strict=True):
        paid[loan] = paid.get(loan, 0) + amount
    assert all(paid[loan] <= owed[loan] for loan in paid)
    assert sum(paid[loan] == owed[loan] for loan in paid) > 0.5 * len(paid)
