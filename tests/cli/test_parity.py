"""`obligor parity`: nothing differs, beside a service or without one; what differs is named, with exit code 1."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from bench.planting import FAULTS, Planter
from tests.cli.conftest import Run
from tests.cli.test_service import APPLICATION

import obligor
from obligor.cli.options import clock_us
from obligor.decisions.service import Service
from obligor.events.records import parse_records

SECONDS_MAX = 120.0


def _decided(run: Run, folder: Path, count: int = 3) -> None:
    for number in range(count):
        made = {**APPLICATION, "event_id": f"a-live-{number}", "consumer": f"c-{number:06d}"}
        run("decide", "-", "--project", str(folder), stdin=json.dumps(made))


def test_nothing_differs_and_what_was_compared_is_said(run: Run, stored: Path) -> None:
    _decided(run, stored)
    found = run("parity", "--project", str(stored), "--entities", "300", "--json")
    assert found["decisions"] == {"checked": 3, "differences": 0, "by_feature": {}, "not_compared": {}}
    assert (found["state"]["differences"], found["state"]["not_compared"], found["different"]) == (0, "", [])
    assert found["state"]["checked"] > 600
    again = run("parity", "--project", str(stored), "--entities", "300", "--json")
    assert again["state"]["checked"] == found["state"]["checked"]
    text = run("parity", "--project", str(stored), "--entities", "10", "--decisions", "all")
    assert "3 decisions: 0 numbers differ" in text
    assert "answers of the online state: 0 numbers differ" in text


def test_a_difference_is_named_and_the_answer_is_no(run: Run, copy: Path) -> None:
    _decided(run, copy)
    project = obligor.open(copy)
    plan = project.bundle().plan
    unknown = next(fault for fault in FAULTS if "does not know" in fault.name)
    state = project.state(plan)
    with state.begin() as staged:
        head = staged.head
        assert head is not None
        unknown.plant(Planter(staged, plan, "consumer", "purchase", [f"c-{i:06d}" for i in range(60)], 3))
        staged.commit(head)
    state.close()
    found = run("parity", "--project", str(copy), "--entities", "8000", "--json", code=1)
    assert found["state"]["differences"] > 0
    assert {one["entities"]["consumer"] for one in found["different"]} == {"nobody knows this one"}
    assert found["different"][0]["cut"].keys() == {"0"}
    assert "numbers differ: " in run("parity", "--project", str(copy), "--entities", "8000", code=1)


def test_what_is_not_there_is_not_compared(run: Run, stored: Path) -> None:
    found = run("parity", "--project", str(stored), "--json")
    assert "no online state" in found["state"]["not_compared"]
    assert found["state"]["checked"] == 0


def test_a_number_is_expected(run: Run, lender: Path) -> None:
    assert "--entities" in run("parity", "--project", str(lender), "--entities", "many", code=3)
    assert "--decisions" in run("parity", "--project", str(lender), "--decisions", "-1", code=3)


def test_it_reads_beside_a_running_service(run: Run, stored: Path) -> None:
    _decided(run, stored, 1)
    project = obligor.open(stored)
    bundle = project.bundle()
    ready = threading.Event()
    service = Service(project.log(), project.state(bundle.plan), bundle, clock=clock_us, ready=ready.set)
    service.start()
    assert ready.wait(SECONDS_MAX)
    while not service.ready:
        time.sleep(0.001)
    command = [sys.executable, "-m", "obligor", "parity", "--project", str(stored), "--entities", "200", "--json"]
    printed = (stored / "printed.json").open("w+")  # a pipe that nobody reads would hold it up
    beside = subprocess.Popen(command, stdout=printed, text=True)
    sent = 0
    while beside.poll() is None:  # the state changes under the reader
        made = {**APPLICATION, "event_id": f"a-beside-{sent}", "consumer": f"c-{sent % 50:06d}"}
        batch, problems = parse_records(service.registry, [made], commitment_key=service.commitment_key)
        assert not problems
        service.submit_application(batch).result(SECONDS_MAX)
        sent += 1
        time.sleep(0.02)
    service.stop()
    printed.seek(0)
    output = printed.read()
    printed.close()
    assert beside.returncode == 0, output
    found = json.loads(output)
    assert found["state"]["checked"] > 400
    assert found["state"]["differences"] == found["decisions"]["differences"] == 0
    assert sent > 5
