"""Decisions with a sequence's score: recorded as the offline path has it, cached, watched, moved, and recovered."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.decisions.desk import DAY_US, Clock, Desk, application, batch_of, open_log, open_state, repayment, sale
from tests.decisions.moving import Served
from tests.decisions.sequenced import Scored
from tests.stores.redis_server import RedisServer

from obligor.decisions.answers import moment
from obligor.decisions.items import Decided
from obligor.decisions.parity import check_decisions, check_state
from obligor.decisions.replay import audit
from obligor.decisions.service import Service
from obligor.decisions.watch import Budget, Watch
from obligor.features.edits import StateMisfit
from obligor.features.entries import fold_key, prefix
from obligor.features.folds import Folds
from obligor.features.state import OnlineState
from obligor.features.states import state_name
from obligor.models.bundle import Bundle
from obligor.sequences.online import OnlineScore
from obligor.sequences.weights import Kind
from obligor.stores.lmdb import StateFolder
from obligor.stores.redis import RedisStateStore

BY_HAND = Budget(round_s=1e9, pause_s=0.0)
SECONDS_MAX = 120.0
LADDER = '\n[ladder]\nrungs = ["full", "cached", "refer"]\ncached_age_max = "10m"\n'


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """Some numbers are periodic, the others piecewise linear."""
    return Scored(tmp_path_factory.mktemp("bundles"), {"gap": "periodic", "repayment.amount": "periodic"})


@pytest.fixture(scope="module")
def bundle(scored: Scored) -> Bundle:
    return scored.bundle(policy=LADDER)


class FarDesk(Desk):
    """A desk whose state is in Redis, which goes and comes back."""

    def __init__(self, path: Path, bundle: Bundle, server: RedisServer) -> None:
        self.server = server
        super().__init__(path, bundle)

    def open_state(self) -> OnlineState:
        store = RedisStateStore(self.server.address, "sequenced")
        return OnlineState(self.bundle.plan, store, fold=self.bundle.fold)


def assert_sound(desk: Desk) -> None:
    """Every decision replays, every recorded number is the log's, and so is what the state says of everybody."""
    held = {desk.bundle.hash: desk.bundle}
    assert audit(desk.log, held).clean
    assert check_decisions(desk.log, held, desk.log.decisions()).comparison.differences == 0
    asked = _asked(desk)
    assert (asked.differences, asked.checked > 0) == (0, True), asked.found[:3]


def _asked(desk: Desk) -> Any:
    return check_state(
        desk.log, desk.state, desk.bundle, entities=None, chance=random.Random(3), clock=desk.clock, instants=1
    )


def live(desk: Desk, seed: int, steps: int) -> Iterator[dict[str, Any]]:
    """Have a desk take events and applications for some days: late, corrected, retracted, moved, repeated, future."""
    chance, known = random.Random(seed), list[dict[str, Any]]()
    for step in range(steps):
        desk.clock.at_us += DAY_US // 3
        consumer = f"c-{chance.randrange(3)}"
        at = {"event_time": moment(desk.clock.at_us - chance.choice([0, 0, 0, 5, -1]) * DAY_US - chance.randrange(9))}
        kind = chance.random()
        if kind < 0.35:
            yield desk.decide(f"{seed}-{step}", consumer, 60_000 + step, **at, merchant=chance.choice(["m-1", None]))
        elif kind < 0.5 and known:
            target = chance.choice(known)
            fixed = {"event_id": f"k-{seed}-{step}", "corrects": target["event_id"], "consumer": consumer}
            gone = {"type": target["type"], "event_id": f"g-{seed}-{step}", "retracts": target["event_id"]}
            desk.one(desk.events(gone if chance.random() < 0.3 else {**target, **fixed, "amount": 100 + step}))
        elif kind < 0.6 and known:
            desk.one(desk.events(chance.choice(known)))
        else:
            record = repayment(f"{seed}-{step}", consumer, 500 + 37 * step, **at)
            known.append(chance.choice([record, {**sale(f"{seed}-{step}"), "consumer": consumer, **at}]))
            desk.one(desk.events(known[-1]))


@pytest.mark.parametrize("kind", ["gru", "linear_attention", "transformer"])
def test_a_decision_s_score_is_the_log_s(kind: Kind, scored: Scored, tmp_path: Path) -> None:
    desk = Desk(tmp_path, scored.bundle(kind))
    records = list(live(desk, 1, 60))
    scores = [record["features"][-1] for record in records]
    assert len(records) > 10
    assert len(set(scores)) == len(scores)
    assert all(len(record["features"]) == len(desk.bundle.features) for record in records)
    assert_sound(desk)
    desk.close()


