"""The Delta tables: commits that are whole or nothing, marks that two cannot set at once, files that anybody reads."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from obligor.errors import NotFound
from obligor.features.lake_store import CommitConflict, DataFile, Snapshot
from obligor.features.lake_tables import STANDARD
from obligor.stores.delta import DeltaLake, DeltaTableStore

SCHEMA = pa.schema([*STANDARD, pa.field("repayment.amount", pa.int64()), pa.field("repayment.channel", pa.string())])
MARKS = {"log": 7, "sequence": 0, "chain": 2**63 - 1, "folded": 0}


@pytest.fixture
def store(tmp_path: Path) -> DeltaTableStore:
    store = DeltaLake(tmp_path).table("consumer")
    store.create(SCHEMA, MARKS)
    return store


def rows(buckets: Sequence[int], **more: Sequence[object]) -> pa.Table:
    """Return rows in these buckets, every third of them replaced."""
    n = len(buckets)
    numbers = {name: list(range(n)) for name in ("event_time", "known", "position", "root")}
    replaced = [(i, i + 10) if i % 3 == 0 else None for i in range(n)]
    data = {
        "bucket": buckets, "entity": ["c-1"] * n, "event": ["repayment"] * n, **numbers,
        "replaced_position": [pair and pair[0] for pair in replaced],
        "replaced_known": [pair and pair[1] for pair in replaced],
        "replaced_more": [[{"position": 1, "known": 2}] if i == 3 else None for i in range(n)],
        "repayment.amount": [i * 100 for i in range(n)], "repayment.channel": [None] * n,
    }  # fmt: skip
    return pa.table(data | more, SCHEMA)


def written(store: DeltaTableStore, *groups: pa.Table) -> DataFile:
    writer = store.writer(groups[0].schema, {"types": "{}"})
    for group in groups:
        writer.write(group)
    return writer.close()


def now(store: DeltaTableStore) -> Snapshot:
    snapshot = store.snapshot()
    assert snapshot is not None
    return snapshot


def test_a_table_begins_empty_with_its_marks(store: DeltaTableStore, tmp_path: Path) -> None:
    assert now(store).marks == MARKS
    assert now(store).files == ()
    assert now(store).schema.names == SCHEMA.names
    assert DeltaLake(tmp_path).table("merchant").snapshot() is None
    assert store.vacuum(0) == 0


def test_what_is_committed_is_read_back_group_by_group(store: DeltaTableStore) -> None:
    first, second = rows([1, 1, 2, 5, 5]), rows([7, 9])
    file = written(store, first, second)
    assert now(store).files == (), "a file alone is no part of the table"
    store.commit(now(store), SCHEMA, [file], [], {"sequence": 12, "chain": 3})
    assert now(store).files == (file,)
    assert now(store).marks == MARKS | {"sequence": 12, "chain": 3}
    assert (file.rows, file.first, file.last) == (7, 1, 9)
    reader = store.reader(file)
    assert [tuple(group) for group in reader.groups] == [(5, 1, 5), (2, 7, 9)]
    assert reader.notes["types"] == "{}"
    assert reader.names == set(SCHEMA.names)
    for groups, expected in (([0], first), ([1], second), ([0, 1], pa.concat_tables([first, second]))):
        found = reader.read(groups, SCHEMA.names)
        assert pa.types.is_run_end_encoded(found.schema.field("entity").type)
        assert found.to_pylist() == expected.to_pylist()
    assert reader.read([1], ["known", "bucket"]).to_pydict() == {"known": [0, 1], "bucket": [7, 9]}


def test_a_column_of_nulls_is_not_read_and_one_event_is_known_without_reading(
    store: DeltaTableStore, tmp_path: Path
) -> None:
    several = rows([1, 2], event=["repayment", "sale"], **{"repayment.channel": ["app", None]})
    file = written(store, rows([0]), several)
    reader = store.reader(file)
    assert reader.only([0], "event") == "repayment"
    assert reader.only([1], "event") is None
    assert reader.only([0, 1], "event") is None
    (tmp_path / "consumer").joinpath(file.name).rename((tmp_path / "consumer") / "away")
    with pytest.raises(NotFound, match="deleted"):
        reader.read([1], ["repayment.channel"])
    with pytest.raises(NotFound, match="deleted"):
        DeltaLake(tmp_path).table("consumer").reader(file)


def test_two_that_set_one_mark_never_both_happen(store: DeltaTableStore, tmp_path: Path) -> None:
    other = DeltaLake(tmp_path).table("consumer")
    mine, theirs = written(store, rows([1])), written(other, rows([2]))
    base, their_base = now(store), now(other)
    store.commit(base, SCHEMA, [mine], [], {"sequence": 5})
    with pytest.raises(CommitConflict, match="another process"):
        other.commit(their_base, SCHEMA, [theirs], [], {"sequence": 5})
    now(store)
    with pytest.raises(CommitConflict, match="another thread"):
        store.commit(base, SCHEMA, [theirs], [], {"sequence": 6})
    assert now(other).files == (mine,)


def test_an_update_and_a_compaction_both_happen_and_two_compactions_do_not(
    store: DeltaTableStore, tmp_path: Path
) -> None:
    old = [written(store, rows([1])), written(store, rows([2]))]
    store.commit(now(store), SCHEMA, old, [], {"sequence": 2})
    stores = [DeltaLake(tmp_path).table("consumer") for _ in range(3)]
    bases = [now(one) for one in stores]
    added, merged, again = (written(store, rows([i])) for i in (3, 4, 5))
    stores[0].commit(bases[0], SCHEMA, [added], [], {"sequence": 3})
    stores[1].commit(bases[1], SCHEMA, [merged], old, {"folded": 2})
    with pytest.raises(CommitConflict):
        stores[2].commit(bases[2], SCHEMA, [again], old, {"folded": 2})
    assert set(now(store).files) == {added, merged}
    assert now(store).marks == MARKS | {"sequence": 3, "folded": 2}


def test_files_that_are_gone_are_not_replaced_again(store: DeltaTableStore) -> None:
    old, new = written(store, rows([1])), written(store, rows([2]))
    store.commit(now(store), SCHEMA, [old], [], {"sequence": 2})
    base = now(store)
    store.create(SCHEMA, MARKS | {"sequence": 2})
    now(store)
    with pytest.raises(CommitConflict, match="gone"):
        store.commit(base, SCHEMA, [new], [old], {"folded": 0})
    assert now(store).files == ()


def test_many_commits_are_checkpointed_and_keep_the_marks(store: DeltaTableStore, tmp_path: Path) -> None:
    for i in range(1, 121):
        store.commit(now(store), SCHEMA, [], [], {"sequence": i})
    assert list(((tmp_path / "consumer") / "_delta_log").glob("*.checkpoint.parquet"))
    assert now(DeltaLake(tmp_path).table("consumer")).marks == MARKS | {"sequence": 120}


def test_a_commit_of_another_shows_at_the_next_look(store: DeltaTableStore, tmp_path: Path) -> None:
    """Also where the log has been cleaned since, so that the commit after the one that was seen has no file."""
    other = DeltaLake(tmp_path).table("consumer")
    first = now(store)
    assert now(store) is first, "nothing is read again where nothing was committed"
    for i in range(1, 4):
        other.commit(now(other), SCHEMA, [written(other, rows([i]))], [], {"sequence": i})
        assert now(store).version == now(other).version == first.version + i
        assert now(store).files == now(other).files
    for i in range(4, 7):
        other.commit(now(other), SCHEMA, [], [], {"sequence": i})
    DeltaTable(tmp_path / "consumer").create_checkpoint()
    for commit in (tmp_path / "consumer" / "_delta_log").glob("*.json"):
        if int(commit.stem) < now(other).version:
            commit.unlink()
    assert now(store).version == now(other).version
    assert now(store).marks == MARKS | {"sequence": 6}


def test_new_columns_leave_files_as_they_are(store: DeltaTableStore, tmp_path: Path) -> None:
    old = written(store, rows([1]))
    store.commit(now(store), SCHEMA, [old], [], {"sequence": 1})
    wider = pa.schema([*SCHEMA, pa.field("sale.price", pa.int64(), nullable=False)])
    new = written(store, rows([2]).append_column(wider.field("sale.price"), pa.array([9])))
    store.commit(now(store), wider, [new], [], {"sequence": 2})
    assert now(store).schema.names == wider.names
    assert store.reader(old).names == set(SCHEMA.names)
    seen = pl.scan_delta(str(tmp_path / "consumer")).select("bucket", "sale.price").sort("bucket").collect()
    assert seen.rows() == [(1, None), (2, 9)]


def test_a_table_made_anew_has_nothing_of_the_old_one(store: DeltaTableStore, tmp_path: Path) -> None:
    store.commit(now(store), SCHEMA, [written(store, rows([1]))], [], {"sequence": 9})
    other = pa.schema([*STANDARD, pa.field("sale.price", pa.int64())])
    store.create(other, MARKS | {"log": 8})
    assert now(store).files == ()
    assert now(store).marks == MARKS | {"log": 8}
    assert now(store).schema.names == other.names
    assert pl.scan_delta(str(tmp_path / "consumer")).collect().shape == (0, len(other.names))


def test_vacuum_deletes_what_no_version_of_now_needs(store: DeltaTableStore, tmp_path: Path) -> None:
    kept, gone, orphan = (written(store, rows([i])) for i in range(3))
    store.commit(now(store), SCHEMA, [kept, gone], [], {"sequence": 1})
    store.commit(now(store), SCHEMA, [], [gone], {"folded": 1})
    assert store.vacuum(24) == 0
    assert store.vacuum(0) == 2, "what was removed, and what a killed writer left"
    names = {path.name for path in (tmp_path / "consumer").glob("*.parquet")}
    assert names == {kept.name} != {orphan.name}
    assert store.reader(kept).read([0], ["bucket"]).num_rows == 1


def test_an_abandoned_file_is_gone(store: DeltaTableStore, tmp_path: Path) -> None:
    writer = store.writer(SCHEMA, {})
    writer.write(rows([1]))
    writer.abandon()
    assert list((tmp_path / "consumer").glob("*.parquet")) == []


def test_times_and_keys_are_written_to_be_read_quickly(store: DeltaTableStore, tmp_path: Path) -> None:
    file = written(store, rows(sorted(range(4000))))
    footer = pq.read_metadata((tmp_path / "consumer") / file.name)
    group = footer.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    for name in ("event_time", "known"):
        assert (columns[name].compression, "PLAIN" in columns[name].encodings) == ("UNCOMPRESSED", True)
    assert "RLE_DICTIONARY" in columns["entity"].encodings
    assert "BYTE_STREAM_SPLIT" in columns["position"].encodings
    assert "replaced_more.list.element.known" in columns


def test_threads_may_look_at_a_table_while_it_changes(store: DeltaTableStore) -> None:
    failures: list[BaseException] = []

    def look() -> None:
        try:
            for _ in range(50):
                now(store)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for i in range(10):
        store.commit(now(store), SCHEMA, [], [], {"sequence": i})
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_table_is_a_delta_table(store: DeltaTableStore, tmp_path: Path) -> None:
    file = written(store, rows([1, 2]))
    store.commit(now(store), SCHEMA, [file], [], {"sequence": 1})
    delta = DeltaTable(str(tmp_path / "consumer"))
    assert delta.protocol().min_reader_version == 1, "every reader of Delta reads it"
    assert delta.count() == 2
