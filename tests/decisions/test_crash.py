"""kill -9 while events and applications come in over HTTP: nothing acknowledged is lost, nothing is there twice.

The short form kills a few times; `OBLIGOR_SOAK=1` fifty times. Whether an acknowledgement waits for the disk and not
only for the process is shown for the log's store by itself (tests/stores), and here that it waits for the store.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.decisions.desk import (
    REGISTRY,
    Clock,
    application,
    batch_of,
    open_log,
    open_state,
    repayment,
    sale,
)
from tests.decisions.sequenced import Scored

from obligor.decisions.parity import check_state
from obligor.decisions.record import decode
from obligor.decisions.replay import audit
from obligor.decisions.service import Service
from obligor.events.log import EventLog
from obligor.models.bundle import Bundle
from obligor.stores.sqlite import SQLiteStore

KILLS = 50 if os.environ.get("OBLIGOR_SOAK") else 6
CLIENTS = 4
SECONDS_MAX = 60.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Scored(tmp_path_factory.mktemp("bundles")).bundle()


class Servers:
    """Starts servers on one folder, one after the other, and kills them."""

    def __init__(self, folder: Path, bundle: Path, *fault: str) -> None:
        self._folder = folder
        program = [sys.executable, "-m", "tests.decisions.crashing", str(bundle), *fault]
        self._nursery = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self) -> tuple[int, str]:
        """Return process id and address of a server that is ready."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(f"{self._folder} {port}\n")
        self._nursery.stdin.flush()
        process, address = int(self._nursery.stdout.readline()), f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + SECONDS_MAX
        while not _is_ready(address):
            assert time.monotonic() < deadline, "the server did not become ready"
            time.sleep(0.01)
        return process, address

    def kill(self, process: int) -> None:
        """Kill a server and wait until it is gone."""
        os.kill(process, signal.SIGKILL)
        while Path(f"/proc/{process}").exists():
            time.sleep(0.002)

    def close(self) -> None:
        """End the program."""
        self._nursery.communicate()


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz").status_code == 200
    except httpx.TransportError:
        return False


class Client:
    """Sends events and applications until its server is gone, and remembers what was acknowledged and what was not."""

    def __init__(self, number: int) -> None:
        self._number, self._sent = number, 0
        self.events: dict[str, int] = {}  # id -> position
        self.decisions: dict[str, dict[str, Any]] = {}  # application id -> answer
        self.unknown: list[tuple[str, Any]] = []  # path and body whose fate is not known
        self.acknowledged = 0  # requests

    def work(self, address: str, seed: int) -> None:
        """Send again what has no answer, then new things, until the connection breaks."""
        chance = random.Random(seed)
        with httpx.Client(base_url=address, timeout=SECONDS_MAX) as http:
            try:
                while self.unknown:
                    self._send(http, *self.unknown[0])
                    self.unknown.pop(0)
                while True:
                    path, body = self._next(chance)
                    self.unknown.append((path, body))
                    self._send(http, path, body)
                    self.unknown.pop()
            except httpx.TransportError:
                return

    def _next(self, chance: random.Random) -> tuple[str, Any]:
        self._sent += 1
        name = f"{self._number}-{self._sent}"
        if chance.random() < 0.4:
            return "/v1/decisions", application(name, f"c-{chance.randrange(30)}", merchant="m-1")
        body = [repayment(f"{name}-{i}", f"c-{chance.randrange(30)}") for i in range(chance.randrange(1, 15))]
        return "/v1/events", [*body, sale(name, f"m-{chance.randrange(3)}")]

    def _send(self, http: httpx.Client, path: str, body: Any) -> None:
        answer = http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        if path == "/v1/decisions":
            self.decisions[body["event_id"]] = answer.json()
        else:
            results = answer.json()["events"]
            self.events.update((one["event_id"], one["position"]) for one in results)
        self.acknowledged += 1


