"""The watch: it finds what is wrong in a serving state, takes it out of use, heals it, and says so."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from bench.planting import FAULTS, Planter
from bench.tampering import change_record, change_value
from tests.decisions.desk import (
    DAY_US,
    REGISTRY,
    Clock,
    application,
    batch_of,
    desk_bundle,
    open_log,
    open_state,
    repayment,
    sale,
)

from obligor.decisions import watch as module
from obligor.decisions.intake import Unavailable
from obligor.decisions.record import decode
from obligor.decisions.service import Service
from obligor.decisions.watch import Budget, Watch
from obligor.decisions.writer import Writer
from obligor.events.fields import parse_timestamp
from obligor.features import edits
from obligor.features import parity as features_parity
from obligor.features.online import evaluate_one
from obligor.features.state import StagedState
from obligor.models.bundle import Bundle

SECONDS_MAX = 120.0
BY_HAND = Budget(round_s=1e9, pause_s=0.0)  # rounds are the test's own


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return desk_bundle(tmp_path_factory.mktemp("bundles"))


def _started(path: Path, bundle: Bundle, budget: Budget = BY_HAND) -> Service:
    ready = threading.Event()
    log, state = open_log(path / "log"), open_state(path / "state", bundle.plan)
    service = Service(log, state, bundle, clock=Clock(), ready=ready.set, parity=budget)
    service.start()
    assert ready.wait(SECONDS_MAX)
    while not service.ready:
        time.sleep(0.001)
    return service


@pytest.fixture
def service(tmp_path: Path, bundle: Bundle) -> Iterator[Service]:
    served = _started(tmp_path, bundle)
    yield served
    served.stop()


def _watch(service: Service) -> Watch:
    assert service._watch is not None
    return service._watch


def _fill(service: Service, first: int = 0, decisions: int = 5) -> None:
    """Send repayments and sales of some entities, and ask for decisions."""
    records = [repayment(f"{first}-{i}", f"c-{i % 7}", 500 + i) for i in range(60)]
    records += [sale(f"{first}-{i}", f"m-{i % 3}", 100 + i) for i in range(60)]
    service.submit_events(batch_of(service._log, *records)).result(SECONDS_MAX)
    for i in range(decisions):
        _decide(service, f"{first}-{i}", f"c-{i % 7}")


def _decide(service: Service, number: str, consumer: str = "c-1") -> dict[str, Any]:
    made = application(number, consumer, merchant="m-1")
    return decode(service.submit_application(batch_of(service._log, made)).result(SECONDS_MAX).record)


def _metric(service: Service, name: str) -> float:
    (line,) = [line for line in service.metrics.render().decode().splitlines() if line.startswith(f"{name} ")]
    return float(line.rsplit(" ", 1)[1])


def _differences(service: Service, of: str) -> float:
    return _metric(service, f'obligor_parity_differences_total{{of="{of}"}}')


def _plant(service: Service, number: int = 0) -> list[str]:
    """Plant a fault in the serving state, on the writer's thread."""

    def plant() -> list[str]:
        with service._state.begin() as staged:
            head = staged.head
            assert head is not None
            planter = Planter(staged, service._writer._plan, "consumer", "repayment", ["c-1", "c-2"], 3)
            wrong = FAULTS[number].plant(planter)
            staged.commit(head)
        service._state._indexes.forget()
        return wrong

    return service._intake.errand(plant, patience_s=0.0).result(SECONDS_MAX)


def test_a_sound_service_has_no_difference_and_says_so(service: Service) -> None:
    for of in ("state", "decisions"):
        assert _differences(service, of) == 0, "the series is there before anything was compared"
    assert _metric(service, "obligor_parity_last_run_timestamp_seconds") == 0
    assert _watch(service).round().checked == 0
    for number in range(3):
        _fill(service, number)
        found = _watch(service).round()
        assert found.differences == 0
        assert found.checked > 30
    assert _metric(service, 'obligor_parity_checked_total{of="decisions"}') >= 15
    assert _metric(service, 'obligor_parity_checked_total{of="state"}') > 60
    assert (_differences(service, "state"), _differences(service, "decisions")) == (0, 0)
    assert _metric(service, "obligor_parity_last_run_timestamp_seconds") > 1.7e9
    assert _metric(service, "obligor_state_suspect") == 0


