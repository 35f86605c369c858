"""Online state equals a dict of rows whatever is inserted and removed, in whatever order and however it is chunked.

In every kind of store.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.decisions.desk import START_US, batch_of, desk_plan, open_log, repayment
from tests.stores.memory import MemoryStateStore

from obligor.errors import IntegrityError
from obligor.features import edits as module
from obligor.features import state as state_module
from obligor.features.plan import Plan
from obligor.features.state import Head, OnlineState, TooLong
from obligor.features.state_store import StateStore

HEAD = Head("log", {0: 7}, {0: "ab"})
NewStore = Callable[[], StateStore]


class Changed(NamedTuple):
    removed: dict[str, pa.Table]
    inserted: dict[str, pa.Table]


class Row(NamedTuple):
    consumer: str
    event_time: int
    root: int
    amount: int


def _plan() -> Plan:
    data = Plan.empty("application").data
    slot = {"field": "amount", "coding": "integer", "values": None}
    selections = [
        {"event": "repayment", "by": ["consumer"], "where": None},
        {"event": "repayment", "by": ["consumer"], "where": {"field": "amount", "op": ">", "value": 50}},
    ]
    timeline = {"entities": ["consumer"], "hot": False, "selections": selections, "fields": {"repayment": [slot]}}
    return Plan.load({**data, "timelines": {"consumer": timeline}})


PLAN = _plan()


def _table(rows: Sequence[Row]) -> dict[str, pa.Table]:
    if not rows:
        return {}
    names = Row._fields
    types = (pa.string(), pa.int64(), pa.int64(), pa.int64())
    columns = [pa.array(column, type) for column, type in zip(zip(*rows, strict=True), types, strict=True)]
    return {"repayment": pa.table(dict(zip(names, columns, strict=True)))}


def _changed(removed: Sequence[Row], inserted: Sequence[Row]) -> Changed:
    return Changed(_table(removed), _table(inserted))


def _read(state: OnlineState, key: str, since_us: int | None = None) -> list[tuple[int, int, int, int]]:
    with state.begin() as staged:
        history = staged.read("consumer", key, since_us)
        newest = history.pieces
        words, spans = newest if history.indexed is None else history.indexed.before(newest)
        assert words.flags.c_contiguous
        rows = [row for at, n in spans for row in words[at : at + 4 * n].reshape(4, n).T.tolist()]
        assert [row[:2] for row in rows if row[2]] == sorted(row[:2] for row in rows if row[2])
        return [(time, root, mask, amount) for time, root, mask, amount in rows if mask]


def _expected(rows: set[Row], key: str) -> list[tuple[int, int, int, int]]:
    own = [row for row in rows if row.consumer == key]
    return sorted((row.event_time, row.root, 3 if row.amount > 50 else 1, row.amount) for row in own)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tails of six rows and chunks of ten, so that a few rows reach every branch."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "TAIL_BYTES_MAX", 8 * (2 + 6 * 4))
        patch.setattr(module, "CHUNK_ROWS_MAX", 10)
        patch.setattr(module, "CHUNK_ROWS_CLOSED", 8)
        yield


def _random_batches(seed: int, batches: int) -> Iterator[tuple[list[Row], list[Row]]]:
    """Yield (removed, inserted): mostly new events in time order, some late ones, corrections, moves, retractions."""
    chance = random.Random(seed)
    live: dict[int, Row] = {}
    root = 0
    for number in range(batches):
        removed: list[Row] = []
        inserted: list[Row] = []
        for root_of in chance.sample(sorted(live), min(len(live), chance.choice([0, 0, 1, 3]))):
            removed.append(live.pop(root_of))
            kind = chance.choice(["gone", "amount", "time", "move"])
            if kind != "gone":
                new = {
                    "amount": {"amount": 1},
                    "time": {"event_time": chance.randrange(2000)},
                    "move": {"consumer": "b"},
                }
                inserted.append(removed[-1]._replace(**new[kind]))  # type: ignore[arg-type]
        for _ in range(chance.choice([1, 1, 5, 40])):
            root += 1
            late = chance.random() < 0.1
            time = chance.randrange(number * 20 + 1) if late else number * 20 + chance.randrange(20)
            inserted.append(
                Row(chance.choice("aaab") + chance.choice(["", "x" * 500]), time, root, chance.randrange(100))
            )
        live.update((row.root, row) for row in inserted)
        chance.shuffle(inserted)
        yield removed, inserted


@pytest.mark.parametrize("seed", range(6))
def test_state_equals_a_dict_of_rows(seed: int, small: None, new_store: NewStore) -> None:
    rows: set[Row] = set()
    state = OnlineState(PLAN, new_store())
    for removed, inserted in _random_batches(seed, 60):
        rows = (rows - set(removed)) | set(inserted)
        with state.begin() as staged:
            staged.apply(_changed(removed, inserted))
            staged.commit(HEAD)
    for key in {row.consumer for row in rows} | {"nobody"}:
        expected = _expected(rows, key)
        assert _read(state, key) == expected
        for since in (0, 1, 300, 700, 1199, 1200, 5000):
            assert [row for row in _read(state, key, since) if row[0] >= since] == [
                r for r in expected if r[0] >= since
            ]


def test_a_recent_window_reads_recent_chunks_only(small: None, new_store: NewStore) -> None:
    state = OnlineState(PLAN, new_store())
    with state.begin() as staged:
        staged.apply(_changed([], [Row("a", time, time, 1) for time in range(200)]))
        staged.commit(HEAD)
    assert 3 <= len(_read(state, "a", 197)) <= 16
    assert len(_read(state, "a")) == 200
    assert len(_read(state, "a", 150)) == 200, "an entity that is kept in memory is kept as a whole"


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    times=st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=30),
    order=st.randoms(use_true_random=False),
)
def test_extreme_times_keep_their_order(times: list[int], order: random.Random) -> None:
    rows = [Row("a", time, root, 1) for root, time in enumerate(times, start=1)]
    order.shuffle(rows)
    state = OnlineState(PLAN, MemoryStateStore())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TAIL_BYTES_MAX", 8 * (2 + 3 * 4))
        patch.setattr(module, "CHUNK_ROWS_MAX", 4)
        patch.setattr(module, "CHUNK_ROWS_CLOSED", 4)
        for row in rows:
            with state.begin() as staged:
                staged.apply(_changed([], [row]))
                staged.commit(HEAD)
    assert _read(state, "a") == _expected(set(rows), "a")


def test_a_staged_change_is_read_before_its_commit_and_gone_after_an_abort(new_store: NewStore) -> None:
    state = OnlineState(PLAN, new_store())
    with state.begin() as staged:
        staged.apply(_changed([], [Row("a", 1, 1, 60)]))
        assert staged.read("consumer", "a", None).pieces.spans.tolist() == [[0, 1]]
    assert _read(state, "a") == []
    assert state.head is None


def test_entities_that_begin_alike_stay_apart(new_store: NewStore) -> None:
    state = OnlineState(PLAN, new_store())
    keys = ["a", "a\x00", "a\x01", "aa", "é", "x" * 200, "x" * 399, "é" * 200, "é" * 200 + "b"]
    with state.begin() as staged:
        staged.apply(_changed([], [Row(key, 1, root, root) for root, key in enumerate(keys, start=1)]))
        staged.commit(HEAD)
    assert [_read(state, key)[0][1] for key in keys] == list(range(1, len(keys) + 1))


@pytest.mark.parametrize(
    ("removed", "inserted"),
    [
        ([Row("a", 5, 5, 1)], []),  # never there
        ([Row("a", 1, 2, 1)], []),  # another root at that time
        ([Row("b", 1, 1, 1)], []),  # another entity's
        ([], [Row("a", 1, 1, 9)]),  # there already
        ([], [Row("a", 9, 9, 9), Row("a", 9, 9, 9)]),  # twice in one batch
        ([Row("a", 1, 1, 1), Row("a", 1, 1, 1)], []),
    ],
)
@pytest.mark.parametrize("closed", [False, True])
def test_a_change_that_does_not_fit_is_refused(
    removed: list[Row], inserted: list[Row], closed: bool, small: None, new_store: NewStore
) -> None:
    state = OnlineState(PLAN, new_store())
    with state.begin() as staged:
        staged.apply(_changed([], [Row("a", 1, 1, 1), *(Row("a", 100 + i, 100 + i, 1) for i in range(20 * closed))]))
        staged.commit(HEAD)
    with state.begin() as staged, pytest.raises(IntegrityError, match="does not fit the log"):
        staged.apply(_changed(removed, inserted))


def test_the_head_is_of_one_plan_s_timelines(new_store: NewStore) -> None:
    store = new_store()
    state = OnlineState(PLAN, store)
    with state.begin() as staged:
        staged.commit(HEAD)
    assert state.head == HEAD
    assert OnlineState(Plan.empty("application"), store).head is None
    state.clear()
    assert state.head is None


def test_tails_stay_short_and_chunks_bounded(new_store: NewStore) -> None:
    store = new_store()
    state = OnlineState(PLAN, store)
    rows = [Row("a", int(time), root, 1) for root, time in enumerate(np.random.default_rng(3).permutation(20_000), 1)]
    for start in range(0, len(rows), 500):
        with state.begin() as staged:
            staged.apply(_changed([], rows[start : start + 500]))
            staged.commit(HEAD)
    assert _read(state, "a") == _expected(set(rows), "a")
    transaction = store.begin()
    entries = [(key, bytes(entry)) for key, entry in transaction.scan(b"\x01", b"\xff")]
    transaction.abort()
    assert len(entries) > 20_000 // module.CHUNK_ROWS_MAX
    for key, entry in entries:
        if key.endswith(b"\x01") and len(key) < 10:
            assert len(entry) <= module.TAIL_BYTES_MAX
        else:
            assert len(entry) <= module.CHUNK_ROWS_MAX * 8 * 4


@pytest.mark.parametrize("form", [state_module.FORMAT - 1, state_module.FORMAT + 1, state_module.FORMAT])
def test_a_state_of_another_form_is_built_anew(form: int, new_store: NewStore, tmp_path: Path) -> None:
    """The control is one of the present form, whose rows are believed though they are not the log's."""
    with open_log(tmp_path / "log") as log:
        with log.begin(START_US) as tx:
            tx.append(batch_of(log, *(repayment(number, "c-1") for number in range(5))))
            tx.commit()
        plan, store = desk_plan(), new_store()
        state = OnlineState(plan, store)
        state.catch_up(log)
        with state.begin() as staged:
            head = staged.head
            assert head is not None
            staged.apply(_strange(plan))
            staged.commit(head)
        transaction = store.begin()
        stored = json.loads(bytes(transaction.get(b"\x00head") or b""))
        transaction.put_many([(b"\x00head", json.dumps(stored | {"format": form}).encode())])
        transaction.commit()
        fresh = OnlineState(plan, store)
        believed = form == state_module.FORMAT
        assert (fresh.head is not None, fresh.behind(log)) == (believed, 0 if believed else 5)
        assert fresh.catch_up(log) == {0: 5}
        with fresh.begin() as staged:
            assert staged.keys("consumer", None, 9) == ["c-1", *(["strange"] if believed else [])]


