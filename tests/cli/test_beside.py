"""`obligor serve` moves on SIGHUP: real processes, HTTP, and a builder that can be killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.cli.conftest import Run
from tests.cli.test_service import APPLICATION
from tests.cli.test_state import other_bundle

import obligor
from obligor.cli.beside import Beside
from obligor.decisions.intake import Unavailable
from obligor.errors import ObligorError
from obligor.features.states import state_name
from obligor.models.bundle import Bundle

SECONDS_MAX = 120.0
WAIT_SECONDS_MAX = 3.0  # for one request over HTTP, with the builder on one of two cores


class Served:
    """A process that serves a project."""

    def __init__(self, folder: Path, port: int) -> None:
        self._before: list[str | None] = []  # what the last move had come to when the next was asked for
        command = [sys.executable, "-m", "obligor", "serve", "--no-keys", "--port", str(port), "--project", str(folder)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS_MAX)
        self.wait(self._is_ready)

    def wait(self, done: Callable[[], object]) -> None:
        """Wait until it is done."""
        deadline = time.monotonic() + SECONDS_MAX
        while not done():
            assert time.monotonic() < deadline
            assert self.process.poll() is None, "the service has ended"
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self) -> None:
        """Ask for the champion."""
        self._before = [None, *([self.state["move"]["status"]] if self.state["move"] else [])]
        self.process.send_signal(signal.SIGHUP)

    @property
    def state(self) -> dict[str, Any]:
        """What /readyz says."""
        found: dict[str, Any] = self.http.get("/readyz").json()
        return found

    def wait_status(self, status: str) -> dict[str, Any]:
        """Wait until the move that was asked for has ended, as it says."""
        self.wait(lambda: (self.state["move"] or {}).get("status") not in (*self._before, "building"))
        found = self.state
        assert found["move"]["status"] == status
        return found

    def decide(self, number: object) -> httpx.Response:
        """Ask for a decision."""
        made = {**APPLICATION, "event_id": f"a-{number}", "consumer": f"c-{abs(hash(str(number))) % 400:06d}"}
        return self.http.post("/v1/decisions", json=made)

    def bundle_of(self, answer: httpx.Response) -> str:
        """Return the bundle that a decision's record names."""
        assert answer.status_code == 200, answer.text
        name: str = self.http.get(f"/v1/decisions/{answer.json()['decision_id']}").json()["bundle"]
        return name

    def metric(self, name: str) -> float:
        """Return a metric; `name` with its labels."""
        (line,) = [one for one in self.http.get("/metrics").text.splitlines() if one.startswith(f"{name} ")]
        return float(line.rsplit(" ", 1)[1])

    def builder(self) -> int | None:
        """Return the process that builds beside the service, once it has the state open."""
        children = [
            int(child)
            for task in Path(f"/proc/{self.process.pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
        return children[0] if children else None

    def end(self, by: signal.Signals = signal.SIGTERM) -> str:
        """End it and return what it said."""
        self.process.send_signal(by)
        _, said = self.process.communicate(timeout=SECONDS_MAX)
        self.http.close()
        return said


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Serve a project until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = Served(folder, port)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.end()


class Stream:
    """Sends visits and applications over HTTP, one request after the other; notes statuses, seconds, decisions."""

    def __init__(self, served: Served) -> None:
        self._served, self._stop = served, threading.Event()
        self.answers: list[httpx.Response] = []
        self.statuses: set[int] = set()
        self.seconds: list[float] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Stream:
        self._thread.start()
        self.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait(self, more: int) -> None:
        wanted, deadline = len(self.answers) + more, time.monotonic() + SECONDS_MAX
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline
            assert self._thread.is_alive()
            time.sleep(0.005)

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            visits = [
                {
                    "type": "dispute", "event_id": f"d-{number}-{i}", "event_time": "2026-10-30T10:00:00Z",
                    "consumer": f"c-{(number + i) % 400:06d}", "loan": f"l-{number}", "merchant": f"m-{i % 5:04d}",
                    "amount": 100 + i,
                }
                for i in range(20)
            ]  # fmt: skip
            self._timed(self._served.http.post, "/v1/events", json=visits)
            self.answers.append(self._timed(self._served.decide, f"stream-{number}"))

    def _timed(self, send: Callable[..., httpx.Response], *args: Any, **names: Any) -> httpx.Response:
        started_s = time.perf_counter()
        answer = send(*args, **names)
        self.seconds.append(time.perf_counter() - started_s)
        self.statuses.add(answer.status_code)
        return answer


@pytest.fixture
def bundles(copy: Path) -> tuple[Bundle, Bundle]:
    """The champion, and a bundle with other timelines that is not yet."""
    return obligor.open(copy).bundle(), other_bundle(copy)


def _in_use(folder: Path, bundle: Bundle) -> bool:
    """Whether somebody writes the state of a bundle's plan."""
    return any(one.in_use for one in obligor.open(folder).states.all() if one.name == state_name(bundle.plan))


def test_sighup_moves_a_service_under_load(stored: Path, bundles: tuple[Bundle, Bundle], run: Run) -> None:
    old, new = bundles
    at = ("--project", str(stored), "--json")
    with serving(stored) as served:
        assert served.state == {"status": "ready", "bundle": old.hash, "move": None}
        with Stream(served) as stream:
            obligor.open(stored).promote(new)
            served.ask()
            moved = served.wait_status("moved")
            stream.wait(20)
        assert moved["bundle"] == new.hash
        assert stream.statuses == {200}
        assert max(stream.seconds) < WAIT_SECONDS_MAX
        names = [served.bundle_of(answer) for answer in stream.answers]
        switched = names.index(new.hash)
        assert switched >= 20
        assert set(names[:switched]) == {old.hash}
        assert set(names[switched:]) == {new.hash}
        assert served.metric(f'obligor_bundle_info{{bundle="{new.hash}",plan="{new.plan.hash}"}}') == 1
        found = run("parity", "--entities", "300", "--decisions", "all", *at)
        assert (found["decisions"]["checked"], found["decisions"]["differences"]) == (len(names), 0)
        assert (found["state"]["checked"] > 500, found["state"]["differences"]) == (True, 0)
        listed = {one["state"]: one["in_use"] for one in run("state", "list", *at)["states"]}
        assert listed == {state_name(old.plan): False, state_name(new.plan): True}
        _assert_in_use(run, stored, new)
        served.ask()  # it decides already
        served.wait(lambda: served.state["move"] is None)
        assert served.metric('obligor_moves_total{result="moved"}') == 1
        assert served.metric('obligor_moves_total{result="failed"}') == 0
    replayed = run("replay", *at)
    assert (replayed["verdicts"], replayed["broken"]) == ({"identical": len(names)}, [])


def _assert_in_use(run: Run, folder: Path, bundle: Bundle) -> None:
    """Assert that what would write the state beside the service is refused, in words."""
    at = ("--project", str(folder))
    assert "is writing this online state" in run("state", "build", "--bundle", bundle.hash, *at, code=4)
    assert "is writing this online state" in run("state", "remove", state_name(bundle.plan), *at, code=4)


def test_a_builder_that_is_killed_leaves_the_service_deciding(stored: Path, bundles: tuple[Bundle, Bundle]) -> None:
    old, new = bundles
    with serving(stored) as served:
        obligor.open(stored).promote(new)
        served.ask()
        served.wait(lambda: _in_use(stored, new))
        builder = served.builder()
        assert builder is not None
        assert served.state["move"] == {"bundle": new.hash, "status": "building", "error": ""}
        os.kill(builder, signal.SIGKILL)
        failed = served.wait_status("failed")
        assert failed == {
            "status": "ready", "bundle": old.hash,
            "move": {"bundle": new.hash, "status": "failed", "error": "ObligorError"},
        }  # fmt: skip
        assert served.metric('obligor_moves_total{result="failed"}') == 1
        assert served.bundle_of(served.decide("after")) == old.hash
        assert not _in_use(stored, new)
        served.ask()
        assert served.wait_status("moved")["bundle"] == new.hash
        assert served.bundle_of(served.decide("at last")) == new.hash
        assert "was killed by signal 9" in served.end()


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_builder_ends_with_its_service(copy: Path, bundles: tuple[Bundle, Bundle], by: signal.Signals) -> None:
    _, new = bundles
    with serving(copy) as served:
        obligor.open(copy).promote(new)
        served.ask()
        served.wait(served.builder)
        builder = served.builder()
        served.end(by)
        deadline = time.monotonic() + SECONDS_MAX
        while Path(f"/proc/{builder}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
    project = obligor.open(copy)
    with project.log(read_only=True) as log:
        heads = [one.head for one in project.states.all() if one.name == state_name(new.plan)]
        assert all(head is None or head.events < log.head.sequence for head in heads), "it did not go on to the end"
    with serving(copy) as served:
        assert served.state["bundle"] == new.hash
        assert served.bundle_of(served.decide("again")) == new.hash


def test_a_bundle_that_is_gone_is_said_and_changes_nothing(copy: Path, bundles: tuple[Bundle, Bundle]) -> None:
    old, new = bundles
    with serving(copy) as served:
        (obligor.open(copy).bundles / "champion").write_text("f" * 64 + "\n")
        served.ask()
        assert served.wait_status("failed")["bundle"] == old.hash
        assert served.bundle_of(served.decide("still")) == old.hash
        obligor.open(copy).promote(new)
        served.ask()
        assert served.wait_status("moved")["bundle"] == new.hash
        assert "no bundle at" in served.end()


def test_a_service_of_a_bundle_by_its_hash_stays_with_it(copy: Path, bundles: tuple[Bundle, Bundle]) -> None:
    old, new = bundles
    project = obligor.open(copy)
    project.promote(new)
    assert Beside(project, "champion").find().name == new.hash
    assert Beside(project, old.hash[:12]).find().name == old.hash


def test_a_builder_that_fails_says_why_and_one_that_is_not_wanted_is_ended(
    copy: Path, bundles: tuple[Bundle, Bundle]
) -> None:
    _, new = bundles
    project = obligor.open(copy)
    beside = Beside(project, "champion")
    state = project.state(new.plan)
    with pytest.raises(ObligorError, match=r"failed: .*is writing this online state"):
        beside.build(new.hash, lambda: False)
    state.close()
    started_s = time.monotonic()
    with pytest.raises(Unavailable, match="stopping"):
        beside.build(new.hash, lambda: time.monotonic() > started_s + 0.2)
    beside.build(new.hash, lambda: False)
    built = beside.open(new)
    with project.log(read_only=True) as log:
        assert built.behind(log) == 0
    built.close()
