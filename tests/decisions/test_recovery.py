"""Online state that goes away: decisions go on down the ladder, say so, replay, and come back by themselves.

Against a real Redis that is killed, started again empty, stopped in the middle, and taken by another writer.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.decisions.desk import (
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
from tests.events.sharded import create_shards, open_shard
from tests.postgres_server import Server
from tests.stores.redis_server import RedisServer, own_redis

from obligor.decisions import recovery as module
from obligor.decisions.items import ApplicationItem, EventsItem, Item
from obligor.decisions.parity import check_decisions, check_state
from obligor.decisions.record import decode
from obligor.decisions.replay import replay
from obligor.decisions.service import Service, _Watched
from obligor.decisions.writer import Writer
from obligor.events.log import EventLog
from obligor.events.store import OffsetRow, OffsetStep, StaleOffset
from obligor.features import filling
from obligor.features import state as state_module
from obligor.features.edits import Edits
from obligor.features.lake import Lake
from obligor.features.lake_tables import plan_entities
from obligor.features.state import OnlineState, StagedState
from obligor.features.state_store import StateGone, StateStore
from obligor.features.timelines import Timeline
from obligor.models.bundle import Bundle
from obligor.stores.delta import DeltaLake
from obligor.stores.redis import RedisStateReader, RedisStateStore
from obligor.stores.redis.link import PATIENCE_S
from obligor.stores.redis.store import keys_of

SECONDS_MAX = 60.0
NAME = "served"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return desk_bundle(tmp_path_factory.mktemp("bundles"))


server = pytest.fixture(own_redis)


Start = Callable[[], Service]


@pytest.fixture
def start(tmp_path: Path, bundle: Bundle, server: RedisServer) -> Iterator[Start]:
    started: list[Service] = []

    def make() -> Service:
        ready = threading.Event()
        state = OnlineState(bundle.plan, RedisStateStore(server.address, NAME), lake=_lake(tmp_path))
        log = open_log(tmp_path / f"log-{len(started)}")
        service = Service(log, state, bundle, clock=Clock(), ready=ready.set, parity=None)
        started.append(service)
        service.start()
        assert ready.wait(SECONDS_MAX)
        return service

    yield make
    for service in started:
        service.stop()


def _lake(folder: Path) -> Callable[[EventLog], Lake]:
    return lambda log: Lake(DeltaLake(folder / "lake"), log)


def _events(service: Service, number: int) -> None:
    records = [repayment(f"{number}-{i}", f"c-{i % 7}", 500 + i) for i in range(20)]
    records += [sale(f"{number}-{i}", f"m-{i % 3}", 100 + i) for i in range(20)]
    appended = service.submit_events(batch_of(service._log, *records)).result(SECONDS_MAX)
    assert set(appended.status) == {"accepted"}


def _decide(service: Service, number: object, consumer: str = "c-1") -> dict[str, Any]:
    made = batch_of(service._log, application(str(number), consumer, merchant="m-1"))
    return decode(service.submit_application(made).result(SECONDS_MAX).record)


def _rung(service: Service, number: object) -> str:
    rung: str = _decide(service, number, f"c-{random.Random(str(number)).randrange(7)}")["rung"]
    return rung


def _full_again(service: Service, number: object) -> int:
    """Decide until it is by the full rung; return how many were not."""
    deadline_s = time.monotonic() + SECONDS_MAX
    for other in range(1_000):
        if _rung(service, f"{number}-{other}") == "full":
            return other
        assert time.monotonic() < deadline_s, "it never came back"
        time.sleep(0.05)
    raise AssertionError("never")


def _gone(service: Service) -> float:
    lines = service.metrics.render().decode().splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith("obligor_state_gone ")]
    return float(value)


def _assert_sound(service: Service, bundle: Bundle, state: StateStore | None = None) -> None:
    """Every decision replays, every recorded number is the log's, and so is what the state says of everybody."""
    bundles = {bundle.hash: bundle}
    assert {verdict.verdict for verdict in replay(service._log, bundles)} == {"identical"}
    assert check_decisions(service._log, bundles, service._log.decisions()).comparison.differences == 0
    if state is not None:
        asked = check_state(
            service._log, OnlineState(bundle.plan, state), bundle,
            entities=None, chance=random.Random(3), clock=Clock(),
        )  # fmt: skip
        assert asked.checked >= 20
        assert asked.differences == 0


