"""Files, truth and the live feed: split by arrival, nothing lost, nothing of the future."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from obligor.simulator import Simulation, World, history, live, simulate, true_probabilities, write
from obligor.simulator.arrivals import EVENT_TYPES, arrived
from obligor.simulator.history import TRUTH
from obligor.simulator.tables import LAYOUT, UTC_MOMENT

WORLD = World(consumers=150, days=200, live_days=6.0)


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(WORLD)


def test_the_history_holds_what_had_arrived(simulation: Simulation) -> None:
    end = pa.scalar(WORLD.end_us, pa.int64()).cast(UTC_MOMENT)
    for table in history(simulation).values():
        assert len(table) == 0 or pc.max(table["received_at"]).as_py() < end.as_py()


def test_living_longer_does_not_change_the_history(simulation: Simulation) -> None:
    short, long = history(simulate(replace(WORLD, live_days=0.0))), history(simulation)
    assert short.keys() == long.keys() == set(EVENT_TYPES)
    assert all(short[event].equals(long[event]) for event in short)


def test_history_and_live_together_are_everything(simulation: Simulation) -> None:
    records = list(live(simulation, approved=lambda _: True))
    behind = sum(len(table) for table in history(simulation).values())
    assert behind + len(records) == sum(len(arrived(simulation, kind)) for kind in LAYOUT)


def test_live_records_are_as_the_api_takes_them(simulation: Simulation) -> None:
    records = list(live(simulation))
    kinds = {record["type"] for record in records}
    assert {"loan_application", "app_visit", "bank_transaction", "repayment"} <= kinds <= set(EVENT_TYPES)
    for record in records:
        if "retracts" in record:
            assert set(record) == {"type", "event_id", "retracts"}
        else:
            assert record["event_time"].endswith("Z")
            assert all(value is not None for value in record.values())


def test_nothing_follows_a_live_application_that_was_not_approved(simulation: Simulation) -> None:
    asked = [r["event_id"] for r in live(simulation) if r["type"] == "loan_application"]
    loans = {application.replace("a-", "l-") for application in asked}
    assert not loans & {r.get("loan") for r in live(simulation)}
    some = set(asked[::2])
    followed = {r.get("loan") for r in live(simulation, approved=some.__contains__)} & loans
    assert followed
    assert {loan.replace("l-", "a-") for loan in followed if loan} <= some


def test_files_and_truth_are_written_apart(simulation: Simulation, tmp_path: Path) -> None:
    rows = write(simulation, tmp_path)
    assert {path.stem for path in tmp_path.glob("*.parquet")} == {*EVENT_TYPES} == set(rows) - {"truth"}
    truth = pq.read_table(tmp_path / TRUTH)
    assert truth.equals(true_probabilities(simulation))
    assert len(truth) == len({*truth["application"].to_pylist()}) == rows["truth"]
    for event in EVENT_TYPES:
        assert not {"pd", "bad", "strain", "trait"} & set(pq.read_schema(tmp_path / f"{event}.parquet").names)
