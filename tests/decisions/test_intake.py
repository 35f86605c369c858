"""The intake: bounded, in order, in batches, and nobody is left waiting whatever happens to the writer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest

from obligor.decisions.intake import ERRANDS_MAX, Intake, Unavailable
from obligor.errors import Conflict, ObligorError

SECONDS_MAX = 10.0


@dataclass(frozen=True)
class Work:
    name: int
    weight: int = 1


class Gated:
    """A process that waits for the gate, and notes the batches it got."""

    def __init__(self) -> None:
        self.gate, self.entered = threading.Event(), threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, items: Sequence[Work]) -> list[int | ObligorError]:
        self.entered.set()
        assert self.gate.wait(SECONDS_MAX)
        self.batches.append([item.name for item in items])
        return [Conflict("odd") if item.name % 2 else item.name for item in items]


def _started(process: Gated, **bounds: Any) -> Intake[Work, int]:
    ready = threading.Event()
    intake: Intake[Work, int] = Intake(process, prepare=ready.set, **bounds)
    intake.start()
    assert ready.wait(SECONDS_MAX)
    while not intake.ready:
        threading.Event().wait(0.001)
    return intake


def test_what_waits_becomes_one_batch_in_order() -> None:
    process = Gated()
    intake = _started(process, batch_items_max=3)
    futures = [intake.submit(Work(0))]
    assert process.entered.wait(SECONDS_MAX)
    futures += [intake.submit(Work(number)) for number in range(1, 6)]
    process.gate.set()
    outcomes = [future.exception(SECONDS_MAX) or future.result() for future in futures]
    assert process.batches == [[0], [1, 2, 3], [4, 5]]
    assert [one if isinstance(one, int) else str(one) for one in outcomes] == [0, "odd", 2, "odd", 4, "odd"]
    intake.stop()


def test_a_batch_is_bounded_by_weight_but_takes_at_least_one() -> None:
    process = Gated()
    intake = _started(process, batch_weight_max=10)
    futures = [intake.submit(Work(0))]
    assert process.entered.wait(SECONDS_MAX)
    futures += [intake.submit(Work(number, weight)) for number, weight in ((2, 6), (4, 4), (6, 1), (8, 50), (10, 1))]
    process.gate.set()
    assert [future.result(SECONDS_MAX) for future in futures] == [0, 2, 4, 6, 8, 10]
    assert process.batches == [[0], [2, 4], [6], [8], [10]]
    assert (intake.items, intake.weight) == (0, 0)
    intake.stop()


def test_results_are_out_before_settling() -> None:
    ready, settling, gate = threading.Event(), threading.Event(), threading.Event()

    def settle() -> None:
        settling.set()
        assert gate.wait(SECONDS_MAX)

    intake: Intake[Work, int] = Intake(lambda items: [7 for _ in items], prepare=ready.set, settle=settle)
    intake.start()
    assert ready.wait(SECONDS_MAX)
    while not intake.ready:
        threading.Event().wait(0.001)
    assert intake.submit(Work(0)).result(SECONDS_MAX) == 7
    assert settling.wait(SECONDS_MAX)
    gate.set()
    intake.stop()


def test_a_full_queue_refuses_at_once() -> None:
    process = Gated()
    intake = _started(process, items_max=2, weight_max=10)
    first = intake.submit(Work(0))
    assert process.entered.wait(SECONDS_MAX)
    intake.submit(Work(2, 5))
    with pytest.raises(Unavailable, match="too busy: 1 requests with 5 events wait"):
        intake.submit(Work(4, 6))
    intake.submit(Work(6, 5))
    with pytest.raises(Unavailable, match="too busy"):
        intake.submit(Work(8, 0))
    process.gate.set()
    assert first.result(SECONDS_MAX) == 0
    intake.stop()


def test_nothing_is_taken_before_it_is_prepared() -> None:
    intake: Intake[Work, int] = Intake(Gated())
    with pytest.raises(Unavailable, match="preparing"):
        intake.submit(Work(0))


def test_stopping_finishes_what_waits_and_refuses_the_rest() -> None:
    process = Gated()
    intake = _started(process)
    futures = [intake.submit(Work(0))]
    assert process.entered.wait(SECONDS_MAX)
    futures.append(intake.submit(Work(2)))
    stopper = threading.Thread(target=intake.stop)
    stopper.start()
    process.gate.set()
    stopper.join(SECONDS_MAX)
    assert [future.result(0) for future in futures] == [0, 2]
    with pytest.raises(Unavailable, match="stopped"):
        intake.submit(Work(4))


def test_a_request_that_was_given_up_is_not_processed() -> None:
    process = Gated()
    intake = _started(process)
    intake.submit(Work(0))
    assert process.entered.wait(SECONDS_MAX)
    given_up, kept = intake.submit(Work(2)), intake.submit(Work(4))
    assert given_up.cancel()
    process.gate.set()
    assert kept.result(SECONDS_MAX) == 4
    intake.stop()
    assert process.batches == [[0], [4]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failed_writer_leaves_nobody_waiting() -> None:
    entered, gate = threading.Event(), threading.Event()

    def fail(items: Sequence[Work]) -> list[int | ObligorError]:
        entered.set()
        gate.wait(SECONDS_MAX)
        raise OSError("disk")

    ready = threading.Event()
    intake: Intake[Work, int] = Intake(fail, prepare=ready.set)
    intake.start()
    assert ready.wait(SECONDS_MAX)
    futures: list[Future[int]] = []
    while not intake.ready:
        threading.Event().wait(0.001)
    futures.append(intake.submit(Work(0)))
    assert entered.wait(SECONDS_MAX)
    futures.append(intake.submit(Work(2)))
    gate.set()
    for future in futures:
        assert isinstance(future.exception(SECONDS_MAX), Unavailable)
    with pytest.raises(Unavailable, match="failed"):
        intake.submit(Work(4))
    intake.stop()
    assert not intake.ready


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failed_preparation_never_becomes_ready() -> None:
    def fail() -> None:
        raise OSError("disk")

    intake: Intake[Work, int] = Intake(Gated(), prepare=fail)
    intake.start()
    intake.stop()
    with pytest.raises(Unavailable, match="failed"):
        intake.submit(Work(0))


# ---- errands --------------------------------------------------------------------------------------------------------


def test_an_errand_runs_on_the_thread_when_nothing_waits() -> None:
    process = Gated()
    process.gate.set()
    intake = _started(process)
    assert (
        intake.errand(lambda: threading.current_thread().name, patience_s=60.0).result(SECONDS_MAX) == "obligor-writer"
    )
    intake.stop()


def test_an_errand_waits_for_a_pause_but_not_for_ever() -> None:
    order: list[str] = []

    def process(items: Sequence[Work]) -> list[int | ObligorError]:
        order.extend(str(item.name) for item in items)
        if items[0].name < 6:  # something always waits
            intake.submit(Work(items[0].name + 2))
        return [item.name for item in items]

    ready = threading.Event()
    intake: Intake[Work, int] = Intake(process, prepare=ready.set)
    intake.start()
    assert ready.wait(SECONDS_MAX)
    while not intake.ready:
        threading.Event().wait(0.001)
    with intake._changed:  # nothing begins before all of it waits
        intake.submit(Work(0))
        patient = intake.errand(lambda: order.append("patient"), patience_s=60.0)
        hasty = intake.errand(lambda: order.append("hasty"), patience_s=0.0)
    patient.result(SECONDS_MAX)
    hasty.result(SECONDS_MAX)
    assert order == ["0", "2", "4", "6", "patient", "hasty"]
    with intake._changed:
        intake.submit(Work(2))
        hasty = intake.errand(lambda: order.append("hasty"), patience_s=0.0)
    hasty.result(SECONDS_MAX)
    assert order[6:8] == ["2", "hasty"], "one that waits for no pause comes between two batches"
    intake.stop()


def test_an_errand_s_refusal_is_its_own_and_another_failure_is_the_thread_s() -> None:
    process = Gated()
    process.gate.set()
    intake = _started(process)

    def refuse() -> None:
        raise Conflict("odd")

    assert isinstance(intake.errand(refuse, patience_s=0.0).exception(SECONDS_MAX), Conflict)
    assert intake.submit(Work(2)).result(SECONDS_MAX) == 2
    intake.stop()
    with pytest.raises(Unavailable, match="stopped"):
        intake.errand(refuse, patience_s=0.0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_errand_that_fails_ends_the_thread_and_those_that_wait() -> None:
    process = Gated()
    process.gate.set()
    intake = _started(process)

    def fail() -> None:
        raise OSError("a planted failure")

    with intake._changed:
        failing, waiting = (intake.errand(run, patience_s=0.0) for run in (fail, lambda: None))
    assert isinstance(failing.exception(SECONDS_MAX), OSError)
    assert isinstance(waiting.exception(SECONDS_MAX), Unavailable)
    assert intake.failed
    intake.stop()


def test_errands_are_bounded() -> None:
    process = Gated()
    intake = _started(process)
    intake.submit(Work(0))
    assert process.entered.wait(SECONDS_MAX)
    errands = [intake.errand(lambda: None, patience_s=60.0) for _ in range(ERRANDS_MAX)]
    with pytest.raises(Unavailable, match="errands wait"):
        intake.errand(lambda: None, patience_s=60.0)
    errands[0].cancel()
    process.gate.set()
    assert [one.result(SECONDS_MAX) for one in errands[1:]] == [None] * (ERRANDS_MAX - 1)
    intake.stop()