def test_a_redis_that_starts_again_empty_in_the_middle_of_traffic(
    start: Start, server: RedisServer, bundle: Bundle
) -> None:
    service = start()
    ended = threading.Event()
    failures: list[BaseException] = []
    rungs: list[str] = []

    def traffic(first: int) -> None:
        number = first
        try:
            while not ended.is_set():
                _events(service, number)
                rungs.append(_rung(service, number))
                number += 1
                time.sleep(0.02)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=traffic, args=[first]) for first in (0, 1_000_000)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(0.3)
        server.restart()
    time.sleep(0.3)
    server.kill()
    time.sleep(0.3)
    server.start()
    time.sleep(0.3)
    ended.set()
    for thread in threads:
        thread.join()
    assert failures == []
    _full_again(service, "after")
    assert rungs[0] == "full"
    assert {"full", "refer"} == set(rungs)
    assert _gone(service) == 0
    _assert_sound(service, bundle, RedisStateReader(server.address, NAME))


def test_a_redis_that_hangs_costs_one_decision_its_patience_and_the_others_nothing(
    start: Start, server: RedisServer, bundle: Bundle
) -> None:
    service = start()
    _events(service, 0)
    assert _rung(service, 0) == "full"
    server.freeze()
    taken_s = []
    for number in range(1, 9):
        started_s = time.monotonic()
        record = _decide(service, number)
        taken_s.append(time.monotonic() - started_s)
        assert (record["rung"], record["outcome"], record["features"]) == ("refer", "refer", None)
        _events(service, number)
    assert taken_s[0] < PATIENCE_S + 1.0
    assert max(taken_s[1:]) < PATIENCE_S, "nobody waits for it any more"
    assert _gone(service) == 1
    assert service.ready
    server.thaw()
    _full_again(service, "after")
    assert _gone(service) == 0
    _assert_sound(service, bundle, RedisStateReader(server.address, NAME))


def test_a_service_starts_without_its_redis(start: Start, server: RedisServer, bundle: Bundle) -> None:
    server.kill()
    service = start()
    _events(service, 0)
    assert [_rung(service, number) for number in range(3)] == ["refer"] * 3
    server.start()
    _full_again(service, "after")
    _assert_sound(service, bundle, RedisStateReader(server.address, NAME))


