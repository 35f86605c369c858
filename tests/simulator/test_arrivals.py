"""However rows arrive, the last view of them is what happened."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from obligor.simulator import rows as r
from obligor.simulator.arrivals import LAG_US, arrived
from obligor.simulator.simulation import Simulation, simulate
from obligor.simulator.tables import LAYOUT, event_table
from obligor.simulator.world import World

DISTURBED = [r.BANK, r.PURCHASE, r.REPAYMENT]


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(World(consumers=200, days=300))


def resolved(records: pa.Table) -> dict[str, dict[str, Any]]:
    """Return the facts that remain when every correction and retraction is known, by their original's id."""
    facts: dict[str, dict[str, Any]] = {}
    rows = records.to_pylist()
    for row in rows:
        if not row["corrects"] and not row["retracts"]:
            facts[row["id"]] = row
    for row in rows:
        if row["corrects"]:
            facts[row["corrects"]] = row
        if row["retracts"]:
            del facts[row["retracts"]]
    return facts


@pytest.mark.parametrize("kind", list(LAYOUT))
def test_the_final_view_is_what_happened(simulation: Simulation, kind: int) -> None:
    facts = event_table(simulation, kind)
    final = resolved(arrived(simulation, kind))
    names = [name for name in facts.column_names if name != "id"]
    expected = {row["id"]: [row[name] for name in names] for row in facts.to_pylist()}
    assert {key: [row[name] for name in names] for key, row in final.items()} == expected


@pytest.mark.parametrize("kind", DISTURBED)
def test_some_arrive_late_wrong_or_twice(simulation: Simulation, kind: int) -> None:
    records, facts = arrived(simulation, kind), len(event_table(simulation, kind))
    event, rows = LAYOUT[kind].event, records.to_pylist()
    assert sum(row["corrects"] is not None for row in rows) / facts == pytest.approx(0.01, abs=0.004)
    assert 0 < sum(row["retracts"] is not None for row in rows) < 0.01 * facts
    originals = [row for row in rows if not row["corrects"] and not row["retracts"]]
    late = [row for row in originals if (row["received_at"] - row["occurred_at"]).total_seconds() > LAG_US[event] / 1e6]
    assert len(late) / facts == pytest.approx(0.02, abs=0.01)
    first = {row["id"]: row for row in originals}
    wrong = [row for row in rows if row["corrects"] and row["amount"] != first[row["corrects"]]["amount"]]
    assert len(wrong) == sum(row["corrects"] is not None for row in rows)


def test_some_corrections_overtake_their_original_and_some_move_a_purchase(simulation: Simulation) -> None:
    rows = arrived(simulation, r.PURCHASE).to_pylist()
    first = {row["id"]: row for row in rows}
    corrections = [row for row in rows if row["corrects"]]
    assert any(row["received_at"] < first[row["corrects"]]["received_at"] for row in corrections)
    assert any(row["merchant"] != first[row["corrects"]]["merchant"] for row in corrections)


def test_applications_are_never_late_or_wrong(simulation: Simulation) -> None:
    records = arrived(simulation, r.APPLICATION)
    assert records["occurred_at"].equals(records["received_at"])
    assert records["corrects"].null_count == len(records)
