"""No leakage: what happens at or after as_of, or is known after it, changes no feature of the template's whole plan.

Two logs of one simulated lender are loaded from files; in one of them everything that the applications up to an instant
must not see is changed. Their features must be equal to the bit, and the control shows that the same change earlier is
seen at once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray

import obligor
from obligor.cli.events import ingest_files
from obligor.cli.projects import write_template
from obligor.models.training_set import TrainingSet, training_set
from obligor.project import Project
from obligor.simulator.history import history
from obligor.simulator.simulation import simulate
from obligor.simulator.tables import UTC_MOMENT
from obligor.simulator.world import DAY_US, World

WORLD = World(consumers=60, days=240, seed=11, late_share=0.1, corrected_share=0.05, retracted_share=0.02)
DAYS = (90, 150, 239)


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    return history(simulate(WORLD))


def _changed(tables: dict[str, pa.Table], instant: int, *, before: bool = False) -> dict[str, pa.Table]:
    """Return the tables with the money of every row that `instant` must not see changed (or, `before`, must see)."""
    moment = pa.scalar(instant, pa.int64()).cast(UTC_MOMENT)
    changed = {}
    for event, table in tables.items():
        unseen = pc.greater(table["received_at"], moment)
        if event != "loan_application":  # an application is the question itself, not what is known about it
            unseen = pc.or_(unseen, pc.greater_equal(table["occurred_at"], moment))
        mask = pc.invert(unseen) if before else unseen
        for name in ("amount", "declared_income"):
            if name in table.column_names and not (before and event == "loan_application"):
                other = pc.add(pc.multiply(table[name], 7), 1)
                place = table.column_names.index(name)
                table = table.set_column(place, name, pc.if_else(mask, other, table[name]))
        changed[event] = table
    return changed


def _features(tables: dict[str, pa.Table], folder: Path) -> TrainingSet:
    import pyarrow.parquet as pq

    write_template(folder)
    (folder / "raw").mkdir()
    for event, table in tables.items():
        pq.write_table(table, folder / "raw" / f"{event}.parquet")
    project: Project = obligor.open(folder)
    files = sorted((folder / "raw").glob("*.parquet"))
    assert ingest_files(project, files, declared=True, hidden=True).rejected == 0
    with project.log(read_only=True) as log:
        return training_set(project.plan, project.outcome, log, seen_at=log.last_known_time)


def _bits(data: TrainingSet, instant: int) -> dict[str, bytes]:
    asked: NDArray[np.bool_] = data.as_of <= instant
    return {data.application_id[row]: data.features[row].tobytes() for row in np.flatnonzero(asked)}


@pytest.fixture(scope="module")
def untouched(tables: dict[str, pa.Table], tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return _features(tables, tmp_path_factory.mktemp("untouched") / "lender")


@pytest.mark.parametrize("day", DAYS)
def test_what_must_not_be_seen_changes_nothing(
    day: int, tables: dict[str, pa.Table], untouched: TrainingSet, tmp_path: Path
) -> None:
    asked = untouched.as_of[untouched.as_of <= WORLD.start_us + day * DAY_US]
    instant = int(asked.max())  # an application's own as_of: the edge itself is part of the test
    perturbed = _features(_changed(tables, instant), tmp_path / "lender")
    expected, found = _bits(untouched, instant), _bits(perturbed, instant)
    assert len(expected) == len(asked) > 20
    assert found == expected
    later = untouched.as_of > instant
    if later.sum() > 20:
        assert _bits(perturbed, 2**62) != _bits(untouched, 2**62), "later applications do see it"


def test_the_same_change_earlier_is_seen(tables: dict[str, pa.Table], untouched: TrainingSet, tmp_path: Path) -> None:
    instant = int(np.sort(untouched.as_of)[len(untouched) // 2])
    perturbed = _features(_changed(tables, instant, before=True), tmp_path / "lender")
    expected, found = _bits(untouched, instant), _bits(perturbed, instant)
    assert sum(found[name] != expected[name] for name in expected) > len(expected) / 2
