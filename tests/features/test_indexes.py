"""An entity that is kept in memory with tiles answers as its rows do, whatever becomes of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from tests.stores.memory import MemoryStateStore
from tests.stores.redis_server import RedisServer

from obligor.errors import LimitError
from obligor.features import edits, indexes, state
from obligor.features.entries import chunk_key, prefix
from obligor.features.history import History
from obligor.features.indexed import RUN, Indexed
from obligor.features.indexes import Indexes
from obligor.features.online import evaluate_one, fetch
from obligor.features.pieces import Pieces, pieces
from obligor.features.plan import Plan
from obligor.features.state import Head, OnlineState, StagedState
from obligor.features.state_store import Entry, StateGone
from obligor.features.tails import encode_chunk
from obligor.stores.redis import RedisStateReader, RedisStateStore
from obligor.stores.redis.store import keys_of

DAY = 86_400_000_000
HEAD = Head("log", {0: 7}, {0: "ab"})
KINDS = ("a", "b", "c")
START = prefix(1, b"m")
SET_TAILS = Indexes.set_tails
_NUMBERS = count()
CHUNK, CLOSED, TAIL = 24, 16, 8 * (2 + 6 * 5)  # small, so that a few thousand rows make hundreds of runs


def _window(length_us: int | None, offset_us: int = 0) -> dict[str, Any]:
    return {"kind": "time", "length_us": length_us, "offset_us": offset_us}


def _measure(aggregate: str, slot: int | None = 0, **parts: Any) -> dict[str, Any]:
    defaults = {"timeline": "merchant", "via": ["merchant"], "aggregate": aggregate, "selection": 0, "given": [],
                "slot": slot, "window": _window(30 * DAY), "scale": 0, "condition": None, "parameters": [],
                "per": None}  # fmt: skip
    return defaults | parts


def _measures() -> list[dict[str, Any]]:
    lengths = (None, 3 * DAY, 30 * DAY)
    found = [_measure(name, window=_window(us)) for us in lengths for name in ("sum", "min", "max", "std", "slope")]
    found += [_measure(name, None) for name in ("count", "time_since_first", "mean_gap", "std_gap", "longest_gap")]
    found += [_measure("sum", window=_window(5 * DAY, 10 * DAY)), _measure("first"), _measure("last")]
    found += [_measure(name, None, condition=1) for name in ("streak", "longest_streak")]
    found += [_measure("decayed_sum", parameters=[2 * DAY, DAY]), _measure("nth_last", parameters=[3])]
    found += [_measure("decayed_count", None, parameters=[DAY, DAY // 24], window=_window(20 * DAY))]
    found += [_measure("most_frequent", 1, parameters=[2]), _measure("entropy", 1), _measure("distinct", 1)]
    found += [_measure("distinct_sketch", window=_window(None)), _measure("quantile_sketch", parameters=[0.9])]
    found += [_measure("sum", window={"kind": "rows", "rows": rows}) for rows in (3, 700)]
    found += [_measure("max", selection=1, window={"kind": "rows", "rows": 40})]
    return [*found, _measure("count", None, window={"kind": "calendar", "unit": "month", "back": 1})]


def _plan() -> Plan:
    measures = _measures()
    slots = [
        {"field": "amount", "coding": "integer", "values": None},
        {"field": "kind", "coding": "vocabulary", "values": list(KINDS)},
    ]
    large = {"field": "amount", "op": ">", "value": 50}
    selections = [{"event": "sale", "by": ["merchant"], "where": where} for where in (None, large)]
    timeline = {"entities": ["merchant"], "hot": True, "selections": selections, "fields": {"sale": slots}}
    features = [
        {"name": f"f{i}", "program": [["measure", i]], "type": "real", "unit": "", "reason": None, "monotone": 0,
         "description": "", "scored": True, "values": None}
        for i in range(len(measures))
    ]  # fmt: skip
    empty = Plan.empty("application").data
    return Plan.load({**empty, "timelines": {"merchant": timeline}, "measures": measures, "features": features})


PLAN = _plan()


def _sales(rows: Sequence[tuple[int, int, int, int]]) -> dict[str, pa.Table]:
    """A table of sales: event_time, root, amount, kind."""
    time, root, amount, kind = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    columns = {
        "event_time": pa.array(time, pa.int64()),
        "root": pa.array(root, pa.int64()),
        "merchant": pa.array(["m"] * len(rows), pa.string()),
        "amount": pa.array(amount, pa.int64()),
        "kind": pa.array([(*KINDS, "?")[k] for k in kind], pa.string()),
    }
    return {"sale": pa.table(columns)} if rows else {}


class _Change:
    def __init__(self, removed: Sequence[tuple[int, int, int, int]], inserted: Sequence[tuple[int, int, int, int]]):
        self.removed, self.inserted = _sales(removed), _sales(inserted)


class _Scanned:
    """The same state, each entity's rows as one piece without tiles: the naive twin."""

    def __init__(self, staged: StagedState) -> None:
        self.staged = staged

    def read(self, timeline: str, key: str, since_us: int | None) -> History:
        history = self.staged.read(timeline, key, None)
        if history.indexed is None:
            return history
        rows = history.indexed.before(history.pieces)
        matrices = [_matrix(rows, place) for place in range(len(rows.spans))]
        return History(pieces([np.ascontiguousarray(one[:, one[2] != 0]) for one in matrices]), None)