def test_events_and_decisions_go_on_while_the_state_is_rebuilt(
    start: Start, server: RedisServer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start()
    _events(service, 0)
    assert _rung(service, 0) == "full"
    reached, go_on = threading.Event(), threading.Event()
    catch_up = OnlineState.catch_up

    def slow(state: OnlineState, *args: Any, **names: Any) -> dict[int, int]:
        if threading.current_thread().name == "obligor-recovery":
            reached.set()
            assert go_on.wait(SECONDS_MAX)
        return catch_up(state, *args, **names)

    monkeypatch.setattr(OnlineState, "catch_up", slow)
    server.restart()
    assert _rung(service, "first") == "refer"
    assert reached.wait(SECONDS_MAX)
    for number in range(1, 5):
        _events(service, number)
        assert _rung(service, number) == "refer"
    go_on.set()
    _full_again(service, "after")
    _assert_sound(service, bundle, RedisStateReader(server.address, NAME))


# ---- from the lake ---------------------------------------------------------------------------------------------------


@pytest.fixture
def filled_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that filled a state from the lake, which is used however little it holds."""
    monkeypatch.setattr(state_module, "FILLED_EVENTS_MIN", 1)
    threads: list[str] = []
    fill = StagedState.fill

    def noted(staged: StagedState, timeline: str, edits: Edits) -> None:
        threads.append(threading.current_thread().name)
        fill(staged, timeline, edits)

    monkeypatch.setattr(StagedState, "fill", noted)
    return threads


def test_a_state_is_filled_from_the_lake_while_decisions_go_on(
    start: Start, server: RedisServer, bundle: Bundle, tmp_path: Path, filled_by: list[str]
) -> None:
    service = start()
    for number in range(3):
        _events(service, number)
        _decide(service, number, f"c-{number}")
    _lake(tmp_path)(service._log).update(plan_entities(bundle.plan))
    _events(service, 3)
    _decide(service, 3)
    assert not filled_by
    server.restart()
    _events(service, 4)
    _full_again(service, "after")
    assert set(filled_by) == {"obligor-recovery"}
    assert len(filled_by) >= len(bundle.plan.timelines)
    _assert_sound(service, bundle, RedisStateReader(server.address, NAME))


def test_a_state_that_a_wrong_lake_gave_is_built_again_from_the_log(
    start: Start, server: RedisServer, bundle: Bundle, tmp_path: Path, filled_by: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    service = start()
    for number in range(3):
        _events(service, number)
    _lake(tmp_path)(service._log).update(plan_entities(bundle.plan))
    real = filling.winners

    def wrong(timeline: Timeline) -> Edits:
        edits = real(timeline)
        edits.inserted[:, 3:] += 1
        return edits

    monkeypatch.setattr(filling, "winners", wrong)
    server.restart()
    _full_again(service, "after")
    assert filled_by
    with pytest.raises(AssertionError):
        _assert_sound(service, bundle, RedisStateReader(server.address, NAME))
    filled_by.clear()
    _Watched(service, service._writer).rebuild().result(SECONDS_MAX)
    asked = OnlineState(bundle.plan, RedisStateReader(server.address, NAME), reading=True)
    found = check_state(service._log, asked, bundle, entities=None, chance=random.Random(3), clock=Clock())
    assert (found.differences, filled_by) == (0, [])


def test_what_was_staged_when_the_state_went_is_written_once(
    tmp_path: Path, bundle: Bundle, server: RedisServer
) -> None:
    with open_log(tmp_path / "log") as log:
        state = OnlineState(bundle.plan, RedisStateStore(server.address, NAME))
        service = Service(log, state, bundle, clock=Clock(), parity=None)
        writer = service._writer
        writer.catch_up()
        items: list[Item] = [
            EventsItem(batch_of(log, repayment(1, "c-1", 700))),
            ApplicationItem(batch_of(log, application(1, "c-1"))),
            EventsItem(batch_of(log, repayment(2, "c-1", 700))),
            ApplicationItem(batch_of(log, application(2, "c-1"))),
        ]
        server.restart()
        results = writer.process(items)
        assert [type(one).__name__ for one in results] == ["Appended", "Decided", "Appended", "Decided"]
        assert log.head.sequence == 6, "two repayments, two applications, two decisions"
        assert [decode(row.record)["rung"] for row in log.decisions()] == ["refer", "refer"]
        assert {verdict.verdict for verdict in replay(log, {bundle.hash: bundle})} == {"identical"}
        writer.stop()


def test_events_of_a_stream_go_in_once_with_their_offset_when_the_state_goes(
    tmp_path: Path, bundle: Bundle, server: RedisServer
) -> None:
    with open_log(tmp_path / "log") as log:
        state = OnlineState(bundle.plan, RedisStateStore(server.address, NAME))
        writer = Service(log, state, bundle, clock=Clock(), parity=None)._writer
        writer.catch_up()
        steps = [OffsetStep(OffsetRow("group", "payments", 0, "id-1", following), before)
                 for before, following in ((None, 3), (3, 4))]  # fmt: skip
        items: list[Item] = [
            EventsItem(batch_of(log, repayment(1), repayment(2)), steps=steps[:1]),
            ApplicationItem(batch_of(log, application(1))),
            EventsItem(batch_of(log, repayment(3)), steps=steps[1:]),
        ]
        server.restart()
        assert [type(one).__name__ for one in writer.process(items)] == ["Appended", "Decided", "Appended"]
        assert writer.state_gone
        assert log.head.sequence == 5
        assert log.offset("group", "payments", 0) == steps[1].row
        (stale,) = writer.process(items[2:])
        assert isinstance(stale, StaleOffset)
        writer.stop()


def test_without_the_protection_a_redis_that_goes_ends_the_service(
    start: Start, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start()
    _events(service, 0)
    monkeypatch.setattr(Writer, "_batch_or_without", Writer._batch)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    _settled(service)
    server.restart()
    with pytest.raises(Exception, match="whether this was written is unknown"):
        _rung(service, 0)
    assert service.failed


def test_a_state_that_another_writer_took_is_left_to_it(
    start: Start, server: RedisServer, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    service = start()
    _events(service, 0)
    assert _rung(service, 0) == "full"
    _settled(service)
    with server.client as client:
        client.client_kill_filter(_type="normal", skipme=True)  # as when the network parts them
        other = RedisStateStore(server.address, NAME)
        staged = other.begin()
        staged.put_many([(b"a", b"of the other")])
        staged.commit()
        with caplog.at_level(logging.ERROR, "obligor.state"):
            assert [_rung(service, number) for number in range(1, 5)] == ["refer"] * 4
            time.sleep(2 * module.PAUSE_S)
            _events(service, 9)
            assert _rung(service, 9) == "refer"
        assert any(record.levelname == "CRITICAL" for record in caplog.records)
        staged = other.begin()
        assert bytes(staged.get(b"a") or b"") == b"of the other"
        other.close()
    _assert_sound(service, bundle)


def test_a_state_that_came_back_with_other_rows_than_its_head_says_is_built_anew(
    start: Start, server: RedisServer, bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    service = start()
    _events(service, 0)
    assert _rung(service, 0) == "full"
    entries, order = (key.decode() for key in keys_of(NAME))
    with server.client as client:
        _settled(service)
        client.save()  # this comes back
        _events(service, 1)
        assert _rung(service, 1) == "full"
        _settled(service)
        rows = {name: value for name, value in client.hgetall(entries).items() if name.endswith(b"\x01")}
        server.restart()
        for name, value in rows.items():  # newer rows under the older head
            client.hset(entries, name, value)
        assert client.zcard(order) + 1 == client.hlen(entries)
    _full_again(service, "after")
    assert "does not fit the log" in caplog.text
    _assert_sound(service, bundle, RedisStateReader(server.address, NAME))


def test_the_state_is_taken_back_only_when_little_is_missing(
    tmp_path: Path, bundle: Bundle, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_log(tmp_path / "log") as log:
        state = OnlineState(bundle.plan, RedisStateStore(server.address, NAME))
        writer = Service(log, state, bundle, clock=Clock(), parity=None)._writer
        writer.catch_up()
        writer.process([EventsItem(batch_of(log, *(repayment(i, "c-1") for i in range(50))))])
        server.kill()
        writer.settle()
        assert writer.state_gone
        server.start()
        _wait(lambda: writer._recovery is not None and writer._recovery.done)
        server.restart()  # empty again, after the recovery and before the writer has looked
        caught_up: list[str] = []
        catch_up = OnlineState.catch_up

        def noted(state: OnlineState, *args: Any, **names: Any) -> dict[int, int]:
            caught_up.append(threading.current_thread().name)
            return catch_up(state, *args, **names)

        monkeypatch.setattr(OnlineState, "catch_up", noted)
        writer.process([EventsItem(batch_of(log, repayment("more", "c-1")))])
        assert writer.state_gone
        _wait(lambda: writer._recovery is not None and writer._recovery.done)
        assert set(caught_up) == {"obligor-recovery"}
        writer.process([EventsItem(batch_of(log, repayment("last", "c-1")))])
        assert not writer.state_gone
        writer.settle()
        writer.stop()
        state.close()


# ---- a shard that follows another ------------------------------------------------------------------------------------

Shards = tuple[Service, Service]
_LOGS = count()


@pytest.fixture
def shards(tmp_path: Path, bundle: Bundle, server: RedisServer, postgres: Server) -> Iterator[Shards]:
    """The writers of both shards of a log: the first with its state in Redis, the other with its own in a folder."""
    url = create_shards(postgres, f"recovered_{next(_LOGS)}", tmp_path, 2, REGISTRY)
    states = [OnlineState(bundle.plan, RedisStateStore(server.address, NAME)), open_state(tmp_path / "1", bundle.plan)]
    services = []
    for shard, state in enumerate(states):
        ready = threading.Event()
        log = open_shard(url, tmp_path, shard, REGISTRY)
        services.append(Service(log, state, bundle, clock=Clock(), ready=ready.set, parity=None))
        services[-1].start()
        assert ready.wait(SECONDS_MAX)
    yield services[0], services[1]
    for service in services:
        service.stop()


def _assert_follows(one: Service, other: Service, bundle: Bundle, store: StateStore) -> None:
    """The first shard's state stands for all of both shards, and says of everybody what the log says there."""
    _wait(lambda: one._writer.applied == one._log.ends())
    staged = OnlineState(bundle.plan, store).begin()
    assert staged.head is not None
    assert staged.head.cut == one._log.ends() == {0: one._log.head.sequence, 1: other._log.head.sequence}
    staged.abort()
    _assert_sound(one, bundle, store)
    decided = len(list(replay(one._log, {bundle.hash: bundle})))
    assert decided == sum(one._log.ledger_ends().values()) > one._log.head.ledger_sequence, "those of both shards"


def test_a_redis_that_starts_again_empty_while_its_shard_follows_another(
    shards: Shards, server: RedisServer, bundle: Bundle
) -> None:
    one, other = shards
    ended = threading.Event()
    rungs: dict[Service, list[str]] = {one: [], other: []}
    failures: list[BaseException] = []

    def traffic(service: Service, first: int) -> None:
        number = first
        try:
            while not ended.is_set():
                _events(service, number)  # of the same consumers and merchants in both shards
                rungs[service].append(_rung(service, number))
                number += 1
                time.sleep(0.02)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=traffic, args=[s, 1_000_000 * i]) for i, s in enumerate(shards)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(0.3)
        server.restart()
    time.sleep(0.3)
    server.kill()
    time.sleep(0.3)
    server.start()
    time.sleep(0.3)
    ended.set()
    for thread in threads:
        thread.join()
    assert failures == []
    _full_again(one, "after")
    assert set(rungs[one]) == {"full", "refer"}
    assert set(rungs[other]) == {"full"}, "the other shard does not notice"
    _assert_follows(one, other, bundle, RedisStateReader(server.address, NAME))


