"""What is folded of an entity is what folding its rows from the first gives, however they came, and whatever is asked.

The fold of the tests is a chain of hashes over rows and their order, so that nothing can be missed, doubled or swapped.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.features.test_state import HEAD, PLAN, Row, _changed, _random_batches
from tests.stores.memory import MemoryStateStore

from obligor.features import edits, folds
from obligor.features.entries import entity_of
from obligor.features.expiry import state_hash
from obligor.features.folds import Folds
from obligor.features.history import TooLong
from obligor.features.state import OnlineState
from obligor.features.state_store import StateStore

NewStore = Callable[[], StateStore]
LARGE = 2  # the bit of rows with an amount above 50


class Chain:
    """A hash over all rows in order; `selections` are those of the tests' plan."""

    timeline, via = "consumer", ("consumer",)

    def __init__(self, selections: int = 1, name: str = "chain") -> None:
        self.selections, self.name = selections, name
        self.steps = 0  # rows that were folded

    def after(self, kept: bytes | None, rows: NDArray[np.int64]) -> bytes:
        assert rows.flags.c_contiguous
        self.steps += rows.shape[1]
        return chained(kept, rows.T.tolist())


def chained(kept: bytes | None, rows: Sequence[Sequence[int]]) -> bytes:
    """Return the hash of further rows after a hash."""
    for row in rows:
        kept = hashlib.sha256((kept or b"") + repr(list(row)).encode()).digest()
    return kept or b""


def visible(rows: set[Row], key: str, as_of: int, root: int, selections: int) -> list[list[int]]:
    """Return the rows that a question sees, by the definition."""
    seen = [row for row in rows if row.consumer == key and row.event_time < as_of and row.root != root]
    matrix = [[row.event_time, row.root, 3 if row.amount > 50 else 1, row.amount] for row in sorted(seen, key=_order)]
    return [row for row in matrix if row[2] & selections]


def _order(row: Row) -> tuple[int, int]:
    return row.event_time, row.root


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edits, "TAIL_BYTES_MAX", 8 * (2 + 6 * 4))
        patch.setattr(edits, "CHUNK_ROWS_MAX", 10)
        patch.setattr(edits, "CHUNK_ROWS_CLOSED", 8)
        patch.setattr(folds, "MARK_ROWS", 7)
        patch.setattr(folds, "_CHUNKS_AT_ONCE", 2)
        yield


def assert_same(state: OnlineState, rows: set[Row], fold: Chain, chance: random.Random) -> None:
    """Hold what is folded, at some instants and without some roots, to the definition."""
    with state.begin() as staged:
        reader = staged.folds()
        for key in sorted({row.consumer for row in rows} | {"nobody"}):
            own = sorted((row for row in rows if row.consumer == key), key=_order)
            times = [row.event_time for row in own] or [0]
            instants = [2**62, times[-1], times[-1] + 1, chance.choice(times), chance.choice(times) + 1]
            roots = [-1, 10**6, *(row.root for row in chance.sample(own, min(2, len(own))))]
            for as_of in instants:
                for root in roots:
                    expected = visible(rows, key, as_of, root, fold.selections)
                    found = reader.folded(key, as_of, root)
                    assert (found is None) == (not expected), (key, as_of, root)
                    if found is not None:
                        assert (found.rows, found.last) == (len(expected), tuple(expected[-1][:2]))
                        assert found.kept == chained(None, expected), (key, as_of, root)
                    count = chance.choice([1, 3, 10, 100])
                    older, newest = reader.folded_before(key, count, as_of, root)
                    assert newest.T.tolist() == expected[-count:]
                    assert (b"" if older is None else older.kept) == chained(None, expected[:-count])


def followed(
    store: StateStore, fold: Chain, seed: int, batches: int, look: Callable[[OnlineState, set[Row]], None]
) -> set[Row]:
    """Apply random batches to a state, and look at it now and then."""
    rows: set[Row] = set()
    state = OnlineState(PLAN, store, fold=fold)
    for number, (removed, inserted) in enumerate(_random_batches(seed, batches)):
        rows = (rows - set(removed)) | set(inserted)
        with state.begin() as staged:
            staged.apply(_changed(removed, inserted))
            staged.commit(HEAD)
        if number % 6 == 5:
            look(state, rows)
    return rows


@pytest.mark.parametrize("selections", [1, LARGE])
@pytest.mark.parametrize("seed", range(2))
def test_what_is_folded_is_the_fold_of_the_rows(seed: int, selections: int, new_store: NewStore) -> None:
    fold, chance = Chain(selections), random.Random(seed)
    followed(new_store(), fold, seed, 30, lambda state, rows: assert_same(state, rows, fold, chance))


def test_marks_lie_where_they_would_if_the_rows_had_come_in_order() -> None:
    fold, store, again = Chain(), MemoryStateStore(), MemoryStateStore()
    rows = followed(store, fold, 7, 40, lambda state, rows: None)
    state = OnlineState(PLAN, again, fold=fold)
    with state.begin() as staged:
        staged.apply(_changed([], sorted(rows, key=_order)))
        staged.commit(HEAD)
    kept, made = ({key: value for key, value in one.entries.items() if is_fold(key)} for one in (store, again))
    assert len(kept) > 20
    assert kept == made


def is_fold(key: bytes) -> bool:
    return key[0] > 0 and key[len(entity_of(key)[0]) :][:2] in (b"\x01\x00", b"\x01\x01")