def test_two_applications_of_one_batch_are_in_each_other_s_order(bundle: Bundle, tmp_path: Path) -> None:
    """The second sees the first, and its decision's event no more than the sequence reads."""
    desk = Desk(tmp_path, bundle)
    desk.one(desk.events(repayment(1), repayment(2, amount=40_000)))
    at = moment(desk.clock.at_us)
    results = desk.writer.process([desk.application(i, event_time=at) for i in range(3)])
    desk.writer.settle()
    scores = [json.loads(one.record)["features"][-1] for one in results if isinstance(one, Decided)]
    assert len(set(scores)) == 3
    assert_sound(desk)
    desk.close()


def test_while_the_state_is_gone_the_score_is_that_of_the_cached_cut(
    bundle: Bundle, redis_server: RedisServer, tmp_path: Path
) -> None:
    with RedisServer() as server:
        desk = FarDesk(tmp_path, bundle, server)
        list(live(desk, 2, 25))
        assert_sound(desk)
        full = desk.decide("last", "c-1")
        server.kill()
        cached = desk.decide("cached", "c-1", 70_000)
        assert (full["rung"], cached["rung"]) == ("full", "cached")
        assert cached["features"][-1] != full["features"][-1]
        server.start()
        deadline_s = time.monotonic() + SECONDS_MAX
        while desk.writer.state_gone:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
            desk.writer.regain()
        assert desk.decide("again", "c-1", 70_000)["rung"] == "full"
        assert_sound(desk)
        desk.close()


