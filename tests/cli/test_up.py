"""`obligor up`: a deployment in a box under load, each of whose processes is killed once.

The short form is less than a minute at a fifth of the pace; `OBLIGOR_SOAK=1` five minutes at 100 decisions and 2,000
events a second.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from tests.cli.boxed import Load, UpProcess
from tests.cli.conftest import Run

import obligor
from obligor.cli.local_servers import free_port, missing

SOAK = bool(os.environ.get("OBLIGOR_SOAK"))
SECONDS = 300.0 if SOAK else 40.0
DECISIONS_PER_S, EVENTS_PER_S = (100.0, 2_000.0) if SOAK else (20.0, 400.0)
KILLED = ("redis", "writer 0", "broker", "front end", "writer 1", "postgres")
TAKEN_SECONDS_MAX = 300.0

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"needs {', '.join(missing())}: pip install 'obligor[box]'")


def _in_log(folder: Path, type_name: str) -> list[str]:
    """Return the ids of what the load sent, as the log has them."""
    with obligor.open(folder).log(read_only=True) as log:
        ids: list[str] = log.facts(type_name, columns=["event_id"]).rows.column("event_id").to_pylist()
    return [one for one in ids if one.startswith("box-")]


def test_nothing_acknowledged_is_lost_or_doubled_whatever_is_killed(
    run: Run, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    up = UpProcess(copy, free_port())
    try:
        load = Load(up, DECISIONS_PER_S, EVENTS_PER_S, SECONDS)

        def kill_each_once() -> None:
            for name in KILLED:
                time.sleep(SECONDS / (len(KILLED) + 2))
                up.kill(name)

        load.run(kill_each_once)
        with capsys.disabled():
            events = len(load.sent) + len(load.streamed)
            print(
                f"\n{len(load.decided) / SECONDS:.1f} decisions/s, {events / SECONDS:.0f} events/s over {SECONDS:.0f} s"
            )
        assert load.failures == []
        assert len(load.decided) > 0.5 * DECISIONS_PER_S * SECONDS
        _send_again_what_the_broker_lost(up, load)
        applications, purchases = (_in_log(up.folder, name) for name in ("loan_application", "purchase"))
        assert set(applications) >= set(load.decided), "no decision that was answered is lost"
        assert sorted(purchases) == sorted([*load.sent, *load.streamed]), "no event is lost, and none is there twice"
        with obligor.open(up.folder).log(read_only=True) as log:
            rows = list(log.decisions())
            assert {row.decision_id for row in rows} >= {one["decision_id"] for one in load.decided.values()}
            assert len({row.application_position for row in rows}) == len(rows), "no application is decided twice"
            assert len(log.cut()) == 2
            assert all(end > 0 for end in log.cut().values()), "both shards took part"
        at = ("--project", str(up.folder), "--json")
        replayed = run("replay", *at)
        assert replayed["verdicts"] == {"identical": len(rows)}
        assert replayed["broken"] == []
        assert run("log", "check", *at)["broken"] == []
        for shard in range(2):  # exit code 0: no difference
            found = run("parity", *at, "--shard", str(shard))
            assert found["different"] == []
            assert found["decisions"]["checked"] > 0
        assert any("the broker keeps nothing" in line for line in up.lines)
    finally:
        up.end()


def _send_again_what_the_broker_lost(up: UpProcess, load: Load) -> None:
    """Give the broker what is not in the log, as producers of one that keeps nothing have to."""
    deadline_s = time.monotonic() + TAKEN_SECONDS_MAX
    producer = Producer({"bootstrap.servers": up.broker, "log_level": 0})
    while lost := sorted(load.streamed.keys() - set(_in_log(up.folder, "purchase"))):
        assert time.monotonic() < deadline_s, f"{len(lost)} events of the broker's are not taken"
        load.produce(producer, lost)
        producer.flush(10)
        time.sleep(5.0)
