"""Where rows go in the id index: one batch is the same as its rows one by one, also where hashes meet."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.events.batches import CLOCK, Row, batch_of, correction, new_log, repayment, retraction, unsynced

from obligor.events.ids import SlotHash
from obligor.events.log import EventLog
from obligor.events.placement import Placement


def slots_of(table: dict[str, int]) -> SlotHash:
    """A hash that sends ids where a test wants them; others far away."""

    def slots(ids: Iterable[str]) -> npt.NDArray[np.int64]:
        return np.array([table.get(one, 1_000 + sum(one.encode())) for one in ids], np.int64)

    return slots


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return new_log(tmp_path, store=unsynced)


def append(log: EventLog, *rows: Row) -> tuple[list[str], list[int]]:
    with log.begin(CLOCK) as tx:
        appended = tx.append(batch_of(rows))
        tx.commit()
    return [one.partition(":")[0] for one in appended.status], appended.position.tolist()


def test_ids_of_one_hash_are_told_apart(log: EventLog) -> None:
    log.slot_hash = slots_of({"a": 5, "b": 5, "c": 5})
    assert append(log, repayment("a"), repayment("b"), repayment("a", 7)) == (
        ["accepted", "accepted", "conflict"],
        [1, 2, 1],
    )
    assert append(log, repayment("b"), repayment("c")) == (["duplicate", "accepted"], [2, 3])
    assert {one: log.find(one) for one in "abcd"} == {"a": 1, "b": 2, "c": 3, "d": None}
    assert sorted(log.store.slots()) == [(5, 1), (6, 2), (7, 3)]


def test_a_row_that_must_move_on_meets_one_whose_own_slot_that_is(log: EventLog) -> None:
    """b goes on from 5 to 6, where c of the same batch belongs and is: so b goes on to 7."""
    log.slot_hash = slots_of({"a": 5, "b": 5, "c": 6})
    append(log, repayment("a"))
    assert append(log, repayment("b"), repayment("c")) == (["accepted", "accepted"], [2, 3])
    assert sorted(log.store.slots()) == [(5, 1), (6, 3), (7, 2)]
    assert append(log, repayment("c"), repayment("b")) == (["duplicate", "duplicate"], [3, 2])


def test_the_last_slot_is_followed_by_the_first(log: EventLog) -> None:
    log.slot_hash = slots_of({"a": 2**63 - 1, "b": 2**63 - 1})
    append(log, repayment("a"), repayment("b"))
    assert sorted(log.store.slots()) == [(-(2**63), 2), (2**63 - 1, 1)]
    assert (log.find("a"), log.find("b")) == (1, 2)
    assert log.verify(deep=True) == []


def test_a_target_is_found_behind_another_id(log: EventLog) -> None:
    log.slot_hash = slots_of({"a": 5, "b": 5, "c": 5})
    append(log, repayment("a"), repayment("b", 1))
    assert append(log, correction("k-1", "b", 2), correction("k-2", "c", 3)) == (["accepted", "accepted"], [3, 4])
    assert [row.event_id for row in log.pending()] == ["k-2"]
    append(log, repayment("c", 1))
    assert log.pending() == []
    assert sorted(log.facts("repayment").view(log.cut(), CLOCK + 9)["amount"].to_pylist()) == [2, 3, 100]


def test_a_refused_row_takes_no_slot_and_no_position(log: EventLog) -> None:
    log.slot_hash = slots_of({"k-1": 5, "b": 5})
    rows = [correction("k-1", "k-1"), repayment("late", known=CLOCK + 1), repayment("b")]
    assert append(log, *rows) == (["rejected", "rejected", "accepted"], [-1, -1, 1])
    assert (5, 1) in log.store.slots()


IDS = ["a", "b", "c", "d", "e"]
rows = st.lists(
    st.one_of(
        st.builds(repayment, st.sampled_from(IDS), st.integers(0, 1)),
        st.builds(correction, st.sampled_from(IDS), st.sampled_from(IDS), st.integers(0, 1)),
        st.builds(retraction, st.sampled_from(IDS), st.sampled_from(IDS)),
    ),
    max_size=12,
)


def outcome(rows: list[Row], size: int) -> list[object]:
    """Return all that can be seen of a log that took the rows in batches of `size`."""
    with tempfile.TemporaryDirectory() as folder, new_log(Path(folder), store=unsynced) as log:
        log.slot_hash = slots_of({one: n % 2 for n, one in enumerate(IDS)})
        seen: list[object] = []
        with log.begin(CLOCK) as tx:
            for start in range(0, len(rows), size):
                appended = tx.append(batch_of(rows[start : start + size]))
                seen += zip(appended.status, appended.position.tolist(), appended.known_time.tolist(), strict=True)
            tx.commit()
        seen += [log.pending(), log.store.versions_visible(0, 99), log.facts("repayment").rows.to_pylist()]
        return seen


@settings(max_examples=30, deadline=None, derandomize=True)
@given(rows=rows, size=st.integers(2, 12))
def test_a_batch_equals_its_rows_one_by_one(rows: list[Row], size: int) -> None:
    assert outcome(rows, 1) == outcome(rows, size)


def test_the_comparison_notices_a_wrong_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: were a batch's rows not compared with one another, the property would fail."""
    monkeypatch.setattr(Placement, "_row_at", lambda *_: None)
    twice = [repayment("a"), repayment("a")]
    with pytest.raises(Exception, match=r"constraint|assert"):
        assert outcome(twice, 1) == outcome(twice, 2)