def test_every_new_decision_is_compared_and_some_old_ones(service: Service) -> None:
    _fill(service, decisions=12)
    rows = _watch(service)._decisions()
    assert len(rows) == 12
    assert {row.sequence for row in rows} == set(range(1, 13))
    again = [row.sequence for row in _watch(service)._decisions()]
    assert again
    assert again == list(range(again[0], 13)), "a run of old ones"


def test_a_fault_is_found_the_state_rebuilt_and_trusted_again(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _fill(service)
    wrong = _plant(service)
    meanwhile: list[str] = []
    rebuilt = Watch._rebuilt

    def observed(self: Watch) -> bool:
        assert not service.ready
        assert _metric(service, "obligor_state_suspect") == 1
        with pytest.raises(Unavailable, match="in doubt"):
            _decide(service, "meanwhile")
        late = service.submit_events(batch_of(service._log, repayment("meanwhile", "c-5", 9)))
        meanwhile.extend(late.result(SECONDS_MAX).status)
        return rebuilt(self)

    monkeypatch.setattr(Watch, "_rebuilt", observed)
    with caplog.at_level(logging.INFO, "obligor.parity"):
        found = _watch(service).round()
    assert found.differences > 0
    assert {one.entities["consumer"] for one in found.found} == set(wrong)
    assert meanwhile == ["accepted"]
    assert service.ready
    assert _metric(service, "obligor_state_suspect") == 0
    assert _differences(service, "state") == found.differences
    texts = [record.getMessage() for record in caplog.records]
    assert any("online and offline differ" in text and wrong[0] in text for text in texts)
    assert any("agrees with the log" in text for text in texts)
    assert _watch(service).round().differences == 0
    record = _decide(service, "after", wrong[0])
    assert service.replay(record["decision_id"]).verdict == "identical"
    assert record["rung"] == "full"


def test_a_state_that_differs_after_a_rebuild_too_refers_decisions(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _fill(service)

    def wrong(*args: Any, **names: Any) -> Any:
        return evaluate_one(*args, **names) + 1.0

    monkeypatch.setattr(features_parity, "evaluate_one", wrong)
    before = _metric(service, 'obligor_step_seconds_count{step="catch_up"}')
    _watch(service).round()
    assert service.ready, "events and applications are taken"
    assert _metric(service, "obligor_state_suspect") == 1
    assert any("differs too" in record.getMessage() for record in caplog.records)
    record = _decide(service, "lost")
    assert (record["outcome"], record["rung"], record["features"]) == ("refer", "refer", None)
    assert service.replay(record["decision_id"]).verdict == "identical"
    _watch(service).round()
    assert _metric(service, 'obligor_step_seconds_count{step="catch_up"}') == before + 1, "it is not rebuilt again"


def test_a_changed_log_is_not_rebuilt_from(service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _fill(service)
    before = _metric(service, 'obligor_step_seconds_count{step="catch_up"}')
    position = service._log.facts("repayment").rows["position"][3].as_py()
    change_value(tmp_path / "log", REGISTRY, position, "amount", 999_999)
    found = _watch(service).round()
    assert {one.entities["consumer"] for one in found.found if not one.name} == {"c-3"}
    assert any("the log was changed" in record.getMessage() for record in caplog.records)
    assert _metric(service, 'obligor_step_seconds_count{step="catch_up"}') == before
    assert _decide(service, "after")["rung"] == "refer"


def test_a_decision_that_differs_is_counted_once(service: Service, tmp_path: Path) -> None:
    _fill(service)
    record = decode(service._log.decision(next(service._log.decisions()).decision_id).record)
    first = b'"features":[' + json.dumps(record["features"][0]).encode()
    change_record(tmp_path / "log", record["decision_id"], first, first + b"1")
    found = _watch(service).round()
    assert [one.name for one in found.found] == [record["decision_id"]]
    assert _watch(service).round().differences == 0
    assert _differences(service, "decisions") == 1


def test_what_could_not_be_done_about_a_difference_is_done_in_the_next_round(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(service)
    _plant(service)

    def busy(self: Any) -> Future[None]:
        raise Unavailable("4 errands wait")

    with monkeypatch.context() as patch:
        patch.setattr(type(_watch(service)._state), "rebuild", busy)
        with pytest.raises(Unavailable):
            _watch(service).round()
    assert not service.ready, "it is not trusted in the meantime"
    assert _watch(service).round().differences == 0
    assert service.ready
    assert _differences(service, "state") > 0


def test_an_entity_that_would_take_long_to_read_is_left_out(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edits, "TAIL_BYTES_MAX", 8 * (2 + 6 * 8))
    monkeypatch.setattr(edits, "CHUNK_ROWS_CLOSED", 4)
    monkeypatch.setattr(edits, "CHUNK_ROWS_MAX", 4)
    service = _started(tmp_path, bundle)
    try:
        service.submit_events(batch_of(service._log, *(sale(i, "m-1") for i in range(60)))).result(SECONDS_MAX)
        assert _watch(service).round().checked > 0
        monkeypatch.setattr(module, "CHUNKS_MAX", 2)
        samples = _watch(service)._samples(list(_watch(service)._questions()))
        later = parse_timestamp(sale(1)["event_time"]) + 30 * DAY_US  # no window reaches back to the chunks
        assert samples
        assert all(one.question.entities["merchant"] is None or one.as_of > later for one in samples)
    finally:
        service.stop()


def test_a_watch_does_not_keep_more_in_memory(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(service)
    kept: list[bool] = []
    glancing = StagedState.glancing

    def noted(self: StagedState, chunks_max: int) -> Any:
        kept.append(bool(self._indexes._kept))
        return glancing(self, chunks_max)

    monkeypatch.setattr(StagedState, "glancing", noted)
    assert _watch(service).round().checked > 0
    assert kept
    assert not any(kept)


def test_rounds_run_beside_requests_until_the_service_stops(tmp_path: Path, bundle: Bundle) -> None:
    service = _started(tmp_path, bundle, Budget(events=20, walked=3, pause_s=0.0, share=1.0, round_s=0.001))
    for number in range(20):
        _fill(service, number, decisions=2)
    deadline = time.monotonic() + SECONDS_MAX
    while _metric(service, 'obligor_parity_checked_total{of="state"}') < 50:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert _differences(service, "state") == _differences(service, "decisions") == 0
    service.stop()
    assert not _watch(service)._thread.is_alive()


def test_a_service_may_have_no_watch(tmp_path: Path, bundle: Bundle) -> None:
    log, state = open_log(tmp_path / "log"), open_state(tmp_path / "state", bundle.plan)
    service = Service(log, state, bundle, clock=Clock(), parity=None)
    service.start()
    assert service._watch is None
    service.stop()


def test_a_round_that_the_stop_cuts_short_ends(service: Service) -> None:
    _fill(service)
    _watch(service)._stopping.set()
    with pytest.raises(Unavailable, match="stopping"):
        _watch(service).round()


def test_the_writer_s_bound_on_rebuilds_holds_for_the_watch(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(service)
    service._writer._rebuilds = 3
    wrong = _plant(service)
    _watch(service).round()
    assert _metric(service, "obligor_state_suspect") == 1
    assert _decide(service, "after", wrong[0])["rung"] == "refer"
    assert isinstance(service._writer, Writer)
