"""A service moves to another bundle between two batches, under load; what fails before the exchange changes nothing."""

from __future__ import annotations

import errno
import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.decisions.desk import Clock, open_log, rewritten
from tests.decisions.moving import SECONDS_MAX, Bundles, Served, Shelf, Stream

from obligor.decisions import move as module
from obligor.decisions.intake import Unavailable
from obligor.decisions.move import REMAINDER_EVENTS_MAX
from obligor.decisions.record import decode
from obligor.decisions.replay import audit
from obligor.decisions.service import Service
from obligor.decisions.watch import Watch
from obligor.decisions.writer import Writer
from obligor.errors import ObligorError
from obligor.features.plan import Plan
from obligor.features.state import OnlineState
from obligor.features.states import state_name
from obligor.stores.lmdb import StateFolder
from obligor.stores.lmdb.lock import is_held

WAIT_SECONDS_MAX = 2.0  # for one request, in a move under load; about 0.03 on two cores that are not busy
MANY = 30_000  # events in the log before a move


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    made = Bundles(tmp_path_factory.mktemp("bundles"))
    old = made.old.plan
    assert made.other_timelines.plan.timelines_hash != old.timelines_hash
    assert made.equal_timelines.plan.timelines_hash == old.timelines_hash
    assert made.equal_timelines.plan.hash != old.hash
    return made


@pytest.fixture
def served(tmp_path: Path, bundles: Bundles) -> Iterator[Served]:
    started = Served(tmp_path, bundles.old, StateFolder(tmp_path / "state"))
    started.send(0, 200)
    yield started
    started.service.stop()


def test_decisions_go_on_while_the_service_moves_and_all_replay(
    served: Served, bundles: Bundles, tmp_path: Path
) -> None:
    for first in range(1_000, MANY, 5_000):
        served.send(first, 5_000)
    old_state = tmp_path / "state" / state_name(bundles.old.plan)
    with Stream(served) as stream:
        assert served.move(bundles.other_timelines) == "moved"
        stream.wait(10)
    switched = stream.bundles.index(bundles.other_timelines.hash)
    assert switched >= 10
    assert set(stream.bundles[:switched]) == {bundles.old.hash}
    assert set(stream.bundles[switched:]) == {bundles.other_timelines.hash}
    assert max(stream.seconds) < WAIT_SECONDS_MAX
    assert served.metric('obligor_step_seconds_sum{step="exchange"}') < WAIT_SECONDS_MAX
    assert served.metric('obligor_moves_total{result="moved"}') == 1
    assert served.metric("obligor_move_seconds") > 0
    assert not is_held(old_state), "the old state is closed"
    assert (old_state / "boot").read_text() == "closed"
    served.assert_sound(bundles.other_timelines)
    held = {one.hash: one for one in (bundles.old, bundles.other_timelines)}
    report = audit(served.log, held)
    assert report.clean
    assert len(report.verdicts) == len(stream.bundles) + 1
    named = Counter(decode(row.record)["bundle"] for row in served.log.decisions())
    assert named == Counter(stream.bundles) + Counter([bundles.other_timelines.hash])


