"""`obligor log check|copy`, and a whole lender on PostgreSQL: events, decisions, replay, backup and back again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cli.conftest import Run
from tests.cli.test_service import APPLICATION
from tests.decisions.serving import serving
from tests.postgres_server import Server
from tests.stores.kinds import PostgresKind

import obligor
from obligor.cli.service import _service
from obligor.decisions.http import create_app
from obligor.events.personal import KEY_FILE
from obligor.stores.sqlite.store import DATABASE


@pytest.fixture
def url(tmp_path: Path, postgres: Server) -> str:
    """A place for a log in PostgreSQL."""
    return PostgresKind(tmp_path, postgres).path


def use(project: Path, place: str, key: str = "store/log") -> None:
    """Change what obligor.toml says of the log, and nothing else."""
    settings = project / "obligor.toml"
    lines = [line for line in settings.read_text().splitlines() if not line.startswith(("log =", "key ="))]
    lines.insert(lines.index("[store]") + 1, f'log = "{place}"\nkey = "{key}"')
    settings.write_text("\n".join(lines) + "\n")


def decide(run: Run, project: Path, number: int) -> str:
    application = {**APPLICATION, "event_id": f"a-{number}", "consumer": f"c-{number:06}"}
    answer = run("decide", "-", "--project", str(project), "--json", stdin=json.dumps(application))
    return str(answer["decision_id"])


def check(run: Run, project: Path) -> dict[str, Any]:
    found = run("log", "check", "--project", str(project), "--json")
    assert found.pop("broken") == []
    return dict(found)


def replayed(run: Run, project: Path, decisions: int) -> None:
    found = run("replay", "--project", str(project), "--json")
    assert (found["verdicts"], found["broken"]) == ({"identical": decisions}, [])


def test_check_says_what_is_broken(run: Run, copy: Path) -> None:
    decide(run, copy, 1)
    assert check(run, copy)["shards"][0]["ledger_sequence"] == 1
    assert "whole" in run("log", "check", "--fast", "--project", str(copy))
    import apsw

    with apsw.Connection(str(copy / "store" / "log" / DATABASE)) as connection:
        connection.execute("UPDATE ledger SET record = x'00'")
    found = run("log", "check", "--project", str(copy), "--json", code=1)
    assert len(found["broken"]) == 1
    assert "does not fit its link" in found["broken"][0]


def test_a_log_moves_to_postgresql_and_back_and_every_decision_replays(run: Run, copy: Path, url: str) -> None:
    decide(run, copy, 1)
    before = check(run, copy)
    with obligor.open(copy).log(read_only=True) as log:
        old = {cut: log.facts("repayment", {0: cut}).rows for cut in (1_000, log.head.sequence)}
    done = run("log", "copy", "--to", url, "--project", str(copy), "--json")
    assert (done["log"], done["broken"]) == (before["log"], [])
    shutil.move(copy / "store" / "log" / DATABASE, copy / "store" / "log" / "old")
    use(copy, url)
    assert check(run, copy) == before
    replayed(run, copy, 1)
    with obligor.open(copy).log(read_only=True) as log:
        assert all(log.facts("repayment", {0: cut}).rows.equals(rows) for cut, rows in old.items())
    decide(run, copy, 2)
    run("log", "copy", "--to", "store/again", "--project", str(copy))
    after = check(run, copy)
    use(copy, "store/again")
    assert check(run, copy) == after != before
    assert (copy / "store" / "again" / KEY_FILE).read_bytes() == (copy / "store" / "log" / KEY_FILE).read_bytes()
    decide(run, copy, 3)
    replayed(run, copy, 3)
    run("parity", "--project", str(copy))


def test_a_copy_is_refused_where_it_cannot_be_right(run: Run, copy: Path, url: str) -> None:
    with obligor.open(copy).log():
        assert "another process is writing" in run("log", "copy", "--to", url, "--project", str(copy), code=3)
    assert "another place" in run("log", "copy", "--to", "store/log", "--project", str(copy), code=3)
    run("log", "copy", "--to", url, "--project", str(copy))
    assert "a log here already" in run("log", "copy", "--to", url, "--project", str(copy), code=3)
    use(copy, "store/log", key="store/other")
    (copy / "store" / "other").mkdir()
    (copy / "store" / "other" / KEY_FILE).write_text("00" * 64)
    assert "the key of another log" in run("log", "copy", "--to", url + "2", "--project", str(copy), code=4)
    use(copy, url, key="store/other")
    assert "another log's" in run("decide", "-", "--project", str(copy), stdin=json.dumps(APPLICATION), code=5)
    use(copy, url + "3")
    assert "the key of another log is here" in run(
        "decide", "-", "--project", str(copy), stdin=json.dumps(APPLICATION), code=4
    )


def test_credentials_are_in_no_output(run: Run, copy: Path, postgres: Server) -> None:
    url = f"postgresql://someone:s3cret@/postgres?host={postgres.folder}&log=secret"
    use(copy, url)
    for command in (["log", "check"], ["log", "copy", "--to", "elsewhere"], ["replay"], ["serve", "--no-keys"]):
        assert "s3cret" not in run(*command, "--project", str(copy), code=3)


@pytest.fixture
def service(run: Run, lender: Path, copy: Path, url: str) -> Iterator[httpx.Client]:
    """The service of a project whose log is in PostgreSQL, as `obligor serve` puts it together."""
    run("log", "copy", "--to", url, "--project", str(copy))
    (copy / "store" / "log" / DATABASE).unlink()
    use(copy, url)
    opened = obligor.open(copy)
    with serving(create_app(_service(opened, "champion", parity=True), None)) as client:
        yield client


def test_the_service_runs_on_it(run: Run, service: httpx.Client, copy: Path, postgres: Server) -> None:
    """Events, decisions, a replay; the server is killed and started in between; a second writer is refused."""
    event = {
        "type": "loan_application", "event_id": "plain", "event_time": "2026-11-01T09:00:00Z", "consumer": "c-000002",
        "merchant": "m-0001", "amount": 12_000, "instalments": 3, "category": "home", "channel": "web",
    }  # fmt: skip
    assert service.post("/v1/events", json=event).json()["events"][0]["status"] == "accepted"
    first = service.post("/v1/decisions", json=APPLICATION)
    assert first.status_code == 200
    postgres.kill()
    postgres.start()
    assert service.post("/v1/decisions", json=APPLICATION).json() == first.json(), "decided once"
    second = service.post("/v1/decisions", json={**APPLICATION, "event_id": "a-live-2"})
    assert second.status_code == 200
    for answer in (first, second):
        verdict = service.post(f"/v1/decisions/{answer.json()['decision_id']}/replay")
        assert verdict.json()["verdict"] == "identical"
    assert "another process is writing" in run("ingest", "nothing.parquet", "--project", str(copy), code=3)
    replayed(run, copy, 2)
    assert service.get("/healthz").status_code == 200


def test_a_dump_is_restored_and_every_decision_replays(
    run: Run, copy: Path, url: str, postgres: Server, tmp_path: Path
) -> None:
    """As docs/operations.md says: one schema, dumped while the log is open for writing, restored elsewhere."""
    run("log", "copy", "--to", url, "--project", str(copy))
    use(copy, url)
    decide(run, copy, 1)
    before = check(run, copy)
    place, _, name = url.partition("&log=")
    dump = tmp_path / "lender.dump"
    with obligor.open(copy).log():
        postgres.client("pg_dump", f"--schema=obligor_{name}", "--format=custom", f"--file={dump}", place)
    decide(run, copy, 2)
    postgres.run(f"CREATE DATABASE restored_{name}")
    restored = place.replace("/postgres?", f"/restored_{name}?")
    postgres.client("pg_restore", f"--dbname={restored}", "--exit-on-error", "--single-transaction", str(dump))
    use(copy, f"{restored}&log={name}")
    assert check(run, copy) == before
    replayed(run, copy, 1)
    decide(run, copy, 3)
    replayed(run, copy, 2)


def test_a_backup_of_sqlite_is_restored_and_every_decision_replays(run: Run, copy: Path) -> None:
    """As docs/operations.md says: SQLite's own backup, while the log is open for writing, and the key file."""
    decide(run, copy, 1)
    before = check(run, copy)
    (copy / "backup").mkdir()
    with obligor.open(copy).log():
        command = [sys.executable, "-m", "apsw", "store/log/log.sqlite3", ".backup backup/log.sqlite3"]
        subprocess.run(command, cwd=copy, check=True, capture_output=True)
    shutil.copy(copy / "store" / "log" / KEY_FILE, copy / "backup")
    decide(run, copy, 2)
    shutil.rmtree(copy / "store" / "log")
    shutil.move(copy / "backup", copy / "store" / "log")
    assert check(run, copy) == before
    replayed(run, copy, 1)
    decide(run, copy, 3)
    replayed(run, copy, 2)