def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path, bundle: Bundle) -> None:
    chance = random.Random(11)
    servers = Servers(tmp_path, bundle.path)
    clients = [Client(number) for number in range(CLIENTS)]
    acknowledged = 0
    try:
        for kill in range(KILLS):
            process, address = servers.start()
            threads = [
                threading.Thread(target=client.work, args=(address, 100 * kill + i)) for i, client in enumerate(clients)
            ]
            for thread in threads:
                thread.start()
            before, deadline = sum(client.acknowledged for client in clients), time.monotonic() + SECONDS_MAX
            while sum(client.acknowledged for client in clients) < before + chance.randrange(1, 60):
                assert time.monotonic() < deadline, "the server answers nothing"
                time.sleep(chance.uniform(0.001, 0.02))
            servers.kill(process)
            for thread in threads:
                thread.join(SECONDS_MAX)
                assert not thread.is_alive()
            with EventLog.open(tmp_path / "log", REGISTRY, read_only=True, store=SQLiteStore) as log:
                acknowledged = _assert_all_there(log, clients)
        process, address = servers.start()  # everything without an answer is sent again and gets one
        for client in clients:
            with httpx.Client(base_url=address, timeout=SECONDS_MAX) as http:
                for path, body in client.unknown:
                    client._send(http, path, body)
                for name, answer in list(client.decisions.items())[-3:]:
                    again = http.get(f"/v1/decisions/{answer['decision_id']}").json()
                    assert {key: again[key] for key in answer} == answer, name
        servers.kill(process)
    finally:
        servers.close()
    assert acknowledged > 10 * KILLS
    with EventLog.open(tmp_path / "log", REGISTRY, read_only=True, store=SQLiteStore) as log:
        _assert_all_there(log, clients)
        report = audit(log, {bundle.hash: bundle})
        assert report.broken == ()
        assert Counter(one.verdict for one in report.verdicts) == {"identical": len(list(log.decisions()))}
        state = open_state(tmp_path / "state", bundle.plan, bundle.fold)
        assert state.head is not None, "it was not lost with the process"
        state.catch_up(log)
        found = check_state(log, state, bundle, entities=None, chance=chance, clock=Clock(log.last_known_time))
        assert (found.differences, found.checked > 30) == (0, True)
        state.close()


def test_an_acknowledgement_before_the_write_is_caught(tmp_path: Path, bundle: Bundle) -> None:
    servers, client = Servers(tmp_path, bundle.path, "late"), Client(0)
    try:
        process, address = servers.start()
        with httpx.Client(base_url=address, timeout=SECONDS_MAX) as http:
            for number in range(3):
                client._send(http, "/v1/events", [repayment(number)])
        servers.kill(process)
    finally:
        servers.close()
    with (
        EventLog.open(tmp_path / "log", REGISTRY, read_only=True, store=SQLiteStore) as log,
        pytest.raises(KeyError, match="r-2"),
    ):
        _assert_all_there(log, [client])


def _assert_all_there(log: EventLog, clients: list[Client]) -> int:
    """Assert that the log holds each acknowledged thing exactly once; return how many there are."""
    ids: Counter[str] = Counter()
    positions: dict[str, int] = {}
    for event in REGISTRY:
        rows = log.facts(event.event_name, columns=["event_id"]).rows
        names = rows.column("event_id").to_pylist()
        ids.update(names)
        positions |= dict(zip(names, rows.column("root").to_pylist(), strict=True))
    assert set(ids.values()) <= {1}
    ledger = {row.application_position: decode(row.record) for row in log.decisions()}
    assert len(ledger) == len(list(log.decisions())), "one decision an application"
    for client in clients:
        for name, position in client.events.items():
            assert positions[name] == position
        for name, answer in client.decisions.items():
            record = ledger[positions[name]]
            assert (record["decision_id"], record["outcome"]) == (answer["decision_id"], answer["outcome"])
            assert ids[record["decision_id"]] == 1, "the decision is an event as well"
    applications = sum(name.startswith("a-") for name in ids)
    assert applications == len(ledger), "an application is in the log exactly when its decision is"
    return sum(len(client.events) + len(client.decisions) for client in clients)


# ---- an acknowledgement waits for the store ------------------------------------------------------------------------


@pytest.fixture
def service(tmp_path: Path, bundle: Bundle) -> Iterator[Service]:
    ready = threading.Event()
    log, state = open_log(tmp_path / "log"), open_state(tmp_path / "state", bundle.plan, bundle.fold)
    service = Service(log, state, bundle, clock=Clock(), ready=ready.set)
    service.start()
    assert ready.wait(SECONDS_MAX)
    while not service.ready:
        time.sleep(0.001)
    yield service
    service.stop()


def test_an_acknowledgement_waits_for_the_store_s_commit(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Event(), threading.Event()
    write = service._log.store.write

    def slow(commit: Any) -> None:
        entered.set()
        assert gate.wait(SECONDS_MAX)
        write(commit)

    monkeypatch.setattr(service._log.store, "write", slow)
    events = service.submit_events(batch_of(service._log, repayment(1)))
    assert entered.wait(SECONDS_MAX)
    decision = service.submit_application(batch_of(service._log, application(1)))
    time.sleep(0.05)
    assert not events.done()
    assert not decision.done()
    gate.set()
    assert events.result(SECONDS_MAX).status == ["accepted"]
    assert not decision.result(SECONDS_MAX).repeated
