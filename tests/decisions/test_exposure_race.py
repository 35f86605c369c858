"""Fifty applications of one consumer at once, with room for one approval: exactly one is approved."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.decisions.desk import Clock, application, batch_of, desk_bundle, open_log, open_state

from obligor.decisions.items import Decided
from obligor.decisions.record import decode
from obligor.decisions.service import Service
from obligor.decisions.writer import Writer
from obligor.models.bundle import Bundle

SEEDS = 100
APPLICATIONS = 50
THREADS = 8
SECONDS_MAX = 60.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return desk_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def service(tmp_path: Path, bundle: Bundle) -> Iterator[Service]:
    ready = threading.Event()
    log, state = open_log(tmp_path / "log"), open_state(tmp_path / "state", bundle.plan)
    service = Service(log, state, bundle, clock=Clock(), ready=ready.set)
    service.start()
    assert ready.wait(SECONDS_MAX)
    while not service.ready:
        threading.Event().wait(0.001)
    yield service
    service.stop()


def _race(service: Service, seed: int) -> list[dict[str, Any]]:
    """Return the records of the decisions on the applications of one consumer, sent by several threads at once."""
    chance = random.Random(seed)
    amounts = [chance.randrange(60_000, 100_001) for _ in range(APPLICATIONS)]
    batches = [
        batch_of(service._log, application(f"{seed}-{i}", f"c-{seed}", amount)) for i, amount in enumerate(amounts)
    ]
    chance.shuffle(batches)
    together = threading.Barrier(THREADS)

    def send(thread: int) -> list[Decided]:
        together.wait()
        futures = [service.submit_application(batch) for batch in batches[thread::THREADS]]
        return [future.result(SECONDS_MAX) for future in futures]

    with ThreadPoolExecutor(THREADS) as pool:
        return [decode(one.record) for part in pool.map(send, range(THREADS)) for one in part]


def _approved(records: list[dict[str, Any]]) -> int:
    return sum(record["outcome"] in ("approve", "counter_offer") for record in records)


def test_exactly_one_of_fifty_is_approved_over_a_hundred_seeds(service: Service) -> None:
    for seed in range(SEEDS):
        records = _race(service, seed)
        assert len({record["decision_id"] for record in records}) == APPLICATIONS
        assert _approved(records) == 1, Counter(record["outcome"] for record in records)
        declined = [record for record in records if record["outcome"] == "decline"]
        assert all([reason["code"] for reason in record["reasons"]] == ["EXPOSURE"] for record in declined)


def test_the_race_is_lost_when_decisions_are_not_staged(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: the state learns of a batch only when the batch is over."""
    apply = Writer._apply

    def late(self: Writer, batch: Any) -> None:
        if not batch.decided or batch.taken is None:
            apply(self, batch)

    monkeypatch.setattr(Writer, "_apply", late)
    assert max(_approved(_race(service, seed)) for seed in range(1000, 1020)) > 1
