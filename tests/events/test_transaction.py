from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from tests.events.batches import (
    CLOCK,
    REGISTRY,
    append,
    application,
    batch_of,
    correction,
    new_log,
    repayment,
    retraction,
    unsynced,
)

from obligor.errors import BadInput, Conflict, LimitError
from obligor.events import versions
from obligor.events.log import EventLog
from obligor.events.store import Commit, OffsetRow, OffsetStep, StaleOffset
from obligor.stores.sqlite import SQLiteStore


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return new_log(tmp_path, store=unsynced)


def test_duplicates_and_conflicts_say_where_the_first_is(log: EventLog) -> None:
    append(log, repayment("r-1", 10))
    with log.begin(CLOCK + 9) as tx:
        rows = [repayment("r-2"), repayment("r-1", 10), repayment("r-1", 11), repayment("r-2"), repayment("r-2", 12)]
        first = tx.append(batch_of(rows))
        second = tx.append(batch_of(rows[:1]))
        tx.commit()
    assert first.status == ["accepted", "duplicate", "conflict", "duplicate", "conflict"]
    assert first.position.tolist() == [2, 1, 1, 2, 2]
    assert first.known_time.tolist() == [CLOCK + 9, CLOCK, CLOCK, CLOCK + 9, CLOCK + 9]
    assert (second.status, second.position.tolist()) == (["duplicate"], [2])
    assert log.cut() == {0: 2}


def test_an_id_is_unique_across_types(log: EventLog) -> None:
    assert append(log, repayment("x"), application("x")) == ["accepted", "conflict"]
    assert append(log, application("x")) == ["conflict"]


def test_personal_fields_are_part_of_what_is_compared(log: EventLog) -> None:
    one, other = repayment("r-1", personal={"phone": "1"}), repayment("r-1", personal={"phone": "2"})
    assert append(log, one, one, other) == ["accepted", "duplicate", "conflict"]


def test_a_correction_is_of_its_targets_type_and_not_of_itself(log: EventLog) -> None:
    append(log, repayment("r-1"))
    with log.begin(CLOCK) as tx:
        rows = [correction("k-1", "r-1", type="loan_application"), correction("k-2", "k-2"), retraction("k-3", "r-1")]
        status = tx.append(batch_of(rows)).status
    assert status == [
        "rejected: 'r-1' is a repayment, and this is a loan_application",
        "rejected: an event cannot correct or retract itself",
        "accepted",
    ]


def test_a_pending_correction_of_another_type_is_listed_for_ever(log: EventLog) -> None:
    append(log, correction("k-1", "r-1", type="loan_application"), retraction("k-2", "k-1", type="loan_application"))
    append(log, repayment("r-1"))
    assert [(row.event_id, row.void) for row in log.pending()] == [("k-1", True), ("k-2", False)]
    assert log.facts("repayment").view(log.cut(), CLOCK + 9).num_rows == 1
    assert log.verify(deep=True) == []


def test_corrections_that_name_each_other_stay_pending(log: EventLog) -> None:
    append(log, correction("k-1", "k-2"), correction("k-2", "k-1"))
    assert [row.event_id for row in log.pending()] == ["k-1", "k-2"]
    assert log.pending_count == 2


def test_what_has_arrived_is_awaited_no_more(log: EventLog) -> None:
    append(log, correction("k-1", "r-1"), correction("k-2", "r-2"))
    assert log.waiting == {"r-1", "r-2"}
    append(log, repayment("r-1"))
    assert log.waiting == {"r-2"}
    with log.begin(CLOCK) as tx:
        tx.append(batch_of([repayment("r-2")]))
    assert log.waiting == {"r-2"}, "what was not committed has not arrived"