def test_no_head_is_half_believed(new_store: NewStore, tmp_path: Path) -> None:
    """One that names a sequence, as before there were shards, is another form's; one that lacks its cut is damaged."""
    with open_log(tmp_path / "log") as log:
        with log.begin(START_US) as tx:
            tx.append(batch_of(log, repayment(1, "c-1")))
            tx.commit()
        plan, store = desk_plan(), new_store()
        OnlineState(plan, store).catch_up(log)
        transaction = store.begin()
        stored = json.loads(bytes(transaction.get(b"\x00head") or b""))
        del stored["cut"], stored["chains"]
        earlier = stored | {"format": 3, "sequence": 1, "chain": log.head.chain.hex()}
        transaction.put_many([(b"\x00head", json.dumps(earlier).encode())])
        transaction.commit()
        state = OnlineState(plan, store)
        assert (state.head, state.behind(log)) == (None, 1)
        transaction = store.begin()
        transaction.put_many([(b"\x00head", json.dumps(stored).encode())])
        transaction.commit()
        with pytest.raises(msgspec.ValidationError, match="cut"):
            assert OnlineState(plan, store).head


def _strange(plan: Plan) -> Changed:
    row = {"root": 99, "event_time": 5, "consumer": "strange", "loan": "l", "amount": 1, "channel": None}
    return Changed({}, {"repayment": pa.Table.from_pylist([row])})


