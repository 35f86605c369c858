"""A service publishes outcomes: a real broker, real processes, one of which is killed."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.test_beside import serving
from tests.stores.streaming import Broker


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.stop()


def test_outcomes_are_published_once_and_again_only_when_they_change(run: Run, copy: Path, broker: Broker) -> None:
    broker.create("outcomes")
    settled = run("outcomes", "--project", str(copy), "--json")["outcomes"]
    settled.pop("immature", None)
    table = f'\n[kafka]\nbrokers = "{broker.address}"\n[kafka.outcomes]\ntopic = "outcomes"\nevery_s = 0.5\n'
    settings = copy / "obligor.toml"
    settings.write_text(settings.read_text() + table)
    count = sum(settled.values())
    with serving(copy) as served:
        found = broker.read("outcomes", count)
        assert Counter(json.loads(one.value or b"")["status"] for one in found) == settled
        assert {one.key for one in found} <= {f"c-{number:06d}".encode() for number in range(10_000)}
        served.wait(lambda: served.metric("obligor_outcomes_published_total") == count)
        outcomes = [served.decide(number).json()["outcome"] for number in range(20)]
        count += sum(one in ("decline", "refer") for one in outcomes)  # settled at once: nobody will know more
        served.wait(lambda: served.metric("obligor_outcomes_published_total") == count)
        served.end(signal.SIGKILL)
    with serving(copy) as served:
        served.wait(lambda: served.metric("obligor_outcomes_last_run_timestamp_seconds") > 0)
        assert served.metric("obligor_outcomes_failed_total") == 0
    everything = broker.read("outcomes", 2 * count, seconds=3)
    ids = [dict(one.headers)["obligor-outcome-id"] for one in everything]
    assert len(set(ids)) == len(ids) == count, "nothing was said twice"
