"""A state that drops what no window reaches answers every later question as one that drops nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from tests.stores.memory import MemoryStateStore

from obligor.errors import IntegrityError
from obligor.events.schema import Registry
from obligor.features import Entity, Event, Money, compile_plan
from obligor.features import edits as module
from obligor.features import state as state_module
from obligor.features.edits import Edits
from obligor.features.expiry import decode_kept, encode_kept, reaches, state_hash
from obligor.features.online import evaluate_one
from obligor.features.plan import Plan
from obligor.features.state import Head, OnlineState
from obligor.features.state_store import StateStore

DAY = 86_400_000_000
HEAD = Head("log", {0: 7}, {0: "ab"})
CONSUMERS, MERCHANTS = ("c-0", "c-1", "c-2"), ("m-0", "m-1")
NewStore = Callable[[], StateStore]


class Sale(Event):
    """Something was sold."""

    consumer = Entity()
    merchant = Entity()
    amount = Money("EUR")


class Asks(Event, application=True):
    """Who asks."""

    consumer = Entity()
    merchant = Entity()


def _features(days: str) -> dict[str, Any]:
    by_consumer, by_merchant = Sale.by("consumer"), Sale.by("merchant")
    return {
        "spent": by_consumer.sum("amount", "3d", days),
        "most": by_consumer.max("amount", days),
        "before": by_consumer.count("2d before 3d"),
        "sold": by_merchant.sum("amount", "3d"),
        "ever": by_merchant.count(),
    }


def _compiled(days: str) -> Plan:
    return compile_plan(_features(days), Registry([Sale, Asks]), Asks)


PLAN, LONGER = _compiled("10d"), _compiled("20d")


class Row(NamedTuple):
    event_time: int
    root: int
    consumer: str
    merchant: str
    amount: int


class Changed(NamedTuple):
    removed: dict[str, pa.Table]
    inserted: dict[str, pa.Table]


def _table(rows: Sequence[Row]) -> dict[str, pa.Table]:
    if not rows:
        return {}
    columns = [pa.array(column) for column in zip(*rows, strict=True)]
    return {"sale": pa.table(dict(zip(Row._fields, columns, strict=True)))}


def _batches(seed: int, count: int) -> Iterator[tuple[int, Changed]]:
    """Yield (now, what changed): mostly new sales, a fifth late by up to 30 days, and corrections and retractions."""
    chance = random.Random(seed)
    live: list[Row] = []
    root = 0
    for now in range(DAY, count * DAY // 4 + DAY, DAY // 4):
        removed = [live.pop(chance.randrange(len(live))) for _ in range(min(len(live), chance.choice([0, 1, 2])))]
        inserted = [one._replace(amount=one.amount + 1) for one in removed if chance.random() < 0.7]
        for _ in range(chance.choice([0, 3, 12])):
            root += 1
            late = chance.randrange(30 * DAY) if chance.random() < 0.2 else chance.randrange(DAY // 4)
            who = CONSUMERS[0] if now > 20 * DAY else chance.choice(CONSUMERS)  # the others fall silent
            inserted.append(Row(now - 1 - late, root, who, chance.choice(MERCHANTS), chance.randrange(100)))
        live += inserted
        yield now, Changed(_table(removed), _table(inserted))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tails of six rows and chunks of ten; what has three of them is kept in memory."""
    monkeypatch.setattr(module, "TAIL_BYTES_MAX", 8 * (2 + 6 * 4))
    monkeypatch.setattr(module, "CHUNK_ROWS_MAX", 10)
    monkeypatch.setattr(module, "CHUNK_ROWS_CLOSED", 8)
    monkeypatch.setattr(state_module, "CHUNKS_MIN", 3)
    monkeypatch.setattr(state_module, "_EXPIRED_MIN", 2)


def _apply(state: OnlineState, changed: Changed) -> None:
    with state.begin() as staged:
        staged.apply(changed)
        staged.commit(HEAD)


def _answers(state: OnlineState, as_of: int) -> list[bytes]:
    with state.begin() as staged:
        asked = [{"consumer": c, "merchant": m} for c in CONSUMERS for m in MERCHANTS]
        return [evaluate_one(PLAN, staged, as_of, -1, one, {}).tobytes() for one in asked]