def test_a_row_after_all_others_costs_one_step_and_a_late_one_at_most_a_mark() -> None:
    fold, store = Chain(), MemoryStateStore()
    state = OnlineState(PLAN, store, fold=fold)

    def steps(*rows: Row) -> int:
        before = fold.steps
        with state.begin() as staged:
            staged.apply(_changed([], rows))
            staged.commit(HEAD)
        return fold.steps - before

    assert steps(*(Row("a", time, time, 1) for time in range(0, 200, 2))) == 100
    assert steps(Row("a", 200, 1000, 1)) == 1
    assert steps(Row("b", 5, 1001, 1)) == 1
    assert steps(Row("a", 195, 1002, 1)) <= 4 + 7
    before = fold.steps
    with state.begin() as staged:
        assert staged.folds().folded("a", 2**62, -1) is not None
        assert fold.steps == before, "nothing is folded for a question that sees everything"
        staged.folds().folded("a", 199, -1)
        assert fold.steps - before <= 7 + 4
        staged.folds().folded_before("a", 3, 2**62, -1)
    assert fold.steps - before <= 2 * (7 + 4)


def test_a_glance_does_not_fold_a_long_history_again() -> None:
    state = OnlineState(PLAN, MemoryStateStore(), fold=Chain())
    with state.begin() as staged:
        staged.apply(_changed([], [Row("a", time, time, 1) for time in range(200)]))
        staged.commit(HEAD)
    with state.begin() as staged:
        assert staged.folds(3).folded("a", 200, 10**6) is not None
        assert staged.folds(3).folded("a", 199, -1) is not None, "from a mark on it is little"
        with pytest.raises(TooLong, match="more than 3 chunks"):
            staged.folds(3).folded("a", 200, 100)


def test_an_aborted_change_leaves_what_was_folded() -> None:
    fold, store = Chain(), MemoryStateStore()
    rows = followed(store, fold, 2, 12, lambda state, rows: None)
    state, before = OnlineState(PLAN, store, fold=fold), dict(store.entries)
    with state.begin() as staged:
        staged.apply(_changed(sorted(rows)[:2], [Row("a", 3, 10**7, 2)]))
    assert store.entries == before
    assert_same(state, rows, fold, random.Random(1))


def test_states_of_one_fold_are_shared_and_of_another_are_not() -> None:
    fold, same, other = Chain(), Chain(), Chain(name="another encoder")
    assert state_hash(PLAN, fold) == state_hash(PLAN, same)
    assert len({state_hash(PLAN), state_hash(PLAN, fold), state_hash(PLAN, other)}) == 3
    store = MemoryStateStore()
    state = OnlineState(PLAN, store, fold=fold)
    assert [state.serves(PLAN, one) for one in (fold, same, other, None)] == [True, True, False, False]
    with state.begin() as staged:
        staged.commit(HEAD)
    assert OnlineState(PLAN, store, fold=same).head == HEAD
    assert OnlineState(PLAN, store, fold=other).head is None
    assert OnlineState(PLAN, store).head is None


# ---- controls: faults that the comparison must notice

_followed, _cut, _bounds, _extended = Folds._followed, Folds._cut, Folds._bounds, Folds._extended


def _late_rows_at_the_end(self: Folds, start: bytes, known: Any, removed: Any, inserted: Any) -> Any:
    late = known is not None and len(inserted) and not len(removed)
    known = known._replace(last=(-(2**63), 0)) if late else known
    return _followed(self, start, known, removed, inserted)


def _retractions_ignored(self: Folds, start: bytes, known: Any, removed: Any, inserted: Any) -> Any:
    return _followed(self, start, known, removed[:0], inserted) if known is not None else _followed(
        self, start, known, removed, inserted
    )  # fmt: skip


def _marks_kept(self: Folds, start: bytes, known: Any, row: Any) -> Any:
    return _cut(self, start, known, (row[0] + 40, row[1]))


def _future_seen(self: Folds, start: bytes, as_of: int, self_root: int) -> Any:
    newest, _, aside = _bounds(self, start, as_of, self_root)
    return newest, None, aside


def _own_seen(self: Folds, start: bytes, as_of: int, self_root: int) -> Any:
    newest, end, _ = _bounds(self, start, as_of, self_root)
    return newest, end, None


FAULTS: dict[str, list[Any]] = {
    "_followed": [_late_rows_at_the_end, _retractions_ignored],
    "_cut": [_marks_kept],
    "_bounds": [_future_seen, _own_seen],
}


@pytest.mark.parametrize(("name", "fault"), [(name, fault) for name, own in FAULTS.items() for fault in own])
def test_the_comparison_notices(name: str, fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Folds, name, fault)
    fold, chance = Chain(), random.Random(0)
    with pytest.raises(AssertionError):
        followed(MemoryStateStore(), fold, 0, 30, lambda state, rows: assert_same(state, rows, fold, chance))


EVENTS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 99), st.sampled_from(["new", "gone", "moved"])), max_size=40
)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(events=EVENTS, at_once=st.integers(1, 9))
def test_any_history_of_one_entity(events: list[tuple[int, int, str]], at_once: int) -> None:
    fold, rows, root = Chain(), dict[int, Row](), 0
    state = OnlineState(PLAN, MemoryStateStore(), fold=fold)
    for first in range(0, len(events), at_once):
        before = dict(rows)
        for time, amount, what in events[first : first + at_once]:
            if what == "new" or not rows:
                root += 1
                rows[root] = Row("a", time, root, amount)
            else:
                gone = rows.pop(sorted(rows)[amount % len(rows)])
                if what == "moved":
                    rows[gone.root] = gone._replace(event_time=time)
        removed = [row for key, row in before.items() if rows.get(key) != row]
        inserted = [row for key, row in rows.items() if before.get(key) != row]
        with state.begin() as staged:
            staged.apply(_changed(removed, inserted))
            staged.commit(HEAD)
    assert_same(state, set(rows.values()), fold, random.Random(len(events)))
