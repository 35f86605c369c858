"""The service without HTTP: ready when caught up, state rebuilt or resumed, and failed for good when the disk is."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.decisions.desk import Clock, application, batch_of, desk_bundle, open_log, open_state, repayment
from tests.decisions.serving import serving

from obligor.decisions.http import create_app
from obligor.decisions.intake import Unavailable
from obligor.decisions.record import decode
from obligor.decisions.service import Service
from obligor.errors import NotFound
from obligor.models.bundle import Bundle

SECONDS_MAX = 120.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return desk_bundle(tmp_path_factory.mktemp("bundles"))


def started(path: Path, bundle: Bundle) -> Service:
    ready = threading.Event()
    log, state = open_log(path / "log"), open_state(path / "state", bundle.plan)
    service = Service(log, state, bundle, clock=Clock(), ready=ready.set)
    assert not service.ready
    service.start()
    assert ready.wait(SECONDS_MAX)
    deadline = time.monotonic() + SECONDS_MAX
    while not service.ready:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return service


def test_a_log_with_history_is_served_once_the_state_has_it(tmp_path: Path, bundle: Bundle) -> None:
    with open_log(tmp_path / "log") as log, log.begin(1_700_000_000_000_000) as tx:
        tx.append(batch_of(log, *(repayment(number) for number in range(300))))
        tx.commit()
    for number in range(2):  # the first builds the state, the second goes on with it
        service = started(tmp_path, bundle)
        decided = service.submit_application(batch_of(service._log, application(number))).result(SECONDS_MAX)
        features = decode(decided.record)["features"]
        assert features[bundle.plan.names.index("repaid_30d")] == 300_000
        assert service.replay(decided.decision_id).verdict == "identical"
        assert decode(service.record(decided.decision_id)) == decode(decided.record)
        service.stop()
        with pytest.raises(Unavailable):
            service.submit_application(batch_of(service._log, application("late")))


def test_what_is_not_there_is_not_found(tmp_path: Path, bundle: Bundle) -> None:
    service = started(tmp_path, bundle)
    with pytest.raises(NotFound):
        service.record("d-1")
    with pytest.raises(NotFound):
        service.replay("d-1")
    service.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_fails_ends_the_service_and_says_so(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, state = open_log(tmp_path / "log"), open_state(tmp_path / "state", bundle.plan)
    service = Service(log, state, bundle, clock=Clock())

    def full(commit: Any) -> None:
        raise OSError(28, "a planted full disk")

    with serving(create_app(service, None)) as client:
        assert client.post("/v1/events", json=repayment(1)).status_code == 200
        monkeypatch.setattr(log.store, "write", full)
        answer: httpx.Response = client.post("/v1/decisions", json=application(1))
        assert answer.status_code == 503
        assert "unknown; send it again" in answer.text
        assert client.get("/healthz").status_code == 503
        assert client.get("/readyz").status_code == 503
        assert "failed" in client.post("/v1/events", json=repayment(2)).text
    service = started(tmp_path, bundle)  # a new process finds a whole log
    monkeypatch.undo()
    assert service._log.head.sequence == 1
    again = service.submit_application(batch_of(service._log, application(1))).result(SECONDS_MAX)
    assert not again.repeated
    service.stop()
