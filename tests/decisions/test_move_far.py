"""Moves between states in Redis: built beside each other, and neither handed over while it is gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.decisions.desk import batch_of, sale
from tests.decisions.moving import SECONDS_MAX, Bundles, Served, Stream
from tests.stores.redis_server import RedisServer, own_redis

from obligor.decisions import move as module
from obligor.decisions.replay import audit
from obligor.decisions.writer import Writer
from obligor.features.state import OnlineState
from obligor.features.state_store import StateGone
from obligor.features.states import state_name
from obligor.stores.redis import RedisStates


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    return Bundles(tmp_path_factory.mktemp("bundles"))


server = pytest.fixture(own_redis)


@pytest.fixture
def served(tmp_path: Path, bundles: Bundles, server: RedisServer) -> Iterator[Served]:
    started = Served(tmp_path, bundles.old, RedisStates(f"{server.address}?prefix=moves"))
    started.send(0, 200)
    yield started
    started.service.stop()
    assert not any(thread.name == "obligor-recovery" for thread in threading.enumerate())


def _wait(until: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + SECONDS_MAX
    while not until():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def _in_use(served: Served) -> dict[str, bool]:
    return {one.name: one.in_use for one in served.shelf.states.all()}


def test_decisions_go_on_while_the_next_state_is_built_in_redis(served: Served, bundles: Bundles) -> None:
    for first in range(1_000, 10_000, 3_000):
        served.send(first, 3_000)
    with Stream(served) as stream:
        assert served.move(bundles.other_timelines) == "moved"
        stream.wait(10)
    assert set(stream.bundles) == {bundles.old.hash, bundles.other_timelines.hash}
    _wait(lambda: not _in_use(served)[state_name(bundles.old.plan)])
    assert _in_use(served)[state_name(bundles.other_timelines.plan)]
    served.assert_sound(bundles.other_timelines)
    assert served.move(bundles.old) == "moved", "the first state is closed, and is opened again"
    served.assert_sound(bundles.old)
    assert served.move(bundles.equal_timelines) == "moved"
    served.assert_sound(bundles.equal_timelines)
    assert served.shelf.built == 2
    assert audit(served.log, served.service._bundles).clean


def test_no_state_is_handed_over_while_it_is_brought_back(
    served: Served, bundles: Bundles, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.01)
    catch_up, going_on, go_on = OnlineState.catch_up, threading.Event(), threading.Event()

    def slow(self: OnlineState, *args: Any, **names: Any) -> dict[int, int]:
        if threading.current_thread().name == "obligor-recovery":
            going_on.set()
            assert go_on.wait(SECONDS_MAX)
        return catch_up(self, *args, **names)

    monkeypatch.setattr(OnlineState, "catch_up", slow)
    server.restart()  # Redis itself is back at once
    assert served.decide("gone")["rung"] == "refer"
    assert going_on.wait(SECONDS_MAX)
    writer, recovery = served.service._writer, served.service._writer._recovery
    assert recovery is not None
    assert served.move(bundles.equal_timelines) == "failed"
    assert served.move(bundles.other_timelines) == "failed"
    assert (served.service._writer, writer._recovery) == (writer, recovery), "it is being brought back all the while"
    go_on.set()
    _wait(lambda: served.decide(f"back-{time.monotonic_ns()}")["rung"] == "full")
    served.assert_sound(bundles.old)
    assert served.move(bundles.equal_timelines) == "moved"
    served.assert_sound(bundles.equal_timelines)
    assert served.move(bundles.other_timelines) == "moved"
    served.assert_sound(bundles.other_timelines)


def test_a_new_state_that_goes_at_the_exchange_is_not_taken(
    served: Served, bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    catch_up, old = OnlineState.catch_up, served.service._state
    found: list[Writer] = []

    def gone(self: OnlineState, *args: Any, **names: Any) -> dict[int, int]:
        name = threading.current_thread().name
        if self is not old and name == "obligor-writer" and len(found) < 3:
            found.append(served.service._writer)
            raise StateGone("planted")
        if name == "obligor-recovery":  # which would try again and again
            raise StateGone("planted, too")
        return catch_up(self, *args, **names)

    monkeypatch.setattr(OnlineState, "catch_up", gone)
    writer = served.service._writer
    assert served.move(bundles.other_timelines) == "moved", "at the fourth try"
    assert found == [writer] * 3
    assert not any(thread.name == "obligor-recovery" for thread in threading.enumerate())
    served.assert_sound(bundles.other_timelines)


def test_a_state_that_goes_after_the_exchange_is_brought_back_by_its_own_writer(
    served: Served, bundles: Bundles, server: RedisServer
) -> None:
    assert served.move(bundles.other_timelines) == "moved"
    with Stream(served) as stream:
        server.restart()
        stream.wait(20)
    _wait(lambda: served.decide(f"back-{time.monotonic_ns()}")["rung"] == "full")
    served.assert_sound(bundles.other_timelines)
    assert list(_in_use(served)) == [state_name(bundles.other_timelines.plan)], "nobody brings the old one back"


def test_stopping_ends_the_recovery_of_a_writer_that_was_exchanged(
    served: Served, bundles: Bundles, server: RedisServer
) -> None:
    assert served.move(bundles.other_timelines) == "moved"
    server.kill()
    assert served.decide("gone")["rung"] == "refer"
    assert [one.name for one in threading.enumerate()].count("obligor-recovery") == 1
    # the fixture stops the service, and looks


MERCHANTS = ["m-0", "m-1", "m-2"]


def _merchants(served: Served) -> list[str]:
    with served.service._state.begin() as staged:
        return staged.keys("merchant", None, 10)


def test_a_plan_that_reaches_further_back_gets_a_state_of_its_own(
    served: Served, bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sold(name: str) -> float:
        record = served.decide(f"{name}-{time.monotonic_ns()}", merchant="m-old")
        return float(record["features"][served.service.bundle.plan.names.index(name)])

    monkeypatch.setattr("obligor.decisions.writer.EXPIRY_PAUSE_S", 0.0)
    old = sale("old", "m-old", 700, event_time="2025-11-20T00:00:00Z")
    served.service.submit_events(batch_of(served.log, old)).result(SECONDS_MAX)
    served.send(1_000, 10)
    assert sold("sold") == 0
    assert served.service._intake.errand(lambda: _merchants(served), patience_s=0).result(SECONDS_MAX) == MERCHANTS
    assert served.move(bundles.longer_reach) == "moved"
    assert sold("sold_long") == 700
    served.assert_sound(bundles.longer_reach)
