"""What every state store promises, and every place of states: one suite for all, and the same answers as a dict."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.features.test_expiry import LONGER as OTHER
from tests.features.test_expiry import PLAN as ONE
from tests.stores.memory import MemoryStateStore
from tests.stores.redis_server import RedisServer

from obligor.errors import NotFound
from obligor.features.plan import Plan
from obligor.features.state import Head, OnlineState
from obligor.features.state_store import Range, StateBusy, StateStore, StateTransaction
from obligor.features.states import States, StoredState, state_name
from obligor.stores.lmdb import StateFolder
from obligor.stores.redis import RedisStates

NewStore = Callable[[], StateStore]


@pytest.fixture
def store(new_store: NewStore) -> StateStore:
    return new_store()


def test_a_transaction_reads_its_own_writes_and_commits_them(store: StateStore) -> None:
    staged = store.begin()
    staged.put_many([(b"a", b"1"), (b"b", b"2")])
    assert bytes(staged.get(b"a") or b"") == b"1"
    staged.commit()
    later = store.begin()
    assert [None if v is None else bytes(v) for v in later.get_many([b"b", b"x", b"a"])] == [b"2", None, b"1"]
    later.abort()


def test_an_aborted_transaction_leaves_nothing(store: StateStore) -> None:
    staged = store.begin()
    staged.put_many([(b"a", b"1")])
    staged.abort()
    later = store.begin()
    assert later.get(b"a") is None
    later.abort()


def test_scan_is_half_open_ordered_and_bounded(store: StateStore) -> None:
    staged = store.begin()
    staged.put_many([(bytes([65 + i]), bytes([i])) for i in (3, 1, 2, 0)])
    assert [key for key, _ in staged.scan(b"B", b"D")] == [b"B", b"C"]
    assert [key for key, _ in staged.scan(b"A", b"Z", limit=2)] == [b"A", b"B"]
    assert staged.scan(b"X", b"Z") == []
    staged.abort()


def test_clear_empties_the_store(store: StateStore) -> None:
    staged = store.begin()
    staged.put_many([(b"a", b"1")])
    staged.commit()
    store.clear()
    later = store.begin()
    assert later.get(b"a") is None
    later.abort()


_KEYS = st.binary(min_size=1, max_size=3)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), _KEYS, st.binary(max_size=5000)),
        st.tuples(st.just("delete"), _KEYS, st.just(b"")),
        st.tuples(st.just("commit"), st.just(b""), st.just(b"")),
        st.tuples(st.just("abort"), st.just(b""), st.just(b"")),
    ),
    max_size=40,
)


@settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS, chance=st.randoms(use_true_random=False))
def test_every_store_equals_a_dict(
    steps: list[tuple[str, bytes, bytes]], chance: random.Random, new_store: NewStore
) -> None:
    stores: list[StateStore] = [MemoryStateStore(), new_store()]
    staged = [store.begin() for store in stores]
    for step, own, value in steps:
        key = own or b"k"
        for place, store in enumerate(stores):
            if step == "put":
                staged[place].put_many([(key, value)])
            elif step == "delete":
                staged[place].delete(key)
            else:
                staged[place].commit() if step == "commit" else staged[place].abort()
                staged[place] = store.begin()
        start, stop = sorted([chance.choice([b"", key, key + b"\x01"]), chance.choice([key, b"\x80", b"\xff" * 8])])
        limit = chance.choice([None, 1, 2, 5])
        if chance.random() < 0.5:
            staged[1].fetch([key], [Range(start, stop, chance.choice([None, 1, 3]))])
        assert _scanned(staged[0], start, stop, limit) == _scanned(staged[1], start, stop, limit)
        assert staged[0].names(start, stop, limit or 9) == staged[1].names(start, stop, limit or 9)
        assert staged[0].get(key) == staged[1].get(key)
    assert _scanned(staged[0], b"", b"\xff" * 8, None) == _scanned(staged[1], b"", b"\xff" * 8, None)
    for one in staged:
        one.abort()


def _scanned(staged: StateTransaction, start: bytes, stop: bytes, limit: int | None) -> list[tuple[bytes, bytes]]:
    return [(key, bytes(value)) for key, value in staged.scan(start, stop, limit)]


def test_a_long_scan_comes_whole_and_in_order(store: StateStore) -> None:
    staged = store.begin()
    keys = [number.to_bytes(2, "big") for number in range(1500)]
    staged.put_many((key, key * 3) for key in reversed(keys))
    assert [key for key, _ in staged.scan(b"", b"\xff")] == keys
    staged.commit()
    later = store.begin()
    later.delete(keys[700])
    later.put_many([(keys[3], b"new"), (b"\x00\x00a", b"between")])
    expected = [keys[0], b"\x00\x00a", *(key for key in keys[1:] if key != keys[700])]
    assert [key for key, _ in later.scan(b"", b"\xff")] == expected
    assert dict(later.scan(b"", b"\xff"))[keys[3]] == b"new"
    later.abort()


# ---- states beside each other ----------------------------------------------------------------------------------------


@pytest.fixture(params=["lmdb", "redis"])
def states(request: pytest.FixtureRequest, tmp_path: Path) -> States:
    if request.param == "lmdb":
        return StateFolder(tmp_path)
    server: RedisServer = request.getfixturevalue("redis_server")
    return RedisStates(f"{server.address}?prefix={tmp_path.name}")


def _stand(store: StateStore, plan: Plan, head: Head) -> OnlineState:
    state = OnlineState(plan, store)
    with state.begin() as staged:
        staged.commit(head)
    return state


def test_states_lie_beside_each_other_and_say_where_they_stand(states: States) -> None:
    assert states.all() == []
    one = _stand(states.open(ONE), ONE, Head("log", {0: 7}, {0: "ab"}))
    other = _stand(states.open(OTHER), OTHER, Head("log", {0: 9}, {0: "cd"}))
    assert [found.name for found in states.all()] == sorted([state_name(ONE), state_name(OTHER)])
    assert all(found.in_use and found.size_bytes > 0 for found in states.all())
    other.close()
    assert (_of(states, ONE).in_use, _of(states, OTHER).in_use) == (True, False)
    one.close()
    assert (_of(states, ONE).head, _of(states, OTHER).head) == (
        Head("log", {0: 7}, {0: "ab"}),
        Head("log", {0: 9}, {0: "cd"}),
    )
    assert OnlineState(OTHER, states.read(OTHER)).head == Head("log", {0: 9}, {0: "cd"})


def _of(states: States, plan: Plan) -> StoredState:
    (found,) = [one for one in states.all() if one.name == state_name(plan)]
    return found


def test_a_state_has_one_opener_until_it_is_closed(states: States) -> None:
    one = _stand(states.open(ONE), ONE, Head("log", {0: 7}, {0: "ab"}))
    with pytest.raises(StateBusy, match="wait until it is done"):
        states.open(ONE)
    _stand(states.open(OTHER), OTHER, Head("log", {0: 9}, {0: "cd"})).close()
    one.close()
    again = OnlineState(ONE, states.open(ONE))
    assert again.head == Head("log", {0: 7}, {0: "ab"})
    again.close()


def test_a_state_is_removed_and_never_one_in_use(states: States) -> None:
    with pytest.raises(NotFound, match="there: none"):
        states.remove(state_name(ONE))
    one = _stand(states.open(ONE), ONE, Head("log", {0: 7}, {0: "ab"}))
    _stand(states.open(OTHER), OTHER, Head("log", {0: 9}, {0: "cd"})).close()
    with pytest.raises(StateBusy):
        states.remove(state_name(ONE))
    assert one.head == Head("log", {0: 7}, {0: "ab"})
    states.remove(state_name(OTHER))
    assert [found.name for found in states.all()] == [state_name(ONE)]
    with pytest.raises(NotFound):
        states.read(OTHER)
    with pytest.raises(NotFound, match=f"no state '../x'.*there: {state_name(ONE)}"):
        states.remove("../x")
    one.close()
    states.remove(state_name(ONE))
    assert states.all() == []
    fresh = OnlineState(ONE, states.open(ONE))
    assert fresh.head is None
    fresh.close()
