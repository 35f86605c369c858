"""Redis as a state store: what it loses, changes or delays is noticed, on a real server that is killed and stopped.

What every store promises is in test_states. Each protection is taken away once, to see that the fault would have done
harm.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.stores.redis_server import RedisServer, own_redis, started

from obligor.errors import BadInput, NotFound
from obligor.features.plan import Plan
from obligor.features.state_store import StateBusy, StateGone, StateMoved, StateStore, StateTaken
from obligor.features.states import state_name
from obligor.stores.redis import RedisStateReader, RedisStates, RedisStateStore
from obligor.stores.redis import store as module
from obligor.stores.redis import transaction as transaction_module
from obligor.stores.redis.link import PATIENCE_S, Link
from obligor.stores.redis.scripts import COMMIT, READ, Fence, Script, _script
from obligor.stores.redis.store import keys_of

_NAMES = count()


server = pytest.fixture(own_redis)


@pytest.fixture
def name() -> str:
    return f"faults-{next(_NAMES)}"


def _put(store: StateStore, **items: str) -> None:
    staged = store.begin()
    staged.put_many((key.encode(), value.encode()) for key, value in items.items())
    staged.commit()


def _all(store: StateStore) -> dict[str, str]:
    staged = store.begin()
    found = {key.decode(): bytes(value).decode() for key, value in staged.scan(b"", b"\xff")}
    staged.abort()
    return found


def _unchecked(script: Script) -> Script:
    """A script that believes what is there."""
    return _script("\n".join(line for line in script.source.decode().split("\n") if "FENCE" not in line))


# ---- Redis loses what it held ----------------------------------------------------------------------------------------


def test_an_empty_redis_is_no_state_without_rows(
    server: RedisServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStateStore(server.address, name)
    _put(store, a="1")
    staged = store.begin()
    server.restart()
    with pytest.raises(StateGone, match="not what this writer left: it is empty"):
        staged.get(b"a")
    assert _all(store) == {}, "once it is known to be empty, it can be filled again"
    _put(store, a="2")
    server.restart()
    monkeypatch.setattr(module, "READ", _unchecked(READ))
    assert store.begin().get(b"a") is None, "without the fence, an entity would have had no rows"


def test_nothing_is_committed_onto_an_empty_redis(
    server: RedisServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStateStore(server.address, name)
    _put(store, a="1")
    staged = store.begin()
    staged.put_many([(b"b", b"2")])
    server.restart()
    with pytest.raises(StateGone):
        staged.commit()
    assert _all(store) == {}
    _put(store, a="1")
    staged = store.begin()
    staged.put_many([(b"b", b"2")])
    server.restart()
    monkeypatch.setattr(module, "COMMIT", _unchecked(COMMIT))
    staged.commit()
    assert _all(store) == {"b": "2"}, "without the fence, the rest would have been lost silently"


def test_an_older_snapshot_of_redis_is_noticed_and_taken_as_it_is(server: RedisServer, name: str) -> None:
    store = RedisStateStore(server.address, name)
    _put(store, a="old")
    with server.client as client:
        client.save()
    _put(store, a="new")
    staged = store.begin()
    server.restart()
    with pytest.raises(StateGone, match="an older state, 1"):
        staged.get(b"a")
    assert _all(store) == {"a": "old"}, "whole, at the head that it carries"
    _put(store, a="newer")
    assert _all(store) == {"a": "newer"}


@pytest.mark.parametrize("lost", [0, 1])
def test_an_evicted_half_is_noticed_and_the_rest_is_not_used(redis_server: RedisServer, name: str, lost: int) -> None:
    store = RedisStateStore(redis_server.address, name)
    _put(store, a="1", b="2")
    staged = store.begin()
    with redis_server.client as client:
        client.delete(keys_of(name)[lost])
    with pytest.raises(StateGone):
        staged.scan(b"", b"\xff")
    assert _all(store) == {}


def test_half_a_commit_is_never_read(redis_server: RedisServer, name: str) -> None:
    store = RedisStateStore(redis_server.address, name)
    _put(store, a="1", b="2")
    with redis_server.client as client:
        fence = client.hget(keys_of(name)[0].decode(), "")
        with pytest.raises(redis.ResponseError):  # a value is missing
            client.eval(COMMIT.source.decode(), 2, *keys_of(name), fence, b"next", 3, b"a", b"9", b"c")
        assert client.hget(keys_of(name)[0].decode(), "a") == b"9", "Redis undoes nothing of a script that failed"
    with pytest.raises(StateGone):
        store.begin().get(b"a")
    assert _all(store) == {}


def test_a_full_redis_refuses_the_commit_and_keeps_what_it_has(name: str) -> None:
    with started("--maxmemory", "8mb", "--maxmemory-policy", "noeviction") as server:
        store = RedisStateStore(server.address, name)
        _put(store, a="1")
        number = 0
        while number < 12 and server.client.info("memory")["used_memory"] < 7 << 20:
            _put(store, **{str(number): "x" * (1 << 20)})
            number += 1
        with pytest.raises(StateGone) as caught:
            _put(store, large="x" * (8 << 20))
        with pytest.raises(StateGone) as caught:
            _put(store, one_more="x")
        assert caught.value.errno == errno.ENOSPC
        with server.client as client:
            client.config_set("maxmemory", "64mb")
        staged = store.begin()
        assert bytes(staged.get(b"a") or b"") == b"1"
        assert staged.names(b"0", b":", 20) == sorted(b"%d" % one for one in range(number))


# ---- slow, gone, and back --------------------------------------------------------------------------------------------


def test_a_redis_that_hangs_is_given_up_within_the_patience(server: RedisServer, name: str) -> None:
    store = RedisStateStore(server.address, name)
    _put(store, a="1")
    server.freeze()
    started_s = time.monotonic()
    with pytest.raises(StateGone, match="Timeout"):
        store.begin().get(b"a")
    with pytest.raises(StateGone):
        store.begin().get(b"a")
    assert time.monotonic() - started_s < 4 * PATIENCE_S + 1
    server.thaw()
    assert _all(store) == {"a": "1"}


def test_what_was_sent_before_a_state_was_taken_again_does_nothing_afterwards(server: RedisServer, name: str) -> None:
    store = RedisStateStore(server.address, name)
    _put(store, value="0")
    for number in range(1, 13):
        staged = store.begin()
        staged.put_many([(b"value", b"%d" % number), (b"other", b"%d" % number)])
        server.freeze()
        with pytest.raises(StateGone):
            staged.commit()  # Redis has it before it, and may carry it out yet
        server.thaw()
        before = _all(store)
        assert before.get("other", "0") == before["value"], "all of it or nothing"
        time.sleep(0.01)
        assert _all(store) == before, "from now on nothing changes but by what is committed now"
        _put(store, value="0", other="0")


def test_a_redis_that_is_gone_is_said_to_be_and_found_again(server: RedisServer, name: str) -> None:
    store = RedisStateStore(server.address, name)
    server.kill()
    with pytest.raises(StateGone):
        store.begin()
    with pytest.raises(StateGone):
        store.clear()
    server.start()
    _put(store, a="1")
    assert _all(store) == {"a": "1"}


def test_a_connection_that_redis_closed_is_made_again_without_a_word(server: RedisServer, name: str) -> None:
    store = RedisStateStore(server.address, name)
    _put(store, a="1")
    staged = store.begin()
    staged.put_many([(b"b", b"2")])
    with server.client as client:
        client.client_kill_filter(_type="normal", skipme=True)
        assert bytes(staged.get(b"a") or b"") == b"1"
        client.client_kill_filter(_type="normal", skipme=True)
    staged.commit()
    assert _all(store) == {"a": "1", "b": "2"}


def test_a_commit_whose_answer_was_lost_counts_once(
    server: RedisServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStateStore(server.address, name)
    _put(store, a="1")
    once = Link._once
    lost: list[tuple[Any, ...]] = []

    def lose(link: Link, patience_s: float, words: tuple[Any, ...]) -> Any:
        answer = once(link, patience_s, words)
        if not lost and COMMIT.digest in words:
            lost.append(words)
            link.close()
            raise redis.ConnectionError("the answer was lost")
        return answer

    monkeypatch.setattr(Link, "_once", lose)
    _put(store, a="2")
    assert lost
    assert _all(store) == {"a": "2"}
    with server.client as client:
        fence = Fence.read(client.hget(keys_of(name)[0].decode(), "") or b"")
    assert fence is not None
    assert fence.commits == 2


# ---- commits that are too large for one step -------------------------------------------------------------------------


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART_BYTES", 1_000)
    monkeypatch.setattr(module, "GONE_MAX", 3)
    monkeypatch.setattr(transaction_module, "KEYS_MAX", 4)


@pytest.mark.parametrize("gone", [0, 1, 3, 7])
def test_a_large_commit_in_parts_is_the_same_commit(
    redis_server: RedisServer, name: str, gone: int, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStateStore(redis_server.address, name)
    before = {f"k{number:02}": "old" for number in range(40)}
    _put(store, **before)
    staged = store.begin()
    assert [bytes(one or b"") for one in staged.get_many([key.encode() for key in before])] == [b"old"] * 40
    for number in range(gone):
        staged.delete(b"k%02d" % number)
    staged.put_many([(b"k%02d" % number, b"new" * 100) for number in range(10, 20)])
    scripts: list[bytes] = []
    run = Link.run

    def noted(link: Link, script: Script, *arguments: Any, **names: Any) -> Any:
        scripts.append(script.digest)
        return run(link, script, *arguments, **names)

    monkeypatch.setattr(Link, "run", noted)
    staged.commit()
    assert scripts.count(COMMIT.digest) > 4
    kept = dict(list(before.items())[gone:])
    assert _all(store) == {**kept, **{f"k{number}": "new" * 100 for number in range(10, 20)}}


def test_a_long_scan_in_pages_is_the_same_scan(
    redis_server: RedisServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStateStore(redis_server.address, name)
    items = [(b"k%02d" % number, b"v%d" % number) for number in range(21)]
    staged = store.begin()
    staged.put_many(items)
    staged.commit()
    monkeypatch.setattr(transaction_module, "PAGE", 5)
    asked: list[int] = []
    send = Link.send

    def noted(link: Link, script: Script, keys: tuple[bytes, bytes], *arguments: Any) -> Any:
        asked.append(arguments[-1])
        return send(link, script, keys, *arguments)

    monkeypatch.setattr(Link, "send", noted)
    for limit in (1, 4, 5, 6, 10, 11, 20, 21, 22, 40, None):
        staged = store.begin()
        asked.clear()
        assert staged.scan(b"k", b"l", limit) == items[:limit]
        assert max(asked) <= 5
        assert sum(asked) <= (21 + 5 if limit is None else limit), "no more is brought than is asked for"
        assert staged.scan(b"k", b"l", limit) == items[:limit]
        staged.put_many([(b"k00a", b"new")])
        staged.delete(b"k03")
        rest = [items[0], (b"k00a", b"new"), *items[1:3], *items[4:]]
        assert staged.scan(b"k", b"l", limit) == rest[:limit]
        staged.abort()


@pytest.mark.parametrize("done", [1, 3])
def test_a_commit_that_ends_between_its_parts_is_never_believed(
    redis_server: RedisServer, name: str, done: int, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStateStore(redis_server.address, name)
    _put(store, a="1")
    reader = RedisStateReader(redis_server.address, name)
    seen = reader.begin()
    step, steps = RedisStateStore._step, count()

    def cut(self: RedisStateStore, *arguments: Any) -> bytes:
        if next(steps) == done:
            raise StateGone("planted")
        return step(self, *arguments)

    monkeypatch.setattr(RedisStateStore, "_step", cut)
    with pytest.raises(StateGone, match="planted"):
        _put(store, **{f"k{number}": "x" * 300 for number in range(20)})
    with redis_server.client as client:
        assert client.hlen(keys_of(name)[0].decode()) > 2, "some of it is there"
    with pytest.raises(StateMoved):
        seen.get(b"k0")
    with pytest.raises(NotFound):
        RedisStateReader(redis_server.address, name)
    monkeypatch.undo()
    assert _all(store) == {}, "it is emptied before it is used"


def test_a_writer_between_two_parts_of_its_commit_is_there(
    redis_server: RedisServer, name: str, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else opens the state, and whoever had it before and comes back leaves it to this one."""
    before = RedisStateStore(redis_server.address, name)
    _put(before, a="1")
    staged = before.begin()
    before._link.close()  # as when the network parts them
    store = RedisStateStore(redis_server.address, name)
    step = RedisStateStore._step
    found: list[bool] = []

    def look(self: RedisStateStore, *arguments: Any) -> bytes:
        if found:
            link = Link(redis_server.address, "any")
            found.append(module.size_and_use(link, name)[1])
            link.close()
            with pytest.raises(StateBusy):
                RedisStateStore(redis_server.address, name).begin()
            with pytest.raises(StateTaken):
                staged.get(b"a")
        found.append(True)
        return step(self, *arguments)

    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    monkeypatch.setattr(RedisStateStore, "_step", look)
    wanted = {f"k{number}": "x" * 300 for number in range(6)}
    _put(store, **wanted)
    assert found.count(True) == len(found) > 4
    assert _all(store) == {"a": "1", **wanted}


