"""The check of a lake: clean when it is, and every kind of damage to a file is found and shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.features.lake_world import History, append, lake_of, new_log

from obligor.events.log import EventLog
from obligor.features.buckets import BUCKETS
from obligor.features.lake import Lake
from obligor.features.lake_check import PASS_ROWS, SAMPLED, passes


@pytest.fixture
def world(tmp_path: Path) -> tuple[EventLog, Lake, Path]:
    """A log, its lake with files and revisions, and the largest file of consumers."""
    history = History(np.random.default_rng(3), consumers=[f"c-{i}" for i in range(400)])
    log = new_log(tmp_path)
    lake = lake_of(tmp_path, log)
    for rows in (500, 60):
        append(log, history.chunk(rows), history.tick())
        lake.update()
    files = sorted((tmp_path / "lake" / "consumer").glob("*.parquet"), key=lambda path: path.stat().st_size)
    return log, lake, files[-1]


def test_a_lake_that_is_right_is_found_right(world: tuple[EventLog, Lake, Path]) -> None:
    _, lake, _ = world
    whole, sample = lake.check(whole=True), lake.check()
    assert [(one.name, one.buckets, one.equal) for one in whole] == [
        ("consumer", BUCKETS, True), ("consumer+merchant", BUCKETS, True), ("merchant", BUCKETS, True),
    ]  # fmt: skip
    assert [one.buckets for one in sample] == [SAMPLED] * 3
    assert all(one.equal for one in sample)
    assert 0 < sample[0].rows < whole[0].rows / 10
    assert sum(one.revisions for one in lake.status()) > 0, "the test has revisions"


def changed(column: str, value: object) -> Callable[[pa.Table], pa.Table]:
    def change(rows: pa.Table) -> pa.Table:
        place, values = rows.schema.get_field_index(column), rows.column(column).to_pylist()
        values[next(i for i, one in enumerate(values) if one not in (None, value))] = value
        return rows.set_column(place, rows.schema.field(place), pa.array(values, rows.schema.field(place).type))

    return change


@pytest.mark.parametrize(
    ("damage", "missing", "unexpected"),
    [
        (lambda rows: rows.slice(1), 1, 0),
        (lambda rows: pa.concat_tables([rows.slice(0, 1), rows]), 0, 1),
        (changed("known", 5), 1, 1),
        (changed("root", 10**9), 1, 1),
        (changed("replaced_known", 5), 1, 1),
        (changed("event", "sale"), 1, 1),
    ],
)
def test_damage_to_a_file_is_found(
    world: tuple[EventLog, Lake, Path],
    damage: Callable[[pa.Table], pa.Table],
    missing: int,
    unexpected: int,
    tmp_path: Path,
) -> None:
    log, _, path = world
    footer = pq.read_metadata(path)
    rows = pq.read_table(path)
    writer = pq.ParquetWriter(path, rows.schema, store_schema=False)
    writer.add_key_value_metadata({k: v for k, v in footer.metadata.items() if k.startswith(b"obligor.")})
    writer.write_table(damage(rows).cast(rows.schema))
    writer.close()
    consumer, *others = lake_of(tmp_path, log).check(whole=True)
    assert (consumer.missing, consumer.unexpected) == (missing, unexpected)
    assert not consumer.equal
    assert all(one.equal for one in others)
    assert len(consumer.examples) == missing + unexpected
    assert all(one.startswith(("missing: {", "unexpected: {")) for one in consumer.examples)


def test_large_tables_are_gone_through_in_passes() -> None:
    assert [len(one) for one in passes(10, whole=True)] == [BUCKETS]
    parts = list(passes(10 * PASS_ROWS, whole=True))
    assert [bucket for part in parts for bucket in part] == list(range(BUCKETS))
    assert {len(part) for part in parts[:-1]} == {BUCKETS // 10}