def _matrix(rows: Pieces, place: int) -> NDArray[np.int64]:
    at, n = rows.spans[place]
    return rows.words[at : at + 5 * n].reshape(5, n)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "TAIL_BYTES_MAX", TAIL)
    monkeypatch.setattr(edits, "CHUNK_ROWS_MAX", CHUNK)
    monkeypatch.setattr(edits, "CHUNK_ROWS_CLOSED", CLOSED)
    monkeypatch.setattr(state, "CHUNKS_MIN", 2)


def _batches(seed: int, batches: int) -> Iterator[tuple[_Change, bool, int]]:
    """Yield (change, whether it is committed, the clock): events in order, late, corrected, retracted, moved."""
    chance = random.Random(seed)
    live: dict[int, tuple[int, int, int, int]] = {}
    root, clock = 0, 400 * DAY
    for _ in range(batches):
        clock += chance.choice([DAY // 50, DAY // 4, 2 * DAY])
        before = dict(live)
        removed = [live.pop(one) for one in chance.sample(sorted(live), min(len(live), chance.choice([0, 1, 3])))]
        inserted = [(time, own, amount + 1, kind) for time, own, amount, kind in removed if chance.random() < 0.7]
        for _ in range(chance.choice([1, 20, 90])):
            root += 1
            late = chance.choice([0, 0, 0, 0, DAY, 60 * DAY])
            time = clock - chance.randrange(DAY // 50) - late
            inserted.append((time, root, chance.randrange(-40, 100), chance.randrange(4)))
        live |= {row[1]: row for row in inserted}
        committed = chance.random() < 0.9
        yield _Change(removed, inserted), committed, clock
        if not committed:
            live = before


def _equal(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return np.array_equal(a, b, equal_nan=True)


@pytest.mark.parametrize("seed", range(6))
def test_tiles_answer_as_the_rows_do(seed: int) -> None:
    own = OnlineState(PLAN, MemoryStateStore())
    asked = kept = 0
    for change, committed, clock in _batches(seed, 60):
        with own.begin() as staged:
            staged.apply(change)
            for as_of in (clock - DAY // 3, clock, clock + 3 * DAY):  # the first with rows of its day still to come
                tiled = evaluate_one(PLAN, staged, as_of, -1, {"merchant": "m"}, {})
                assert _equal(tiled, evaluate_one(PLAN, _Scanned(staged), as_of, -1, {"merchant": "m"}, {}))
                kept += staged.read("merchant", "m", None).indexed is not None
                asked += 1
            if committed:
                staged.commit(HEAD)
    assert kept > 0.9 * asked > 50


def test_an_application_is_not_in_its_own_view_even_where_it_is_old() -> None:
    own = OnlineState(PLAN, MemoryStateStore())
    rows = [(time * DAY // 4, time, 60 + time % 7, time % 3) for time in range(1, 900)]
    with own.begin() as staged:
        staged.apply(_Change([], rows))
        for root in (3, 450, 880, 898):
            without = [row for row in rows if row[1] != root]
            other = OnlineState(PLAN, MemoryStateStore())
            with other.begin() as less:
                less.apply(_Change([], without))
                expected = evaluate_one(PLAN, less, 230 * DAY, -1, {"merchant": "m"}, {})
            found = evaluate_one(PLAN, staged, 230 * DAY, root, {"merchant": "m"}, {}, self_time=root * DAY // 4)
            assert _equal(found, expected)
            assert not _equal(evaluate_one(PLAN, staged, 230 * DAY, -1, {"merchant": "m"}, {}), expected)


def test_a_tile_that_is_not_told_of_a_change_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    own = OnlineState(PLAN, MemoryStateStore())
    rows = [(time * DAY // 4, time, 60, 0) for time in range(1, 900)]
    with own.begin() as staged:
        staged.apply(_Change([], rows))
        evaluate_one(PLAN, staged, 230 * DAY, -1, {"merchant": "m"}, {})
        monkeypatch.setattr(Indexes, "changed", lambda *_: False)
        staged.apply(_Change([rows[700]], [(rows[700][0], 701, 99, 0)]))
        stale = evaluate_one(PLAN, staged, 230 * DAY, -1, {"merchant": "m"}, {})
        own._indexes.forget()
        assert not _equal(stale, evaluate_one(PLAN, staged, 230 * DAY, -1, {"merchant": "m"}, {}))


# ---- where the store is far, the tail is kept in memory, too ---------------------------------------------------------


def _ask(staged: StagedState, as_of: int) -> bytes:
    fetch(PLAN, staged, as_of, {"merchant": "m"})
    try:
        return evaluate_one(PLAN, staged, as_of, -1, {"merchant": "m"}, {}).tobytes()
    except LimitError as error:
        return str(error).encode()


class _Beside(NamedTuple):
    """How a far state answered beside one that keeps nothing in memory."""

    asked: int
    from_memory: int
    differing: int


def _beside_naive(far: OnlineState, seed: int, batches: int = 40) -> _Beside:
    naive = OnlineState(PLAN, MemoryStateStore())
    asked = from_memory = differing = 0
    for change, committed, clock in _batches(seed, batches):
        for changing in (True, False):
            with far.begin() as staged, naive.begin() as plain:
                naive.forget()
                if changing:
                    staged.apply(change)
                    plain.apply(change)
                from_memory += far._indexes.tail(START) is not None
                differing += _ask(staged, clock) != _ask(plain, clock)
                asked += 1
                if changing and committed:
                    staged.commit(HEAD)
                    plain.commit(HEAD)
    return _Beside(asked, from_memory, differing)


@pytest.fixture
def far(redis_server: RedisServer) -> Iterator[OnlineState]:
    own = OnlineState(PLAN, RedisStateStore(redis_server.address, f"kept-{next(_NUMBERS)}"))
    yield own
    own.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_tail_in_memory_is_the_one_in_the_store(seed: int, far: OnlineState) -> None:
    found = _beside_naive(far, seed)
    assert found.differing == 0
    assert found.from_memory > 0.7 * found.asked > 50


def _follow_nothing(own: Indexes, starts: Iterable[bytes], tail: Callable[[bytes], Entry | None]) -> list[bytes]:
    fresh = [start for start in starts if own.tail(start) is None]
    return SET_TAILS(own, fresh, tail)


def _forget_nothing(own: Indexes, starts: Iterable[bytes], tail: Callable[[bytes], Entry | None]) -> list[bytes]:
    return SET_TAILS(own, [start for start in starts if tail(start) is not None], tail)


@pytest.mark.parametrize("fault", [_follow_nothing, _forget_nothing])
def test_a_tail_that_does_not_follow_is_noticed(
    fault: Callable[..., list[bytes]], far: OnlineState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Indexes, "set_tails", fault)
    assert _beside_naive(far, 0, 150).differing > 0


def test_a_state_that_is_all_in_memory_is_gone_with_its_redis(far: OnlineState) -> None:
    rows = [(time * DAY // 4, time, 60, 0) for time in range(1, 900)]
    with far.begin() as staged:
        staged.apply(_Change([], rows))
        staged.commit(HEAD)
    with far.begin() as staged:
        wanted = _ask(staged, 230 * DAY)
    with far.begin() as staged:
        assert _ask(staged, 230 * DAY) == wanted
    store = far._store
    assert isinstance(store, RedisStateStore)
    with far.begin() as staged:
        store._link.ask(b"DEL", *keys_of(store._name))
        with pytest.raises(StateGone, match="it is empty"):
            _ask(staged, 230 * DAY)


@pytest.mark.parametrize("reading", [True, False])
def test_a_reader_keeps_nothing_that_its_writer_may_change(
    far: OnlineState, redis_server: RedisServer, reading: bool
) -> None:
    """With `reading` False it does, and the answers differ."""
    store = far._store
    assert isinstance(store, RedisStateStore)
    rows = [(time * DAY // 4, time, 60, 0) for time in range(1, 900)]
    with far.begin() as staged:
        staged.apply(_Change([], rows))
        staged.commit(HEAD)
    other = OnlineState(PLAN, RedisStateReader(redis_server.address, store._name), reading=reading)
    with other.begin() as seen:
        before = _ask(seen, 230 * DAY)
    with far.begin() as staged:
        staged.apply(_Change([], [(229 * DAY + number, 1_000 + number, 9, 1) for number in range(40)]))
        staged.commit(HEAD)
    with far.begin() as staged:
        wanted = _ask(staged, 230 * DAY)
    assert wanted != before
    with other.begin() as seen:
        assert (_ask(seen, 230 * DAY) == wanted) is reading
    other.close()


def _chunk(first: int, n: int) -> NDArray[np.int64]:
    times = np.arange(first, first + n)
    return np.vstack([times, times, np.ones(n, np.int64), times % 100, times % 3]).astype(np.int64)


def test_memory_is_bounded_and_the_least_recently_asked_for_goes_first() -> None:
    size = Indexed([_chunk(0, 10)] * 3, [10, 20, 30]).nbytes
    own = Indexes(bytes_max=2 * size)
    scanned = [(chunk_key(b"", (10 * (i + 1), 0)), encode_chunk(_chunk(10 * i, 10).T)) for i in range(3)]
    for start in (b"a", b"b"):
        own.keep(start, 5, lambda: scanned)
    assert own.find(b"a") is not None
    own.keep(b"c", 5, lambda: scanned)
    assert [own.find(start) is not None for start in (b"a", b"b", b"c")] == [True, False, True]
    own.forget([b"a"])
    assert own.find(b"a") is None


def _names(rows: Indexed) -> list[int]:
    """The roots of all rows that are there, which must lie in the order of time."""
    there = rows.masks[: rows.runs * RUN] != 0
    times = rows.times[: rows.runs * RUN]
    assert times.tolist() == sorted(times.tolist()), "also what fills runs up"
    return [int(one) for one in rows.roots[: rows.runs * RUN][there]]


def test_a_last_chunk_that_grows_takes_the_run_of_the_one_before() -> None:
    own = Indexes()
    names = [chunk_key(b"", (10 * (i + 1), 0)) for i in range(3)]
    scanned = [(name, encode_chunk(_chunk(10 * i, 10).T)) for i, name in enumerate(names)]
    first = own.keep(b"a", 5, lambda: scanned)
    own.changed(b"a", names[2], None)
    own.changed(b"a", chunk_key(b"", (40, 0)), encode_chunk(_chunk(20, 20).T))
    assert own.find(b"a") is first
    assert first.times[2 * RUN : 2 * RUN + 20].tolist() == list(range(20, 40))
    assert _names(first) == list(range(40))


@pytest.mark.parametrize("seed", range(4))
def test_chunks_that_come_between_others_move_the_few_up_to_an_empty_run(seed: int) -> None:
    chance, own, again = random.Random(seed), Indexes(), 0
    held = {chunk_key(b"", (100 * (i + 1), 0)): (100 * i, 100) for i in range(100)}
    own.keep(b"a", 5, lambda: [(name, encode_chunk(_chunk(*held[name]).T)) for name in sorted(held)])
    for _ in range(60):
        for name in chance.sample(sorted(held)[1:], 2):  # one splits, or goes
            first, n = held.pop(name)
            half = n // 2 if chance.random() < 0.8 else 0
            if half:
                held |= {chunk_key(b"", (first + half, 0)): (first, half), name: (first + half, n - half)}
                own.changed(b"a", chunk_key(b"", (first + half, 0)), encode_chunk(_chunk(first, half).T))
                own.changed(b"a", name, encode_chunk(_chunk(first + half, n - half).T))
            else:
                own.changed(b"a", name, None)
        found = own.find(b"a")
        if found is None:
            again += 1
            scanned = [(name, encode_chunk(_chunk(*held[name]).T)) for name in sorted(held)]
            found = own.keep(b"a", 5, lambda scanned=scanned: scanned)  # type: ignore[misc]
        assert _names(found) == [root for name in sorted(held) for root in range(held[name][0], sum(held[name]))]
    assert len(held) > 150
    assert again <= 6, "only where an eighth has been added"


def test_an_entity_is_read_again_where_no_empty_run_is_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "SPARE_EVERY", 1_000)
    monkeypatch.setattr(indexes, "MOVED_MAX", 3)
    own = Indexes()
    held = {chunk_key(b"", (10 * (i + 1), 0)): (10 * i, 10) for i in range(20)}
    own.keep(b"a", 5, lambda: [(name, encode_chunk(_chunk(*where).T)) for name, where in held.items()])
    own.changed(b"a", chunk_key(b"", (45, 0)), encode_chunk(_chunk(40, 5).T))
    assert own.find(b"a") is None


def test_reading_with_a_floor_and_no_rows() -> None:
    rows = Indexed([_chunk(0, 4), _chunk(9, 0), _chunk(9, 2)], [9, 9, 11])
    assert rows.runs == 3
    assert rows.times[: 3 * RUN].tolist() == sorted(rows.times[: 3 * RUN].tolist())
    assert int((rows.masks != 0).sum()) == 6
    assert indexes.CHUNKS_MIN > 1
