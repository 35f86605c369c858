"""A whole lender on several shards, by its commands: log shards, serve and serve --shard, copy, backup."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cli.conftest import Run
from tests.cli.test_log import decide, replayed, use
from tests.cli.test_service import APPLICATION
from tests.postgres_server import Server
from tests.stores.kinds import PostgresKind

import obligor
from obligor.cli.models import _seen
from obligor.models.training_set import TrainingSet
from obligor.simulator.history import TRUTH

SECONDS_MAX = 120.0


@pytest.fixture
def sharded(run: Run, copy: Path, tmp_path: Path, postgres: Server) -> Path:
    """A lender's project whose log, a new one, is in PostgreSQL, on two shards."""
    use(copy, PostgresKind(tmp_path, postgres).path, key="store/key")
    decide(run, copy, 1)
    assert run("log", "shards", "--project", str(copy), "--json")["entity"] is None
    made = run("log", "shards", "--add", "--project", str(copy), "--json")
    assert (made["entity"], [one["buckets"] for one in made["shards"]]) == ("consumer", [2048, 2048])
    return copy


def write_shards(project: Path, writers: Sequence[str]) -> None:
    """Name the writers in obligor.toml."""
    settings = project / "obligor.toml"
    kept = settings.read_text().partition("\n[shards]")[0]
    settings.write_text(f"{kept}\n[shards]\nwriters = {json.dumps(list(writers))}\n")


class Process:
    """A process of `obligor serve`."""

    def __init__(self, project: Path, *arguments: str, port: int) -> None:
        command = [sys.executable, "-m", "obligor", "serve", "--no-keys", "--no-parity", "--project", str(project)]
        self._process = subprocess.Popen([*command, "--port", str(port), *arguments], stderr=subprocess.PIPE, text=True)
        self.address = f"http://127.0.0.1:{port}"

    def wait(self) -> None:
        """Wait until it is ready."""
        deadline = time.monotonic() + SECONDS_MAX
        while not self._is_ready():
            assert self._process.poll() is None, self._process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            return bool(httpx.get(f"{self.address}/readyz").json()["status"] == "ready")
        except httpx.TransportError:
            return False

    def end(self) -> None:
        """End it as an operator does."""
        self._process.send_signal(signal.SIGTERM)
        self._process.communicate(timeout=SECONDS_MAX)


@contextmanager
def everything(project: Path, count: int) -> Iterator[str]:
    """Run the writers of all shards and the front end, started together; yield its address."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count + 1)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    write_shards(project, [f"http://127.0.0.1:{port}" for port in ports[:count]])
    processes = [Process(project, "--shard", str(shard), port=ports[shard]) for shard in range(count)]
    processes.append(Process(project, port=ports[count]))
    try:
        for process in processes:
            process.wait()
        yield processes[-1].address
    finally:
        for process in reversed(processes):
            process.end()


def ask(address: str, number: int) -> dict[str, Any]:
    application = {**APPLICATION, "event_id": f"s-{number}", "consumer": f"c-{number:06}"}
    answer = httpx.post(f"{address}/v1/decisions", json=application, timeout=SECONDS_MAX)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = httpx.get(f"{address}/v1/decisions/{answer.json()['decision_id']}").json()
    return found


def test_a_lender_is_served_from_two_shards_and_goes_to_three(
    run: Run, sharded: Path, postgres: Server, tmp_path: Path
) -> None:
    at = ("--project", str(sharded))
    with everything(sharded, 2) as address:
        records = [ask(address, number)["record"] for number in range(10, 22)]
        assert {record["application"]["position"] >> 48 for record in records} == {0, 1}
        for command in (["log", "shards", "--add"], ["log", "copy", "--to", "store/elsewhere"]):
            assert "another process is writing" in run(*command, *at, code=3), "while any shard has a writer"
        assert run("parity", "--shard", "1", *at, "--json")["state"]["differences"] == 0
        place, _, name = obligor.open(sharded).settings.store.log.partition("&log=")
        dump = tmp_path / "lender.dump"
        postgres.client("pg_dump", f"--schema=obligor_{name}", "--format=custom", f"--file={dump}", place)
    assert "2,048" in run("log", "shards", *at)
    with obligor.open(sharded, 1).log(), obligor.open(sharded).log(read_only=True) as log:
        assert log.shards == 2
        assert "shard 1 of this log" in run("log", "shards", "--add", *at, code=3)
    made = run("log", "shards", "--add", *at, "--json")
    assert [one["buckets"] for one in made["shards"]] == [1366, 1365, 1365]
    assert "expected 3 addresses, got 2" in run("serve", "--no-keys", *at, code=3)
    with everything(sharded, 3) as address:
        again = ask(address, 10)
        assert again["record"] == records[0], "decided once, whichever shard it is on now"
        assert [ask(address, number)["record"]["cut"].keys() for number in (31, 32)] == [{"0", "1", "2"}] * 2
    decide(run, sharded, 40)
    replayed(run, sharded, 16)
    assert_lake_and_copies(run, sharded, tmp_path, postgres)
    postgres.run(f"CREATE DATABASE again_{name}")
    restored = place.replace("/postgres?", f"/again_{name}?")
    postgres.client("pg_restore", f"--dbname={restored}", "--exit-on-error", "--single-transaction", str(dump))
    use(sharded, f"{restored}&log={name}", key="store/key")
    assert len(run("log", "check", "--fast", "--project", str(sharded), "--json")["shards"]) == 2
    replayed(run, sharded, 13)


def assert_lake_and_copies(run: Run, sharded: Path, tmp_path: Path, postgres: Server) -> None:
    """The lake holds all shards; a copy is the same in another schema, and none in a folder."""
    at = ("--project", str(sharded))
    tables = run("lake", "update", *at, "--json")["tables"]
    assert all((one["behind"], one["misfit"], len(one["cut"])) == (0, None, 3) for one in tables)
    assert all(one["equal"] for one in run("lake", "check", *at, "--json")["tables"])
    assert "one in a folder has one" in run("log", "copy", "--to", "store/folder", *at, code=3)
    own, other = obligor.open(sharded).settings.store.log, PostgresKind(tmp_path, postgres).path
    with obligor.open(sharded).log(read_only=True) as log:
        heads = log.heads()
    assert run("log", "copy", "--to", other, *at, "--json")["broken"] == []
    use(sharded, other, key="store/key")
    with obligor.open(sharded).log(read_only=True) as log:
        assert log.heads() == heads
    use(sharded, own, key="store/key")


def test_a_log_in_a_folder_has_one_shard(run: Run, copy: Path) -> None:
    at = ("--project", str(copy))
    assert "has one shard" in run("log", "shards", "--add", *at, code=3)
    assert "has one shard, 0, got 1" in run("serve", "--no-keys", "--shard", "1", *at, code=3)
    write_shards(copy, ["http://127.0.0.1:1"])
    assert "the log has one shard" in run("serve", "--no-keys", *at, code=3)


# ---- a bulk load, and what is learned from it ------------------------------------------------------------------------


def two_shards(run: Run, project: Path, place: str) -> None:
    """Put a project's log, a new and empty one, at a place in PostgreSQL on two shards."""
    use(project, place, key="store/key")
    run("log", "shards", "--add", "--project", str(project))