def _entries(state: OnlineState, timeline: str) -> int:
    with state.begin() as staged:
        number = state._numbers[timeline]
        return len(staged._store.names(bytes([number]), bytes([number + 1]), 10**6))


@pytest.mark.parametrize("seed", range(4))
def test_later_questions_are_answered_as_without_expiry(seed: int, small: None, new_store: NewStore) -> None:
    chance = random.Random(seed)
    state, whole = OnlineState(PLAN, new_store()), OnlineState(PLAN, MemoryStateStore())
    dropped = 0
    for now, changed in _batches(seed, 240):
        _apply(state, changed)
        _apply(whole, changed)
        dropped += state.expire(now, chance.choice([1, 3, 50]))
        as_of = now + chance.choice([0, 1, chance.randrange(15 * DAY)])
        assert _answers(state, as_of) == _answers(whole, as_of)
    for _ in range(100):
        dropped += state.expire(now, 20)
    assert dropped > 50
    assert _entries(state, "consumer") < _entries(whole, "consumer") / 3
    assert _entries(state, "merchant") == _entries(whole, "merchant"), "a count of all rows reaches all of them"
    with state.begin() as staged:
        assert staged.keys("consumer", None, 9) == ["c-0"], "those that fell silent are gone"
    assert _answers(state, now) == _answers(whole, now)
    assert state.head == HEAD


def test_what_comes_to_rows_that_are_gone_would_not_fit_if_it_were_not_left_out(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Edits, "since", lambda self, time_us: self)
    state = OnlineState(PLAN, MemoryStateStore())

    def run() -> None:
        for now, changed in _batches(0, 240):
            _apply(state, changed)
            state.expire(now, 50)

    with pytest.raises((IntegrityError, AssertionError)):
        run()


def test_dropping_too_much_is_seen(small: None) -> None:
    """The control of the equality above: rows that a window still reaches."""
    state, whole = OnlineState(PLAN, MemoryStateStore()), OnlineState(PLAN, MemoryStateStore())
    differ = 0
    for now, changed in _batches(1, 240):
        _apply(state, changed)
        _apply(whole, changed)
        state.expire(now + 6 * DAY, 50)
        differ += _answers(state, now) != _answers(whole, now)
    assert differ > 10


def test_a_plan_with_a_longer_reach_is_not_served_by_what_is_left() -> None:
    assert PLAN.timelines_hash == LONGER.timelines_hash, "the same timelines, not the same state"
    fewer = {name: one for name, one in _features("10d").items() if name != "before"}
    same = compile_plan(fewer, Registry([Sale, Asks]), Asks)
    assert same.hash != PLAN.hash
    store = MemoryStateStore()
    state = OnlineState(PLAN, store)
    with state.begin() as staged:
        staged.commit(HEAD)
    assert state.head == HEAD
    assert OnlineState(LONGER, store).head is None, "it is built anew, or has a state of its own"
    assert OnlineState(same, store).head == HEAD
    assert [state.serves(plan) for plan in (PLAN, same, LONGER)] == [True, True, False]


def test_what_is_kept_only_moves_on() -> None:
    store = MemoryStateStore()
    state = OnlineState(PLAN, store)
    with state.begin() as staged:
        staged.commit(HEAD)
    state.expire(30 * DAY, 10)
    state.expire(25 * DAY, 10)
    assert decode_kept(store.entries[b"\x00kept"]) == {"consumer": 20 * DAY}


def test_an_empty_state_and_a_plan_that_looks_at_all_rows_expire_nothing() -> None:
    assert OnlineState(PLAN, MemoryStateStore()).expire(DAY, 10) == 0
    everything = compile_plan({"ever": Sale.by("consumer").count()}, Registry([Sale, Asks]), Asks)
    store = MemoryStateStore()
    assert OnlineState(everything, store).expire(10**18, 10) == 0
    assert store.entries == {}


def test_reaches_are_those_of_the_longest_windows() -> None:
    assert reaches(PLAN) == {"consumer": 10 * DAY}
    assert reaches(LONGER) == {"consumer": 20 * DAY}
    kept = {"consumer": 5}
    assert decode_kept(encode_kept(kept)) == kept
    assert decode_kept(None) == {}
    assert state_hash(PLAN) == state_hash(_compiled("10d")) != state_hash(LONGER)