def test_a_part_whose_answer_was_lost_counts_once(
    redis_server: RedisServer, name: str, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisStateStore(redis_server.address, name)
    _put(store, a="1")
    once, lost = Link._once, count()

    def lose(link: Link, patience_s: float, words: tuple[Any, ...]) -> Any:
        answer = once(link, patience_s, words)
        if COMMIT.digest in words and next(lost) % 2 == 0:
            link.close()
            raise redis.ConnectionError("the answer was lost")
        return answer

    monkeypatch.setattr(Link, "_once", lose)
    wanted = {f"k{number}": "x" * 300 for number in range(20)}
    _put(store, **wanted)
    assert next(lost) > 8
    assert _all(store) == {"a": "1", **wanted}


# ---- two writers -----------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_while_the_first_is_there(redis_server: RedisServer, name: str) -> None:
    first = RedisStateStore(redis_server.address, name)
    _put(first, a="1")
    with pytest.raises(StateBusy, match=r"another process is writing.*\?prefix="):
        RedisStateStore(redis_server.address, name).begin()
    assert _all(first) == {"a": "1"}
    first.close()
    assert _all(RedisStateStore(redis_server.address, name)) == {"a": "1"}


def test_a_writer_that_lost_its_place_fails_and_stays_out(
    redis_server: RedisServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RedisStateStore(redis_server.address, name)
    _put(first, a="1")
    staged = first.begin()
    staged.put_many([(b"a", b"of the first")])
    first._link.close()  # as when the network parts them
    second = RedisStateStore(redis_server.address, name)
    _put(second, a="of the second")
    with pytest.raises(StateTaken, match="taken over by another writer"):
        staged.commit()
    with pytest.raises(StateTaken):
        first.begin()
    with pytest.raises(StateTaken):
        first.clear()
    assert _all(second) == {"a": "of the second"}

    third = RedisStateStore(redis_server.address, f"{name}-unprotected")
    _put(third, a="1")
    staged = third.begin()
    staged.put_many([(b"a", b"of the third")])
    third._link.close()
    fourth = RedisStateStore(redis_server.address, f"{name}-unprotected")
    _put(fourth, a="of the fourth")
    monkeypatch.setattr(module, "COMMIT", _unchecked(COMMIT))
    staged.commit()
    monkeypatch.undo()
    with redis_server.client as client:
        there = client.hget(keys_of(f"{name}-unprotected")[0].decode(), "a")
    assert there == b"of the third", "without the fence, the state would be of two writers"


def test_writers_that_come_together_leave_one(redis_server: RedisServer, name: str) -> None:
    stores = [RedisStateStore(redis_server.address, name) for _ in range(8)]
    done: list[bool] = []

    def write(store: RedisStateStore) -> None:
        try:
            for number in range(20):
                staged = store.begin()
                before = staged.get(b"count")
                staged.put_many([(b"count", b"%d" % (int(bytes(before or b"0")) + 1)), (b"%d" % number, b"x")])
                staged.commit()
                done.append(True)
        except (StateBusy, StateGone):
            pass

    threads = [threading.Thread(target=write, args=[store]) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with redis_server.client as client:
        assert int(client.hget(keys_of(name)[0].decode(), "count") or 0) == len(done) >= 20


_WRITER = """
import sys
from obligor.stores.redis import RedisStateStore
store = RedisStateStore(sys.argv[1], sys.argv[2])
for number in range(10**9):
    staged = store.begin()
    staged.put_many([(b"k%d" % key, number.to_bytes(8, "big") * 300) for key in range(50)])
    staged.commit()
    print(number, flush=True)
"""


def test_a_killed_process_leaves_whole_transactions_and_the_next_takes_over(
    redis_server: RedisServer, name: str
) -> None:
    for kill in range(3):
        arguments = [sys.executable, "-c", _WRITER, redis_server.address, name]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(3 + 11 * kill)][-1]
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        store = RedisStateStore(redis_server.address, name)
        values = set(_all_bytes(store).values())
        store.close()
        assert len(values) == 1, "a transaction is whole or not there"
        assert int.from_bytes(values.pop()[:8], "big") >= acknowledged


def _all_bytes(store: StateStore) -> dict[bytes, bytes]:
    deadline_s = time.monotonic() + 5
    while True:
        try:
            staged = store.begin()
            return {key: bytes(value) for key, value in staged.scan(b"", b"\xff")}
        except StateBusy:  # Redis has not seen yet that the process is gone
            assert time.monotonic() < deadline_s
            time.sleep(0.01)


# ---- readers ---------------------------------------------------------------------------------------------------------


def test_a_reader_sees_one_moment_or_is_told_that_it_passed(redis_server: RedisServer, name: str) -> None:
    with pytest.raises(NotFound, match="no online state"):
        RedisStateReader(redis_server.address, name)
    store = RedisStateStore(redis_server.address, name)
    _put(store, a="1")
    readers = [RedisStateReader(redis_server.address, name) for _ in range(3)]
    snapshots = [reader.begin() for reader in readers]
    assert [bytes(one.get(b"a") or b"") for one in snapshots] == [b"1"] * 3
    _put(store, a="2", b="2")
    assert [bytes(one.get(b"a") or b"") for one in snapshots] == [b"1"] * 3, "what was read is kept"
    for one in snapshots:
        with pytest.raises(StateMoved):
            one.get(b"b")
        with pytest.raises(StateMoved):
            one.names(b"a", b"z", 5)
    assert _all(readers[0]) == {"a": "2", "b": "2"}
    staged = readers[0].begin()
    staged.put_many([(b"a", b"3")])
    with pytest.raises(BadInput, match="for reading only"):
        staged.commit()
    with pytest.raises(BadInput, match="for reading only"):
        readers[0].clear()
    assert _all(store) == {"a": "2", "b": "2"}


def test_a_reader_of_no_redis_finds_nothing(server: RedisServer, name: str) -> None:
    server.kill()
    with pytest.raises(NotFound, match="cannot be read"):
        RedisStateReader(server.address, name)


# ---- forms -----------------------------------------------------------------------------------------------------------


def test_a_state_of_another_layout_is_emptied(redis_server: RedisServer, name: str) -> None:
    store = RedisStateStore(redis_server.address, name)
    _put(store, a="1")
    store.close()
    with redis_server.client as client:
        client.hset(keys_of(name)[0].decode(), "", b"999:1:token:5")
    with pytest.raises(NotFound):
        RedisStateReader(redis_server.address, name)
    assert _all(RedisStateStore(redis_server.address, name)) == {}


def test_states_are_named_by_prefix_and_timelines_and_reached_over_tcp(redis_server: RedisServer) -> None:
    plan, address = Plan.empty("application"), f"redis://127.0.0.1:{redis_server.port}/0?socket_timeout=1.5"
    one, other = RedisStates(f"{address}&prefix=one"), RedisStates(f"{address}&prefix=other")
    store = one.open(plan)
    assert store._name == f"one:{state_name(plan)}"
    assert store._link._patience_s == 1.5
    _put(store, a="1")
    _put(other.open(plan), a="2")
    assert (_all(one.read(plan)), _all(other.read(plan))) == ({"a": "1"}, {"a": "2"})


@pytest.mark.parametrize("address", ["http://localhost", "redis://localhost/0?socket_timeout=soon"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match="not an address of Redis"):
        RedisStateStore(address, "any")


def test_without_the_library_the_extra_is_named(tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text("raise ModuleNotFoundError('redis')\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", "import obligor.stores.redis"]
    found = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert "pip install 'obligor[redis]'" in found.stderr