def test_cached_states_take_no_more_memory_than_they_may(
    bundle: Bundle, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer() as server:
        desk = FarDesk(tmp_path, bundle, server)
        desk.one(desk.events(*(repayment(i, f"c-{i}") for i in range(4))))
        desk.decide("0", "c-0")
        cache = desk.writer._cache
        assert cache is not None
        monkeypatch.setattr("obligor.decisions.cached.STATES_BYTES_MAX", 2 * cache._states_bytes)
        for i in range(1, 4):
            desk.decide(i, f"c-{i}")
        assert desk.writer.cached == 2
        assert [desk.decide(f"{i}-again", f"c-{i}")["rung"] for i in (2, 3)] == ["full", "full"]
        desk.close()


def test_what_was_durable_and_not_yet_in_the_state_is_in_it_after_a_start(bundle: Bundle, tmp_path: Path) -> None:
    desk = Desk(tmp_path, bundle)
    list(live(desk, 3, 20))
    desk.writer.process([desk.events(repayment("durable", "c-1", 900)), desk.application("durable", "c-1")])
    desk.state.close()  # as a process that was killed between the two commits leaves them
    desk.log.close()
    desk.open()
    assert_sound(desk)
    list(live(desk, 4, 10))
    assert_sound(desk)
    desk.close()


# ---- what is wrong in a state


def _damage(state: OnlineState, key: str, change: Callable[[bytes], bytes]) -> None:
    with state.begin() as staged:
        head = staged.head
        assert head is not None
        name = fold_key(prefix(staged._numbers["consumer"], key.encode()))
        entry = staged._store.get(name)
        assert entry is not None
        staged._store.put_many([(name, change(bytes(entry)))])
        staged.commit(head)


def _cut_off(entry: bytes) -> bytes:
    return entry[:-3]


def _all_but_nothing(entry: bytes) -> bytes:
    return entry[:9]


def _later(entry: bytes) -> bytes:
    """Return an entry whose encoder has seen an event that is yet to come."""
    return entry[:56] + (2**62).to_bytes(8, "little") + entry[64:]


def _of_another_encoder(entry: bytes) -> bytes:
    """Return an entry with other bytes in the header of the encoder's state."""
    return entry[:32] + bytes(8) + entry[40:]


def _flipped(entry: bytes) -> bytes:
    """Return an entry with the lowest bit of its last number changed."""
    return entry[:-8] + bytes([entry[-8] ^ 1]) + entry[-7:]


@pytest.mark.parametrize("change", [_cut_off, _all_but_nothing, _of_another_encoder, _later])
def test_a_damaged_state_is_built_anew_before_anybody_is_decided_on(
    change: Callable[[bytes], bytes], bundle: Bundle, tmp_path: Path
) -> None:
    desk = Desk(tmp_path, bundle)
    list(live(desk, 5, 15))
    for meeting in ("an event", "a decision"):
        _damage(desk.state, "c-1", change)
        if meeting == "an event":
            desk.one(desk.events(repayment("after", "c-1", event_time=moment(desk.clock.at_us))))
        assert desk.decide(meeting, "c-1")["rung"] == "full"
        assert_sound(desk)
    assert b'obligor_failures_total{error="StateMisfit"} 2.0' in desk.metrics.render()
    desk.close()


def test_one_bit_of_a_state_is_found(bundle: Bundle, tmp_path: Path) -> None:
    desk = Desk(tmp_path, bundle)
    list(live(desk, 6, 15))
    _damage(desk.state, "c-1", _flipped)
    assert "(state of history)" in _asked(desk).counts
    desk.close()


def _not_advanced(self: Folds, *_: Any) -> None:
    """Leave what is folded behind the rows."""


def test_a_fold_that_does_not_follow_is_found(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path, bundle)
    list(live(desk, 7, 15))
    monkeypatch.setattr(Folds, "follow", _not_advanced)
    desk.one(desk.events(repayment("unfollowed", "c-1", event_time=moment(desk.clock.at_us))))
    record = desk.decide("wrong", "c-1")
    found = check_decisions(desk.log, {desk.bundle.hash: desk.bundle}, desk.log.decisions()).comparison
    assert {(one.feature, one.name) for one in found.found} == {("history_score", record["decision_id"])}
    assert not audit(desk.log, {desk.bundle.hash: desk.bundle}).clean
    assert {"history_score", "(state of history)"} <= set(_asked(desk).counts)
    desk.close()


def _started(path: Path, bundle: Bundle) -> Service:
    ready = threading.Event()
    log, state = open_log(path / "log"), open_state(path / "state", bundle.plan, bundle.fold)
    service = Service(log, state, bundle, clock=Clock(), ready=ready.set, parity=BY_HAND)
    service.start()
    assert ready.wait(SECONDS_MAX)
    return service


def test_the_watch_heals_what_is_folded(bundle: Bundle, tmp_path: Path) -> None:
    service = _started(tmp_path, bundle)
    watch = service._watch
    assert isinstance(watch, Watch)
    records = [repayment(i, f"c-{i % 3}", 500 + i) for i in range(30)]
    service.submit_events(batch_of(service._log, *records)).result(SECONDS_MAX)
    for i in range(3):
        service.submit_application(batch_of(service._log, application(i, f"c-{i}"))).result(SECONDS_MAX)
    assert watch.round().differences == 0
    service._intake.errand(lambda: _damage(service._state, "c-1", _flipped), patience_s=1.0).result(SECONDS_MAX)
    found = watch.round()
    assert "(state of history)" in found.counts
    assert service.ready, "it was built anew"
    assert watch.round().differences == 0
    service.stop()


# ---- other bundles


def test_another_encoder_has_a_state_of_its_own_and_other_heads_share_one(scored: Scored, tmp_path: Path) -> None:
    old, heads, encoder = scored.bundle(), scored.bundle(heads=1), scored.bundle(encoder=1)
    assert len({old.hash, heads.hash, encoder.hash}) == 3
    names = [state_name(one.plan, one.fold) for one in (old, heads, encoder)]
    assert names[0] == names[1] != names[2]
    served = Served(tmp_path, old, StateFolder(tmp_path / "state"))
    served.send(0, 40)
    served.assert_sound(old)
    state = served.service._state
    assert served.move(heads) == "moved"
    assert served.service._state is state
    assert served.shelf.built == 0
    served.assert_sound(heads)
    assert served.move(encoder) == "moved"
    assert served.service._state is not state
    assert served.shelf.built == 1
    served.assert_sound(encoder)
    assert {one.name for one in served.shelf.states.all()} == set(names)
    assert audit(served.log, {one.hash: one for one in (old, heads, encoder)}).clean
    served.service.stop()


def test_the_state_of_another_encoder_is_not_believed(scored: Scored, bundle: Bundle, tmp_path: Path) -> None:
    desk = Desk(tmp_path, bundle)
    list(live(desk, 8, 10))
    other = scored.bundle(encoder=1)
    desk.close()
    state = open_state(tmp_path / "state", other.plan, other.fold)
    assert state.head is None
    log = open_log(tmp_path / "log")
    state.catch_up(log)
    found = check_state(log, state, other, entities=None, chance=random.Random(1), clock=desk.clock)
    assert (found.differences, found.checked > 3) == (0, True)
    assert bundle.sequence is not None
    scoring = OnlineScore(bundle.sequence, bundle.plan)
    with state.begin() as staged, pytest.raises(StateMisfit, match="no state of its encoder"):
        scoring.score_one(staged.folds(), 2**60, -1, {"consumer": "c-1"}, {})
    state.close()
    log.close()