def test_what_another_shard_took_while_redis_was_gone_is_in_the_state_that_comes_back(
    shards: Shards, server: RedisServer, bundle: Bundle
) -> None:
    """The shard itself writes nothing meanwhile, and a correction of its own waits for what the other takes."""
    one, other = shards
    _events(one, 0)
    assert _rung(one, 0) == "full"
    late = {**repayment("late", "c-1", 70_000), "event_id": "r-later", "corrects": "r-late"}
    assert one.submit_events(batch_of(one._log, late)).result(SECONDS_MAX).status == ["accepted"]
    server.kill()
    _events(other, 1)
    assert other.submit_events(batch_of(other._log, repayment("late", "c-1", 5))).result(SECONDS_MAX).accepted == 1
    _decide(other, "elsewhere", "c-1")
    server.start()
    _full_again(one, "after")
    _wait(lambda: one._log.pending_count == 0)
    assert _rung(one, "last") == "full"
    _assert_follows(one, other, bundle, RedisStateReader(server.address, NAME))
    asked = OnlineState(bundle.plan, RedisStateReader(server.address, NAME))
    with asked.begin() as staged:
        rows = staged.read("consumer", "c-1", None).pieces.words.tolist()
    assert 70_000 in rows, "as it was corrected"


def _settled(service: Service) -> None:
    """Wait until the state has followed the log."""
    _wait(lambda: service._writer.applied == service._log.cut())


def _wait(until: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + SECONDS_MAX
    while not until():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_an_error_of_the_state_is_an_error_of_the_system() -> None:
    assert issubclass(StateGone, OSError), "it is not taken for an item's own failure, and undoes the whole batch"