def test_a_load_goes_to_the_shards_of_its_consumers(run: Run, copy: Path, tmp_path: Path, postgres: Server) -> None:
    at = ("--project", str(copy), "--json")
    two_shards(run, copy, PostgresKind(tmp_path, postgres).path)
    source = str(copy / "raw" / "repayment.parquet")
    with obligor.open(copy, 1).log():  # another writer of any shard
        assert "another process is writing" in run("ingest", source, "--declared", *at[:2], code=3)
    report = run("ingest", source, "--declared", *at)
    assert report["accepted"] == report["rows"] > 0
    with obligor.open(copy).log(read_only=True) as log:
        routes = obligor.open(copy).routes(log)
        assert routes is not None
        facts = log.facts("repayment", columns=["consumer"]).rows.to_pylist()
        ends = log.ends()
    assert {one["root"] >> 48 for one in facts} == {0, 1}
    assert all(one["root"] >> 48 == routes.of_entity(one["consumer"]) for one in facts)
    assert run("ingest", source, "--declared", *at)["duplicates"] == report["rows"]
    more = run("ingest", str(copy / "raw" / "purchase.parquet"), "--declared", "--shard", "1", *at)
    with obligor.open(copy).log(read_only=True) as log:
        assert log.ends() == {0: ends[0], 1: ends[1] + more["accepted"]}, "all of it in the shard that was named"
    assert run("log", "check", *at)["broken"] == []


def learned_from(project: Path) -> TrainingSet:
    opened = obligor.open(project)
    with opened.log(read_only=True) as log:
        return _seen(opened, log, None, None, lambda done, of: None).data


def test_a_model_is_learned_from_two_shards_as_from_one(
    run: Run, lender: Path, copy: Path, tmp_path: Path, postgres: Server
) -> None:
    """All that differs is what names the log: its id, its cut and chains, and the positions in it."""
    two_shards(run, copy, PostgresKind(tmp_path, postgres).path)
    at = ("--project", str(copy))
    files = sorted(str(path) for path in (copy / "raw").glob("*.parquet"))
    run("ingest", *files, "--declared", *at)
    one, two = learned_from(lender), learned_from(copy)
    assert one.application_id == two.application_id
    for name in ("as_of", "matured_at", "features", "bad", "weights"):
        found, wanted = getattr(two, name), getattr(one, name)
        assert found.tobytes() == wanted.tobytes(), name
    assert one.status.tolist() == two.status.tolist()
    assert one.fields.equals(two.fields)
    assert {*(two.root >> 48).tolist()} == {0, 1}
    run("lake", "update", *at)
    again = learned_from(copy)
    assert (again.sha256, again.features.tobytes()) == (two.sha256, two.features.tobytes()), "by a backfill of the lake"
    assert two.sha256 != one.sha256, "positions are part of it"

    before = obligor.open(copy).bundle()  # the lender's, from one shard
    run("train", "--cutoff", "2026-04-05", "--ceiling", str(copy / "raw" / TRUTH), *at)
    bundle = obligor.open(copy).bundle()
    parts = {path.name for path in bundle.path.iterdir()}
    differing = {name for name in parts if (bundle.path / name).read_bytes() != (before.path / name).read_bytes()}
    assert differing == {"manifest.json", "training.json"}
    named = ("snapshot", "data_sha256")
    assert {key for key in bundle.training if bundle.training[key] != before.training[key]} == {*named}
    assert bundle.training["snapshot"]["cut"].keys() == {"0", "1"}
    assert bundle.training["snapshot"]["seen_at_us"] == before.training["snapshot"]["seen_at_us"]
