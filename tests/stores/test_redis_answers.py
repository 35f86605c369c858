"""A question to Redis that is under way: its asker goes on, and whatever becomes of it, no answer is another's."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from tests.stores.redis_server import RedisServer, own_redis

from obligor.errors import NotFound
from obligor.features.state_store import Range, StateGone, StateMoved
from obligor.stores.redis import RedisStateReader, RedisStateStore
from obligor.stores.redis.link import PATIENCE_S, Link
from obligor.stores.redis.scripts import READ
from obligor.stores.redis.store import keys_of

NAME = "answers"


server = pytest.fixture(own_redis)


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStateStore]:
    own = RedisStateStore(server.address, NAME)
    staged = own.begin()
    staged.put_many([(b"a", b"1"), (b"b", b"2"), (b"c", b"")])
    staged.commit()
    yield own
    own.close()


def test_asking_waits_for_nothing_and_needing_does(server: RedisServer, store: RedisStateStore) -> None:
    staged = store.begin()
    server.freeze()
    started_s = time.monotonic()
    staged.fetch([b"a"], [Range(b"b", b"d")])
    assert time.monotonic() - started_s < PATIENCE_S / 2
    server.thaw()
    assert staged.get(b"a") == b"1"
    assert staged.scan(b"b", b"d") == [(b"b", b"2"), (b"c", b"")]
    staged.abort()
    staged = store.begin()
    server.freeze()
    staged.fetch([b"a"])
    with pytest.raises(StateGone, match="Timeout"):
        staged.get(b"a")
    server.thaw()
    assert store.begin().get(b"b") == b"2", "and not what was asked before"


def test_what_nobody_waited_for_is_not_the_next_answer(store: RedisStateStore) -> None:
    staged = store.begin()
    staged.fetch([b"a"])
    staged.abort()
    staged.fetch([b"b"])
    assert staged.get(b"b") == b"2"
    staged.fetch([b"a"])
    assert staged.names(b"a", b"z", 9) == [b"a", b"b", b"c"]
    staged.put_many([(b"a", b"9")])
    staged.fetch([b"c"])
    staged.commit()
    assert store.begin().get_many([b"a", b"absent", b"c"]) == [b"9", None, b""]


def test_without_taking_it_the_next_answer_would_be_another_s(
    store: RedisStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.begin().get(b"a") == b"1"  # Redis knows the script
    monkeypatch.setattr(Link, "settle", lambda link: None)
    link = store._link
    link.send(READ, keys_of(NAME), bytes(store._claimed()), 1, b"a")
    assert link.ask(b"PING") != b"PONG"


@pytest.mark.parametrize("when", ["before it is sent", "before it is answered"])
def test_a_connection_that_ends_meanwhile_is_made_again(server: RedisServer, store: RedisStateStore, when: str) -> None:
    staged = store.begin()
    with server.client as client:
        if when == "before it is sent":
            client.client_kill_filter(_type="normal", skipme=True)
            staged.fetch([b"a"])
        else:
            server.freeze()
            staged.fetch([b"a"])
            server.thaw()
            client.client_kill_filter(_type="normal", skipme=True)
        assert staged.get(b"a") == b"1"


def test_a_script_that_redis_forgot_is_told_again(server: RedisServer, store: RedisStateStore) -> None:
    with server.client as client:
        client.script_flush()
    staged = store.begin()
    staged.fetch([b"a"])
    assert staged.get(b"a") == b"1"


def test_what_was_lost_meanwhile_is_noticed_where_it_is_needed(server: RedisServer, store: RedisStateStore) -> None:
    staged = store.begin()
    server.restart()
    staged.fetch([b"a"])
    with pytest.raises(StateGone, match="it is empty"):
        staged.get(b"a")
    server.kill()
    staged.fetch([b"b"])
    with pytest.raises(StateGone):
        staged.scan(b"a", b"b")


def test_a_closed_store_answers_nothing(store: RedisStateStore) -> None:
    staged = store.begin()
    staged.fetch([b"a"])
    store.close()
    with pytest.raises(StateGone, match="closed before it answered"):
        staged.get(b"a")


def test_a_reader_is_told_what_became_of_its_question(server: RedisServer, store: RedisStateStore) -> None:
    reader = RedisStateReader(server.address, NAME)
    seen = reader.begin()
    seen.fetch([b"a"])
    assert seen.get(b"a") == b"1"
    staged = store.begin()
    staged.put_many([(b"a", b"3")])
    staged.commit()
    seen.fetch([b"b"])
    with pytest.raises(StateMoved):
        seen.get(b"b")
    seen = reader.begin()
    seen.fetch([b"a"])
    server.kill()
    seen.abort()
    seen.fetch([b"b"])
    with pytest.raises(NotFound):
        seen.get(b"b")
    reader.close()


def test_ranges_and_values_come_apart_again(store: RedisStateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = store.begin()
    ranges = [Range(b"a", b"c"), Range(b"x", b"y"), Range(b"b", b"z", 1)]
    staged.fetch([b"c", b"absent", b"a"], ranges)
    trips = list[object]()
    monkeypatch.setattr(Link, "send", lambda *words: trips.append(words))
    assert staged.get_many([b"a", b"absent", b"c"]) == [b"1", None, b""]
    assert [staged.scan(*one) for one in ranges] == [[(b"a", b"1"), (b"b", b"2")], [], [(b"b", b"2")]]
    assert not trips