def test_an_exchange_that_took_long_would_be_seen(
    served: Served, bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the bound above is worth."""
    catch_up = Writer.catch_up

    def slow(self: Writer) -> None:
        time.sleep(WAIT_SECONDS_MAX)
        catch_up(self)

    with monkeypatch.context() as patch, Stream(served) as stream:
        patch.setattr(Writer, "catch_up", slow)
        assert served.move(bundles.other_timelines) == "moved"
        stream.wait(5)
    assert max(stream.seconds) >= WAIT_SECONDS_MAX


def test_a_decision_asked_for_again_keeps_the_bundle_that_took_it(served: Served, bundles: Bundles) -> None:
    first = served.decide("again")
    assert served.move(bundles.other_timelines) == "moved"
    assert served.decide("again") == first
    assert first["bundle"] == bundles.old.hash


def test_a_bundle_of_equal_timelines_takes_over_the_state_itself(served: Served, bundles: Bundles) -> None:
    state = served.service._state
    with Stream(served) as stream:
        assert served.move(bundles.equal_timelines) == "moved"
        stream.wait(10)
    assert served.service._state is state
    assert served.shelf.built == 0
    assert len(served.shelf.states.all()) == 1
    assert set(stream.bundles) == {bundles.old.hash, bundles.equal_timelines.hash}
    served.assert_sound(bundles.equal_timelines)
    assert served.move(bundles.old) == "moved"  # and back
    served.assert_sound(bundles.old)
    assert served.move(bundles.other_timelines) == "moved"
    served.assert_sound(bundles.other_timelines)
    assert served.move(bundles.equal_timelines) == "moved", "the first state was closed, and is opened again"
    served.assert_sound(bundles.equal_timelines)
    assert audit(served.log, served.service._bundles).clean


def test_the_same_bundle_is_no_move(served: Served, bundles: Bundles) -> None:
    writer = served.service._writer
    assert served.service._mover is not None
    assert served.service._mover.move() is None
    assert served.service._writer is writer
    assert served.metric('obligor_moves_total{result="moved"}') == 0
    assert served.metric('obligor_moves_total{result="failed"}') == 0
    served.assert_sound(bundles.old)


# ---- what fails ------------------------------------------------------------------------------------------------------


def _corrupt(bundles: Bundles, tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(bundles.other_timelines.path, tmp_path / bundles.other_timelines.hash))
    (copy / "trees.json").write_bytes((copy / "trees.json").read_bytes() + b" ")
    return copy


def _policy(bundles: Bundles, tmp_path: Path) -> Path:
    policy = bundles.old.policy.replace(b"asked_before >", b"arrears >")
    return rewritten(bundles.other_timelines, tmp_path, policy=policy).path


def _application(bundles: Bundles, tmp_path: Path) -> Path:
    data = bundles.other_timelines.plan.data | {"application": "sale"}
    return rewritten(bundles.other_timelines, tmp_path, plan=Plan.load(data).canonical).path


def _unknown_type(bundles: Bundles, tmp_path: Path) -> Path:
    data = bundles.other_timelines.plan.canonical.replace(b'"event":"sale"', b'"event":"gift"')
    return rewritten(bundles.other_timelines, tmp_path, plan=data.replace(b'"sale":[', b'"gift":[')).path


def _unknown_field(bundles: Bundles, tmp_path: Path) -> Path:
    data = bundles.other_timelines.plan.canonical.replace(b'"by":["merchant"]', b'"by":["market"]')
    return rewritten(bundles.other_timelines, tmp_path, plan=data).path


def _gone(bundles: Bundles, tmp_path: Path) -> Path:
    return tmp_path / ("0" * 64)


WRONG_BUNDLES = {
    "a part was changed": (_corrupt, "its SHA-256 is"),
    "a policy that does not fit": (_policy, "unknown feature 'arrears'"),
    "another type of application": (_application, "expected an application of type 'loan_application'"),
    "an event type that is not known": (_unknown_type, "gift"),
    "a field that is not known": (_unknown_field, "market"),
    "no bundle": (_gone, "no bundle at"),
}


@pytest.mark.parametrize("name", WRONG_BUNDLES)
def test_a_bundle_that_cannot_decide_changes_nothing(
    served: Served, bundles: Bundles, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, why = WRONG_BUNDLES[name]
    served.shelf.wanted = make(bundles, tmp_path / "wrong")
    _assert_failed(served, bundles, why, caplog)
    assert served.shelf.built == 0, "it is seen before anything is built"


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "a planted full disk")


def _killed(*_: object) -> None:
    raise ObligorError("the process that builds the state was killed by signal 9")


def _plant_build(served: Served, patch: pytest.MonkeyPatch) -> None:
    served.shelf.before_build = _full


def _plant_killed(served: Served, patch: pytest.MonkeyPatch) -> None:
    served.shelf.before_build = _killed


def _plant_open(served: Served, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(served.shelf, "open", _full)
    served.shelf.builds = False


def _plant_catch_up(served: Served, patch: pytest.MonkeyPatch) -> None:
    served.shelf.builds = False
    patch.setattr(OnlineState, "catch_up", _full)


def _plant_remainder(served: Served, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writer, "catch_up", _full)


def _plant_rehearsal(served: Served, patch: pytest.MonkeyPatch) -> None:
    def wrong(self: Writer) -> None:
        raise KeyError("planted in the rehearsal")

    patch.setattr(Writer, "warm_up", wrong)


def _plant_lazy(served: Served, patch: pytest.MonkeyPatch) -> None:
    served.shelf.builds = False
    patch.setattr(module, "NEAR_EVENTS", 100)


def _plant_late(served: Served, patch: pytest.MonkeyPatch) -> None:
    served.shelf.builds = False
    patch.setattr("obligor.decisions.service.REMAINDER_EVENTS_MAX", 100)
    patch.setattr(OnlineState, "catch_up", lambda *_: 0)
    patch.setattr(module, "PAUSE_S", 0.0)


FAULTS = {
    "the disk is full while it builds": (_plant_build, "planted full disk"),
    "the builder is killed": (_plant_killed, "killed by signal 9"),
    "the state cannot be opened": (_plant_open, "planted full disk"),
    "the disk is full while the mover catches up": (_plant_catch_up, "planted full disk"),
    "the disk is full at the exchange": (_plant_remainder, "planted full disk"),
    "the rehearsal fails": (_plant_rehearsal, "planted in the rehearsal"),
    "the builder leaves too much": (_plant_lazy, "more than 100 events behind"),
    "too much is missing at the exchange": (_plant_late, "no time for the exchange"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_move_that_fails_changes_nothing_and_the_next_one_succeeds(
    served: Served, bundles: Bundles, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plant, why = FAULTS[name]
    served.shelf.wanted = bundles.other_timelines.path
    with monkeypatch.context() as patch:
        plant(served, patch)
        _assert_failed(served, bundles, why, caplog, patched=True)
    served.assert_sound(bundles.old)
    served.shelf.before_build, served.shelf.builds = lambda stopping: None, True
    assert served.wait_moved() == "moved"
    served.assert_sound(bundles.other_timelines)


def _assert_failed(
    served: Served, bundles: Bundles, why: str, caplog: pytest.LogCaptureFixture, *, patched: bool = False
) -> None:
    state, writer = served.service._state, served.service._writer
    with Stream(served) as stream, caplog.at_level(logging.INFO, "obligor.move"):
        assert served.wait_moved() == "failed"
        stream.wait(5)
    assert set(stream.bundles) == {bundles.old.hash}
    assert max(stream.seconds) < WAIT_SECONDS_MAX
    assert served.service._state is state
    assert served.service._writer is writer
    assert served.service.ready
    (text,) = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert why in text
    assert bundles.old.hash in text
    assert served.metric('obligor_moves_total{result="failed"}') == 1
    assert served.metric('obligor_moves_total{result="moved"}') == 0
    for one in served.shelf.states.all():
        assert one.in_use == (one.name == state_name(bundles.old.plan)), "a state that is not used is closed"
    if not patched:
        served.assert_sound(bundles.old)


# ---- beside the rest -------------------------------------------------------------------------------------------------


def test_a_round_of_parity_that_the_exchange_falls_into_raises_no_alarm(
    served: Served, bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = Watch._samples

    def after_a_move(self: Watch, asked: Any, pause_s: float = 0.0) -> Any:
        assert asked
        assert served.move(bundles.other_timelines) == "moved"
        return samples(self, asked, pause_s)

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "_samples", after_a_move)
        with pytest.raises(Unavailable, match="another bundle decides now"):
            served.watch.round()
    served.assert_sound(bundles.other_timelines)
    assert served.metric("obligor_state_suspect") == 0
    for of in ("state", "decisions"):
        assert served.metric(f'obligor_parity_differences_total{{of="{of}"}}') == 0


def test_what_an_old_state_is_suspected_of_takes_nothing_from_the_new_one(served: Served, bundles: Bundles) -> None:
    before = served.watch._state
    assert served.move(bundles.other_timelines) == "moved"
    assert not before.distrust()
    with pytest.raises(Unavailable):
        before.rebuild().result(SECONDS_MAX)
    assert served.service.ready


def test_a_service_in_doubt_does_not_move(
    served: Served, bundles: Bundles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    served.service._writer.trust = "suspect"
    assert served.move(bundles.equal_timelines) == "failed"
    served.service._writer.trust = "lost"
    assert served.move(bundles.equal_timelines) == "failed"
    assert any("start it again first" in one.getMessage() for one in caplog.records)
    assert served.decide("lost")["rung"] == "refer"
    served.service._writer.trust = "sound"
    assert served.move(bundles.equal_timelines) == "moved"


def test_asked_again_in_the_middle_it_looks_again_when_it_is_done(served: Served, bundles: Bundles) -> None:
    building, go_on = threading.Event(), threading.Event()

    def wait(stopping: Callable[[], bool]) -> None:
        building.set()
        assert go_on.wait(SECONDS_MAX)

    served.shelf.before_build, served.shelf.wanted = wait, bundles.other_timelines.path
    served.service.move()
    assert building.wait(SECONDS_MAX)
    last = served.service.last_move
    assert last is not None
    assert (last.bundle, last.status) == (bundles.other_timelines.hash, "building")
    served.shelf.wanted = bundles.equal_timelines.path  # promoted meanwhile
    for _ in range(3):
        served.service.move()
    go_on.set()
    deadline = time.monotonic() + SECONDS_MAX
    while served.service.bundle.hash != bundles.equal_timelines.hash:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    served.assert_sound(bundles.equal_timelines)
    assert served.metric('obligor_moves_total{result="moved"}') == 2


def test_a_service_that_stops_in_a_move_ends_it(tmp_path: Path, bundles: Bundles) -> None:
    served, building = Served(tmp_path, bundles.old, StateFolder(tmp_path / "state")), threading.Event()

    def wait(stopping: Callable[[], bool]) -> None:
        building.set()
        while not stopping():
            time.sleep(0.002)
        raise Unavailable("stopping")

    served.shelf.before_build, served.shelf.wanted = wait, bundles.other_timelines.path
    served.service.move()
    assert building.wait(SECONDS_MAX)
    served.service.stop()
    assert not any(one.in_use for one in served.shelf.states.all())


def test_asked_before_it_is_ready_a_service_moves_when_it_is(tmp_path: Path, bundles: Bundles) -> None:
    shelf = Shelf(tmp_path, StateFolder(tmp_path / "state"), bundles.other_timelines.path)
    log = open_log(tmp_path / "log")
    service = Service(log, shelf.open(bundles.old), bundles.old, clock=Clock(), parity=None, sources=shelf)
    service.move()
    service.start()
    deadline = time.monotonic() + SECONDS_MAX
    while service.bundle.hash != bundles.other_timelines.hash:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    service.stop()


def test_the_exchange_takes_no_more_than_a_batch(served: Served, bundles: Bundles) -> None:
    state = served.shelf.open(bundles.other_timelines)
    served.send(1_000, REMAINDER_EVENTS_MAX)
    with pytest.raises(Unavailable, match="events behind the log"):
        served.service.exchange(bundles.other_timelines, state).result(SECONDS_MAX)
    state.catch_up(served.log)
    before = served.service.exchange(bundles.other_timelines, state).result(SECONDS_MAX)
    before.close()
    served.assert_sound(bundles.other_timelines)