def test_a_bound_on_what_is_pending(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PENDING_MAX", 2)
    append(log, correction("k-1", "r-1"))
    with log.begin(CLOCK) as tx:
        with pytest.raises(LimitError, match="wait for events"):
            tx.append(batch_of([repayment("r-0"), correction("k-2", "r-2"), correction("k-3", "r-3")]))
        assert tx.head.sequence == 1, "the whole batch is taken back"
        assert tx.append(batch_of([repayment("r-0"), repayment("r-1")])).accepted == 2
        assert tx.append(batch_of([correction("k-2", "r-2"), correction("k-3", "r-3")])).accepted == 2
        tx.commit()
    assert [row.event_id for row in log.pending()] == ["k-2", "k-3"]


def test_changes_say_what_went_and_what_came(log: EventLog) -> None:
    append(log, repayment("r-1", 10, consumer="c-1"))
    with log.begin(CLOCK + 5) as tx:
        tx.append(batch_of([correction("k-1", "r-1", 11, consumer="c-2"), repayment("r-2", 20)]))
        change = tx.changes()
        assert tx.changes().size == 0, "each change is reported once"
        tx.append(batch_of([retraction("k-2", "r-1")]))
        gone = tx.changes()
    assert change.position == 3
    assert change.removed["repayment"].to_pylist() == [
        {"root": 1, "event_time": 1_000, "known_time": CLOCK, "consumer": "c-1", "amount": 10, "channel": None}
    ]
    assert [(r["root"], r["amount"], r["consumer"]) for r in change.inserted["repayment"].to_pylist()] == [
        (3, 20, "c-1"),
        (1, 11, "c-2"),
    ]
    assert (gone.inserted, [r["amount"] for r in gone.removed["repayment"].to_pylist()]) == ({}, [11])


def test_a_fact_that_comes_and_goes_between_two_looks_is_no_change(log: EventLog) -> None:
    with log.begin(CLOCK) as tx:
        tx.append(batch_of([repayment("r-1"), retraction("k-1", "r-1")]))
        assert tx.changes().size == 0


def test_the_ledger_is_chained_and_ids_are_unique(log: EventLog) -> None:
    with log.begin(CLOCK) as tx:
        tx.append(batch_of([application("a-1")]))
        links = [tx.record("d-1", 1, b"one"), tx.record("d-2", 1, b"two")]
        with pytest.raises(Conflict, match="d-1"):
            tx.record("d-1", 1, b"other")
        tx.commit()
    with log.begin(CLOCK) as tx, pytest.raises(Conflict, match="d-2"):
        tx.record("d-2", 1, b"other")
    rows = list(log.decisions())
    assert [(r.sequence, r.decision_id, r.application_position, r.record) for r in rows] == [
        (1, "d-1", 1, b"one"),
        (2, "d-2", 1, b"two"),
    ]
    assert [row.chain for row in rows] == links
    assert log.head.ledger_chain == links[-1]
    assert list(log.decisions(after=1)) == rows[1:]
    assert (log.decision("d-2"), log.decision_for(1), log.decision_for(2)) == (rows[1], rows[0], None)


def test_a_decision_alone_is_a_transaction(log: EventLog) -> None:
    with log.begin(CLOCK) as tx:
        tx.record("d-1", 1, b"{}")
        tx.commit()
    assert [row.decision_id for row in log.decisions()] == ["d-1"]
    assert (log.head.sequence, log.head.ledger_sequence, log.verify()) == (0, 1, [])


def test_one_item_is_undone_alone(log: EventLog) -> None:
    with log.begin(CLOCK) as tx:
        tx.append(batch_of([repayment("r-1")]))
        tx.changes()
        mark = tx.mark()
        tx.append(batch_of([application("a-1", known=CLOCK), correction("k-1", "r-1", 7), correction("k-2", "zz")]))
        tx.record("d-1", 2, b"{}")
        assert tx.changes().size == 3
        tx.undo(mark)
        assert tx.cut == {0: 1}
        assert tx.append(batch_of([application("a-1", 9)])).position.tolist() == [2]
        tx.record("d-1", 2, b"other")
        assert tx.changes().size == 1
        tx.commit()
    assert [r.record for r in log.decisions()] == [b"other"]
    assert (log.pending(), log.pending_count, log.verify(deep=True)) == ([], 0, [])


def test_leaving_without_a_commit_forgets_everything(log: EventLog, tmp_path: Path) -> None:
    append(log, repayment("r-0"))
    head = log.head
    with log.begin(CLOCK) as tx:
        tx.append(batch_of([repayment("r-1"), correction("k-1", "r-2", personal={"phone": "1"})]))
        tx.record("d-1", 1, b"{}")
    with suppress(RuntimeError), log.begin(CLOCK) as tx:
        tx.append(batch_of([repayment("r-1")]))
        raise RuntimeError("stop")
    assert log.head == head
    assert append(log, repayment("r-1")) == ["accepted"]
    log.close()
    with EventLog.open(tmp_path / "log", REGISTRY, store=SQLiteStore) as again:
        assert again.cut() == {0: 2}
        assert again.pending() == []


def test_a_write_that_fails_leaves_the_log_as_it_was(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    append(log, repayment("r-0"))
    head = log.head

    def full(commit: Commit) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log.store, "write", full)
        with log.begin(CLOCK) as tx:
            tx.append(batch_of([repayment("r-1"), correction("k-1", "zz")]))
            with pytest.raises(OSError, match="no space"):
                tx.commit()
    assert (log.head, log.pending_count, log.waiting) == (head, 0, set())
    assert append(log, repayment("r-1")) == ["accepted"]
    assert log.verify(deep=True) == []


def test_a_write_that_fails_after_it_is_durable_is_found_in_the_log(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller hears of a failure, sends the same again, and learns that it is there."""
    write = log.store.write

    def late(commit: Commit) -> None:
        write(commit)
        raise OSError("input/output error")

    rows = [repayment("r-1"), correction("k-1", "zz")]
    with monkeypatch.context() as patch:
        patch.setattr(log.store, "write", late)
        with log.begin(CLOCK) as tx:
            tx.append(batch_of(rows))
            with pytest.raises(OSError, match="input/output"):
                tx.commit()
    assert (log.cut(), log.pending_count, log.waiting) == ({0: 2}, 1, {"zz"})
    assert append(log, *rows, repayment("zz")) == ["duplicate", "duplicate", "accepted"]
    assert (log.pending(), log.verify(deep=True)) == ([], [])


def test_one_transaction_at_a_time_and_none_after_its_end(log: EventLog) -> None:
    with log.begin(CLOCK) as tx:
        with pytest.raises(BadInput, match="open already"):
            log.begin(CLOCK)
        tx.commit()
        with pytest.raises(AssertionError, match="over"):
            tx.append(batch_of([repayment("r-1")]))
    log.begin(CLOCK).__exit__(None, None, None)


# ---- streams


def step(following: int, before: int | None, topic_id: str = "id-1") -> OffsetStep:
    return OffsetStep(OffsetRow("group", "payments", 0, topic_id, following), before)


def offset(log: EventLog) -> int | None:
    row = log.offset("group", "payments", 0)
    return None if row is None else row.following


def test_an_offset_is_durable_with_the_events_before_it(log: EventLog) -> None:
    with log.begin(CLOCK) as tx:
        tx.append(batch_of([repayment("r-1")]))
        tx.advance(step(4, None))
        tx.append(batch_of([repayment("r-2")]))
        tx.advance(step(9, 4))
        assert offset(log) is None
        tx.commit()
    assert (log.cut(), offset(log)) == ({0: 2}, 9)
    with log.begin(CLOCK) as tx:  # an offset alone, because its messages gave no event
        tx.advance(step(10, 9))
        tx.commit()
    assert (log.cut(), offset(log)) == ({0: 2}, 10)
    with log.begin(CLOCK) as tx:
        tx.append(batch_of([repayment("r-3")]))
        tx.advance(step(11, 10))
    assert (log.cut(), offset(log)) == ({0: 2}, 10), "what is left uncommitted moves nothing"


def test_a_step_that_does_not_begin_where_the_log_is_is_refused(log: EventLog) -> None:
    with log.begin(CLOCK) as tx:
        tx.advance(step(4, None))
        tx.commit()
    for stale in (step(3, None), step(3, 2), step(9, 8), step(9, 4, topic_id="id-2")):
        with log.begin(CLOCK) as tx, pytest.raises(StaleOffset, match=r"payments\[0\] of group.*holds offset 4"):
            tx.advance(stale)
    assert offset(log) == 4


def test_undoing_takes_an_offset_back_with_its_events(log: EventLog) -> None:
    with log.begin(CLOCK) as tx:
        tx.advance(step(4, None))
        mark = tx.mark()
        tx.append(batch_of([repayment("r-1")]))
        tx.advance(step(9, 4))
        tx.undo(mark)
        with pytest.raises(StaleOffset):
            tx.advance(step(12, 9))
        tx.advance(step(5, 4))
        tx.commit()
    assert (log.cut(), offset(log)) == ({0: 0}, 5)