def test_a_long_load_leaves_room_for_late_rows() -> None:
    store = MemoryStateStore()
    state = OnlineState(PLAN, store)
    with state.begin() as staged:
        staged.apply(_changed([], [Row("a", 10 * time, time, 1) for time in range(1, 5_001)]))
        staged.commit(HEAD)
    chunks = set(store.entries)
    late = [Row("a", 10 * time + 1, 10_000 + time, 1) for time in range(1, 5_001, 5)]  # a fifth as many again
    with state.begin() as staged:
        staged.apply(_changed([], late))
        staged.commit(HEAD)
    assert set(store.entries) == chunks, "no chunk was split"
    assert len(_read(state, "a")) == 6_000


def test_entities_are_listed_in_the_order_of_the_store_without_those_of_long_names(new_store: NewStore) -> None:
    state = OnlineState(PLAN, new_store())
    keys = ["b", "a", "aa", "c" * 401, "é"]
    rows = [Row(key, time, 10 * place + time, 1) for place, key in enumerate(keys) for time in range(3)]
    with state.begin() as staged:
        assert staged.keys("consumer", None, 5) == []
        staged.apply(_changed([], rows))
        assert staged.keys("consumer", None, 10) == ["a", "b", "aa", "é"]
        assert staged.keys("consumer", None, 2) == ["a", "b"]
        assert staged.keys("consumer", "b", 10) == ["aa", "é"]
        assert staged.keys("consumer", "é", 10) == []


def test_a_glance_reads_the_same_rows_keeps_nothing_and_is_bounded(
    small: None, monkeypatch: pytest.MonkeyPatch, new_store: NewStore
) -> None:
    monkeypatch.setattr(state_module, "CHUNKS_MIN", 3)
    state = OnlineState(PLAN, new_store())
    with state.begin() as staged:
        staged.apply(_changed([], [Row("a", time, time, time) for time in range(60)]))
        staged.commit(HEAD)
    with state.begin() as staged:
        glanced = staged.glancing(100).read("consumer", "a", None)
        assert glanced.indexed is None
        assert not state._indexes._kept
        with pytest.raises(TooLong, match="more than 2 chunks"):
            staged.glancing(2).read("consumer", "a", None)
        assert len(staged.glancing(2).read("consumer", "a", 58).pieces.spans) <= 3, "only what the window needs"
        rows = staged.read("consumer", "a", None)
        assert rows.indexed is not None
        assert staged.glancing(0).read("consumer", "a", None).indexed is rows.indexed, "what is kept is read"
        whole = rows.indexed.before(rows.pieces)
        counts = [
            sum(int((words[at : at + 4 * n].reshape(4, n)[2] != 0).sum()) for at, n in spans)
            for words, spans in (whole, glanced.pieces)
        ]
        assert counts == [60, 60]
